"""The state of every chapter in plain lines."""

from __future__ import annotations

import filelock

from . import keys, records
from .chapters import Chapter
from .progress import ages, clock
from .project import Project


def table(project: Project, chapters: list[Chapter], profile: str) -> list[str]:
    """One line a chapter: state, start, cost, and what the next run would do."""
    width = max((len(chapter.id) for chapter in chapters), default=0)
    return [f"{c.id:<{width}}  {line(project, c, profile)}" for c in chapters]


def line(project: Project, chapter: Chapter, profile: str) -> str:
    """What is known about one chapter."""
    if running(project, chapter, profile):
        return "running now"
    record = records.read(project, profile, chapter.id)
    text = records.summary(record)
    if "seconds" in record:
        text += f"  {ages(record)} UTC, {clock(record['seconds'])}, {record['peak_mb']} MB"
    for words in record.get("over_budget") or []:
        text += f", over budget: {words}"
    needed, reason = keys.why(project, chapter, profile)
    if record["status"] == "passed":
        return f"{text}  {'stale: ' + reason if needed else 'fresh'}"
    return text


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
