"""GPTQ's compensation against least squares by brute force; rescalings that must change nothing."""

import pytest
import torch

from mangalab.training.calibrated import awq, gptq, output_error, round_to_nearest, smooth_factors
from mangalab.training.fakequant import Spec

GROUP8 = Spec(3, "group", symmetric=False, group=8)


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, generator=g)
    x = torch.randn(400, 16, generator=g) @ mix  # correlated inputs: there is something to compensate
    return torch.randn(6, 16, generator=g), x, x.T @ x / len(x)


def test_first_compensation_is_the_least_squares_answer(data):
    """After column 0 is rounded, the other columns are the best possible real ones."""
    weight, x, moments = data
    spec = Spec(3, "group", symmetric=False, group=16)
    grid = spec.fit(weight)
    first = grid.values(spec.cut(weight))[:, 0, 0]
    missing = (weight[:, 0] - first)[:, None] * x[:, 0]  # (out, tokens): what column 0 no longer gives
    best = torch.linalg.lstsq(x[:, 1:].double(), missing.T.double()).solution.T.float()
    upper = torch.linalg.cholesky(torch.linalg.inv(moments.double()), upper=True).float()
    ours = -((weight[:, 0] - first) / upper[0, 0])[:, None] * upper[0, 1:]
    torch.testing.assert_close(ours, best, atol=1e-3, rtol=1e-3)


def test_gptq_lies_on_a_grid_and_beats_rounding(data):
    weight, _, moments = data
    found = gptq(weight, moments, GROUP8, damp=1e-4)
    for row in found.view(6, 2, 8).flatten(0, 1):
        assert len(row.unique()) <= 8
    plain = round_to_nearest(weight, GROUP8)
    assert output_error(weight, found, moments) < 0.8 * output_error(weight, plain, moments)


def test_without_correlation_gptq_is_rounding(data):
    weight = data[0]
    torch.testing.assert_close(
        gptq(weight, torch.eye(16), GROUP8, damp=0.0), round_to_nearest(weight, GROUP8))


def test_output_error_is_that_of_the_products(data):
    weight, x, moments = data
    rounded = round_to_nearest(weight, GROUP8)
    direct = (x @ (rounded - weight).T).square().sum() / (x @ weight.T).square().sum()
    assert output_error(weight, rounded, moments) == pytest.approx(float(direct), rel=1e-4)


def test_awq_never_loses_to_rounding_on_its_own_moments_and_wins_with_an_outlier(data):
    weight, x, _ = data
    x = x.clone()
    x[:, 5] *= 30
    moments = x.T @ x / len(x)
    found, alpha = awq(weight, moments, x.abs().mean(0), GROUP8)
    assert output_error(weight, found, moments) < output_error(
        weight, round_to_nearest(weight, GROUP8), moments)
    assert alpha > 0
    same, zero = awq(weight, moments, x.abs().mean(0), GROUP8, alphas=(0.0,))
    assert zero == 0 and torch.equal(same, round_to_nearest(weight, GROUP8))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_smoothing_leaves_the_product_and_flattens_the_inputs(data, alpha):
    weight, x, _ = data
    x = x.clone()
    x[:, 5] *= 100
    s = smooth_factors(weight, x.abs().amax(0), alpha)
    torch.testing.assert_close((x / s) @ (weight * s).T, x @ weight.T, rtol=1e-4, atol=1e-2)
    spread = [(v.abs().amax(0).max() / v.abs().amax(0).median()) for v in (x, x / s)]
    assert spread[1] < spread[0] or alpha == 0.0


def test_gptq_wants_groups(data):
    with pytest.raises(ValueError, match="per channel"):
        gptq(data[0], data[2], Spec(3, "channel"))
