"""Trends over the runs of the append-only history: seconds, headline values, and every failure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from .. import history
from ..history import is_number
from ..pages import STATES, Runs, number
from . import draw, parts
from .parts import Link, Source

HEADLINES = 8  # values a chapter
DRAWN = 40  # runs in a line
LISTED = 12  # runs in a table
SECONDS = "seconds of the run"
QUOTED = re.compile(r"\{measured\}`([^:`]+):([^:`]+)")


@dataclass(frozen=True)
class Line:
    """One value over the runs: picture, range and the latest."""

    key: str
    picture: Markup
    latest: str
    range: str
    count: int


@dataclass(frozen=True)
class Trend:
    """A chapter's lines and its last runs, newest first."""

    source: Source
    lines: list[Line]
    runs: list[dict[str, Any]]
    good: int
    total: int
    dropped: list[str]


def html(runs: Runs, link: Link) -> str:
    """One section a chapter with runs in this profile; a smoke build has none."""
    past = history.read(runs.project.history) if runs.profile != "smoke" else history.History([])
    quoted = quoted_keys(runs)
    chapters = parts.record_chapters(runs)
    trends = [
        trend(runs, chapter, past.of(runs.profile, chapter), quoted.get(chapter, []), link)
        for chapter in chapters
        if past.of(runs.profile, chapter)
    ]
    empty = "" if trends else parts.why_empty(runs, "trends")
    return parts.render("trend.html", trends=trends, past=past, empty=empty, states=STATES)


def quoted_keys(runs: Runs) -> dict[str, list[str]]:
    """Values that the pages of ``book/`` quote, by chapter."""
    found: dict[str, list[str]] = {}
    for path in sorted((runs.project.root / "book").rglob("*.md")):
        for chapter, key in QUOTED.findall(path.read_text(encoding="utf8")):
            found.setdefault(chapter, []).append(key)
    return found


def trend(
    runs: Runs, chapter: str, past: list[dict[str, Any]], quoted: list[str], link: Link
) -> Trend:
    """Lines over the last `DRAWN` runs; a failed run breaks them visibly."""
    recent, record = past[-DRAWN:], runs.results(chapter) or {}
    good = [run for run in recent if run["status"] == "passed"]
    seconds = [run["seconds"] if run["status"] == "passed" else None for run in recent]
    lines = [line(SECONDS, seconds)]
    keys = headlines(record, quoted)
    for key in keys:
        values = [run["values"].get(key) if run["status"] == "passed" else None for run in recent]
        lines.append(line(key, values))
    newest = good[-1]["values"] if good else {}
    dropped = sorted({key for run in good for key in run["values"]} - newest.keys())
    source = parts.source(runs, chapter, link, record)
    total = sum(1 for run in past if run["status"] == "passed")
    shown = [one for one in lines if one]
    return Trend(source, shown, past[: -LISTED - 1 : -1], total, len(past), dropped)


def headlines(record: dict[str, Any], quoted: Iterable[str]) -> list[str]:
    """Numeric values to follow: those that pages quote, then those with an interval."""
    values = record.get("values") or {}
    bounded = [key for key, entry in values.items() if is_number(entry.get("low"))]
    chosen = dict.fromkeys([*quoted, *bounded])
    return [key for key in chosen if is_number((values.get(key) or {}).get("value"))][:HEADLINES]


def line(key: str, values: list[float | None]) -> Line | None:
    """One value's picture; None when no run has it. It starts with the first run that has it.

    The line of seconds has every run, so that failures before the first good one show.
    """
    first = next((i for i, value in enumerate(values) if value is not None), None)
    if first is None:
        return None
    values = values if key == SECONDS else values[first:]
    known = [value for value in values if value is not None]
    gaps = len(values) - len(known)
    said = f"{key} over {len(values)} runs, {draw.spread(known)}, last {number(known[-1])}"
    said += f"; {gaps} without a value" if gaps else ""
    return Line(key, draw.spark(values, said), number(known[-1]), draw.spread(known), len(known))
