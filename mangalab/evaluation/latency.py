"""Time of one call, measured the way a single user meets it: one message, one thread."""

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Milliseconds of every timed call, in order."""

    milliseconds: np.ndarray

    def at(self, quantile: float) -> float:
        """Quantile in milliseconds: ``at(0.95)`` is the P95."""
        return float(np.quantile(self.milliseconds, quantile))


@contextmanager
def threads(count: int):
    """Run torch on ``count`` threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(call: Callable[[str], object], messages: Sequence[str], warm: int = 10) -> Latency:
    """Time ``call(message)`` for each message after ``warm`` untimed calls."""
    for message in messages[:warm]:
        call(message)
    found = np.empty(len(messages))
    for index, message in enumerate(messages):
        started = time.perf_counter()
        call(message)
        found[index] = 1000 * (time.perf_counter() - started)
    return Latency(found)
