"""When a conversation should go to a person: features of the turns so far, rates, and prices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.sentiment import LABELS, Conversation

Floats = NDArray[np.float64]
FEATURES = (
    "frustration, highest so far", "frustration, sum so far", "churn risk, highest so far",
    "urgency, highest so far", "nearest earlier turn", "turn", "log minutes since the issue",
)  # fmt: skip


def turn_rows(found: Sequence[Conversation]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(conversation of each turn, whether a person should have taken over by then), both (turns,)."""
    owner = [i for i, talk in enumerate(found) for _ in talk.turns]
    due = [0 < talk.escalate_from <= turn.turn for talk in found for turn in talk.turns]
    return np.array(owner), np.array(due, int)


def features(
    found: Sequence[Conversation], probabilities: ArrayLike, vectors: ArrayLike
) -> Floats:
    """`FEATURES` of every turn, from the customer's turns up to it and nothing later.

    ``probabilities`` (turns, at least 5) in the order of `LABELS`, ``vectors`` (turns, d) sentence
    vectors; turns in order, conversation after conversation. The similarity is the largest cosine to
    an earlier turn of the same customer: a repeat, or the same need in other words.
    """
    p, v = np.asarray(probabilities, float), np.asarray(vectors, float)
    turns = sum(len(talk.turns) for talk in found)
    if len(p) != turns or len(v) != turns:
        raise ValueError(f"{len(p)} probabilities and {len(v)} vectors for {turns} turns")
    v = v / np.linalg.norm(v, axis=1, keepdims=True)
    rows, start = [], 0
    for talk in found:
        for k, turn in enumerate(talk.turns):
            so_far = p[start : start + k + 1]
            near = float((v[start : start + k] @ v[start + k]).max()) if k else 0.0
            peak = {name: so_far[:, LABELS.index(name)].max() for name in LABELS[:5]}
            rows.append([
                peak["frustration"], so_far[:, 0].sum(), peak["churn_risk"], peak["urgency"],
                near, turn.turn, np.log1p(turn.minutes),
            ])  # fmt: skip
        start += len(talk.turns)
    return np.array(rows)


def by_conversation(scores: ArrayLike, owner: ArrayLike) -> Floats:
    """Highest score of each conversation's turns: an alarm, once raised, stays raised."""
    scores, owner = np.asarray(scores, float), np.asarray(owner)
    return np.array([scores[owner == i].max() for i in range(owner.max() + 1)])


@dataclass(frozen=True)
class Prices:
    """What a hand-off costs, needed or not, and what a customer costs who needed one and got none."""

    handoff: float
    missed: float

    def of(self, alarm: ArrayLike, escalate: ArrayLike) -> Floats:
        """Cost of each conversation."""
        alarm, escalate = np.asarray(alarm, bool), np.asarray(escalate, bool)
        return np.where(alarm, self.handoff, np.where(escalate, self.missed, 0.0))

    def expected(self, recall: float, false_rate: float, prevalence: float) -> float:
        """Expected cost of one conversation at the given rates."""
        handed = prevalence * recall + (1 - prevalence) * false_rate
        return handed * self.handoff + prevalence * (1 - recall) * self.missed


def precision_at(recall: float, false_rate: float, prevalence: float) -> float:
    """Share of hand-offs that were needed (Bayes' rule)."""
    right, wrong = prevalence * recall, (1 - prevalence) * false_rate
    return right / (right + wrong)


def false_rate_at(recall: float, precision: float, prevalence: float) -> float:
    """False alarms as a share of the conversations that need no person, for a given precision."""
    return prevalence * recall * (1 - precision) / precision / (1 - prevalence)


def breakeven(recall: float, false_rate: float, prevalence: float) -> float:
    """Price of a missed customer, in hand-offs, above which alarms beat having none.

    Alarms save prevalence * recall * missed and cost a hand-off each, needed or not: the break-even
    ratio is 1 / precision.
    """
    return 1 / precision_at(recall, false_rate, prevalence)


def cheapest_threshold(
    scores: ArrayLike, escalate: ArrayLike, weights: ArrayLike, prices: Prices
) -> float:
    """Threshold with the least mean weighted cost; alarm where score > threshold.

    Candidates lie halfway between neighbouring scores, and beyond both ends. Of equals, the middle one.
    """
    scores, cuts = np.asarray(scores, float), candidates(scores)
    w = np.asarray(weights, float)
    cost = np.array([(w * prices.of(scores > cut, escalate)).mean() for cut in cuts])
    equal = np.flatnonzero(cost <= cost.min() + 1e-12)
    return float(cuts[equal[len(equal) // 2]])


def candidates(scores: ArrayLike) -> Floats:
    """Thresholds that tell the scores apart: below all, between neighbours, above all."""
    s = np.unique(np.asarray(scores, float))
    return np.concatenate([[s[0] - 1e-6], (s[:-1] + s[1:]) / 2, [s[-1]]])


def threshold_for_recall(scores: ArrayLike, escalate: ArrayLike, recall: float) -> float:
    """Highest threshold whose recall is at least ``recall``."""
    scores, escalate = np.asarray(scores, float), np.asarray(escalate, bool)
    return float(max(c for c in candidates(scores) if (scores[escalate] > c).mean() >= recall))


def threshold_for_false_rate(scores: ArrayLike, escalate: ArrayLike, rate: float) -> float:
    """Lowest threshold whose false alarm rate is at most ``rate``."""
    scores, escalate = np.asarray(scores, float), np.asarray(escalate, bool)
    return float(min(c for c in candidates(scores) if (scores[~escalate] > c).mean() <= rate))
