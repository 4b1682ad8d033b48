"""Times in pairs and intervals of quantiles: against exact ranks, simulation and a planted drift."""

import time

import numpy as np
import pytest
from scipy.stats import binom

from mangalab import claims
from mangalab.evaluation.latency import Latency, paired_times, quantile_interval, time_ratio


def test_interval_of_a_median_by_hand():
    found = quantile_interval(list(range(1, 13)), 0.5)  # n = 12: ranks 3 and 10 (David & Nagaraja)
    assert (found.low, found.value, found.high, found.n) == (3, 6.5, 10, 12)


@pytest.mark.parametrize(("n", "q"), [(12, 0.5), (150, 0.95), (60, 0.9)])
def test_quantile_interval_covers_at_least_95_percent_by_the_binomial(n, q):
    found = quantile_interval(np.arange(1, n + 1), q)
    low, high = int(found.low), int(found.high)
    assert binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q) >= 0.95
    # and no rank is given away: one step inwards loses an end
    assert binom.cdf(high - 2, n, q) < 0.975 and binom.cdf(low, n, q) > 0.025


def test_quantile_interval_covers_in_simulation():
    rng, truth = np.random.default_rng(0), float(np.exp(1.6448536))  # lognormal, P95
    found = [quantile_interval(rng.lognormal(size=150), 0.95) for _ in range(400)]
    assert np.mean([i.low <= truth <= i.high for i in found]) > 0.93


def test_too_few_values_leave_an_end_open_and_decide_nothing():
    found = quantile_interval(np.full(12, 3.0), 0.95)
    assert found.high == np.inf
    assert claims.judge(15, found.value, found.low, found.high, "at_most") == "inconclusive"
    with pytest.raises(ValueError, match="0 values"):
        quantile_interval([], 0.5)


def test_blocks_alternate_and_warm_up():
    seen = []
    calls = {name: (lambda item, name=name: seen.append(f"{name}{item}")) for name in "ab"}
    found = paired_times(calls, [1, 2, 3], block=2)
    assert seen == ["a1", "a1", "a2", "b1", "b1", "b2", "b3", "b3", "a3", "a3"]
    assert {name: len(t.milliseconds) for name, t in found.items()} == {"a": 3, "b": 3}
    with pytest.raises(ValueError, match="1 calls"):
        paired_times({"a": print}, [1])


def test_a_machine_that_slows_down_does_not_move_the_ratio(monkeypatch):
    clock = [0.0]

    def work(cost):
        clock[0] += cost * (1 + clock[0] / 50)  # slower and slower

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    calls = {"twice": lambda _: work(2.0), "once": lambda _: work(1.0)}
    found = paired_times(calls, range(24), block=1)
    fair = time_ratio(found["twice"], found["once"])
    assert fair.low <= 2 <= fair.high and fair.high - fair.low < 0.6
    late = Latency(found["once"].milliseconds[12:]), Latency(found["once"].milliseconds[:12])
    assert time_ratio(*late).low > 1.5  # what timing one after the other would have shown


def test_ratio_needs_pairs():
    with pytest.raises(ValueError, match="no pairs"):
        time_ratio(Latency(np.ones(3)), Latency(np.ones(4)))
