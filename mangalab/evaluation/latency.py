"""Time of one call, measured the way a single user meets it: one message, one thread."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from .intervals import CONFIDENCE, Interval


@dataclass(frozen=True)
class Latency:
    """Milliseconds of every timed call, in order."""

    milliseconds: np.ndarray

    def at(self, quantile: float) -> float:
        """Quantile in milliseconds: ``at(0.95)`` is the P95."""
        return float(np.quantile(self.milliseconds, quantile))

    def interval(self, quantile: float) -> Interval:
        """The same with its interval; see :func:`quantile_interval`."""
        return quantile_interval(self.milliseconds, quantile)


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


def _clock() -> float:
    """Seconds, once the GPU (if one is in use) has done what it was given."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(call: Callable[[str], object], messages: Sequence[str], warm: int = 10) -> Latency:
    """Time ``call(message)`` for each message after ``warm`` untimed calls."""
    for message in messages[:warm]:
        call(message)
    found = np.empty(len(messages))
    for index, message in enumerate(messages):
        started = _clock()
        call(message)
        found[index] = 1000 * (_clock() - started)
    return Latency(found)


def paired_times(
    calls: Mapping[str, Callable[[object], object]], items: Sequence, block: int = 5
) -> dict[str, Latency]:
    """Time every call on every item in short alternating blocks, so that all meet the same machine.

    Within a block of ``block`` items each call first runs untimed on the block's first item (its
    weights come back into the cache); the order of the calls rotates from block to block.
    """
    if len(calls) < 2 or not len(items) or block < 1:
        raise ValueError(f"paired_times: {len(calls)} calls, {len(items)} items, block {block}")
    names, found = list(calls), {name: [] for name in calls}
    for number, start in enumerate(range(0, len(items), block)):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            calls[name](items[start])
            for item in items[start : start + block]:
                before = _clock()
                calls[name](item)
                found[name].append(1000 * (_clock() - before))
    return {name: Latency(np.array(times)) for name, times in found.items()}


def time_ratio(a: Latency, b: Latency) -> Interval:
    """Median over pairs of time of ``a`` over time of ``b``; a stray pause moves neither end far."""
    if len(a.milliseconds) != len(b.milliseconds):
        raise ValueError(f"time_ratio: {len(a.milliseconds)} and {len(b.milliseconds)} times, no pairs")
    return quantile_interval(a.milliseconds / b.milliseconds, 0.5)


def quantile_interval(values: Sequence[float], quantile: float) -> Interval:
    """Quantile with the interval of its order statistics: no assumption on the distribution.

    Between two order statistics whose ranks follow from the binomial distribution (David and
    Nagaraja 2003, section 7.1). Too few values for an end leave that end infinite.
    """
    from scipy.stats import binom

    x = np.sort(np.asarray(values, float))
    if not len(x) or not np.isfinite(x).all() or not 0 < quantile < 1:
        raise ValueError(f"quantile_interval: {len(x)} values, quantile {quantile}")
    tail = (1 - CONFIDENCE) / 2
    low, high = (int(binom.ppf(p, len(x), quantile)) for p in (tail, 1 - tail))
    return Interval(
        float(np.quantile(x, quantile)), float(x[low - 1]) if low else -np.inf,
        float(x[high]) if high < len(x) else np.inf, len(x), "order statistics")
