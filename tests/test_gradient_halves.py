"""Gradients of the halves of a batch, side by side."""

import pytest
import torch

from mangalab.training import parallel
from mangalab.training.preference import Part, accumulate


@pytest.fixture
def two(monkeypatch):
    """A pool of two workers on any machine."""
    pool = parallel.ThreadPoolExecutor(2, "part", parallel._enter)
    monkeypatch.setattr(parallel, "_pool", lambda: pool)
    yield
    pool.shutdown()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_gradients_of_halves_are_those_of_the_batch(two, size):
    draw = torch.Generator().manual_seed(0)
    x, labels = torch.randn(5, 3, generator=draw), [1, 4, 2, 2, 3]  # terms of each row
    weight = torch.randn(3, generator=draw).requires_grad_()

    def step(rows):
        terms = torch.cat([(x[row] @ weight).tanh().repeat(labels[row]) for row in rows])
        return Part(terms.sum(), len(terms), x[rows, 0])

    parts = accumulate(step, list(range(size)), [weight])
    found, weight.grad = weight.grad, None
    whole = step(list(range(size)))
    (whole.loss / whole.count).backward()
    assert torch.allclose(found, weight.grad, atol=1e-6)
    assert sum(part.count for part in parts) == whole.count
    assert sum(part.loss for part in parts).item() == pytest.approx(whole.loss.item(), rel=1e-5)
    assert not any(part.loss.requires_grad for part in parts)


def test_gradients_lie_in_memory_as_their_weights_do(two):
    """The fused AdamW reads memory, not strides: a transposed gradient would step elsewhere."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, generator=draw).requires_grad_()
    x = torch.randn(5, 4, generator=draw)

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x)
            return x @ weight.T

        @staticmethod
        def backward(ctx, dy):
            return None, (ctx.saved_tensors[0].T @ dy).T  # strides of a transposed matrix

    step = lambda rows: Part(Product.apply(x[rows], weight).sum(), len(rows))  # noqa: E731
    accumulate(step, [0, 1, 2, 3], [weight])
    assert weight.grad.stride() == weight.stride()
    assert torch.allclose(weight.grad, x[:4].mean(0).expand(3, 4))
