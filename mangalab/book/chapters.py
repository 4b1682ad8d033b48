"""`chapters.yml`: what each chapter is called, needs, may cost, and how smoke and gpu change it."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .project import BookError, Project


class Budget(BaseModel):
    """What one run may take: wall seconds on two cores, peak memory of its processes in MB.

    Pages that several processes share count once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    seconds: float = Field(gt=0)
    mb: float = Field(gt=0)


class Chapter(BaseModel):
    """One entry of `chapters.yml`; `smoke` and `gpu` override the notebook's parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    title: str
    tier: int = Field(ge=1, le=5)
    minutes: int = Field(gt=0, description="reading time")
    needs: tuple[str, ...] = ()
    budget: dict[str, Budget]
    timeout: float = Field(default=5, gt=1, description="whole-notebook timeout, times the budget")
    cell_timeout: float | None = Field(default=None, gt=0, description="seconds for any one cell")
    memory: float = Field(default=2, gt=1, description="memory limit, times the budget")
    threads: int = Field(default=2, ge=1, description="of profiles cpu and gpu; smoke has one")
    smoke: dict[str, Any] = {}
    gpu: dict[str, Any] = {}

    def overrides(self, profile: str) -> dict[str, Any]:
        """Parameters that this profile changes; the notebook itself holds the cpu values."""
        return {"smoke": self.smoke, "gpu": self.gpu}.get(profile, {})

    def threads_for(self, profile: str) -> int:
        """Threads of a run, the same on every machine: results depend on their number."""
        return 1 if profile == "smoke" else self.threads


def load(project: Project) -> dict[str, Chapter]:
    """Every chapter by id (the notebook's stem), a chapter after those it needs.

    Raises BookError when the file is no YAML, misses a field, has one too many or a wrong type.
    """
    path = project.root / "chapters.yml"
    state = path.stat()
    key = (str(path), state.st_mtime_ns, state.st_size)
    if key not in _loaded:  # a build of the pages asks thousands of times
        _loaded[key] = _load(path)
    return dict(_loaded[key])


_loaded: dict[tuple[str, int, int], dict[str, Chapter]] = {}


def _load(path: Path) -> dict[str, Chapter]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf8")) or {}
    except yaml.YAMLError as error:
        raise BookError(f"chapters.yml is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise BookError("chapters.yml must map chapter ids to their entries")
    chapters = {name: _chapter(name, _all_others(name, entry, raw)) for name, entry in raw.items()}
    return {name: chapters[name] for name in _order(chapters)}


def _all_others(name: str, entry: object, raw: dict) -> object:
    """The entry with `needs: ["*"]` spelled out: a chapter that sums up the book names no list."""
    if isinstance(entry, dict) and entry.get("needs") == ["*"]:
        return {**entry, "needs": [other for other in raw if other != name]}
    return entry


def _chapter(name: str, entry: object) -> Chapter:
    if not isinstance(entry, dict):
        raise BookError(f"chapters.yml: {name} must be a mapping with title, tier, minutes, budget")
    try:
        return Chapter(id=name, **entry)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BookError(f"chapters.yml: {name}, {where}: {first['msg'].lower()}") from None


def _order(chapters: dict[str, Chapter]) -> Iterable[str]:
    for chapter in chapters.values():
        for need in chapter.needs:
            if need not in chapters:
                raise BookError(f"chapters.yml: {chapter.id} needs {need}, which is no chapter")
    graph = TopologicalSorter({name: chapters[name].needs for name in chapters})
    try:
        return list(graph.static_order())
    except CycleError as error:
        raise BookError(f"chapters.yml: chapters need each other: {error.args[1]}") from None


def select(chapters: dict[str, Chapter], wanted: list[str]) -> list[Chapter]:
    """Chapters by id or unique prefix (`04` is enough), in the book's order; none named: all."""
    if not wanted:
        return list(chapters.values())
    chosen = set()
    for name in wanted:
        hits = [chapter for chapter in chapters if chapter.startswith(name)]
        if name not in chapters and len(hits) != 1:
            known = ", ".join(chapters)
            raise BookError(f"{name!r} names {len(hits) or 'no'} chapters; known: {known}")
        chosen.add(name if name in chapters else hits[0])
    return [chapter for name, chapter in chapters.items() if name in chosen]
