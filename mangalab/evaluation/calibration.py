"""Does a confidence of 0.9 mean right nine times in ten? Reliability, ECE, temperature."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 10
T_RANGE = (0.05, 20.0)


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width over (0, 1]: edges (bins + 1,), and per bin the number of messages,
    mean confidence and accuracy (nan in an empty bin)."""

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017, equation 3)."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((self.counts * gaps).sum() / self.counts.sum())


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort messages into ``bins`` of equal width by ``confidence`` in [0, 1]."""
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    if confidence.shape != correct.shape or confidence.ndim != 1 or not len(confidence):
        raise ValueError(f"reliability: shapes {confidence.shape} and {correct.shape}; need (n,)")
    if confidence.min() < 0 or confidence.max() > 1 + 1e-9:
        raise ValueError("reliability: values outside [0, 1]; pass probabilities, no logits")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, v, bins) / counts for v in (confidence, correct)]
    return Reliability(edges, counts, *means)


def ece(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error over ``bins`` of equal width."""
    return reliability(confidence, correct, bins).ece


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of ``logits / temperature``, (n, classes)."""
    return np.exp(log_softmax(np.asarray(logits, float) / temperature, axis=1))


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood in nats."""
    log_p = log_softmax(np.asarray(logits, float) / temperature, axis=1)
    return float(-log_p[np.arange(len(log_p)), np.asarray(labels)].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Temperature that minimises the log-likelihood loss (Guo et al. 2017, section 4.2).

    One number, convex in 1 / T; it never changes which class wins.
    """
    found = minimize_scalar(
        lambda log_t: nll(logits, labels, np.exp(log_t)), bounds=np.log(T_RANGE), method="bounded"
    )
    return float(np.exp(found.x))


def crossfit_temperatures(logits: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Temperature for each message, fitted on the half of the messages that it is not in; (n,)."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    half = np.random.default_rng(seed).permutation(len(labels)) % 2 == 0
    found = np.empty(len(labels))
    for side in (half, ~half):
        found[side] = fit_temperature(logits[~side], labels[~side])
    return found
