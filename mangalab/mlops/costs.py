"""What training costs: jobs by the month, and what interruptions add."""

from dataclasses import dataclass
from math import sqrt

WEEKS = 52 / 12  # a month


@dataclass(frozen=True)
class Job:
    """A model that is trained ``runs`` times a month: ``hours`` on ``devices`` at ``price`` an hour."""

    name: str
    runs: float
    hours: float
    devices: int
    price: float

    @property
    def device_hours(self) -> float:
        """Device-hours a month."""
        return self.runs * self.hours * self.devices

    @property
    def dollars(self) -> float:
        """Dollars a month."""
        return self.device_hours * self.price


def best_interval(save: float, rate: float) -> float:
    """Time between checkpoints that loses least, sqrt(2 save / rate) (Young 1974), in hours.

    ``save`` hours a checkpoint takes, ``rate`` interruptions an hour.
    """
    if save <= 0 or rate <= 0:
        raise ValueError(f"save={save}, rate={rate}: both must be above 0")
    return sqrt(2 * save / rate)


def overhead(interval: float, save: float, restart: float, rate: float) -> float:
    """Share of time that checkpoints, lost work and restarts add to a run, to first order.

    Each interruption loses half an ``interval`` on average and a ``restart``; all in hours.
    """
    return save / interval + rate * (interval / 2 + restart)


def break_even(discount: float, save: float, restart: float) -> float:
    """Interruptions an hour at which spot costs as much as on-demand, at the best interval.

    Spot is cheaper while (1 - discount)(1 + overhead) < 1, where the overhead at Young's interval is
    sqrt(2 save rate) + rate restart.
    """
    most = 1 / (1 - discount) - 1
    if restart == 0:
        return most**2 / (2 * save)
    root = (-sqrt(2 * save) + sqrt(2 * save + 4 * restart * most)) / (2 * restart)
    return root**2
