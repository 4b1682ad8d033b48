"""Builds the pages from records and executed notebooks, when anything that they show changed."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ..record import write_json
from . import notebook, records
from .chapters import Chapter
from .interview import BankError, load_bank, to_markdown
from .keys import digest
from .project import BookError, Project, explain
from .tables import fingerprint

DRILL = re.compile(r"^\s*\w+\.drill\(", re.MULTILINE)
# what pages are made of, besides the records and executed notebooks of the profile
SOURCES = (
    "_config.yml _toc.yml references.bib chapters.yml requirements.lock book/**/* _static/**/* "
    "_vendor/**/* notebooks/*.ipynb mangalab/**/*.py mangalab/data/cards/* reference/**/*"
).split()


# pages whose text others do not show, but for their outline: titles, headings, labels, questions
PROSE = re.compile(
    r"notebooks/[^/]+\.ipynb|artifacts/executed/[^/]+/[^/]+\.ipynb|book/.+\.md|book/interview/[^/]+\.yml"
)
OUTLINE = re.compile(r"^\s*(?:#+ .*|\(.+\)=.*|-? *(?:id|level|chapter):.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Built:
    """Result of a build: where the first page lies, and what the builder said if it complained."""

    index: Path
    built: bool
    seconds: float
    complaints: list[str]

    @property
    def ok(self) -> bool:
        """Whether the first page is there and the builder had nothing to say."""
        return self.index.exists() and not self.complaints


def refresh_prose(executed: NotebookNode, source: NotebookNode) -> NotebookNode | None:
    """The executed notebook with prose, tags and order of cells as in the source.

    Code cells are matched one to one; None when their code differs (the run is stale, and the
    page must show what was run).
    """
    ran, wanted = notebook.code_cells(executed), notebook.code_cells(source)
    if [c.source.strip() for c in ran] != [c.source.strip() for c in wanted]:
        return None
    outputs = iter(ran)
    injected = [cell for cell in executed.cells if notebook.INJECTED in notebook.tags(cell)]
    cells: list[NotebookNode] = []
    for cell in source.cells:
        fresh = copy.deepcopy(cell)
        if cell.cell_type == "code" and cell.source.strip():
            old = next(outputs)
            fresh.outputs, fresh.execution_count = old.outputs, old.execution_count
            fresh.metadata = {**old.metadata, **cell.metadata}
            if "tags" not in cell.metadata:
                fresh.metadata.pop("tags", None)
        cells.append(fresh)
        if "parameters" in notebook.tags(cell):
            cells += injected
    return nbformat.from_dict({**executed, "cells": cells})


def refresh_drill(page: NotebookNode, bank: Path, values: dict[str, str]) -> None:
    """Write the interview questions anew into the output of the cell that calls `lab.drill()`.

    Questions are prose too: an edited answer reaches the page, with the run's values bound.
    """
    for cell in notebook.code_cells(page):
        if DRILL.search(cell.source):
            text = to_markdown(load_bank(bank), values)
            for output in cell.outputs:
                if "text/markdown" in output.get("data", {}):
                    output["data"]["text/markdown"] = text


def refresh(project: Project, profile: str, chapters: list[Chapter]) -> list[str]:
    """Bring new prose and questions into the executed notebooks; returns complaints."""
    complaints = []
    for chapter in chapters:
        path = project.executed(profile, chapter.id)
        if not path.exists():
            continue
        try:
            old = notebook.read(path)
            new = refresh_prose(old, notebook.read(project.notebook(chapter.id)))
        except BookError:
            continue  # the record says what is wrong with the source; the page keeps its run
        if new is None:
            continue
        record = records.read(project, profile, chapter.id)
        values = {key: str(v.get("text")) for key, v in record.get("values", {}).items()}
        bank = project.root / "book" / "interview" / f"{chapter.id}.yml"
        try:
            refresh_drill(new, bank, values)
        except BankError as error:
            complaints.append(str(error))
        if new.cells != old.cells:
            nbformat.write(new, path)
    return complaints


def outline(name: str, text: str) -> str:
    """Hash of what other pages may show of a prose file or link to."""
    if name.endswith(".ipynb"):
        try:
            cells = json.loads(text)["cells"]
            text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        except (ValueError, KeyError, TypeError):
            return digest(text)  # the runner says what is wrong with it
    return digest(OUTLINE.findall(text))


@dataclass(frozen=True)
class State:
    """Everything that the pages of a profile are made of, as hashes."""

    files: dict[str, str]  # path -> contents
    outlines: dict[str, str]  # path of a prose file -> what other pages may show or link to
    tables: str

    @classmethod
    def now(cls, project: Project, profile: str) -> State:
        """The state of the files as they are."""
        patterns = [*SOURCES, f"artifacts/runs/{profile}/*.json", f"artifacts/executed/{profile}/*"]
        files, outlines = {}, {}
        for path in sorted({p for pattern in patterns for p in project.root.glob(pattern)}):
            if path.is_file() and "__pycache__" not in path.parts:
                name, contents = path.relative_to(project.root).as_posix(), path.read_bytes()
                files[name] = hashlib.sha256(contents).hexdigest()
                if PROSE.fullmatch(name) and not name.startswith("artifacts/"):
                    outlines[name] = outline(name, contents.decode("utf8", "replace"))
        return cls(files, outlines, fingerprint(project, profile))

    def only_prose_since(self, last: dict) -> bool:
        """Whether nothing changed since but the prose inside of pages.

        Other pages show titles and link to headings, labels and questions: with those the same,
        an edit concerns its own page and the pages outside of the chapters.
        """
        old = last.get("files", {})
        if old.keys() != self.files.keys() or last.get("outlines") != self.outlines:
            return False
        changed = [name for name in old if old[name] != self.files[name]]
        return all(PROSE.fullmatch(name) for name in changed)


def build(project: Project, profile: str, chapters: list[Chapter], force: bool = False) -> Built:
    """Build the HTML of a profile, or leave it when nothing that it shows changed.

    After an edit of prose only what it concerns is built; the result is that of a whole build. The
    stamp of a build without complaints is what makes this safe: the builder itself returns 0 over
    a page that failed the last time.
    """
    try:
        stale = refresh(project, profile, chapters)
        index, state = project.html(profile) / "index.html", State.now(project, profile)
        stamp = project.artifacts / "build" / f"{profile}.json"
        last = (records.load(stamp) or {}) if index.exists() and not force else {}
        now = {"schema": 1, **asdict(state)}
        if last == now:
            return Built(index, False, 0.0, stale)
        start = time.monotonic()
        stamp.unlink(missing_ok=True)
        complaints = stale + _jupyter_book(project, profile, not state.only_prose_since(last))
        if not complaints and index.exists():
            write_json(stamp, now)
        return Built(index, True, time.monotonic() - start, complaints)
    except OSError as error:
        raise BookError(explain(error)) from None


def _jupyter_book(project: Project, profile: str, whole: bool) -> list[str]:
    """Run the builder over everything, or over what changed; returns its warnings and errors."""
    log = project.artifacts / "build" / f"{profile}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mangalab.book.builder", "."]
    command += [*(["--all"] * whole), "-W", "--keep-going", "-n"]
    if profile != "cpu":
        command += ["--path-output", str(project.html(profile).parent.parent)]
    package = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "MANGALAB_PROFILE": profile,
        "MANGALAB_JOBS": os.environ.get("MANGALAB_JOBS") or str(min(4, os.cpu_count() or 1)),
        "MANGALAB_ROOT": str(project.root),
        "PYTHONPATH": os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p),
        "PYTHONUTF8": "1",
    }
    with log.open("w", encoding="utf8") as out:
        done = subprocess.run(
            command,
            cwd=project.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if done.returncode == 0:
        return []
    lines = log.read_text(encoding="utf8", errors="replace").splitlines()
    found = [line for line in lines if "WARNING" in line or "ERROR" in line or "Error" in line]
    return found[:20] or lines[-10:] or [f"jupyter-book ended with exit code {done.returncode}"]
