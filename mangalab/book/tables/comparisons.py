"""Every comparison of every record with its interval drawn and the word that the interval allows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..history import is_number
from ..pages import Runs
from . import draw, parts
from .parts import Link, signed

UNDECIDED, NO_INTERVAL = "no difference shown", "no interval"
WORDS = ("better", "worse", UNDECIDED, NO_INTERVAL)
KINDS = {"better": "better", "worse": "worse"}


@dataclass(frozen=True)
class Row:
    """A comparison with what the page says about it."""

    entry: dict[str, Any]
    word: str
    plot: Markup
    effect: float
    certainty: float
    reach: float


def html(runs: Runs, link: Link) -> str:
    """Counts, filter and one table a chapter."""
    groups = [
        (source, rows_of(source.record["comparisons"]))
        for source in parts.sources(runs, link, "comparisons")
    ]
    counts = Counter(row.word for _, rows in groups for row in rows)
    empty = "" if groups else parts.why_empty(runs, "comparisons")
    words = [word for word in WORDS if counts[word]]
    return parts.render("comparisons.html", groups=groups, counts=counts, words=words, empty=empty)


def rows_of(entries: list[dict[str, Any]]) -> list[Row]:
    """Rows of one chapter; comparisons of one metric share a scale."""
    usable = [entry for entry in entries if is_number(entry.get("difference"))]
    reaches: dict[str, float] = {}
    for entry in usable:
        ends = [entry["difference"], entry.get("low"), entry.get("high")]
        size = max(abs(end) for end in ends if is_number(end))
        metric = str(entry.get("metric"))
        reaches[metric] = max(reaches.get(metric, 0.0), size)
    return [row(entry, reaches[str(entry.get("metric"))] or 1.0) for entry in usable]


def row(entry: dict[str, Any], reach: float) -> Row:
    """One comparison: its word, its plot, and what it is sorted by."""
    word, value = allowed(entry), entry["difference"]
    low, high = entry.get("low"), entry.get("high")
    bounded = is_number(low) and is_number(high)
    label = f"{entry['a']} against {entry['b']}, {entry.get('metric')}: difference {signed(value)}"
    label += f", 95 % interval {signed(low)} to {signed(high)}" if bounded else ", no interval"
    low, high = (low, high) if bounded else (value, value)
    plot = draw.interval(value, low, high, reach, KINDS.get(word, "open"), f"{label}: {word}")
    width = high - low
    certainty = max(low, -high) / width if width else 0.0
    return Row(entry, word, plot, abs(value) / reach, certainty, reach)


def allowed(entry: dict[str, Any]) -> str:
    """The word that the interval allows, whatever the record says: none across zero."""
    low, high = entry.get("low"), entry.get("high")
    if not (is_number(low) and is_number(high)):
        return NO_INTERVAL
    word = str(entry.get("verdict"))
    return UNDECIDED if low <= 0 <= high or word not in KINDS else word
