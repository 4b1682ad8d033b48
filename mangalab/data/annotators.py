"""Simulated annotators, whose mistakes come from a stated model, so that the truth stays known.

Each annotator misses a label that is there with probability 1 - sensitivity and marks one that is
not with probability 1 - specificity. An item of difficulty d moves both towards a blind guess:

    P(marked | label, item) = (1 - d) * own probability + d * guess,

with ``guess`` the share of items that annotators would mark without reading. Given truth and
difficulty annotators err independently: what several share is the difficulty alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mangalab.data.sentiment import LABELS, Turn

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# How much of a judgement is a guess on a turn of a slice; the hardest slice of a turn counts.
DIFFICULTY = {
    "sarcasm": 0.4, "indirect": 0.25, "polite": 0.2, "churn_hint": 0.2, "confusion_complaint": 0.2,
    "mixed": 0.15, "negation": 0.15, "neutral_negative": 0.1, "enthusiastic": 0.1, "jp_mix": 0.1,
}  # fmt: skip
PLAIN = 0.03  # difficulty of every other turn


@dataclass(frozen=True)
class NoiseModel:
    """Mean skill of annotators for each label, in the order of `LABELS`, and how they differ.

    The last entries, for neutral, are not used where `annotate` derives neutral from the others.
    """

    sensitivity: tuple[float, ...] = (0.94, 0.95, 0.93, 0.90, 0.88, 0.93)
    specificity: tuple[float, ...] = (0.96, 0.98, 0.985, 0.97, 0.99, 0.96)
    guess: tuple[float, ...] = (0.25, 0.15, 0.05, 0.10, 0.03, 0.40)
    spread: float = 0.3  # standard deviation of an annotator's skill, in logits

    def __post_init__(self) -> None:
        rows = (self.sensitivity, self.specificity, self.guess)
        if len({len(row) for row in rows}) != 1 or not all(0 < x < 1 for row in rows for x in row):
            raise ValueError(
                f"{rows}: need three rows of one length, each between 0 and 1, both excluded"
            )
        if self.spread < 0:
            raise ValueError(f"spread {self.spread} is below 0")


def difficulty(turns: Sequence[Turn]) -> Floats:
    """Difficulty of each turn, 0 (clear) to 1 (nobody can tell), by its hardest slice."""
    return np.array([max([PLAIN, *(DIFFICULTY.get(s, 0.0) for s in turn.slices)]) for turn in turns])


def skills(n_annotators: int, seed: int, model: NoiseModel = NoiseModel()) -> tuple[Floats, Floats]:
    """Sensitivity and specificity of each annotator, both of shape (annotators, labels)."""
    rng = np.random.default_rng([seed, 0])
    means = np.array([model.sensitivity, model.specificity])
    shift = rng.normal(0, model.spread, (2, n_annotators, means.shape[1]))
    sensitivity, specificity = 1 / (1 + np.exp(-(np.log(means / (1 - means))[:, None] + shift)))
    return sensitivity, specificity


def marking(
    truth: ArrayLike,
    difficulty: ArrayLike,
    n_annotators: int,
    seed: int,
    model: NoiseModel = NoiseModel(),
) -> Floats:
    """Probability that each annotator marks each label; shape (items, annotators, labels).

    ``truth`` has shape (items, labels), ``difficulty`` (items,).
    Raises ValueError where they do not fit.
    """
    truth, hard = np.asarray(truth), np.asarray(difficulty, float)
    if truth.ndim != 2 or hard.shape != truth.shape[:1] or truth.shape[1] != len(model.guess):
        raise ValueError(
            f"truth {truth.shape}, difficulty {hard.shape}, model of {len(model.guess)} labels: need "
            "(items, labels), (items,) and as many labels"
        )
    if not np.isin(truth, (0, 1)).all() or not ((hard >= 0) & (hard <= 1)).all() or n_annotators < 1:
        raise ValueError("truth must be 0 or 1, difficulty within 0 and 1, annotators at least 1")
    sensitivity, specificity = skills(n_annotators, seed, model)
    own = np.where(truth[:, None, :] == 1, sensitivity, 1 - specificity)
    hard = hard[:, None, None]
    return (1 - hard) * own + hard * np.asarray(model.guess)


def annotate(
    truth: ArrayLike,
    difficulty: ArrayLike,
    n_annotators: int = 3,
    seed: int = 0,
    model: NoiseModel = NoiseModel(),
    derive_neutral: bool = True,
) -> Bools:
    """Marks of shape (items, annotators, labels), the same for the same seed.

    With ``derive_neutral`` the last label is not drawn: annotators follow the guide and mark it
    where they mark nothing else. Without, it is a judgement of its own, which then contradicts the
    others now and then.
    """
    chance = marking(truth, difficulty, n_annotators, seed, model)
    marks = np.random.default_rng([seed, 1]).random(chance.shape) < chance
    if derive_neutral:
        marks[..., -1] = ~marks[..., :-1].any(axis=-1)
    return marks


def majority(marks: ArrayLike, derive_neutral: bool = True) -> Bools:
    """Labels that more than half of the annotators marked; shape (items, labels).

    An even number of annotators can tie, which counts as not marked. Neutral is derived again, since
    three annotators may each see another state and agree on none.
    """
    marks = np.asarray(marks, bool)
    found = marks.mean(axis=1) > 0.5
    if derive_neutral:
        found[:, -1] = ~found[:, :-1].any(axis=1)
    return found


assert len(NoiseModel().guess) == len(LABELS)
