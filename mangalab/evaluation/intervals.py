"""Intervals and paired tests: what a difference measured on n examples or k seeds allows to say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, the number of observations, and how it was made."""

    value: float
    low: float
    high: float
    n: int
    method: str

    def __format__(self, spec: str) -> str:
        spec = spec or ".3g"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


@dataclass(frozen=True)
class Difference(Interval):
    """An interval of a - b with the word that it allows; the lab has shown it already."""

    word: str

    def _ipython_display_(self) -> None:
        pass


def wilson(successes: int, n: int) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927, equation 4); good at 0 and 1 and small n."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"wilson: {successes} successes of {n}: need 0 <= successes <= n and n > 0")
    found = stats.binomtest(int(successes), int(n)).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(successes / n, found.low, found.high, int(n), "Wilson")


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean over seeds with Student's t interval; one value gives an interval of unknown width (nan)."""
    x = _vector(values, "mean_interval")
    half = np.nan
    if len(x) > 1:
        half = stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half), len(x), "t")


def seed_difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Mean of ``a - b`` over runs that share their seeds, with the paired t interval."""
    x, y = _vector(a, "seed_difference"), _vector(b, "seed_difference")
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(
            f"seed_difference: {len(x)} and {len(y)} runs; need the same seeds twice, at least 2 "
            "(3 for anything that is published)"
        )
    found = mean_interval(x - y)
    return Interval(found.value, found.low, found.high, len(x), "paired t over seeds")


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap over rows of ``values`` (Efron 1979); ``statistic`` defaults to the mean."""
    x = np.asarray(values)
    if len(x) < 2:
        raise ValueError(f"bootstrap: {len(x)} observations; need at least 2")
    index = np.random.default_rng(seed).integers(0, len(x), (resamples, len(x)))
    if statistic is None:
        draws, value = x.astype(float)[index].mean(1), float(x.mean())
    else:
        draws, value = np.array([statistic(x[rows]) for rows in index]), float(statistic(x))
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high), len(x), "bootstrap")


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Mean of ``a - b`` over the same examples, resampling examples in pairs (fixed models)."""
    x, y = _vector(a, "paired_bootstrap"), _vector(b, "paired_bootstrap")
    if len(x) != len(y):
        raise ValueError(f"paired_bootstrap: {len(x)} and {len(y)} scores; need the same examples")
    found = bootstrap(x - y, seed=seed, resamples=resamples)
    return Interval(found.value, found.low, found.high, len(x), "paired bootstrap over examples")


def bootstrap_over_runs(
    a: np.ndarray, b: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Mean of ``a - b`` with shape (runs, examples): runs and examples are both resampled, in pairs.

    Answers "would another seed *and* another test set say the same?"; wider than either alone.
    """
    difference = np.asarray(a, float) - np.asarray(b, float)
    if difference.ndim != 2 or min(difference.shape) < 2:
        raise ValueError(f"bootstrap_over_runs: shape {difference.shape}; need (runs, examples) >= 2")
    runs, examples = difference.shape
    drawn_runs = _draw_counts(runs, resamples, seed, stream=0)
    sums = _draw_counts(examples, resamples, seed, stream=1) @ difference.T  # (resamples, runs)
    draws = (drawn_runs * sums).sum(1) / difference.size
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    label = f"paired bootstrap over {runs} seeds and {examples} examples"
    return Interval(float(difference.mean()), float(low), float(high), examples, label)


def mcnemar(a_correct: Sequence[bool], b_correct: Sequence[bool]) -> tuple[int, int, float]:
    """Exact McNemar test (1947) of two classifiers on the same examples.

    Returns ``(only_a, only_b, p)``: examples that only one of them gets right, two-sided p-value.
    """
    a, b = np.asarray(a_correct, bool), np.asarray(b_correct, bool)
    if a.shape != b.shape:
        raise ValueError(f"mcnemar: shapes {a.shape} and {b.shape}; need the same examples")
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return only_a, only_b, float(p)


def verdict(low: float, high: float, higher_is_better: bool = True) -> str:
    """The word that the interval of a difference a - b allows."""
    if np.isnan(low) or np.isnan(high) or low <= 0 <= high:
        return "no difference shown"
    return "better" if (low > 0) == higher_is_better else "worse"


@lru_cache(maxsize=16)
def _packed_counts(n: int, resamples: int, seed: int, stream: int) -> np.ndarray:
    rng = np.random.default_rng([seed, stream])
    index = rng.integers(0, n, (resamples, n)) + np.arange(resamples)[:, None] * n
    counts = np.bincount(index.ravel(), minlength=resamples * n).reshape(resamples, n)
    return counts.astype(np.uint8 if counts.max() < 256 else np.uint16)


def _draw_counts(n: int, resamples: int, seed: int, stream: int) -> np.ndarray:
    """How often each of n rows is drawn, with replacement: (resamples, n).

    With counts a bootstrap of means is one product; a page asks for the same n often, hence the cache.
    """
    return _packed_counts(n, resamples, seed, stream).astype(float)


def _vector(values: Sequence[float], name: str) -> np.ndarray:
    x = np.asarray(values, float)
    if x.ndim != 1 or len(x) == 0 or not np.isfinite(x).all():
        raise ValueError(f"{name}: need a non-empty list of finite numbers, got shape {x.shape}")
    return x
