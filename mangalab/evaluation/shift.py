"""What a sequence of updates gained and lost, and whether the traffic has changed at all.

R[i, j] is the accuracy on the test of month j after training on month i, shape (T, T).
"""

import numpy as np


def backward_transfer(R: np.ndarray) -> float:
    """Mean over earlier months of last minus just-learnt accuracy (Lopez-Paz & Ranzato 2017, eq. 3)."""
    return float(np.mean(R[-1, :-1] - np.diag(R)[:-1]))


def forward_transfer(R: np.ndarray, baseline: np.ndarray) -> float:
    """Mean over later months of accuracy just before learning them, minus ``baseline`` (T,) (eq. 4)."""
    return float(np.mean(np.diag(R, 1) - np.asarray(baseline)[1:]))


def forgetting(R: np.ndarray) -> float:
    """Mean over earlier months of the best accuracy so far minus the last (Chaudhry et al. 2018)."""
    return float(np.mean(R[:-1, :-1].max(0) - R[-1, :-1]))


def shares(values: np.ndarray, bins: int) -> np.ndarray:
    """Shares (bins,) of the integers ``values``, half a count added to each, so that none is zero."""
    counts = np.bincount(values, minlength=bins) + 0.5
    return counts / counts.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) in nats."""
    return float((p * np.log(p / q)).sum())


def psi(p: np.ndarray, q: np.ndarray) -> float:
    """Population stability index, sum of (p - q) ln(p / q)."""
    return float(((p - q) * np.log(p / q)).sum())


def rbf(x: np.ndarray) -> np.ndarray:
    """Gaussian kernel (n, n) on rows of ``x``, its width the median distance (Gretton et al. 2012)."""
    square = (x**2).sum(1)
    distance = np.maximum(square[:, None] + square - 2 * x @ x.T, 0)
    return np.exp(-distance / np.median(distance[np.triu_indices(len(x), 1)]))


def mmd(kernel: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared MMD of the rows ``a`` and ``b`` of a kernel (Gretton et al. 2012, eq. 3)."""
    within = 0.0
    for rows in (a, b):
        block = kernel[np.ix_(rows, rows)]
        within += (block.sum() - np.trace(block)) / (len(rows) * (len(rows) - 1))
    return float(within - 2 * kernel[np.ix_(a, b)].mean())
