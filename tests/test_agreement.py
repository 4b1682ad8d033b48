"""Kappas equal scikit-learn's and a worked example; intervals and ceilings behave as they must."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from mangalab.evaluation import agreement

# 14 raters, 10 subjects, 5 categories: the worked example of the Wikipedia article on Fleiss' kappa
WORKED = """0 0 0 0 14
0 2 6 4 2
0 0 3 5 6
0 3 9 2 0
2 2 8 1 1
7 7 0 0 0
3 2 6 3 0
2 5 3 2 2
6 5 2 1 0
0 2 2 3 7"""


def marks(items=200, raters=3, labels=2, flips=0.1, seed=0):
    """Annotators who copy one truth and flip a share of it."""
    rng = np.random.default_rng(seed)
    truth = rng.random((items, 1, labels)) < 0.4
    return truth ^ (rng.random((items, raters, labels)) < flips)


def test_cohen_equals_scikit_learn_for_each_label():
    found = marks(raters=2, labels=4, flips=0.2)
    expected = [cohen_kappa_score(found[:, 0, j], found[:, 1, j]) for j in range(4)]
    assert agreement.cohen_kappa(found[:, 0], found[:, 1]) == pytest.approx(expected)


def test_cohen_is_one_for_copies_zero_for_constants_and_nan_without_choice():
    x = np.array([[1, 1], [0, 1], [1, 1], [0, 1]])
    kappa = agreement.cohen_kappa(x, x)
    assert kappa[0] == 1 and np.isnan(kappa[1])
    assert agreement.cohen_kappa(x[:, :1], np.ones((4, 1)))[0] == pytest.approx(0)


def test_pairs_come_in_the_stated_order():
    found = marks(raters=3)
    pairs = agreement.pairwise_kappa(found)
    assert pairs.shape == (3, 2)
    assert pairs[2] == pytest.approx(agreement.cohen_kappa(found[:, 1], found[:, 2]))


def test_fleiss_equals_the_worked_example():
    table = np.array([row.split() for row in WORKED.split("\n")], int)
    assert agreement.fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_of_each_label_is_that_of_its_two_column_table():
    found = marks(raters=5, labels=3)
    yes = found.sum(axis=1)
    for j, kappa in enumerate(agreement.fleiss_kappas(found, resamples=10)):
        assert kappa.value == pytest.approx(agreement.fleiss_kappa(np.c_[yes[:, j], 5 - yes[:, j]]))


def test_the_interval_holds_the_value_and_narrows_with_items():
    few, many = (agreement.fleiss_kappas(marks(n), resamples=300)[0] for n in (60, 960))
    assert few.low < few.value < few.high
    assert (many.high - many.low) < 0.5 * (few.high - few.low)
    assert few == agreement.fleiss_kappas(marks(60), resamples=300)[0]


def test_the_interval_covers_the_value_of_the_population():
    population = agreement.fleiss_kappas(marks(50_000, labels=1), resamples=2)[0].value
    covered = [
        k.low <= population <= k.high
        for seed in range(60)
        for k in agreement.fleiss_kappas(marks(150, labels=1, seed=seed + 1), resamples=200)
    ]
    assert 0.85 <= np.mean(covered) <= 1


def test_more_noise_lowers_agreement_and_the_ceiling():
    rng = np.random.default_rng(0)
    truth = rng.random((400, 3)) < 0.3
    ceilings = [
        agreement.label_ceiling(truth, noisy, agreement.exact_match, 50)
        for noisy in (truth ^ (rng.random(truth.shape) < flips) for flips in (0, 0.1, 0.3))
    ]
    assert ceilings[0].value == 1
    assert ceilings[1].value == pytest.approx(0.9**3, abs=0.06)
    assert ceilings[2].value < ceilings[1].low


def test_the_ceiling_takes_the_noisy_labels_as_the_truth():
    truth, noisy = np.array([1, 1, 1, 0, 0]), np.array([1, 0, 0, 0, 0])
    found = agreement.label_ceiling(truth, noisy, lambda y, p: (y & p).sum() / max(p.sum(), 1), 5)
    assert found.value == pytest.approx(1 / 3)  # the precision of the truth
    score = agreement.label_ceiling(truth, noisy, f1_score, 5).value
    assert score == pytest.approx(f1_score(noisy, truth))


@pytest.mark.parametrize("table", [[[2, 1], [3, 1]], [[1, 0], [0, 1]], [3, 0], np.empty((0, 2))])
def test_a_table_without_equal_pairs_of_annotators_is_refused(table):
    with pytest.raises(ValueError, match="add up to the same number"):
        agreement.fleiss_kappa(table)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="at least 2 annotators"):
        agreement.fleiss_kappas(np.ones((5, 1, 2)))
    with pytest.raises(ValueError, match="twice"):
        agreement.cohen_kappa(np.ones((5, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="same shape"):
        agreement.label_ceiling(np.ones(4), np.ones(5), f1_score)
