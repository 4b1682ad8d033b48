"""Confident learning (Northcutt et al. 2019): which labels are wrong, and how wrong labels come about.

``labels`` (n,) are the given, possibly wrong ones; ``p`` (n, classes) are probabilities of a model that
did **not** see the rows it judges. Rows of a joint are given labels, columns true ones.
"""

import numpy as np

SLACK = 1e-6  # a probability this close below its threshold still counts, as in cleanlab


def thresholds(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Mean probability of each class among the rows that carry its label (equation 2), (classes,)."""
    counts = np.bincount(labels, minlength=p.shape[1])
    if counts.min() == 0:
        raise ValueError(f"classes {np.flatnonzero(counts == 0).tolist()} have no row: no threshold")
    return np.array([p[labels == k, k].mean() for k in range(p.shape[1])])


def confident_class(labels: np.ndarray, p: np.ndarray, as_published: bool = False) -> np.ndarray:
    """The class that a row is counted for, -1 where none is above its threshold, (n,).

    If several are, the paper takes the most probable *of these*, cleanlab the most probable of all,
    which may itself lie below its own, higher threshold. Default: as cleanlab.
    """
    above = p >= thresholds(labels, p) - SLACK
    several = np.where(above, p, -1.0).argmax(1) if as_published else p.argmax(1)
    found = np.where(above.sum(1) > 1, several, above.argmax(1))
    return np.where(above.any(1), found, -1)


def confident_joint(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Counts (classes, classes) of given label against confident class (equation 1)."""
    found = confident_class(labels, p)
    joint = np.zeros((p.shape[1],) * 2, int)
    np.add.at(joint, (labels[found >= 0], found[found >= 0]), 1)
    np.fill_diagonal(joint, joint.diagonal().clip(min=1))  # no class may vanish
    return joint


def estimate_joint(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The joint distribution: counts calibrated to the given labels' shares (equation 3); sums to 1."""
    joint = confident_joint(labels, p).astype(float)
    shares = np.bincount(labels, minlength=p.shape[1]) / len(labels)
    return joint / joint.sum(1, keepdims=True) * shares[:, None]


def noise_rate(joint: np.ndarray) -> float:
    """Share of wrong labels that a joint holds: what lies off its diagonal."""
    return max(0.0, 1 - float(joint.trace()) / float(joint.sum()))


def true_joint(labels: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """The joint distribution where the truth is known, (classes, classes)."""
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels, truth), 1 / len(labels))
    return joint


def issues(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Rows in the off-diagonal cells of the confident joint that the model would label otherwise."""
    found = confident_class(labels, p)
    return (found >= 0) & (found != labels) & (p.argmax(1) != labels)


def self_confidence(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Probability of the given label, (n,); low is suspect."""
    return p[np.arange(len(labels)), labels]


def normalized_margin(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Probability of the given label less that of the best other one, (n,); low is suspect."""
    others = p.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return self_confidence(labels, p) - others.max(1)


def measured_accuracy(accuracy: float, noise: float, classes: int) -> float:
    """Accuracy on a test set of which a share ``noise`` was relabelled evenly among other classes.

    Holds for a model whose errors do not know about the relabelling.
    """
    return accuracy * (1 - noise) + (1 - accuracy) * noise / (classes - 1)


def ceiling(kernel: np.ndarray, shares: np.ndarray) -> float:
    """Best accuracy against noisy labels for a model that knows every true class.

    ``kernel`` (classes, classes) is P(given | true) with true classes in rows, ``shares`` P(true).
    """
    return float(shares @ kernel.max(1))
