"""The learning-rate range test (Smith 2017): raise the rate every step and watch the loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sweep:
    """Rates (steps,), the raw loss at each and its bias-corrected exponential mean."""

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray

    @property
    def steepest(self) -> float:
        """Rate where the smoothed loss falls fastest against log rate."""
        stop = max(2, int(self.smooth.argmin()))
        slope = np.gradient(self.smooth[: stop + 1], np.log(self.rates[: stop + 1]))
        return float(self.rates[int(slope.argmin())])

    @property
    def valley(self) -> float:
        """A tenth of the rate with the lowest smoothed loss."""
        return float(self.rates[int(self.smooth.argmin())] / 10)

    def spike(self, rise: float = 0.25) -> float:
        """First rate after the minimum whose smoothed loss lies ``rise`` of the fall above it.

        The largest rate of the sweep if the loss never rises that far.
        """
        least = int(self.smooth.argmin())
        limit = self.smooth[least] + rise * (self.smooth[0] - self.smooth[least])
        above = np.flatnonzero(self.smooth[least:] > limit)
        return float(self.rates[least + above[0]] if len(above) else self.rates[-1])


def smoothed(losses: Sequence[float], beta: float = 0.9) -> np.ndarray:
    """Exponential mean with the bias of its start divided out (as Adam does)."""
    found, mean = [], 0.0
    for step, value in enumerate(losses, start=1):
        mean = beta * mean + (1 - beta) * value
        found.append(mean / (1 - beta**step))
    return np.array(found)


def range_test(
    step: Callable[[float], float], low: float, high: float, steps: int, beta: float = 0.9
) -> Sweep:
    """Call ``step(rate)`` with rates from ``low`` to ``high`` on a log grid; it trains, returns a loss.

    Stops early once the loss is no number or ten times the first.
    """
    if not 0 < low < high or steps < 3:
        raise ValueError(f"low={low}, high={high}, steps={steps}: need 0 < low < high and steps >= 3")
    rates, losses = np.geomspace(low, high, steps), []
    for rate in rates:
        value = float(step(float(rate)))
        if not np.isfinite(value) or (losses and value > 10 * losses[0]):
            break
        losses.append(value)
    if len(losses) < 3:
        raise ValueError(f"the loss left all bounds at the third rate, {rates[2]:.1e}: start lower")
    kept = np.array(losses)
    return Sweep(rates[: len(kept)], kept, smoothed(kept, beta))
