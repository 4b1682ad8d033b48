"""Parts side by side: order, threads, nesting, gradients of halves."""

import threading

import pytest
import torch

from mangalab.training import parallel
from mangalab.training.parallel import side_by_side
from mangalab.training.preference import Part, accumulate


@pytest.fixture
def two(monkeypatch):
    """A pool of two workers on any machine."""
    pool = parallel.ThreadPoolExecutor(2, "part", parallel._enter)
    monkeypatch.setattr(parallel, "_pool", lambda: pool)
    yield
    pool.shutdown()


def test_parts_meet_and_come_back_in_order(two):
    gate = threading.Barrier(2, timeout=10)  # passes only if two parts run at once

    def compute(part):
        gate.wait()
        return part, torch.get_num_threads()

    assert side_by_side(compute, [3, 1]) == [(3, 1), (1, 1)]


def test_a_part_does_not_wait_for_its_own_pool(two):
    inner = lambda part: side_by_side(lambda x: 10 * part + x, [1, 2, 3])  # noqa: E731
    assert side_by_side(inner, [1, 2, 3, 4]) == [[10 * p + x for x in (1, 2, 3)] for p in (1, 2, 3, 4)]


def test_the_caller_keeps_its_threads(two):
    before = torch.get_num_threads()
    side_by_side(lambda part: part, [1, 2])
    assert torch.get_num_threads() == before
    assert side_by_side(lambda part: threading.current_thread(), [1]) == [threading.current_thread()]


def test_an_error_in_a_part_is_the_caller_s(two):
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda part: 1 / part, [1, 0])


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
