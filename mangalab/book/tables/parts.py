"""What the record tables share: templates that escape, provenance, links, empty states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .. import pages
from ..pages import Runs

Link = Callable[[str], str | None]  # chapter id -> relative URL, None where the book has no page
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Source:
    """A chapter as a table names it, with the record that its numbers come from."""

    chapter: str
    title: str
    url: str | None
    record: dict[str, Any]

    @property
    def run(self) -> str:
        """Which run this is, in one line."""
        return run_line(self.record)


def record_chapters(runs: Runs) -> list[str]:
    """Every chapter that chapters.yml names, or that has a notebook."""
    notebooks = sorted(p.stem for p in (runs.project.root / "notebooks").glob("*.ipynb"))
    return list(dict.fromkeys([*runs.chapters(), *notebooks]))


def source(runs: Runs, chapter: str, link: Link, record: dict[str, Any]) -> Source:
    """A chapter's title and link beside a record of it."""
    entry = runs.chapters().get(chapter)
    return Source(chapter, entry.title if entry else chapter, link(chapter), record)


def sources(runs: Runs, link: Link, section: str) -> list[Source]:
    """Chapters whose numbers may be shown and whose record has something in ``section``."""
    found = [(chapter, runs.results(chapter)) for chapter in record_chapters(runs)]
    return [source(runs, c, link, record) for c, record in found if record and record.get(section)]


def run_line(record: dict[str, Any]) -> str:
    """Which run a table shows: id, day, device, precision, seeds; unknown parts are left out."""
    parts = [
        f"run {str(record['key'])[:10]}" if record.get("key") else None,
        pages.day(record),
        f"device {record['device']}" if record.get("device") else None,
        record.get("dtype"),
        seeds(record),
    ]
    return ", ".join(str(part) for part in parts if part)


def seeds(record: dict[str, Any]) -> str | None:
    """The seeds of a run in words."""
    listed = record.get("seeds") or ([] if record.get("seed") is None else [record["seed"]])
    word = "seed" if len(listed) == 1 else "seeds"
    return f"{word} {', '.join(str(seed) for seed in listed)}" if listed else None


def why_empty(runs: Runs, what: str) -> str:
    """A sentence for a page that has nothing to show: ``what`` is the plural of what is missing."""
    if runs.profile == "smoke":
        return (
            "This is a smoke build: it proves that every cell runs, with settings too small to mean "
            f"anything. Its {what} are not shown. “make book” measures them."
        )
    if not any(runs.results(chapter) for chapter in record_chapters(runs)):
        return (
            f"No chapter has finished a run in profile {runs.profile} on this machine yet. "
            f"“make book” runs them, and their {what} appear here."
        )
    return f"The runs on this machine have recorded no {what} yet."


def render(template: str, **context: Any) -> str:
    """A template filled; everything that is not Markup is escaped."""
    return environment().get_template(template).render(**context)


@cache
def environment() -> Environment:
    """The templates, with the book's ways to write numbers, times, states and provenance."""
    loader = FileSystemLoader(TEMPLATES)
    made = Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {
        "number": pages.number,
        "signed": signed,
        "chip": lambda word, kind="": Markup(pages.chip(word, kind)),
        "when": lambda started: pages.time_tag(started) or "",
        "provenance": pages.provenance,
        "with_interval": with_interval,
        "short": lambda key: str(key or "")[:10],
    }
    return made


def signed(value: float) -> str:
    """A difference: always with its sign."""
    text = pages.number(abs(value))
    return text if value == 0 else ("+" if value > 0 else "\u2212") + text


def with_interval(entry: dict[str, Any]) -> str:
    """A recorded value with its interval, where it has one."""
    shown, low, high = pages.number(entry["value"]), entry.get("low"), entry.get("high")
    bounded = low is not None and high is not None
    return shown + (f" [{pages.number(low)}, {pages.number(high)}]" if bounded else "")
