"""The drift gate: which runs meet which reference, and accepting a run as the new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from . import records, reference, tolerances
from .chapters import Chapter
from .drift import Drift, compare, settle
from .project import Project
from .tables.ledger import load_claims


def diff(project: Project, chapters: list[Chapter], profile: str, name: str = "") -> list[Drift]:
    """Compare each chapter's last run with its reference (`name` chooses another's)."""
    limits, computed = tolerances.load(project), computed_claims(project)
    found = []
    for chapter in chapters:
        record = records.read(project, profile, chapter.id)
        accepted = reference.read(
            project, name or reference.name_of(project, profile, record), chapter.id
        )
        if record["status"] != "passed" or not record.get("complete"):
            found.append(Drift(chapter.id, "no-good-run", records.summary(record)))
        elif accepted is None:
            found.append(Drift(chapter.id, "no-reference", "run `mangalab accept` once it is reviewed"))
        else:
            drift = compare(accepted, reference.reduce(record), limits, computed)
            why, over = reference.stale(project, chapter, record), record.get("over_budget") or []
            note = f"over budget: {', '.join(over)}" if over else ""
            found.append(replace(drift, stale=why, note=note))
    return settle(found, limits)


def computed_claims(project: Project) -> frozenset[str]:
    """Ids of the claims that arithmetic settles."""
    entries = load_claims(project)
    return frozenset(str(e["id"]) for e in entries if e.get("kind") in ("compute", "table"))


@dataclass(frozen=True)
class Acceptance:
    """What `accept` did, or would do, with one chapter."""

    chapter: str
    name: str
    refused: str | None
    drift: Drift | None = None  # against the reference that it replaces, when there was one
    written: bool = False


def accept(
    project: Project, chapters: list[Chapter], profile: str, allow_dirty: bool, dry: bool
) -> list[Acceptance]:
    """Make the last runs the reference; a run that must not be is left out with its reason."""
    limits, computed = tolerances.load(project), computed_claims(project)
    done, drifts, accepted = [], [], []
    for chapter in chapters:
        record = records.read(project, profile, chapter.id)
        name = reference.name_of(project, profile, record)
        refused = reference.refusal(project, chapter, record, allow_dirty)
        if refused:
            done.append(Acceptance(chapter.id, name, refused))
            continue
        fresh, old = reference.reduce(record), reference.read(project, name, chapter.id)
        drifts.append(compare(old, fresh, limits, computed) if old else None)
        accepted.append((name, fresh, old != fresh))
    settled = iter(settle([drift for drift in drifts if drift], limits))
    for (name, fresh, new), drift in zip(accepted, drifts, strict=True):
        done.append(_write(project, name, fresh, next(settled) if drift else None, new and not dry))
    return sorted(done, key=lambda one: [c.id for c in chapters].index(one.chapter))


def _write(
    project: Project, name: str, fresh: dict[str, Any], drift: Drift | None, write: bool
) -> Acceptance:
    if write:
        reference.write(project, name, fresh)
    return Acceptance(fresh["chapter"], name, None, drift, write)
