"""Conversation features look back only; prices, rates and thresholds do what they say."""

import numpy as np
import pytest

from mangalab.data.sentiment import Conversation, Turn, conversations
from mangalab.evaluation import escalation as esc


def talk(name, minutes, escalate_from=0):
    turns = tuple(
        Turn(f"{name}{k}", name, k, m, "text", "", ("neutral",), ("plain",), "test")
        for k, m in enumerate(minutes, 1)
    )
    return Conversation(name, "solved", escalate_from, turns, "test")


TALKS = (talk("a", (0, 5, 9), 2), talk("b", (0, 1)))
P = np.array([
    [0.1, 0, 0.2, 0, 0.0], [0.9, 0, 0.1, 0, 0.3], [0.2, 0, 0.4, 0, 0.1], [0.5, 0, 0, 0, 0],
    [0.4, 0, 0, 0, 0],
])  # fmt: skip
V = np.eye(5) + np.array([[0.0] * 5, [1, 0, 0, 0, 0], [0.0] * 5, [0.0] * 5, [0.0] * 5])


def column(name):
    return esc.features(TALKS, P, V)[:, esc.FEATURES.index(name)]


def test_turns_know_their_conversation_and_whether_a_person_is_due():
    owner, due = esc.turn_rows(TALKS)
    assert owner.tolist() == [0, 0, 0, 1, 1] and due.tolist() == [0, 1, 1, 0, 0]


def test_features_never_look_ahead_and_start_afresh_with_every_conversation():
    assert column("frustration, highest so far").tolist() == [0.1, 0.9, 0.9, 0.5, 0.5]
    assert column("frustration, sum so far") == pytest.approx([0.1, 1.0, 1.2, 0.5, 0.9])
    assert column("turn").tolist() == [1, 2, 3, 1, 2]
    assert column("log minutes since the issue") == pytest.approx(np.log1p([0, 5, 9, 0, 1]))
    assert column("nearest earlier turn") == pytest.approx([0, 0.5**0.5, 0, 0, 0])


def test_later_turns_do_not_change_earlier_rows():
    changed = P.copy()
    changed[2] = 0.99
    a, b = esc.features(TALKS, P, V), esc.features(TALKS, changed, V)
    assert np.array_equal(a[:2], b[:2]) and not np.array_equal(a[2], b[2])


def test_wrong_number_of_turns_is_refused():
    with pytest.raises(ValueError, match="for 5 turns"):
        esc.features(TALKS, P[:4], V)


def test_features_of_the_real_conversations_have_one_row_a_turn():
    found = conversations("validation")
    n = sum(len(c.turns) for c in found)
    rng = np.random.default_rng(0)
    assert esc.features(found, rng.random((n, 5)), rng.random((n, 8))).shape == (n, len(esc.FEATURES))


def test_an_alarm_stays_raised():
    owner, _ = esc.turn_rows(TALKS)
    assert esc.by_conversation([0.1, 0.8, 0.2, 0.3, 0.0], owner).tolist() == [0.8, 0.3]


def test_eight_percent_of_the_negatives_is_a_quarter_of_precision():
    assert esc.precision_at(0.92, 0.08, 0.03) == pytest.approx(0.0276 / (0.0276 + 0.0776))
    rate = esc.false_rate_at(0.92, 0.92, 0.03)
    assert esc.precision_at(0.92, rate, 0.03) == pytest.approx(0.92)


def test_at_breakeven_alarms_cost_what_silence_costs():
    ratio = esc.breakeven(0.9, 0.1, 0.03)
    prices = esc.Prices(handoff=2.0, missed=2.0 * ratio)
    assert prices.expected(0.9, 0.1, 0.03) == pytest.approx(prices.expected(0.0, 0.0, 0.03))


def test_expected_cost_is_the_weighted_mean_of_the_single_costs():
    alarm, escalate = np.array([1, 1, 0, 0, 0]), np.array([1, 0, 1, 0, 0])
    prices = esc.Prices(3.0, 20.0)
    assert prices.of(alarm, escalate).tolist() == [3, 3, 20, 0, 0]
    assert prices.of(alarm, escalate).mean() == pytest.approx(prices.expected(1 / 2, 1 / 3, 2 / 5))


def test_thresholds_keep_their_promises_on_the_set_that_they_come_from():
    scores, escalate = np.array([0.9, 0.8, 0.6, 0.5, 0.3, 0.1]), np.array([1, 1, 0, 1, 0, 0], bool)
    assert 0.3 < esc.threshold_for_recall(scores, escalate, 1.0) < 0.5
    assert 0.6 < esc.threshold_for_false_rate(scores, escalate, 0.0) < 0.8
    dear, cheap = esc.Prices(1.0, 100.0), esc.Prices(1.0, 1.1)
    weights = np.ones(6)
    assert 0.3 < esc.cheapest_threshold(scores, escalate, weights, dear) < 0.5
    assert esc.cheapest_threshold(scores, escalate, weights, cheap) > 0.6
