"""The state of every chapter, in plain lines and as data."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

import filelock

from . import history, keys, records
from .chapters import Chapter
from .progress import clock
from .project import Project

SCHEMA = 1


@dataclass(frozen=True)
class State:
    """What is known about one chapter in one profile.

    `fresh` is None unless the last run passed; `reason` says what the next run would do and why;
    `age_days` counts from the start of the last good run, which may be an earlier one.
    """

    chapter: str
    title: str
    status: str
    summary: str
    running: bool
    fresh: bool | None
    would_run: bool
    reason: str
    started: str | None
    seconds: float | None
    peak_mb: float | None
    over_budget: list[str]
    last_good: str | None
    age_days: float | None

    def line(self) -> str:
        """The state in one line, without the chapter's name."""
        if self.running:
            return "running now"
        text = self.summary
        if self.seconds is not None:
            when = str(self.started)[:16].replace("T", " ")
            text += f"  {when} UTC, {clock(self.seconds)}, {self.peak_mb} MB"
        for words in self.over_budget:
            text += f", over budget: {words}"
        if self.fresh is None:
            return text
        return f"{text}  {'fresh' if self.fresh else 'stale: ' + self.reason}"


def states(project: Project, chapters: list[Chapter], profile: str) -> list[State]:
    """The state of each chapter."""
    past = history.read(project.history)
    return [state(project, chapter, profile, past) for chapter in chapters]


def state(project: Project, chapter: Chapter, profile: str, past: history.History) -> State:
    """The state of one chapter."""
    from .pages import Runs
    from .tables.states import last_good

    record = records.read(project, profile, chapter.id)
    needed, reason = keys.why(project, chapter, profile)
    good = last_good(Runs(project, profile), chapter.id, record, past)
    return State(
        chapter=chapter.id,
        title=chapter.title,
        status=record["status"],
        summary=records.summary(record),
        running=running(project, chapter, profile),
        fresh=not needed if record["status"] == "passed" else None,
        would_run=needed,
        reason=reason,
        started=record.get("started"),
        seconds=record.get("seconds"),
        peak_mb=record.get("peak_mb"),
        over_budget=record.get("over_budget") or [],
        last_good=good,
        age_days=days_since(good),
    )


def days_since(started: str | None) -> float | None:
    """Days from an ISO 8601 time until now; None where there is no time."""
    try:
        then = dt.datetime.fromisoformat(str(started))
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=dt.UTC)
    return round((dt.datetime.now(dt.UTC) - then).total_seconds() / 86400, 2)


def as_json(found: list[State], profile: str, too_old: list[str]) -> dict[str, Any]:
    """Schema 1: `schema`, `profile`, `ok`, `too_old` (lines) and `chapters`, a list of `State`."""
    well = all(one.status == "passed" for one in found) and not too_old
    return {
        "schema": SCHEMA, "profile": profile, "ok": well, "too_old": too_old,
        "chapters": [asdict(one) for one in found],
    }  # fmt: skip


def too_old(found: list[State], days: float) -> list[str]:
    """A line for each chapter whose last good run is older than `days`, or that never had one."""
    lines = []
    for one in found:
        if one.age_days is None:
            lines.append(f"{one.chapter}: no good run is known here (limit: {days:g} days)")
        elif one.age_days > days:
            when = f"{str(one.last_good)[:10]}, {one.age_days:.1f} days ago"
            lines.append(f"{one.chapter}: the last good run was {when} (limit: {days:g} days)")
    return lines


def running(project: Project, chapter: Chapter, profile: str) -> bool:
    """Whether some runner holds this chapter's lock."""
    path = project.artifacts / "locks" / f"{profile}-{chapter.id}.lock"
    if not path.exists():
        return False
    try:
        with filelock.FileLock(path, timeout=0):
            return False
    except filelock.Timeout:
        return True
