"""A simulated click log whose true relevance, examination and popularity effects are all known.

The only module of this package that needs NumPy. A session shows the first titles of a production
ranking for one query; a shown title is clicked with probability

    examined * (noise + (1 - noise) * attraction[grade] * appeal),

where examined = 1 / position^eta (the position bias) and appeal falls from 1 for the most popular
title to 1 - popularity for the least (the popularity bias). Given the query, clicks at different
positions are independent: nobody stops after a find.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mangalab.data.relevance import TOP

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Behaviour:
    """How the simulated shoppers and the shop's ranking behave."""

    eta: float = 1.0  # examination is 1 / position^eta
    attraction: tuple[float, ...] = (0.05, 0.2, 0.45, 0.8)  # clicks when examined, by grade
    popularity: float = 0.5  # appeal lost between the most and the least popular title
    noise: float = 0.03  # clicks of those who examine and click at random
    depth: int = 10  # titles shown
    temperature: float = 0.2  # of the ranking's randomness, in standard deviations of its scores

    def __post_init__(self) -> None:
        if len(self.attraction) != TOP + 1 or not all(0 <= a <= 1 for a in self.attraction):
            raise ValueError(f"attraction {self.attraction}: need {TOP + 1} probabilities, one a grade")
        if not (0 <= self.popularity < 1 and 0 <= self.noise < 1):
            raise ValueError(f"popularity {self.popularity}, noise {self.noise}: need 0 <= x < 1")
        if self.depth < 1 or self.temperature < 0 or self.eta < 0:
            raise ValueError("depth starts at 1; temperature and eta cannot be negative")

    def examination(self, position: ArrayLike) -> Floats:
        """Probability that a title at a position (from 1) is looked at."""
        return np.asarray(position, float) ** -self.eta

    def appeal(self, ranks: ArrayLike) -> Floats:
        """Factor on the attraction by popularity rank, 1 (most popular) to 1 - ``popularity``."""
        ranks = np.asarray(ranks, float)
        return 1 - self.popularity * (ranks - 1) / max(ranks.max() - 1, 1)


@dataclass(frozen=True)
class Log:
    """One row an impression, each field of shape (impressions,).

    ``query`` and ``title`` are row and column of the scores; ``position`` starts at 1.
    ``propensity`` is the true probability of examination, ``grade`` and ``appeal`` the truth that a
    real log does not hold.
    """

    session: Ints
    query: Ints
    title: Ints
    position: Ints
    clicked: NDArray[np.bool_]
    propensity: Floats
    appeal: Floats
    grade: Ints
    behaviour: Behaviour = field(repr=False)

    def __len__(self) -> int:
        return len(self.session)


def production(scores: ArrayLike, ranks: Sequence[int], weight: float = 0.5) -> Floats:
    """The shop's own ranking: scores standardised for each query, plus a bonus for popularity.

    The bonus is ``weight`` standard deviations for each natural logarithm of the popularity rank,
    so that head titles are shown more often than they deserve. Shape (queries, titles).
    """
    scores = np.asarray(scores, float)
    spread = scores.std(axis=1, keepdims=True)
    standard = (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return standard + weight * (np.log(len(ranks)) - np.log(np.asarray(ranks, float)))


def simulate(
    scores: ArrayLike,
    grades: ArrayLike,
    ranks: Sequence[int],
    sessions: int = 20_000,
    behaviour: Behaviour = Behaviour(),
    seed: int = 0,
) -> Log:
    """Log of ``sessions`` searches over the queries, drawn evenly; (sessions * depth) impressions.

    ``scores`` and ``grades`` have shape (queries, titles), ``ranks`` is the popularity rank of each
    title. Gumbel noise on the scores draws each ranking (Plackett-Luce), so that a title is seen in
    several positions. Raises ValueError for shapes that do not fit.
    """
    scores, grades = np.asarray(scores, float), np.asarray(grades, np.int64)
    if scores.shape != grades.shape or scores.shape[1] != len(ranks):
        raise ValueError(f"scores {scores.shape}, grades {grades.shape}, {len(ranks)} ranks: must fit")
    if behaviour.depth > scores.shape[1]:
        raise ValueError(f"depth {behaviour.depth} of {scores.shape[1]} titles; show fewer")
    rng = np.random.default_rng(seed)
    query = rng.integers(0, len(scores), sessions)
    title = _shown(scores, query, behaviour, rng)
    position = np.broadcast_to(np.arange(1, behaviour.depth + 1), title.shape)
    grade, appeal = grades[query[:, None], title], behaviour.appeal(ranks)[title]
    chance = behaviour.examination(position) * _clicks(behaviour, grade, appeal)
    clicked = rng.random(title.shape) < chance
    sets = np.broadcast_to(np.arange(sessions)[:, None], title.shape)
    fields = (sets, np.broadcast_to(query[:, None], title.shape), title, position, clicked)
    flat = [np.ascontiguousarray(x).ravel() for x in fields]
    return Log(*flat, behaviour.examination(flat[3]), appeal.ravel(), grade.ravel(), behaviour)


def click_rate(log: Log, shape: tuple[int, int]) -> Floats:
    """Clicks by impressions, shape (queries, titles); NaN where a title was never shown."""
    return _mean(log, log.clicked.astype(float), shape)


def position_corrected(
    log: Log, shape: tuple[int, int], eta: float | None = None, clip: float = 0.0
) -> Floats:
    """Inverse-propensity estimate of clicks given examination (Joachims et al. 2017), NaN if unseen.

    ``eta`` defaults to the true one; propensities below ``clip`` are raised to it (less variance,
    some bias). What is left in it is the appeal of popular titles and the noise.
    """
    propensity = log.propensity if eta is None else log.position.astype(float) ** -eta
    return _mean(log, log.clicked / np.maximum(propensity, clip), shape)


def attraction(log: Log, shape: tuple[int, int]) -> Floats:
    """`position_corrected` with noise and appeal taken out too: unbiased for attraction[grade]."""
    noise = log.behaviour.noise
    cleared = (log.clicked / log.propensity - noise) / ((1 - noise) * log.appeal)
    return _mean(log, cleared, shape)


def _shown(
    scores: Floats, query: Ints, behaviour: Behaviour, rng: np.random.Generator, block: int = 2_000
) -> Ints:
    """The first ``depth`` columns of a drawn ranking for each session, in blocks to save memory."""
    scale = behaviour.temperature * scores.std(axis=1, keepdims=True)
    found = []
    for start in range(0, len(query), block):
        rows = query[start : start + block]
        drawn = -scores[rows] - scale[rows] * rng.gumbel(size=(len(rows), scores.shape[1]))
        best = np.argpartition(drawn, behaviour.depth - 1, axis=1)[:, : behaviour.depth]
        order = np.argsort(np.take_along_axis(drawn, best, axis=1), axis=1)
        found.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(found).astype(np.int64)


def _clicks(behaviour: Behaviour, grade: Ints, appeal: Floats) -> Floats:
    """Probability of a click on an examined title."""
    attraction = np.asarray(behaviour.attraction)[grade]
    return behaviour.noise + (1 - behaviour.noise) * attraction * appeal


def _mean(log: Log, values: Floats, shape: tuple[int, int]) -> Floats:
    """Mean of a value over the impressions of each query and title."""
    cell = log.query * shape[1] + log.title
    shown = np.bincount(cell, minlength=shape[0] * shape[1])
    total = np.bincount(cell, weights=values, minlength=shape[0] * shape[1])
    return np.divide(total, shown, out=np.full(len(shown), np.nan), where=shown > 0).reshape(shape)
