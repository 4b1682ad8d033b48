"""Statements of the scenarios, looked up in ``book/claims.yml`` and judged by what was measured."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

VERDICTS = ("held", "refuted", "inconclusive", "beyond this run")


class ClaimError(ValueError):
    """A claim that is unknown or cannot be judged as asked."""


@functools.cache
def load(root: Path) -> dict[str, dict]:
    """All claims by id from ``book/claims.yml``."""
    import yaml

    path = root / "book" / "claims.yml"
    entries = yaml.safe_load(path.read_text(encoding="utf8"))
    return {str(entry["id"]): entry for entry in entries}


@dataclass(frozen=True)
class Judgement:
    """A claim beside its measurement."""

    id: str
    text: str
    claimed: object
    measured: object
    low: float | None
    high: float | None
    n: int | None
    verdict: str
    note: str = ""


def judge(
    claimed: float,
    measured: float,
    low: float | None = None,
    high: float | None = None,
    direction: str = "equal",
    tolerance: float = 0.0,
) -> str:
    """``held``, ``refuted`` or ``inconclusive``: does the interval lie inside the claimed region?

    ``direction`` is ``equal`` (|measured - claimed| <= tolerance * |claimed|), ``at_least`` or
    ``at_most``. Without an interval the measured value is taken as exact.
    """
    low, high = (measured, measured) if low is None or high is None else (low, high)
    if any(math.isnan(v) for v in (measured, low, high)):
        return "inconclusive"
    margin = tolerance * abs(claimed)
    region = {
        "equal": (claimed - margin, claimed + margin),
        "at_least": (claimed - margin, math.inf),
        "at_most": (-math.inf, claimed + margin),
    }.get(direction)
    if region is None:
        raise ClaimError(f"direction {direction!r}: choose equal, at_least or at_most")
    if region[0] <= low and high <= region[1]:
        return "held"
    return "refuted" if high < region[0] or low > region[1] else "inconclusive"
