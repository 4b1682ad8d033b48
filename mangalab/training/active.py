"""Which rows to label next: rules that choose a batch from a pool, given what is labelled already."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .heads import fit

STRATEGIES = ("random", "margin", "entropy", "core-set")


def margin(p: np.ndarray) -> np.ndarray:
    """Largest probability less the second, (n,); small is uncertain."""
    top = np.sort(p, axis=1)
    return top[:, -1] - top[:, -2]


def entropy(p: np.ndarray) -> np.ndarray:
    """Entropy of each row in nats, (n,); large is uncertain."""
    return -(p * np.log(np.maximum(p, 1e-12))).sum(1)


def core_set(x: np.ndarray, have: np.ndarray, n: int) -> list[int]:
    """``n`` rows, each the farthest from all that are had so far (Sener and Savarese 2017)."""
    distance = (2 - 2 * (x @ x[have].T).max(1)).clip(min=0)
    chosen = []
    for _ in range(n):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, (2 - 2 * (x @ x[chosen[-1]])).clip(min=0))
    return chosen


@dataclass(frozen=True)
class Round:
    """What was labelled after a round, ``rows``, and the probabilities (m, classes) on the exam."""

    rows: np.ndarray
    p: np.ndarray


def learn(
    x: np.ndarray, labels: Sequence[int], exam: np.ndarray, strategy: str, start: int, batch: int,
    rounds: int, c: float, seed: int = 0,
) -> list[Round]:
    """Label ``start`` rows at random, then ``rounds`` batches by ``strategy``; one head a round.

    The start is the same for all strategies of a seed. Raises ValueError for an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    rng = np.random.default_rng([seed, 77])
    labels, shuffled = np.asarray(labels), rng.permutation(len(x))
    have, found = shuffled[:start], []
    for number in range(rounds + 1):
        head = fit(x[have], labels[have], c)
        found.append(Round(have, head(exam)))
        if number == rounds:
            return found
        left = np.setdiff1d(shuffled, have)
        if strategy == "core-set":
            new = np.array(core_set(x, have, batch))
        elif strategy == "random":
            new = shuffled[len(have) : len(have) + batch]
        else:
            p = head(x[left])
            doubt = -margin(p) if strategy == "margin" else entropy(p)
            new = left[np.argsort(-doubt, kind="stable")[:batch]]
        have = np.concatenate([have, new])
    return found
