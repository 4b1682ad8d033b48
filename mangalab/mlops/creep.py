"""A year of weekly releases: what a gate that compares with the last champion lets through."""

from dataclasses import dataclass

import numpy as np

POLICIES = ("champion", "champion + floor", "launch model", "lower end")


@dataclass(frozen=True)
class World:
    """How candidates come about and how well a gate sees them; all in points of accuracy.

    A candidate differs from the champion by ``drift`` on average, with standard deviation ``spread``.
    The gate measures that difference on ``n`` messages of which a share ``churn`` changes sides, so
    with standard error 100 sqrt(churn / n).
    """

    drift: float
    spread: float
    n: int
    churn: float

    @property
    def error(self) -> float:
        """Standard error of a measured difference, in points."""
        return 100 * float(np.sqrt(self.churn / self.n))


def year(
    world: World, policy: str, margin: float, below: float = 1.0, weeks: int = 52,
    trials: int = 2000, seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """True quality of the champion against its launch, (trials, weeks + 1), and passes a year.

    "champion": the measured difference to the current champion is at least -``margin``.
    "champion + floor": besides, the measured difference to the *launch* model is at least -``below``.
    "launch model": the measured difference to the launch model is at least -``margin``.
    "lower end": the lower end of the 95 % interval against the champion is above -``margin``.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy {policy!r}: choose one of {', '.join(POLICIES)}")
    rng = np.random.default_rng(seed)
    quality, passes = np.zeros((trials, weeks + 1)), np.zeros(trials)
    for week in range(weeks):
        now = quality[:, week]
        candidate = now + rng.normal(world.drift, world.spread, trials)
        step = candidate - now + rng.normal(0, world.error, trials)
        whole = candidate + rng.normal(0, world.error, trials)
        allowed = {
            "champion": step >= -margin,
            "champion + floor": (step >= -margin) & (whole >= -below),
            "launch model": whole >= -margin,
            "lower end": step - 1.96 * world.error > -margin,
        }[policy]
        quality[:, week + 1] = np.where(allowed, candidate, now)
        passes += allowed
    return quality, passes
