"""All run records of one profile, or an error that names what is missing, failed or stale."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..book import keys, records
from ..book.chapters import load
from ..book.project import Project

Record = dict[str, Any]


class RecordsError(RuntimeError):
    """Records that a summary must not be built on."""


def refuse(faults: dict[str, str], profile: str) -> None:
    """Raise RecordsError that names every chapter in ``faults`` with its reason and the way out."""
    if faults:
        lines = [f"  {chapter}: {why}" for chapter, why in sorted(faults.items())]
        numbers = " ".join(sorted(chapter[:2] for chapter in faults))
        raise RecordsError(
            f"{len(faults)} of the records of profile {profile} cannot be summed up:\n"
            + "\n".join(lines)
            + f"\nrun them first: mangalab run {numbers} --profile {profile}"
        )


def fault(record: Record | None, stale: str = "") -> str:
    """Why ``record`` does not count, in words; empty if it does. ``stale``: what changed since."""
    if record is None or record.get("status") == "never-run":
        return "missing"
    if record.get("status") != "passed":
        return f"{record.get('status')}: {record.get('why') or record.get('error') or 'no reason'}"
    if not record.get("complete"):
        return "incomplete: the run did not reach its card"
    return f"stale: {stale}" if stale else ""


def read_all(root: Path, profile: str, wanted: Iterable[str]) -> dict[str, Record]:
    """Records of the chapters ``wanted``, in order, from ``artifacts/runs/<profile>``.

    Raises RecordsError with one line per chapter that is missing, failed, incomplete or stale: a
    record is stale if code, data, parameters, pins or claims have changed since it was written.
    """
    project = Project(Path(root))
    known, found, faults = load(project), {}, {}
    for name in wanted:
        record = records.read(project, profile, name)
        if name not in known:
            faults[name] = "no chapter of chapters.yml"
            continue
        changed, reason = keys.why(project, known[name], profile)
        if wrong := fault(record, reason if changed else ""):
            faults[name] = wrong
        found[name] = record
    refuse(faults, profile)
    return found


def needed(root: Path, chapter: str) -> tuple[str, ...]:
    """Chapters that ``chapter`` needs by `chapters.yml`, in the book's order."""
    return tuple(sorted(load(Project(Path(root)))[chapter].needs))
