"""Messages that belong to no intent: scores that should be low on them, and how well they part.

Every score is high for messages that look known. Positive = inside the taxonomy.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp
from scipy.stats import rankdata

from .calibration import probabilities
from .intervals import CONFIDENCE, Interval


def max_softmax(logits: np.ndarray) -> np.ndarray:
    """Largest probability (Hendrycks & Gimpel 2017)."""
    return probabilities(logits).max(1)


def energy(logits: np.ndarray) -> np.ndarray:
    """Negative energy, log sum exp of the logits (Liu et al. 2020, equation 4)."""
    return logsumexp(np.asarray(logits, float), axis=1)


def nearest(features: np.ndarray, known: np.ndarray, k: int = 10) -> np.ndarray:
    """Cosine to the k-th nearest of the ``known`` features (Sun et al. 2022)."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, known)]
    return np.partition(unit[0] @ unit[1].T, -k, axis=1)[:, -k]


def mahalanobis(features: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative squared distance to the nearest class mean, one shared covariance (Lee et al. 2018).

    The covariance is shrunk (Ledoit & Wolf 2004): with hundreds of dimensions and a thousand
    examples the plain one is close to singular.
    """
    from sklearn.covariance import LedoitWolf

    means = np.stack([known[labels == c].mean(0) for c in np.unique(labels)])
    centred = known - means[np.searchsorted(np.unique(labels), labels)]
    precision = LedoitWolf(assume_centered=True).fit(centred).precision_
    offsets = features[:, None] - means
    return -np.einsum("ncd,de,nce->nc", offsets, precision, offsets, optimize=True).min(1)


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Chance that a known message scores above an unknown one; ties count half."""
    ranks = rankdata(np.concatenate([inside, outside]))
    n, m = len(inside), len(outside)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def threshold_at(inside: np.ndarray, tpr: float = 0.95) -> float:
    """Largest threshold that keeps at least ``tpr`` of the known messages (score >= threshold)."""
    ordered = np.sort(inside)
    return float(ordered[int(np.floor((1 - tpr) * len(ordered) + 1e-9))])


def fpr_at_tpr(inside: np.ndarray, outside: np.ndarray, tpr: float = 0.95) -> float:
    """Share of unknown messages let in by the threshold that keeps ``tpr`` of the known ones."""
    return float((outside >= threshold_at(inside, tpr)).mean())


def two_sample(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    inside: np.ndarray,
    outside: np.ndarray,
    seed: int = 0,
    resamples: int = 1000,
) -> Interval:
    """``statistic(inside, outside)`` with a percentile bootstrap over both samples."""
    rng = np.random.default_rng(seed)
    draws = [
        statistic(rng.choice(inside, len(inside)), rng.choice(outside, len(outside)))
        for _ in range(resamples)
    ]
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = statistic(inside, outside)
    return Interval(value, float(low), float(high), len(inside) + len(outside), "bootstrap")
