"""Sets of labels from probabilities: thresholds, what tuning them flatters, and contradictions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
GRID = np.round(np.arange(0.02, 0.985, 0.02), 2)  # thresholds that are tried
Tune = Callable[[NDArray, Floats], Floats]


def with_neutral(marks: ArrayLike) -> Bools:
    """Marks of the states (n, labels) with a last column added: none of them."""
    marks = np.asarray(marks, bool)
    return np.concatenate([marks, ~marks.any(axis=1, keepdims=True)], axis=1)


def contradictions(marks: ArrayLike) -> tuple[Bools, Bools]:
    """For each item, last column neutral: (neutral beside another label, no label at all)."""
    marks = np.asarray(marks, bool)
    others = marks[:, :-1].any(axis=1)
    return marks[:, -1] & others, ~marks[:, -1] & ~others


def label_f1(truth: ArrayLike, marks: ArrayLike) -> Floats:
    """F1 of each label, (labels,); 0 where a label is neither there nor marked."""
    y, p = np.asarray(truth, bool), np.asarray(marks, bool)
    hit, total = (y & p).sum(0), y.sum(0) + p.sum(0)
    return np.divide(2.0 * hit, total, out=np.zeros(y.shape[1]), where=total > 0)


def f1_table(truth: ArrayLike, probabilities: ArrayLike, grid: ArrayLike = GRID) -> Floats:
    """F1 of each label at each threshold, (thresholds, labels); marked where p > threshold."""
    return np.array([label_f1(truth, np.asarray(probabilities) > cut) for cut in np.asarray(grid)])


def tune_one(truth: ArrayLike, probabilities: ArrayLike, grid: ArrayLike = GRID) -> Floats:
    """The one threshold with the best macro F1, repeated for each label; ties: nearest to 0.5."""
    grid, macro = np.asarray(grid, float), f1_table(truth, probabilities, grid).mean(axis=1)
    return np.full(np.asarray(truth).shape[1], grid[_best(macro, grid)])


def tune_each(truth: ArrayLike, probabilities: ArrayLike, grid: ArrayLike = GRID) -> Floats:
    """For each label the threshold with its best F1, (labels,); ties: nearest to 0.5."""
    grid, table = np.asarray(grid, float), f1_table(truth, probabilities, grid)
    return np.array([grid[_best(column, grid)] for column in table.T])


def optimism(
    truth: ArrayLike, probabilities: ArrayLike, tune: Tune, resamples: int = 200, seed: int = 0
) -> Interval:
    """How much macro F1 at tuned thresholds flatters itself on the set that they were tuned on.

    Bootstrap of Efron (1983): tune on a resample, score there and on the set itself; the mean
    difference, with its 95 % interval over resamples (of the mean).
    """
    y, p = np.asarray(truth), np.asarray(probabilities, float)
    rng, gaps = np.random.default_rng(seed), np.empty(resamples)
    for i in range(resamples):
        rows = rng.integers(0, len(y), len(y))
        cuts = tune(y[rows], p[rows])
        gaps[i] = label_f1(y[rows], p[rows] > cuts).mean() - label_f1(y, p > cuts).mean()
    half = 1.96 * gaps.std(ddof=1) / np.sqrt(resamples)
    mean = float(gaps.mean())
    return Interval(mean, mean - half, mean + half, len(y), f"bootstrap, {resamples} resamples")


def _best(scores: Floats, grid: Floats) -> int:
    """Index of the best score; of equals, the threshold nearest to 0.5."""
    equal = np.flatnonzero(scores >= scores.max() - 1e-12)
    return int(equal[np.argmin(np.abs(grid[equal] - 0.5))])
