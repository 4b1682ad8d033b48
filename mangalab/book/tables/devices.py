"""The same value on a CPU and on a GPU, from runs of this machine or from accepted ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import records
from ..history import is_number
from ..pages import Runs
from . import parts
from .parts import Link, Source

NOTHING = "No GPU record here."


@dataclass(frozen=True)
class Pair:
    """One value on both sides; `ratio` is GPU over CPU, None where the CPU's is zero."""

    key: str
    cpu: dict[str, Any]
    gpu: dict[str, Any]
    ratio: float | None
    word: str


@dataclass(frozen=True)
class Group:
    """A chapter's pairs with both runs, what was set differently, and how many values are equal."""

    cpu: Source
    gpu: Source
    gpu_from: str
    pairs: list[Pair]
    equal: int
    changed: list[str]


def html(runs: Runs, link: Link) -> str:
    """One table a chapter that has run on both; otherwise which side is missing."""
    groups = []
    for chapter in parts.record_chapters(runs) if runs.profile != "smoke" else []:
        ours, theirs = sides(runs, chapter, "cpu"), sides(runs, chapter, "gpu")
        if ours and theirs:
            groups += [group(runs, link, ours[0][0], record, name) for record, name in theirs]
    empty = "" if groups else missing(runs)
    return parts.render("devices.html", groups=groups, empty=empty)


def sides(runs: Runs, chapter: str, kind: str) -> list[tuple[dict[str, Any], str]]:
    """Good records of a device kind: this machine's last run first, then accepted ones."""
    root = runs.project.root
    record = Runs(runs.project, kind).results(chapter)
    found = [(record, "a run on this machine")] if record else []
    for path in sorted((root / "reference").glob(f"{kind}*/{chapter}.json")):
        accepted = records.load(path)
        if accepted and isinstance(accepted.get("values"), dict) and is_kind(path, kind):
            found.append((accepted, f"accepted: {path.parent.name}"))
    return found


def is_kind(path: Path, kind: str) -> bool:
    """Whether a folder of accepted runs is of a device kind: `cpu`, `gpu`, `gpu-<name>`."""
    return path.parent.name.partition("-")[0] == kind


def group(runs: Runs, link: Link, cpu: dict, gpu: dict, gpu_from: str) -> Group:
    """Values that both runs have, apart from those that are equal."""
    keys = [key for key in cpu["values"] if key in gpu["values"]]
    pairs = [pair(key, cpu["values"][key], gpu["values"][key]) for key in keys]
    shown = [one for one in pairs if one and one.word != "equal"]
    before, after = cpu.get("parameters") or {}, gpu.get("parameters") or {}
    changed = [
        f"{name}: {before.get(name)} on the CPU, {after.get(name)} on the GPU"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    ours, theirs = (parts.source(runs, cpu["chapter"], link, record) for record in (cpu, gpu))
    equal = sum(1 for one in pairs if one and one.word == "equal")
    return Group(ours, theirs, gpu_from, shown, equal, changed)


def pair(key: str, cpu: dict[str, Any], gpu: dict[str, Any]) -> Pair | None:
    """Two recordings of one value; None when one is no number."""
    one, other = cpu.get("value"), gpu.get("value")
    if not (is_number(one) and is_number(other)):
        return None
    ratio = other / one if one else None
    return Pair(key, cpu, gpu, ratio, relation(cpu, gpu))


def relation(cpu: dict[str, Any], gpu: dict[str, Any]) -> str:
    """What may be said of two recordings: equal, timing, intervals apart or not, no interval."""
    if math.isclose(cpu["value"], gpu["value"], rel_tol=1e-9, abs_tol=1e-12):
        return "equal"
    if "time" in (cpu.get("kind"), gpu.get("kind")):
        return "timing"
    ends = [entry.get(end) for entry in (cpu, gpu) for end in ("low", "high")]
    if not all(is_number(end) for end in ends):
        return "no interval"
    apart = ends[1] < ends[2] or ends[3] < ends[0]
    return "intervals apart" if apart else "intervals overlap"


def missing(runs: Runs) -> str:
    """Which side there is no record of."""
    if runs.profile == "smoke":
        return parts.why_empty(runs, "device comparisons")
    chapters = parts.record_chapters(runs)
    if any(sides(runs, chapter, "gpu") for chapter in chapters):
        return "There are GPU records, but no chapter has both a GPU record and a CPU record here."
    return (
        f"{NOTHING} Neither has a chapter run in profile gpu on this machine, nor is there an accepted "
        "run of a GPU in reference/. On a machine with one, “make book PROFILE=gpu” makes them."
    )
