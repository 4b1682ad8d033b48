"""Intervals against known values, SciPy and simulation; the words they allow; their errors."""

import numpy as np
import pytest
from scipy import stats

from mangalab.evaluation.intervals import (
    Difference,
    Interval,
    bootstrap,
    bootstrap_over_runs,
    mcnemar,
    mean_interval,
    paired_bootstrap,
    seed_difference,
    verdict,
    wilson,
)


def _wilson_by_hand(k, n, z=1.959963984540054):
    p = k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 7), (81, 263), (15, 148), (10, 10)])
def test_wilson_by_hand(k, n):
    found = wilson(k, n)
    assert (found.value, found.n) == (k / n, n)
    assert (found.low, found.high) == pytest.approx(_wilson_by_hand(k, n), abs=1e-12)


def test_wilson_published_examples():
    # Newcombe (1998), table I, method 3
    assert [round(v, 4) for v in (wilson(81, 263).low, wilson(81, 263).high)] == [0.2553, 0.3662]
    assert [round(v, 4) for v in (wilson(15, 148).low, wilson(15, 148).high)] == [0.0624, 0.1605]
    assert [round(v, 4) for v in (wilson(0, 20).low, wilson(0, 20).high)] == [0, 0.1611]


def test_t_interval_by_hand():
    found = mean_interval([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.302653, standard error 1 / sqrt(3)
    assert found.value == 2 and found.n == 3
    assert found.high - 2 == pytest.approx(4.302653 / np.sqrt(3), abs=1e-6)
    assert np.isnan(mean_interval([1.0]).low)


def test_seed_difference_is_the_paired_t_test():
    a, b = [0.61, 0.64, 0.60, 0.66], [0.58, 0.60, 0.59, 0.61]
    found, test = seed_difference(a, b), stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((test.low, test.high), abs=1e-12)


def _coverage(interval, truth, trials=400):
    inside = 0
    for trial in range(trials):
        found = interval(np.random.default_rng(1000 + trial), trial)
        inside += found.low <= truth <= found.high
    return inside / trials


def test_paired_bootstrap_covers_by_simulation():
    def once(rng, trial):
        a = rng.random(80) < 0.7
        b = np.where(rng.random(80) < 0.6, a, rng.random(80) < 0.5)  # right together, mostly
        return paired_bootstrap(a, b, seed=trial, resamples=1000)

    truth = 0.7 - (0.6 * 0.7 + 0.4 * 0.5)
    assert 0.92 <= _coverage(once, truth) <= 0.975


def test_bootstrap_over_runs_covers_both_kinds_of_variation():
    def once(rng, trial):
        runs, examples = rng.normal(0, 0.3, (12, 1)), rng.normal(0, 1, (1, 60))
        noise = rng.normal(0, 0.5, (12, 60))
        return bootstrap_over_runs(0.2 + runs + examples + noise, np.zeros((12, 60)), trial, 300)

    assert 0.91 <= _coverage(once, 0.2, 200) <= 0.99


def test_paired_bootstrap_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 60), rng.normal(0, 1, 60)
    found = paired_bootstrap(a, b)
    other = stats.bootstrap((a - b,), np.mean, method="percentile", rng=1).confidence_interval
    assert found.value == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx(tuple(other), abs=0.02)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, 200)
    b = a + rng.normal(0.1, 0.1, 200)
    paired, loose = paired_bootstrap(a, b), bootstrap(a)
    assert paired.high - paired.low < 0.2 * (loose.high - loose.low)


def test_bootstrap_takes_any_statistic_and_repeats_itself():
    x = np.random.default_rng(0).exponential(1, 300)
    first, again = (bootstrap(x, np.median, seed=3, resamples=500) for _ in range(2))
    assert first == again and first.value == np.median(x)
    other = stats.bootstrap((x,), np.median, n_resamples=2000, method="percentile", rng=1)
    low, high = other.confidence_interval
    assert (first.low, first.high) == pytest.approx((low, high), abs=0.03)
    assert bootstrap(x, seed=4) != bootstrap(x, seed=5)


def test_mcnemar_against_the_binomial_tail():
    a = [True] * 9 + [False] * 1 + [True] * 20 + [False] * 5
    b = [False] * 9 + [True] * 1 + [True] * 20 + [False] * 5
    only_a, only_b, p = mcnemar(a, b)
    assert (only_a, only_b) == (9, 1)
    assert p == pytest.approx(2 * stats.binom.cdf(1, 10, 0.5), abs=1e-12)  # 0.0215
    assert mcnemar([True, False], [True, False]) == (0, 0, 1.0)


def test_words():
    assert verdict(0.1, 0.3) == "better" and verdict(-0.3, -0.1) == "worse"
    assert verdict(0.1, 0.3, higher_is_better=False) == "worse"
    assert verdict(-0.3, -0.1, higher_is_better=False) == "better"
    assert verdict(-0.1, 0.1) == verdict(0.0, 0.1) == "no difference shown"
    assert verdict(np.nan, np.nan) == "no difference shown"


def test_text_of_an_interval():
    found = Interval(0.5, 0.25, 0.75, 4, "t")
    assert f"{found:.1%}" == "50.0% [25.0%, 75.0%]" and f"{found}" == "0.5 [0.25, 0.75]"
    assert Difference(0.5, 0.25, 0.75, 4, "t", word="better").word == "better"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: wilson(5, 3), "5 successes of 3"),
        (lambda: wilson(0, 0), "n > 0"),
        (lambda: mean_interval([]), "non-empty list"),
        (lambda: mean_interval([1.0, np.nan]), "finite"),
        (lambda: seed_difference([1, 2], [1]), "2 and 1 runs"),
        (lambda: seed_difference([1], [2]), "at least 2"),
        (lambda: paired_bootstrap([1, 2], [1, 2, 3]), "same examples"),
        (lambda: bootstrap([1]), "1 observations"),
        (lambda: bootstrap_over_runs([[1, 2]], [[1, 2]]), r"shape \(1, 2\)"),
        (lambda: mcnemar([True], [True, False]), "same examples"),
    ],
)
def test_errors_name_the_value_and_the_need(call, says):
    with pytest.raises(ValueError, match=says):
        call()
