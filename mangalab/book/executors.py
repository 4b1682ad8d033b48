"""One chapter's run as a job for any `concurrent.futures.Executor`, on this machine or another.

A job and what it delivers are plain data, so they travel to threads, processes and Dask workers
alike. Nothing calls back: a job writes how far it is into its work folder, where the driver looks
if it sees the same disk, and ends when it finds the file that `halt` leaves. The record and the
executed notebook come back with the delivery, so a worker may have a disk of its own: all it needs
is the same code, notebooks and packages, which `check` compares before anything runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ..record import canonical, file_hash, write_json
from . import records
from .chapters import Chapter
from .keys import pins
from .process import Watch
from .project import BookError, Project
from .runner import DIED, Outcome, run_chapter

PACKAGE = Path(__file__).resolve().parents[1]
EVERY = 0.5  # seconds between two notes of progress


@dataclass(frozen=True)
class Job:
    """What a worker needs to run one chapter; `records` are the driver's, of it and its needs."""

    root: str
    chapter: Chapter
    profile: str
    token: str  # names the whole run: `halt(token)` ends its jobs
    options: dict[str, Any] = field(default_factory=dict)
    gpu: str | None = None
    records: tuple[dict[str, Any], ...] = ()
    inputs: dict[str, str] | None = None  # what `check` compares; None: same disk, same process


@dataclass(frozen=True)
class Delivery:
    """What a job brings back: its outcome or why there is none, and the executed notebook."""

    outcome: Outcome | BookError
    notebook: bytes | None = None


def run_job(job: Job) -> Delivery:
    """Run a job wherever this is; every fault comes back as a value, interruption too."""
    try:
        if _halt_file(job.token).exists():
            raise BookError(f"{job.chapter.id} was interrupted before it started")
        project = _project(job.root)
        if job.inputs is not None:
            check(project, [job.chapter.id], job.inputs)
        for record in job.records:
            if records.read(project, job.profile, record["chapter"]) != record:
                records.write(project, record)
        outcome = _run(project, job)
    except BookError as error:
        return Delivery(error)
    executed = project.executed(job.profile, job.chapter.id)
    return Delivery(outcome, executed.read_bytes() if executed.exists() else None)


def _run(project: Project, job: Job) -> Outcome:
    try:
        tick = _tick(project, job)
        return run_chapter(project, job.chapter, job.profile, tick=tick, gpu=job.gpu, **job.options)
    except KeyboardInterrupt:  # the record says so; Dask would take the exception for its own
        record = records.read(project, job.profile, job.chapter.id)
        return Outcome(job.chapter.id, record, True, record.get("reason", ""))


def _project(root: str) -> Project:
    """The driver's folder if this machine sees it, else the worker's own book."""
    if (Path(root) / "chapters.yml").is_file():
        return Project(Path(root))
    try:
        return Project.find()
    except BookError:
        raise BookError(
            f"{socket.gethostname()} sees no {root} and has no book of its own; start its "
            "worker in a checkout of the book, or set MANGALAB_ROOT there"
        ) from None


def _tick(project: Project, job: Job) -> Callable[[Watch], None]:
    """Note progress for the driver, and end the run when the driver was interrupted."""
    target, halted, last = progress_file(project, job), _halt_file(job.token), 0.0

    def tick(seen: Watch) -> None:
        nonlocal last
        if halted.exists():
            raise KeyboardInterrupt
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            state = {"account": seen.account, "seconds": seen.seconds, "mb": seen.mb}
            write_json(target, {**state, "token": job.token})

    return tick


def progress_file(project: Project, job: Job) -> Path:
    """Where a job notes how far it is."""
    return project.work(job.profile, job.chapter.id) / "progress.json"


def progress(project: Project, job: Job) -> Watch | None:
    """How far a job is; None when it has not begun or notes it on another disk."""
    try:
        state = json.loads(progress_file(project, job).read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    mine = state.pop("token", None) == job.token
    return Watch(**state) if mine else None


def halt(token: str, on: bool = True) -> None:
    """End the jobs of a run on this machine (or, with `on=False`, forget that they had to end)."""
    if on:
        _halt_file(token).touch()
    else:
        _halt_file(token).unlink(missing_ok=True)


def _halt_file(token: str) -> Path:
    return Path(tempfile.gettempdir()) / f"mangalab-{token}.halt"


def receive(project: Project, profile: str, delivery: Delivery) -> None:
    """Put what a job brought back on this disk, unless it is there already (a shared disk)."""
    if isinstance(delivery.outcome, BookError):
        return
    record, executed = delivery.outcome.record, delivery.notebook
    target = project.executed(profile, record["chapter"])
    if records.read(project, profile, record["chapter"]) == record:
        if executed is None or target.exists():
            return
    else:
        records.put_aside(project, profile, record["chapter"])
        records.append_history(project, record)
    if executed is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(executed)
    records.write(project, record)


def lost(project: Project, job: Job, error: BaseException) -> Outcome | BookError:
    """The verdict on a job whose process was lost or that raised what it should not have.

    A run that had begun is recorded as killed; one that had not leaves the records as they are.
    """
    words = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    record = records.read(project, job.profile, job.chapter.id)
    begun = (record.get("error") or {}).get("message") == DIED and record not in job.records
    if not begun and type(error).__name__ != "KilledWorker":
        return BookError(f"its executor gave no result: {words}")
    if not begun:  # on a disk that nobody can ask now
        records.put_aside(project, job.profile, job.chapter.id)
        record = {**records.never_run(job.chapter.id, job.profile), "started": records.now()}
    message = f"its executor lost it: {words}"
    record |= {"status": "killed", "error": {"cell": None, "name": "", "message": message}}
    record |= {"why": records.summary(record), "executed": None}
    records.write(project, record)
    records.append_history(project, record)
    return Outcome(job.chapter.id, record, False, record.get("reason", ""))


def inputs(project: Project, chapters: Sequence[str]) -> dict[str, str]:
    """What a worker must share with the driver: code, notebooks, claims, packages and settings."""
    code = [*PACKAGE.rglob("*.py"), *(PACKAGE / "data" / "text").glob("*")]
    found = {p.relative_to(PACKAGE.parent).as_posix(): file_hash(p) for p in code if p.is_file()}
    shared = ["book/claims.yml", "requirements.lock"]
    for name in (*shared, *(f"notebooks/{chapter}.ipynb" for chapter in chapters)):
        path = project.root / name
        found[name] = file_hash(path) if path.is_file() else "missing"
    settings = {"MANGALAB_MODELS": os.environ.get("MANGALAB_MODELS", "default")}
    settings["Python"] = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return {**found, **_loaded(), **_packages(), **settings}


@cache
def _loaded() -> dict[str, str]:
    """The press as this process loaded it: a worker that was started earlier may be behind its disk."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    text = "".join(file_hash(path) for path in files)
    return {"mangalab/book (as loaded)": hashlib.sha256(text.encode()).hexdigest()}


@cache
def _packages() -> dict[str, str]:
    rows = ((d.metadata["Name"], d.version) for d in metadata.distributions())
    return {f"package {canonical(name)}": version for name, version in rows if name}


def differs(root: str, chapters: Sequence[str], wanted: dict[str, str]) -> str | None:
    """What a worker that calls this has otherwise than the driver, in a sentence; None: nothing."""
    try:
        check(_project(root), chapters, wanted)
    except BookError as error:
        return str(error)
    return None


def check(project: Project, chapters: Sequence[str], wanted: dict[str, str]) -> None:
    """Compare this machine with the driver's `inputs`; BookError names the first that differ."""
    here = inputs(project, chapters)
    compared = {k for k in here.keys() | wanted.keys() if not k.startswith("package ")}
    compared |= {f"package {name}" for name in pins(project, None)}
    wrong = sorted(k for k in compared if here.get(k) != wanted.get(k))
    if wrong:
        some = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise BookError(
            f"worker {socket.gethostname()} differs from this machine in {some}; bring it to the "
            "same commit and lock file, and start it again"
        )


_loaded()  # now, not at the first job: the disk may have changed by then
