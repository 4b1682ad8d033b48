"""Losses, thresholds and contradictions of a model with several yes-or-no answers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mangalab.evaluation import multilabel as sets
from mangalab.training.multilabel import binary_focal_loss, positive_weights


def noisy(n=300, labels=3, seed=0):
    """Truth and probabilities of a mediocre model."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, labels)) < (0.1, 0.3, 0.5)
    return y, 1 / (1 + np.exp(-(2 * y - 1.5 + rng.normal(0, 1, (n, labels)))))


def test_focal_loss_is_cross_entropy_at_zero_and_the_written_formula_at_two():
    z = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = (torch.arange(120).view(40, 3) % 3 == 0).double()
    torch.testing.assert_close(binary_focal_loss(z, t, 0.0), F.binary_cross_entropy_with_logits(z, t))
    p = torch.where(t == 1, z.sigmoid(), 1 - z.sigmoid())
    torch.testing.assert_close(binary_focal_loss(z, t, 2.0), (-((1 - p) ** 2) * p.log()).mean())


def test_focal_loss_has_a_finite_slope_at_certainty():
    z = torch.tensor([[60.0, -60.0]], requires_grad=True)
    binary_focal_loss(z, torch.tensor([[1.0, 0.0]]), 0.5).backward()
    assert torch.isfinite(z.grad).all()
    with pytest.raises(ValueError, match="gamma"):
        binary_focal_loss(z, z, -1.0)


def test_positive_weights_make_both_answers_weigh_the_same():
    t = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    w = positive_weights(t)
    assert torch.equal(w * t.sum(0), (1 - t).sum(0))
    assert torch.equal(positive_weights(t, 0.0), torch.ones(2))
    with pytest.raises(ValueError, match="labels \\[1\\]"):
        positive_weights(t * torch.tensor([1.0, 0.0]))


def test_neutral_is_the_absence_of_all_others_and_never_contradicts():
    marks = sets.with_neutral([[1, 0], [0, 0], [1, 1]])
    assert marks.tolist() == [[True, False, False], [False, False, True], [True, True, False]]
    assert not np.any(sets.contradictions(marks))


def test_contradictions_of_an_independent_neutral():
    both, none = sets.contradictions([[1, 0, 1], [0, 0, 0], [0, 0, 1], [1, 0, 0]])
    assert both.tolist() == [True, False, False, False] and none.tolist() == [False, True, False, False]


def test_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    y, p = noisy()
    expected = f1_score(y, p > 0.4, average=None)
    np.testing.assert_allclose(sets.label_f1(y, p > 0.4), expected)
    np.testing.assert_allclose(sets.f1_table(y, p, [0.4, 0.6])[0], expected)


def test_label_that_is_never_there_has_f1_zero():
    assert sets.label_f1([[0], [0]], [[0], [0]]).tolist() == [0.0]


def test_six_thresholds_are_at_least_as_good_as_one_where_they_were_tuned():
    y, p = noisy()
    one, each = sets.tune_one(y, p), sets.tune_each(y, p)
    assert len(set(one)) == 1 and len(each) == 3
    assert sets.label_f1(y, p > each).mean() >= sets.label_f1(y, p > one).mean()


def test_tie_goes_to_the_threshold_nearest_one_half():
    assert sets.tune_each([[1], [0]], [[0.9], [0.1]])[0] == 0.5


def test_optimism_is_zero_without_tuning_and_grows_with_the_freedom():
    y, p = noisy(120)
    none = sets.optimism(y, p, lambda y, p: np.full(3, 0.5), 300)
    one, each = (sets.optimism(y, p, tune, 300) for tune in (sets.tune_one, sets.tune_each))
    assert none.low <= 0.005 and none.value < one.value < each.value
