"""Wrong labels planted at known places, evenly or between classes that people confuse."""

from collections.abc import Sequence

import numpy as np

from .intents import INTENTS

KINDS = ("uniform", "pairs")
# What each intent is taken for, by the card of the data: they share their words on purpose.
CONFUSED = {
    "product_discovery": "recommendation", "recommendation": "product_discovery",
    "product_question": "product_discovery", "order_tracking": "escalation",
    "faq": "return_request", "return_request": "faq", "chitchat": "recommendation",
    "promotion": "checkout_help", "checkout_help": "promotion", "escalation": "order_tracking",
}  # fmt: skip


def plant(
    truth: Sequence[int], rate: float, kind: str = "uniform", seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) of which exactly ``round(rate * n)`` are wrong, and where, (n,) of truth values.

    "uniform" draws one of the other classes, "pairs" takes the one of `CONFUSED`. A higher rate of the
    same seed keeps the wrong rows of a lower one. Raises ValueError.
    """
    truth = np.asarray(truth)
    if kind not in KINDS or not 0 <= rate <= 1:
        known = " or ".join(KINDS)
        raise ValueError(f"kind={kind!r}, rate={rate}: need {known} and 0 <= rate <= 1")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    hit = rng.permutation(len(truth))[: round(rate * len(truth))]
    wrong = np.zeros(len(truth), bool)
    wrong[hit] = True
    partner = np.array([INTENTS.index(CONFUSED[name]) for name in INTENTS])
    other = (truth + rng.integers(1, len(INTENTS), len(truth))) % len(INTENTS)
    return np.where(wrong, partner[truth] if kind == "pairs" else other, truth), wrong


def kernel(rate: float, kind: str = "uniform") -> np.ndarray:
    """P(given | true) of :func:`plant`, (classes, classes) with true classes in rows."""
    classes = len(INTENTS)
    found = np.eye(classes) * (1 - rate)
    for true, name in enumerate(INTENTS):
        if kind == "pairs":
            found[true, INTENTS.index(CONFUSED[name])] += rate
        else:
            found[true, np.arange(classes) != true] += rate / (classes - 1)
    return found
