"""Products with matrices that are laid out once are as exact as plain products."""

import pytest
import torch

from mangalab.training.frozen import ROWS, Frozen, Unpacked, lay_out

lean = pytest.mark.skipif(
    lay_out(torch.zeros(64, 64, dtype=torch.bfloat16)) is None,
    reason="this torch or processor has no bfloat16 kernel to lay matrices out for")


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def errors(x, W):
    """Largest error of the product with the matrix laid out and of the plain one, in rounding steps."""
    exact = x.double() @ W.double().T
    small = 1e-3 * x.double().norm(dim=1, keepdim=True) * W.double().norm(dim=1)
    step = 2.0**-8 * (exact.abs() + small)
    both = Frozen(W).times(x), x @ W.T
    return [((y.double() - exact).abs() / step).max().item() for y in both]


@lean
@pytest.mark.parametrize("rows", [1, 3, 64, 129, 400, ROWS, ROWS + 1])
@pytest.mark.parametrize("shape", [(960, 576), (576, 1536), (3072, 576)])
def test_errors_are_those_of_the_plain_product(rows, shape):
    laid, plain = errors(drawn(rows, shape[1], seed=1), drawn(*shape))
    assert laid <= max(1.0, 1.05 * plain)


@lean
def test_repeats_to_the_bit():
    one, x = Frozen(drawn(576, 1536)), drawn(400, 1536, seed=1)
    first = one.times(x)
    assert all(torch.equal(one.times(x), first) for _ in range(3))
    assert torch.equal(Frozen(drawn(576, 1536)).times(x), first)


@lean
def test_rows_need_not_lie_together():
    W, x = drawn(48, 32), drawn(20, 64, seed=1)
    for part in (x[:, ::2], x[::3, :32], x[:1, :32].expand(5, 32), x[:0, :32]):
        assert torch.equal(Frozen(W).times(part), Frozen(W).times(part.clone()))


def test_other_precisions_and_devices_are_left_alone():
    W, x = torch.randn(8, 4), torch.randn(3, 4)
    assert lay_out(W) is None and torch.equal(Frozen(W).times(x), x @ W.T)
    assert lay_out(torch.zeros(8, 4, dtype=torch.bfloat16, device="meta")) is None


def test_an_unpacked_matrix_is_made_for_each_product():
    made = []
    W, x = torch.randn(8, 4), torch.randn(3, 4)
    one = Unpacked(lambda: made.append(1) or W)
    assert torch.equal(one.times(x), x @ W.T) and one.weight is W and len(made) == 2
