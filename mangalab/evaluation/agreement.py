"""Agreement of annotators beyond chance, and what their mistakes leave for a model to reach."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mangalab.evaluation.intervals import CONFIDENCE, Interval

Floats = NDArray[np.float64]
RESAMPLES = 2_000


def cohen_kappa(a: ArrayLike, b: ArrayLike) -> Floats:
    """Cohen's kappa of two annotators for each label; shape (labels,), NaN where chance is certain.

    kappa = (p_o - p_e) / (1 - p_e), p_e from each annotator's own rates (Cohen 1960). ``a`` and ``b``
    are marks of shape (items, labels).
    """
    x, y = np.asarray(a, bool), np.asarray(b, bool)
    if x.shape != y.shape or x.ndim != 2 or not len(x):
        raise ValueError(f"cohen_kappa: marks of {x.shape} and {y.shape}; need (items, labels) twice")
    p, q = x.mean(axis=0), y.mean(axis=0)
    return _beyond((x == y).mean(axis=0), p * q + (1 - p) * (1 - q))


def pairwise_kappa(marks: ArrayLike) -> Floats:
    """Cohen's kappa of every pair of annotators; shape (pairs, labels), pairs (0, 1), (0, 2), ..."""
    marks = _marks(marks)
    first, second = np.triu_indices(marks.shape[1], k=1)
    return np.array([cohen_kappa(marks[:, i], marks[:, j]) for i, j in zip(first, second, strict=True)])


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' kappa of a table of shape (items, categories): annotators that chose each category.

    Every item needs the same number of annotators, at least 2 (Fleiss 1971, equations 2 to 7). NaN
    where all annotators always chose one and the same category.
    """
    table = np.asarray(counts, float)
    raters = table.sum(axis=1) if table.ndim == 2 else np.empty(0)
    if not len(raters) or raters.min() != raters.max() or raters[0] < 2:
        raise ValueError(
            f"fleiss_kappa: table of shape {table.shape}; need (items, categories) whose rows all add "
            "up to the same number of annotators, at least 2"
        )
    n = raters[0]
    observed = ((table**2).sum(axis=1) - n) / (n * (n - 1))
    return float(_beyond(observed.mean(), ((table.sum(axis=0) / table.sum()) ** 2).sum()))


def fleiss_kappas(marks: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Interval, ...]:
    """Fleiss' kappa of each label (marked or not), with the percentile bootstrap over items.

    ``marks`` has shape (items, annotators, labels). Resampled sets in which a label was never
    marked are left out of its interval.
    """
    marks = _marks(marks)
    raters, yes = marks.shape[1], marks.sum(axis=1).astype(float)
    agreeing = (yes**2 + (raters - yes) ** 2 - raters) / (raters * (raters - 1))

    def kappas(rows: NDArray) -> Floats:
        share = yes[rows].mean(axis=0) / raters
        return _beyond(agreeing[rows].mean(axis=0), share**2 + (1 - share) ** 2)

    drawn = _bootstrap(kappas, len(marks), resamples, seed)
    low, high = np.nanquantile(drawn, _tails(), axis=0)
    value = kappas(np.arange(len(marks)))
    return tuple(
        Interval(float(v), float(a), float(b), len(marks), "bootstrap over items")
        for v, a, b in zip(value, low, high, strict=True)
    )


def label_ceiling(
    truth: ArrayLike,
    noisy: ArrayLike,
    score: Callable[[NDArray, NDArray], float],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """What a perfect model scores when it is judged by noisy labels: ``score(noisy, truth)``.

    ``truth`` plays the predictions, ``noisy`` (for instance a majority of annotators) the labels that
    are believed, both of shape (items, labels) or (items,); bootstrap over items. The truth is known
    in a simulation only. A model that learns the annotators' habits can score above this, and is then
    further from the truth, not nearer.
    """
    x, y = np.asarray(truth), np.asarray(noisy)
    if x.shape != y.shape or not len(x):
        raise ValueError(f"label_ceiling: truth {x.shape}, noisy labels {y.shape}; need the same shape")
    drawn = _bootstrap(lambda rows: score(y[rows], x[rows]), len(x), resamples, seed)
    low, high = np.nanquantile(drawn, _tails())
    return Interval(float(score(y, x)), float(low), float(high), len(x), "bootstrap over items")


def exact_match(labels: ArrayLike, predicted: ArrayLike) -> float:
    """Share of items whose labels are all right; shape (items, labels) twice."""
    return float((np.asarray(labels, bool) == np.asarray(predicted, bool)).all(axis=-1).mean())


def _marks(marks: ArrayLike) -> NDArray[np.bool_]:
    found = np.asarray(marks, bool)
    if found.ndim != 3 or found.shape[1] < 2 or not len(found):
        raise ValueError(f"marks of shape {found.shape}; need (items, at least 2 annotators, labels)")
    return found


def _beyond(observed: ArrayLike, chance: ArrayLike) -> Floats:
    """Agreement beyond chance, as a share of what chance leaves; NaN where it leaves nothing."""
    observed, left = np.asarray(observed, float), 1 - np.asarray(chance, float)
    return np.divide(
        observed - (1 - left), left, out=np.full_like(observed, np.nan), where=left > 1e-12
    )


def _bootstrap(statistic: Callable[[NDArray], ArrayLike], n: int, resamples: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return np.array([statistic(rng.integers(0, n, n)) for _ in range(resamples)])


def _tails() -> tuple[float, float]:
    return (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
