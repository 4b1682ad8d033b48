"""Out-of-taxonomy scores by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mangalab.evaluation import ood


def test_auroc_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 80), rng.integers(0, 5, 50)
    expected = roc_auc_score([1] * 80 + [0] * 50, np.concatenate([a, b]))
    assert ood.auroc(a, b) == pytest.approx(expected)
    assert ood.auroc(np.array([2.0, 3]), np.array([0.0, 1])) == 1


def test_threshold_keeps_the_asked_share():
    inside = np.arange(100.0)
    assert ood.threshold_at(inside, 0.95) == 5
    assert (inside >= ood.threshold_at(inside, 0.95)).mean() == 0.95
    assert ood.fpr_at_tpr(inside, np.array([4.0, 5, 6, 7]), 0.95) == 0.75


def test_scores_are_higher_for_known_messages():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 60)
    means = 6 * np.eye(3, 8)
    known, new = (means[labels] + rng.normal(0, 1, (180, 8)) for _ in range(2))
    strange = rng.normal(0, 1, (100, 8)) - 4
    for score in (lambda x: ood.nearest(x, known), lambda x: ood.mahalanobis(x, known, labels)):
        assert ood.auroc(score(new), score(strange)) > 0.95
    logits, flat = 5 * np.eye(3)[labels], np.zeros((100, 3))
    assert ood.auroc(ood.max_softmax(logits), ood.max_softmax(flat)) == 1
    assert ood.auroc(ood.energy(logits), ood.energy(flat)) == 1


def test_energy_and_nearest_by_hand():
    assert ood.energy(np.array([[0.0, 0.0]]))[0] == pytest.approx(np.log(2))
    known = np.array([[1.0, 0], [0, 1], [-1, 0]])
    assert ood.nearest(np.array([[2.0, 0]]), known, k=1)[0] == pytest.approx(1)
    assert ood.nearest(np.array([[2.0, 0]]), known, k=2)[0] == pytest.approx(0)


def test_mahalanobis_by_hand():
    # one class, unit covariance up to shrinkage: farther means lower, by the square
    rng = np.random.default_rng(1)
    known = rng.normal(0, 1, (4000, 3))
    near, far = ood.mahalanobis(np.array([[1.0, 0, 0], [3.0, 0, 0]]), known, np.zeros(4000, int))
    assert far / near == pytest.approx(9, rel=0.1)


def test_bootstrap_interval_holds_the_value():
    rng = np.random.default_rng(0)
    found = ood.two_sample(ood.auroc, rng.normal(1, 1, 200), rng.normal(0, 1, 150))
    assert found.low < found.value < found.high
    assert found.n == 350
