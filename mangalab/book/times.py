"""Where the seconds of the last runs went: kinds of work, chapters and cells, worst first.

A record has a run's wall seconds, its executed notebook those of every cell. What a cell did is read
off the names that it calls, and off nothing else: by the words of a name (`WORDS`). A function that the
notebook itself defines counts as what its body calls, one imported by another name as what it was. A
cell that does several kinds goes, with all its seconds, to the first of `ORDER`; beside that stand the
seconds of cells that do only this kind (at least) and of all cells that do it (at most), because the
seconds of a cell cannot be split.
"""

from __future__ import annotations

import ast
import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from . import records
from .chapters import Chapter
from .notebook import INJECTED
from .project import BookError, Project

SCHEMA = 1
# a call is of a kind when a word of its name stands here (words are parted by `_`)
WORDS = {
    "training": """train trained teach learn tune tuned fit setfit adapt meta align optimize advance
        rloo dpo lora full stored qat gptq awq install quantized""",
    "generation": "generate generated replies sample follow speak spoken answer answers tell fire",
    "loading": "load_encoder load_causal_lm load_tokenizer from_pretrained",
    "evaluation": """score scores scored predict evaluate judge examine exam nll outputs bootstrap
        wilson latency paired times compare explain gradients board bridge served maxsim bottoms""",
    "spectra": "summary spectra spectrum svd",
    "figures": "show subplots",
    "data": "load prepare render tokenize encode dataset documents queries",
}
OTHER = ("np", "torch", "F", "nn", "math", "json", "ax")  # libraries' names say nothing of the kind
ORDER = (*WORDS, "imports", "rest")
START = "start and end"  # the run's seconds outside its cells: worker, kernel, saving
KINDS = (START, *ORDER)
SLACK = 5.0  # seconds by which a notebook's clock may disagree with its record's


@dataclass(frozen=True)
class Cell:
    """One code cell of a run: its number among them, its seconds, its kinds (the first one counts)."""

    chapter: str
    cell: int
    seconds: float
    kinds: list[str]
    line: str

    @property
    def kind(self) -> str:
        """The kind that the cell's seconds are counted for."""
        return self.kinds[0]


@dataclass(frozen=True)
class Run:
    """One chapter's run: its seconds by kind add up to `seconds`; `mixed` are those of mixed cells."""

    chapter: str
    started: str
    seconds: float
    kinds: dict[str, float]
    mixed: float


@dataclass(frozen=True)
class Times:
    """All runs and cells, worst first, and the chapters that say nothing, with the reason."""

    profile: str
    runs: list[Run]
    cells: list[Cell]
    missing: dict[str, str]

    @property
    def seconds(self) -> float:
        """Wall seconds of all runs, one after another."""
        return sum(run.seconds for run in self.runs)

    def kinds(self) -> dict[str, dict[str, float]]:
        """By kind, most first: `seconds` as counted, `alone` at least, `at_most`."""
        found = {}
        for kind in KINDS:
            total = sum(run.kinds[kind] for run in self.runs)
            mine = [cell for cell in self.cells if kind in cell.kinds]
            alone = sum(cell.seconds for cell in mine if len(cell.kinds) == 1)
            most = sum(cell.seconds for cell in mine)
            found[kind] = {"seconds": total, "alone": alone, "at_most": most}
        found[START] |= {"alone": found[START]["seconds"], "at_most": found[START]["seconds"]}
        return dict(sorted(found.items(), key=lambda item: -item[1]["seconds"]))

    def as_json(self) -> dict[str, Any]:
        """Schema 1; docs/json.md names the fields."""
        return {
            "schema": SCHEMA, "profile": self.profile, "seconds": self.seconds,
            "mixed": sum(run.mixed for run in self.runs), "kinds": self.kinds(),
            "chapters": [asdict(run) for run in self.runs],
            "cells": [asdict(cell) for cell in self.cells], "missing": self.missing,
        }  # fmt: skip


def times(project: Project, chapters: list[Chapter], profile: str) -> Times:
    """The times of the chapters' last runs; BookError when none of them is there."""
    runs, cells, missing = [], [], {}
    for chapter in chapters:
        record = records.read(project, profile, chapter.id)
        try:
            found = cells_of(project, record)
        except BookError as error:
            missing[chapter.id] = str(error)
            continue
        runs.append(_run(record, found))
        cells += found
    if not runs:
        why = "; ".join(f"{chapter}: {words}" for chapter, words in missing.items())
        raise BookError(
            f"no run of profile {profile} whose times could be told is here ({why}); "
            f"mangalab run --profile {profile} makes them"
        )
    runs.sort(key=lambda run: -run.seconds)
    cells.sort(key=lambda cell: -cell.seconds)
    return Times(profile, runs, cells, missing)


def cells_of(project: Project, record: dict[str, Any]) -> list[Cell]:
    """The timed cells of the run that `record` is of; BookError when they are not to be had."""
    if record["status"] != "passed":
        raise BookError(records.summary(record))
    path = project.executed(record["profile"], record["chapter"])
    try:
        notebook = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        raise BookError("its executed notebook is not there") from None
    code = [cell for cell in notebook["cells"] if _source(cell).strip() and _own(cell)]
    marks = [cell["metadata"].get("papermill", {}) for cell in code]
    if not any(mark.get("duration") for mark in marks):
        raise BookError("its executed notebook has no times")
    if not _same_run(record, marks):
        raise BookError("its executed notebook is of another run than its record")
    kinds = kinds_of([_source(cell) for cell in code])
    return [
        Cell(record["chapter"], k, mark.get("duration") or 0.0, found, _first_line(_source(cell)))
        for k, (cell, mark, found) in enumerate(zip(code, marks, kinds, strict=True), start=1)
    ]


def _own(cell: dict[str, Any]) -> bool:
    tags = cell["metadata"].get("tags", [])
    return cell["cell_type"] == "code" and INJECTED not in tags


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _first_line(source: str) -> str:
    """The first line that does something more than import."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return next((one for one in lines if not one.startswith(("import ", "from ", "#"))), lines[0])


def _same_run(record: dict[str, Any], marks: list[dict[str, Any]]) -> bool:
    """Whether the cells ran within the record's run, by the clock and by the sum."""
    begin = dt.datetime.fromisoformat(record["started"]).timestamp()
    ends = [mark[key] for mark in marks for key in ("start_time", "end_time") if mark.get(key)]
    clock = [dt.datetime.fromisoformat(one).timestamp() - begin for one in ends]
    total = sum(mark.get("duration") or 0.0 for mark in marks)
    last = record["seconds"] + SLACK
    return min(clock) >= -SLACK and max(clock) <= last and total <= last


def _run(record: dict[str, Any], cells: list[Cell]) -> Run:
    kinds = dict.fromkeys(KINDS, 0.0)
    for cell in cells:
        kinds[cell.kind] += cell.seconds
    kinds[START] = record["seconds"] - sum(cell.seconds for cell in cells)
    mixed = sum(cell.seconds for cell in cells if len(cell.kinds) > 1)
    return Run(record["chapter"], record["started"], record["seconds"], kinds, mixed)


# ------------------------------------------------------------------ what a cell does
def kinds_of(sources: list[str]) -> list[list[str]]:
    """The kinds of each cell, in `ORDER`; sources in the order of the notebook."""
    known: dict[str, ast.AST | str] = {}
    found = []
    for source in sources:
        tree = ast.parse(source)
        known |= _definitions(tree)
        parts = [part for part in tree.body if not _defines(part)]
        called = {kind for part in parts for kind in _calls(part, known, frozenset())}
        imports = any(isinstance(part, ast.Import | ast.ImportFrom) for part in parts)
        last = "imports" if imports else "rest"
        found.append([kind for kind in WORDS if kind in called] or [last])
    return found


def _defines(node: ast.AST) -> bool:
    """Whether a statement only gives a name to code that runs elsewhere."""
    if isinstance(node, ast.Assign):
        return isinstance(node.value, ast.Lambda)
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


def _definitions(tree: ast.Module) -> dict[str, ast.AST | str]:
    """By name: bodies of functions, classes and named lambdas, and what imports call otherwise."""
    found: dict[str, ast.AST | str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {one.asname: one.name for one in node.names if one.asname}
    for node in tree.body:
        if isinstance(node, ast.Assign) and _defines(node):
            found |= {name.id: node.value for name in node.targets if isinstance(name, ast.Name)}
        elif _defines(node):
            found[node.name] = node
    return found


def _calls(node: ast.AST, known: dict[str, ast.AST | str], above: frozenset[str]) -> Iterator[str]:
    """Kinds of all calls in `node`; a name that the notebook defines stands for its body."""
    for part in ast.walk(node):
        name = part.id if isinstance(part, ast.Name) else ""
        if name not in above and isinstance(known.get(name), ast.AST):
            yield from _calls(known[name], known, above | {name})
        elif isinstance(part, ast.Call):
            yield from _kind(part.func, known)


def _kind(called: ast.expr, known: dict[str, ast.AST | str]) -> list[str]:
    """The kind that the words of a called name speak of: the first in `WORDS`, or none."""
    name = ""
    if isinstance(called, ast.Attribute):
        library = isinstance(called.value, ast.Name) and called.value.id in OTHER
        name = "" if library else called.attr
    elif isinstance(called, ast.Name):
        meant = known.get(called.id, called.id)
        name = meant if isinstance(meant, str) else ""
    words = {name, *name.split("_")}
    return [kind for kind, listed in WORDS.items() if words & set(listed.split())][:1]


# ------------------------------------------------------------------ as text
def lines(found: Times, cells: int = 15) -> Iterator[str]:
    """The tables as lines: kinds, chapters, and the `cells` worst cells."""
    total = found.seconds
    runs = f"{len(found.runs)} run{'s' if len(found.runs) > 1 else ''}"
    yield f"{runs} of profile {found.profile}, {total:.0f} s one after another"
    mixed = sum(run.mixed for run in found.runs)
    yield (
        f"{mixed / total:.0%} of it in cells that do several kinds of work: all their seconds go to "
        f"the first of {', '.join(WORDS)}"
    )
    yield ""
    yield f"{'kind':<14} {'s':>7} {'share':>6} {'at least':>9} {'at most':>8}"
    for kind, row in found.kinds().items():
        share = row["seconds"] / total
        yield f"{kind:<14} {row['seconds']:7.1f} {share:6.0%} {row['alone']:9.1f} {row['at_most']:8.1f}"
    yield from ("", *_chapter_lines(found.runs), "")
    yield "worst cells (number among the code cells)"
    for cell in found.cells[:cells]:
        name = f"{cell.chapter} {cell.cell}"
        yield f"{name:<28} {cell.seconds:6.1f} s  {'+'.join(cell.kinds):<32} {cell.line[:60]}"
    for chapter, why in found.missing.items():
        yield f"not counted: {chapter}: {why}"


def _chapter_lines(runs: list[Run]) -> Iterator[str]:
    width = max(len(run.chapter) for run in runs)
    heads = {START: "start/end", "generation": "generate", "evaluation": "evaluate"}
    row = "".join(f"{heads.get(kind, kind):>10}" for kind in KINDS)
    yield f"{'chapter':<{width}} {'s':>7}{row}{'mixed':>7}"
    for run in runs:
        row = "".join(f"{run.kinds[kind]:10.1f}" for kind in KINDS)
        yield f"{run.chapter:<{width}} {run.seconds:7.1f}{row}{run.mixed / run.seconds:7.0%}"
