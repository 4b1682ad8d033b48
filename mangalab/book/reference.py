"""Accepted runs: `reference/<name>/<chapter>.json`, reviewed like code, one line a value."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ..record import SCHEMA
from . import keys, notebook, records
from .chapters import Chapter
from .project import BookError, Project

PLAIN = "key commit dirty started device dtype machine threads seeds seconds peak_mb".split()
MEASURED = "value n low high kind".split()
COMPARED = "verdict difference low high n seeds a b metric".split()


def name_of(project: Project, profile: str, record: dict[str, Any] | None = None) -> str:
    """Folder of a run's reference: `cpu`, or `gpu-` and the device's name."""
    if profile == "smoke":
        raise BookError("a smoke run is never compared nor accepted; use profile cpu or gpu")
    device = str(((record or {}).get("key_parts") or {}).get("device") or "")
    if profile != "gpu":
        return profile
    if device:
        return slug(device)
    folders = sorted(path.name for path in (project.root / "reference").glob("gpu-*"))
    return folders[0] if len(folders) == 1 else "gpu"


def slug(text: str) -> str:
    """`gpu NVIDIA H100 80GB HBM3` as `gpu-nvidia-h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def path(project: Project, name: str, chapter: str) -> Path:
    """Where a chapter's accepted run lies."""
    return project.root / "reference" / name / f"{chapter}.json"


def read(project: Project, name: str, chapter: str) -> dict[str, Any] | None:
    """A chapter's accepted run; None when there is none, BookError when it is damaged."""
    place = path(project, name, chapter)
    if not place.exists():
        return None
    found = records.load(place)
    if found is None:
        raise BookError(f"{place} is damaged or of another schema; restore it with git checkout")
    return found


def reduce(record: dict[str, Any]) -> dict[str, Any]:
    """What of a record is compared, in a stable order."""
    parts = record.get("key_parts") or {}
    return {
        "schema": SCHEMA,
        "chapter": record["chapter"],
        "profile": record["profile"],
        **{name: record.get(name) for name in PLAIN},
        "device_class": parts.get("device"),
        "inputs": {name: keys.digest(parts[name])[:16] for name in sorted(parts) if name != "device"},
        "versions": dict(sorted((record.get("versions") or {}).items())),
        "parameters": dict(sorted((record.get("parameters") or {}).items())),
        "values": {
            key: _some(entry, MEASURED) for key, entry in sorted((record.get("values") or {}).items())
        },
        "comparisons": _by_id(record, "comparisons", COMPARED),
        "claims": _by_id(record, "claims", ["verdict", "measured", "low", "high", "n"]),
        "decisions": _by_id(record, "decisions", ["resolution", "agrees"]),
    }


def _by_id(record: dict[str, Any], section: str, names: list[str]) -> dict[str, Any]:
    entries = sorted(record.get(section) or [], key=lambda entry: str(entry["id"]))
    return {str(entry["id"]): _some(entry, names) for entry in entries}


def _some(entry: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {name: entry[name] for name in names if entry.get(name) is not None}


def text(reduced: dict[str, Any]) -> str:
    """JSON with one line a value, so that `git diff` shows what moved and nothing else."""
    rows = []
    for name, content in reduced.items():
        if isinstance(content, dict) and content:
            lines = [f'  {_json(key)}: {_json(entry)}' for key, entry in content.items()]
            rows.append(f' {_json(name)}: {{\n' + ",\n".join(lines) + "\n }")
        else:
            rows.append(f" {_json(name)}: {_json(content)}")
    return "{\n" + ",\n".join(rows) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=False)


def write(project: Project, name: str, reduced: dict[str, Any]) -> Path:
    """Write an accepted run in one step; returns its path."""
    place = path(project, name, reduced["chapter"])
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    scratch.write_text(text(reduced), encoding="utf8", newline="\n")
    scratch.replace(place)
    return place


def refusal(
    project: Project, chapter: Chapter, record: dict[str, Any], allow_dirty: bool = False
) -> str | None:
    """Why a run cannot be accepted, in words; None when it can."""
    if record["profile"] == "smoke":
        return "a smoke run proves only that every cell runs"
    if record["status"] != "passed":
        return records.summary(record)
    if not record.get("complete"):
        return "incomplete: its last cell, lab.card(), was not reached"
    if reason := stale(project, chapter, record):
        return f"stale: {reason}; run it again"
    if record.get("dirty") is not False and not allow_dirty:
        what = "tracked files differed from the commit" if record.get("dirty") else "no commit known"
        return f"dirty: {what} when it ran; commit and run again, or pass --allow-dirty"
    return None


def stale(project: Project, chapter: Chapter, record: dict[str, Any]) -> str | None:
    """Which input changed since a run; the device is taken from the record (it may be elsewhere)."""
    try:
        source = notebook.read(project.notebook(chapter.id))
        parameters = keys.prepare(source, chapter, record["profile"], None)
    except BookError as error:
        return str(error)
    before = record.get("key_parts") or {}
    now = keys.parts(project, source, parameters, str(before.get("device")), record)
    return keys.difference(before, now)
