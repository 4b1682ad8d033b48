"""How a router is scored: recall by class, re-weighting to traffic, harm, and when to abstain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .intervals import Interval, wilson


def confusion(labels: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """Counts (classes, classes): row = true class, column = predicted class."""
    found = np.zeros((classes, classes), int)
    np.add.at(found, (np.asarray(labels), np.asarray(predicted)), 1)
    return found


def class_recalls(
    labels: Sequence[int], predicted: Sequence[int], classes: int
) -> list[Interval]:
    """Recall of every class with its Wilson interval."""
    table = confusion(labels, predicted, classes)
    return [wilson(table[c, c], table[c].sum()) for c in range(classes)]


def class_weights(labels: Sequence[int], shares: Sequence[float]) -> np.ndarray:
    """Weight of each example, mean 1, that turns the class mix of ``labels`` into ``shares``."""
    y, shares = np.asarray(labels), np.asarray(shares, float)
    counts = np.bincount(y, minlength=len(shares))
    if counts[shares > 0].min() == 0:
        raise ValueError("a class with a share of the traffic has no example: it cannot be weighed")
    return (shares / shares.sum() / np.maximum(counts, 1))[y] * len(y)


def macro_weights(labels: Sequence[int], classes: int) -> np.ndarray:
    """Weights that make a mean of correctness the macro recall: every class counts the same."""
    return class_weights(labels, np.full(classes, 1 / classes))


def harms(labels: Sequence[int], predicted: Sequence[int], cost: np.ndarray) -> np.ndarray:
    """Harm of each message, ``cost[true, predicted]``; shape (n,)."""
    return np.asarray(cost, float)[np.asarray(labels), np.asarray(predicted)]


def fallback_curve(
    harm: np.ndarray, confidence: np.ndarray, weights: np.ndarray, fallback: float
) -> tuple[np.ndarray, np.ndarray]:
    """Expected harm a message against the threshold below which a message goes to the fallback.

    Returns ``(thresholds, expected)``: the first threshold sends nothing to the fallback, the last
    one everything; ``fallback`` is the cost of one fallback.
    """
    order = np.argsort(confidence, kind="stable")
    sent = np.concatenate([[0.0], np.cumsum(weights[order])]) * fallback
    kept = np.concatenate([[0.0], np.cumsum((weights * harm)[order[::-1]])])[::-1]
    edges = confidence[order]
    thresholds = np.concatenate([[0.0], (edges[:-1] + edges[1:]) / 2, [np.inf]])
    return thresholds, (sent + kept) / weights.sum()


def with_fallback(
    harm: np.ndarray, confidence: np.ndarray, threshold: float, fallback: float
) -> np.ndarray:
    """Harm of each message when those under ``threshold`` pay the cost of a ``fallback``."""
    return np.where(confidence < threshold, fallback, harm)


def risk_coverage(correct: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(coverage, error among the covered), the most confident messages first."""
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~np.asarray(correct, bool)[order])
    answered = np.arange(1, len(order) + 1)
    return answered / len(order), wrong / answered


def exact_sets(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """For each message: is the predicted set the true one? Both are 0/1, (n, classes)."""
    return (np.asarray(truth, bool) == np.asarray(predicted, bool)).all(1)


def set_recall(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """For each message: share of its true intents that were found; (n,)."""
    truth = np.asarray(truth, bool)
    return (truth & np.asarray(predicted, bool)).sum(1) / truth.sum(1)


@dataclass(frozen=True)
class Stream:
    """Messages as they arrive: ``probabilities`` (n, classes), the ``costs`` (n, classes) of every
    route for each message, and ``weights`` (n,) with mean 1 that restore the traffic."""

    probabilities: np.ndarray
    costs: np.ndarray
    weights: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        """Largest probability of each message."""
        return self.probabilities.max(1)

    @property
    def routed(self) -> np.ndarray:
        """Harm of each message when it takes its most probable route."""
        return self.costs[np.arange(len(self.costs)), self.probabilities.argmax(1)]

    def cheapest(self, cost: np.ndarray, fallback: float) -> np.ndarray:
        """Harm when the router takes the least expected cost of all routes and the fallback."""
        expected = self.probabilities @ cost
        taken = self.costs[np.arange(len(expected)), expected.argmin(1)]
        return np.where(expected.min(1) > fallback, fallback, taken)


def mixed_stream(
    known: np.ndarray, labels: np.ndarray, unknown: np.ndarray, cost: np.ndarray,
    shares: Sequence[float], stranger_share: float, stranger_cost: float,
) -> Stream:
    """Stream of ``known`` messages at their class shares and ``unknown`` ones at theirs.

    ``known`` and ``unknown`` are probabilities; any route of an unknown message costs the same.
    """
    n = len(known) + len(unknown)
    weights = np.concatenate([
        class_weights(labels, shares) * (1 - stranger_share) / len(known),
        np.full(len(unknown), stranger_share / len(unknown)),
    ])
    costs = np.concatenate([cost[labels], np.full((len(unknown), cost.shape[1]), stranger_cost)])
    return Stream(np.concatenate([known, unknown]), costs, weights * n)


def sets_at(probabilities: np.ndarray, cut: float) -> np.ndarray:
    """Predicted sets (n, classes): all above ``cut``, or the best one where none is."""
    best = probabilities == probabilities.max(1, keepdims=True)
    return (probabilities > cut) | best
