"""Run keys: what a result depends on, so that each run and each skipped run has a reason.

A key is made of the code cells (not the prose), the parameters, the files of `mangalab` that the
kernel really imported, the data files that it opened, the pinned versions of the packages that it
imported, the device class, the number of threads, the claims that it checked and the runs of the
chapters that it needs. What was imported is recorded by the run, never predicted.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from ..record import canonical, file_hash
from . import devices, records
from . import notebook as nb
from .chapters import Chapter
from .project import BookError, Project, read_yaml


def digest(value: object) -> str:
    """SHA-256 of a value's JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def device_class(profile: str) -> str:
    """What results may depend on: the processor family, or the GPU's name for profile `gpu`."""
    if profile != "gpu":
        return f"cpu {platform.machine()}"
    return f"gpu {devices.gpus()[0].name}"


def parts(
    project: Project,
    source: NotebookNode,
    parameters: dict[str, Any],
    device: str,
    record: dict[str, Any],
    chapter: Chapter | None = None,
) -> dict[str, Any]:
    """Every input of a run as it is now; `record` says which modules, data and claims count.

    Threads and needed runs are told by `chapter`; without it they are left out, and not compared.
    """
    more = {} if chapter is None else _around(project, chapter, record["profile"])
    return {
        **more,
        "code": [digest(cell.source.strip())[:16] for cell in nb.code_cells(source)],
        "parameters": json.loads(json.dumps(parameters, default=str)),  # as the record has them
        "lock": pins(project, record.get("packages")),
        "device": device,
        "models": os.environ.get("MANGALAB_MODELS", "default"),
        "modules": {p: _hash(project.root / p) for p in record.get("modules", {})},
        "data": {n: _hash(_data_path(project, n)) for n in record.get("data", {})},
        "claims": claim_hashes(project, [c.get("id") for c in record.get("claims", [])]),
    }


def _around(project: Project, chapter: Chapter, profile: str) -> dict[str, Any]:
    """What is given by the chapter's entry: threads, and which run of each needed chapter counts."""
    needed = {name: records.read(project, profile, name) for name in chapter.needs}
    return {
        "threads": chapter.threads_for(profile),
        "needs": {k: f"{r['status']} {r.get('started', '')}".strip() for k, r in needed.items()},
    }


def reported(now: dict[str, Any], record: dict[str, Any], project: Project) -> dict[str, Any]:
    """The parts of a run that just ended: what the kernel says that it read, not what is there now.

    A file that was edited while the run was under way therefore makes the next run necessary.
    """
    claims = claim_hashes(project, [c.get("id") for c in record.get("claims", [])])
    kernel = {"modules": record.get("modules", {}), "data": record.get("data", {})}
    lock = pins(project, record.get("packages"))
    return {**now, **kernel, "claims": claims, "lock": lock}


def pins(project: Project, packages: list[str] | None) -> dict[str, str]:
    """Pinned version of each named package; of all packages when a run recorded none.

    A package that the kernel never imported (a tool of the press, another chapter's library) may
    come, go or change without making this chapter run again.
    """
    try:
        text = project.lock_file.read_text(encoding="utf8")
    except FileNotFoundError:
        return {}
    rows = (row.split("#")[0].strip().partition("==") for row in text.splitlines())
    found = {canonical(name): version for name, equals, version in rows if equals}
    return found if not packages else {k: v for k, v in found.items() if k in set(packages)}


def claim_hashes(project: Project, ids: list[str]) -> dict[str, str]:
    """Hash of each named entry of the claims file; other entries do not matter to a chapter."""
    path = project.root / "book" / "claims.yml"
    if not ids or not path.exists():
        return {}
    raw = read_yaml(path) or []
    entries = raw.get("claims", raw) if isinstance(raw, dict) else raw
    if isinstance(entries, dict):
        by_id = {str(k): v for k, v in entries.items()}
    else:
        by_id = {str(entry.get("id")): entry for entry in entries}
    return {name: digest(by_id.get(name))[:16] for name in sorted(set(ids))}


def _hash(path: Path) -> str:
    return file_hash(path) if path.is_file() else "missing"


def _data_path(project: Project, name: str) -> Path:
    packaged = project.root / "mangalab" / "data" / "text" / name
    return packaged if packaged.is_file() else project.root / name


def difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first input that differs between two keys' parts, in words; None when equal."""
    if old.get("code") != new["code"]:
        return _code_difference(old.get("code", []), new["code"])
    if old.get("models") != new["models"]:
        return "MANGALAB_MODELS changed"
    if old.get("device") != new["device"]:
        return f"device changed from {old.get('device')} to {new['device']}"
    # records from before threads were pinned used the two cores of the machine that made them
    threads = old.get("threads", 2)
    if threads != new.get("threads", threads):
        return f"threads changed from {threads} to {new['threads']}"
    for name, label in (
        ("lock", "requirements.lock: {}"),
        ("parameters", "parameter {}"),
        ("modules", "{}"),
        ("data", "data file {}"),
        ("claims", "claim {}"),
        ("needs", "the run of {}"),
    ):
        before = old.get(name, {})
        after = new.get(name, before)
        if not isinstance(before, dict):  # a record of an earlier version of this program
            return f"{label.format('all')} changed"
        for key in sorted(before.keys() | after.keys()):
            if before.get(key, nb) != after.get(key, nb):
                return f"{label.format(key)} changed"
    return None


def _code_difference(old: list[str], new: list[str]) -> str:
    pairs = enumerate(zip(old, new, strict=False), start=1)
    first = next((k for k, (a, b) in pairs if a != b), min(len(old), len(new)) + 1)
    if len(old) == len(new):
        return f"code cell {first} changed"
    how = "added" if len(new) > len(old) else "removed"
    return f"code cells were {how} ({len(old)} -> {len(new)}), from cell {first} on"


@dataclass(frozen=True)
class Decision:
    """Whether a chapter must run and why; `kept` is an earlier good record that still holds."""

    needed: bool
    reason: str
    source: NotebookNode
    parameters: dict[str, Any]
    parts: dict[str, Any]
    kept: dict[str, Any] | None = None


def decide(
    project: Project, chapter: Chapter, profile: str, given: dict[str, Any] | None = None
) -> Decision:
    """Compare the last record, then the last good one, with the inputs as they are now.

    Raises BookError when the notebook or its parameters are wrong.
    """
    source = nb.read(project.notebook(chapter.id))
    parameters = prepare(source, chapter, profile, given)
    device = device_class(profile)
    last = records.read(project, profile, chapter.id)
    now = parts(project, source, parameters, device, last, chapter)
    needed, reason = judge(last, now)
    if needed:
        kept = records.read_kept(project, profile, chapter.id)
        known = kept and parts(project, source, parameters, device, kept, chapter)
        if kept and not judge(kept, known)[0]:
            same = f"same inputs as the good run of {kept['started'][:16]}"
            return Decision(False, same, source, parameters, now, kept)
    return Decision(needed, reason, source, parameters, now)


def holds(project: Project, chapter: Chapter, profile: str, record: dict[str, Any]) -> bool:
    """Whether a record from elsewhere is a good run of the inputs as they are now."""
    source = nb.read(project.notebook(chapter.id))
    parameters = prepare(source, chapter, profile, None)
    now = parts(project, source, parameters, device_class(profile), record, chapter)
    return not judge(record, now)[0]


def why(project: Project, chapter: Chapter, profile: str) -> tuple[bool, str]:
    """Whether a chapter must run, and the reason in words; never raises for a chapter's faults."""
    try:
        decision = decide(project, chapter, profile)
    except BookError as error:
        return True, str(error)
    return decision.needed, decision.reason


def prepare(
    source: NotebookNode, chapter: Chapter, profile: str, given: dict[str, Any] | None
) -> dict[str, Any]:
    """The parameters that a run would have, checked: notebook, then chapters.yml, then `given`."""
    name = f"{chapter.id}.ipynb"
    chosen = {**chapter.overrides(profile), **(given or {})}
    return nb.effective(nb.parameters(source, name), chosen, name)


def judge(record: dict[str, Any], now: dict[str, Any]) -> tuple[bool, str]:
    """Compare one record with the inputs as they are now."""
    if record["status"] == "never-run":
        return True, "never run here"
    if record["status"] != "passed":
        return True, f"last run {records.summary(record)}"
    changed = difference(record.get("key_parts") or {}, now)
    return (True, changed) if changed else (False, "nothing changed")
