"""Cost per quality point with one definition, shrunken gains, and roadmaps by Monte Carlo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from ..data._files import read_text

Z = 1.959964  # half a 95 % interval in standard errors


@dataclass(frozen=True)
class Intervention:
    """A change that a chapter has tried: its measured gain and its assumed cost.

    ``gain`` is in points (hundredths) of ``metric``, positive where better, with ``low`` and
    ``high`` of its 95 % interval; ``once`` and ``monthly`` are dollars.
    """

    id: str
    name: str
    failure: str
    rung: int
    chapter: str
    comparison: str
    metric: str
    unit: str  # "share": a point is one message in a hundred; "index": a ranking score or a loss
    gain: float
    low: float
    high: float
    n: int
    once: float
    monthly: float
    slot: str  # of two interventions with one slot, a roadmap takes one

    @property
    def error(self) -> float:
        """Standard error of the gain, from the width of its interval."""
        return max((self.high - self.low) / (2 * Z), 1e-6)

    def cost(self, months: int) -> float:
        """Dollars over a period: what is paid once plus what is paid each month."""
        return self.once + months * self.monthly


@dataclass(frozen=True)
class PerPoint:
    """Dollars per point over a period; ``high`` is None where the gain may be zero."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None:
            return "no price: the whole interval is at or below zero"
        if self.high is None:
            return f"at least ${self.low:,.0f}"
        return f"${self.value:,.0f} [${self.low:,.0f}, ${self.high:,.0f}]"


def per_point(cost: float, gain: float, low: float, high: float) -> PerPoint:
    """Cost per quality point: ``cost`` over a stated period / points gained, with its interval.

    The interval maps that of the gain through cost / gain (Fieller, 1954, for a cost without
    error). Where it reaches zero the price has no upper end, and a point estimate would mislead.
    """
    if cost < 0 or not low <= gain <= high:
        said = f"cost {cost}, gain {gain} in [{low}, {high}]"
        raise ValueError(f"per_point: {said}; need cost >= 0 and low <= gain <= high")
    if high <= 0:
        return PerPoint(None, None, None)
    if low <= 0:
        return PerPoint(None, cost / high, None)
    return PerPoint(cost / gain, cost / high, cost / low)


def plan() -> dict:
    """Prices, failures and interventions as `interventions.yml` states them."""
    return yaml.safe_load(read_text("interventions.yml"))


def interventions(
    records: Mapping[str, Mapping], stated: Mapping
) -> tuple[list[Intervention], list[str]]:
    """Each stated intervention with the gain of its comparison; and names of those without one."""
    found, absent = [], []
    for entry in stated["interventions"]:
        known = {c["id"]: c for c in records.get(entry["chapter"], {}).get("comparisons", [])}
        if entry["comparison"] in known:
            found.append(_priced(entry, known[entry["comparison"]], stated["prices"]))
        else:
            absent.append(f"{entry['id']} ({entry['chapter'][:2]}: {entry['comparison']})")
    return found, absent


def _priced(entry: Mapping, compared: Mapping, prices: Mapping[str, float]) -> Intervention:
    sign = -100.0 if entry.get("reverse") else 100.0
    ends = sorted((sign * compared["low"], sign * compared["high"]))
    work = entry["work"]
    once = sum(work.get(kind, 0) * prices[kind] for kind in ("engineer_days", "labels", "gpu_hours"))
    stated = {key: entry[key] for key in ("id", "name", "failure", "rung", "chapter", "comparison")}
    return Intervention(
        **stated, metric=compared["metric"], unit=entry.get("unit", "share"), n=compared["n"],
        gain=sign * compared["difference"], low=ends[0], high=ends[1], once=once,
        monthly=float(work.get("monthly", 0)), slot=entry.get("slot", entry["id"]),
    )


def shrink(gains: Sequence[float], errors: Sequence[float]) -> tuple[np.ndarray, np.ndarray, float]:
    """Posterior means and deviations of gains under N(0, tau^2), and tau.

    A list from which the best are picked flatters the best. tau^2 is the marginal maximum-likelihood
    value under gain ~ N(0, tau^2 + error^2): empirical Bayes, Efron and Morris (1975). The prior is
    centred at zero: an intervention helps only as far as its data say so.
    """
    d, s2 = np.asarray(gains, float), np.square(np.asarray(errors, float))
    if len(d) != len(s2) or not len(d):
        raise ValueError(f"shrink: {len(d)} gains, {len(s2)} errors; need equally many, at least one")
    grid = np.concatenate([[0.0], np.geomspace(1e-2, 1e3, 400)]) * max(float(np.mean(d**2)), 1e-9)
    spread = grid[:, None] + s2
    tau2 = grid[np.argmin((np.log(spread) + d**2 / spread).sum(1))]
    keep = tau2 / (tau2 + s2)
    return keep * d, np.sqrt(keep * s2), float(np.sqrt(tau2))


def best_set(
    value: np.ndarray, cost: np.ndarray, slots: Sequence[str], budget: float, steps: int = 1000
) -> np.ndarray:
    """Which interventions to take: most value within ``budget``, at most one per slot.

    Multiple-choice knapsack by dynamic programming, exact for costs rounded up to ``budget / steps``.
    (`scipy.optimize.milp` gives the same sets, but its solver prints into the page.)
    """
    unit = np.ceil(np.asarray(cost) * steps / budget - 1e-9).astype(int)
    best, taken = np.zeros(steps + 1), []
    for slot in dict.fromkeys(slots):
        new, which = best.copy(), np.full(steps + 1, -1)
        for i in (i for i, name in enumerate(slots) if name == slot):
            if value[i] > 0 and unit[i] <= steps:
                with_it = best[: steps + 1 - unit[i]] + value[i]
                offer = np.concatenate([np.full(unit[i], -np.inf), with_it])
                better = offer > new
                new[better], which[better] = offer[better], i
        best = new
        taken.append(which)
    chosen, left = np.zeros(len(value), bool), steps
    for which in reversed(taken):
        if which[left] >= 0:
            chosen[which[left]] = True
            left -= unit[which[left]]
    return chosen


def needed_n(gain: float, error: float, n: int) -> int | None:
    """Test examples at which an unchanged gain would stand clear of zero; None for no gain.

    The error shrinks with the root of n, so n must grow by (Z error / gain)^2.
    """
    return None if gain <= 0 else max(n, int(np.ceil(n * (Z * error / gain) ** 2)))
