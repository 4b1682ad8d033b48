"""Status of the chapters and the table of executions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup

from .. import history, keys, records, status
from ..pages import STATES, Runs
from . import draw, parts
from .parts import Link, Source


@dataclass(frozen=True)
class State:
    """One chapter as the status page shows it."""

    source: Source
    word: str
    kind: str
    reason: str
    good: str | None
    seconds: Markup
    memory: Markup


def html(runs: Runs, link: Link) -> str:
    """How many chapters are fresh, then one row per chapter."""
    past = history.read(runs.project.history)
    rows = [state(runs, chapter, link, past) for chapter in parts.record_chapters(runs)]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.kind] = counts.get(row.kind, 0) + 1
    return parts.render("status.html", rows=rows, counts=counts, profile=runs.profile)


def state(runs: Runs, chapter: str, link: Link, past: history.History) -> State:
    """What is known about one chapter of this profile."""
    record = records.read(runs.project, runs.profile, chapter)
    budget = runs.budget(chapter)
    word, kind, reason = verdict(runs, chapter, record)
    return State(
        parts.source(runs, chapter, link, record),
        word,
        kind,
        reason,
        last_good(runs, chapter, record, past),
        against(record.get("seconds"), budget.seconds if budget else None, "s"),
        against(record.get("peak_mb"), budget.mb if budget else None, "MB"),
    )


def verdict(runs: Runs, chapter: str, record: dict[str, Any]) -> tuple[str, str, str]:
    """State in words, its kind, and the reason: what changed, or what went wrong and where."""
    entry, ended = runs.chapters().get(chapter), record["status"]
    if entry and status.running(runs.project, entry, runs.profile):
        return "Running", "running", "its run had not ended when this page was built"
    if ended == "passed":
        if entry is None:
            return "Stale", "stale", "chapters.yml does not name it"
        needed, reason = keys.why(runs.project, entry, runs.profile)
        return ("Stale", "stale", reason) if needed else ("Fresh", "fresh", reason)
    if ended == "never-run":
        return STATES[ended], ended, "“make book” runs it"
    cell = (record.get("error") or {}).get("cell")
    word = STATES.get(ended, ended) + (f" at cell {cell}" if cell else "")
    return word, ended, records.summary(record)


def last_good(
    runs: Runs, chapter: str, record: dict[str, Any], past: history.History
) -> str | None:
    """When the last good run started: by the record, the one that was put aside, or the history."""
    known = [record, records.read_kept(runs.project, runs.profile, chapter) or {}]
    known += past.of(runs.profile, chapter)
    good = [run["started"] for run in known if run.get("status") == "passed" and run.get("started")]
    return max(good, default=None)


def against(value: float | None, budget: float | None, unit: str) -> Markup:
    """A figure beside its budget with a bar, marked where it is over."""
    if value is None:
        return Markup("budget {:,.0f} {}").format(budget, unit) if budget else Markup("")
    text = f"{value:,.0f} {unit}" + (f" of {budget:,.0f}" if budget else "")
    if not budget:
        return Markup("{}").format(text)
    shown = Markup('<strong class="over">{}</strong>' if value > budget else "{}").format(text)
    return shown + draw.bar(value, budget)


@dataclass(frozen=True)
class Execution:
    """One run in the table of executions."""

    source: Source
    record: dict[str, Any]

    @cached_property
    def cells(self) -> str:
        """How many code cells there were, and which did not run."""
        found = self.record.get("cells") or {}
        if found.get("cells") is None:
            return ""
        left = found.get("not_done") or []
        return f"{found['cells']}" + (f", {len(left)} not run" if left else "")

    @cached_property
    def word(self) -> str:
        """How the run ended."""
        return STATES.get(self.record["status"], self.record["status"])

    @cached_property
    def seeds(self) -> str:
        """The seeds, without the word."""
        return (parts.seeds(self.record) or "").partition(" ")[2]


def executions_html(runs: Runs, link: Link) -> str:
    """Every record on this machine that counts, by chapter and profile: what ran, where, at which cost.

    Smoke records are listed only in a smoke build.
    """
    profiles = list(dict.fromkeys([runs.profile, *(("cpu", "gpu") if runs.profile != "smoke" else ())]))
    rows = []
    for chapter in parts.record_chapters(runs):
        for profile in profiles:
            record = Runs(runs.project, profile).record(chapter)
            if record is not None:
                rows.append(Execution(parts.source(runs, chapter, link, record), record))
    return parts.render("executions.html", rows=rows, empty=parts.why_empty(runs, "runs"))
