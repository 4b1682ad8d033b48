"""Runs chapters, one process each, and leaves a true record whatever happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import nbformat

from ..record import write_json
from . import keys, notebook, records
from .chapters import Chapter
from .machine import machine
from .process import Limits, Watch, environment, watch
from .project import BookError, Project, explain

OVER = 1.5  # a run that takes more than this times its budget is reported
DIED = "the runner itself died during this run"
Tick = Callable[[Watch], None]


@dataclass(frozen=True)
class Outcome:
    """What `run_chapter` did: the record as it is now, whether it ran, and why or why not."""

    chapter: str
    record: dict[str, Any]
    ran: bool
    why: str

    @property
    def passed(self) -> bool:
        """Whether the chapter's record is good."""
        return self.record["status"] == "passed"


def run_chapter(
    project: Project,
    chapter: Chapter,
    profile: str,
    given: dict[str, Any] | None = None,
    force: bool = False,
    timeout: float | None = None,
    tick: Tick = lambda seen: None,
    gpu: str | None = None,
) -> Outcome:
    """Run one chapter if something that it depends on changed; safe to call in any process.

    `gpu` is the one device that it may see; `tick` may raise KeyboardInterrupt to end the run.

    Raises BookError when another runner holds the chapter; every other fault ends in the record.
    """
    try:
        lock_file = project.artifacts / "locks" / f"{profile}-{chapter.id}.lock"
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock_file, timeout=0):
            return _run_locked(project, chapter, profile, given, force, timeout, tick, gpu)
    except filelock.Timeout:
        raise BookError(
            f"{chapter.id} ({profile}) is being run by another mangalab; wait for it or end it"
        ) from None
    except OSError as error:
        raise BookError(explain(error)) from None


def _run_locked(
    project: Project,
    chapter: Chapter,
    profile: str,
    given: dict[str, Any] | None,
    force: bool,
    timeout: float | None,
    tick: Tick,
    gpu: str | None,
) -> Outcome:
    try:
        decision = keys.decide(project, chapter, profile, given)
        budget = _budget(chapter, profile)
    except BookError as error:
        record = _opening(project, chapter, profile, {}, "its notebook or parameters are wrong")
        return _close(project, record, {"state": "failed", "message": str(error)})
    if not decision.needed and not force:
        if decision.kept:
            records.restore(project, decision.kept)
        record = records.read(project, profile, chapter.id)
        return Outcome(chapter.id, record, False, decision.reason)
    reason = decision.reason if decision.needed else "asked for"
    record = _opening(project, chapter, profile, decision.parameters, reason)
    chosen = {**chapter.overrides(profile), **(given or {})}
    limits = Limits(timeout or chapter.timeout * budget["seconds"], chapter.memory * budget["mb"])
    return _execute(project, chapter, record, decision, chosen, limits, tick, gpu)


def _budget(chapter: Chapter, profile: str) -> dict[str, float]:
    if profile not in chapter.budget:
        raise BookError(f"chapters.yml: {chapter.id} has no budget for profile {profile}")
    return chapter.budget[profile].model_dump()


def _opening(
    project: Project, chapter: Chapter, profile: str, parameters: dict[str, Any], reason: str
) -> dict[str, Any]:
    """Write, before anything runs, the record that stays if the machine dies during the run."""
    records.put_aside(project, profile, chapter.id)
    commit, dirty = records.commit(project)
    record = {
        **records.never_run(chapter.id, profile),
        "status": "killed",
        "error": {"cell": None, "name": "", "message": DIED},
        "reason": reason,
        "parameters": parameters,
        "started": records.now(),
        "machine": machine(),
        "commit": commit,
        "dirty": dirty,
        "budget": chapter.budget[profile].model_dump() if profile in chapter.budget else None,
        "threads": chapter.threads_for(profile),
        "executed": None,
    }
    record["why"] = records.summary(record)
    records.write(project, record)
    return record


def _execute(
    project: Project,
    chapter: Chapter,
    record: dict[str, Any],
    decision: keys.Decision,
    chosen: dict[str, Any],
    limits: Limits,
    tick: Tick,
    gpu: str | None,
) -> Outcome:
    profile, work = record["profile"], project.work(record["profile"], chapter.id)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    spec = {
        "source": str(work / "source.ipynb"),
        "output": str(work / "executed.ipynb"),
        "parameters": chosen,
        "cwd": str(project.notebook(chapter.id).parent),
        "cell_timeout": chapter.cell_timeout,
    }
    # a copy: what runs is what the key describes, whatever is edited meanwhile
    nbformat.write(decision.source, spec["source"])
    write_json(work / "spec.json", spec)
    seen = Watch()

    def follow(state: Watch) -> None:
        nonlocal seen
        seen = state
        tick(state)

    variables = environment(project, profile, work, chapter.threads_for(profile), gpu)
    try:
        watch(work / "spec.json", variables, limits, follow)
        verdict = _verdict(seen, limits, chapter)
    except KeyboardInterrupt:
        verdict = {**seen.account, "state": "killed", "name": "", "message": "interrupted"}
        _finish(project, record, seen, verdict, decision.parts, work)
        raise
    return _finish(project, record, seen, verdict, decision.parts, work)


def _verdict(seen: Watch, limits: Limits, chapter: Chapter) -> dict[str, Any]:
    """The worker's account, or what must have happened when it could not give one."""
    if seen.too_big:
        message = f"used {seen.mb:.0f} MB, the limit is {limits.mb:.0f} MB"
        message += f" (budget x {chapter.memory:g})"
        return {**seen.account, "state": "killed", "name": "", "message": message}
    if seen.timed_out:
        message = f"the notebook may take {limits.seconds:.0f} s"
        return {**seen.account, "state": "timeout", "name": "", "message": message}
    if seen.account.get("state", "running") == "running":
        message = f"the notebook's process died (exit code {seen.returncode})"
        return {**seen.account, "state": "killed", "name": "", "message": message}
    return seen.account


def _finish(
    project: Project,
    record: dict[str, Any],
    seen: Watch,
    verdict: dict[str, Any],
    now: dict[str, Any],
    work: Path,
) -> Outcome:
    """Join the kernel's fragment, the times and the verdict to the final record."""
    fragment = _fragment(work)
    record |= {name: fragment[name] for name in records.FROM_KERNEL if name in fragment}
    if verdict["state"] == "passed" and not record.get("complete"):
        message = "incomplete: the last cell must be lab.card(), and it was never called"
        verdict = {**verdict, "state": "failed", "name": "", "message": message, "cell": None}
    record["key_parts"] = keys.reported(now, record, project)
    record["key"] = keys.digest(record["key_parts"])
    record["seconds"] = round(seen.seconds, 1)
    record["peak_mb"] = round(seen.peak_mb)
    record["cells"] = {name: verdict.get(name) for name in ("cells", "not_done")}
    record["over_budget"] = _over(record)
    record["executed"] = _keep_notebook(project, record, work)
    return _close(project, record, verdict)


def _fragment(work: Path) -> dict[str, Any]:
    try:
        found = json.loads((work / "fragment.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _over(record: dict[str, Any]) -> list[str]:
    """Which parts of the budget were exceeded by more than `OVER`, in words."""
    budget, found = record["budget"] or {}, []
    for name, spent, unit in (("seconds", "seconds", "s"), ("mb", "peak_mb", "MB")):
        if budget and record[spent] > OVER * budget[name]:
            found.append(f"{record[spent]:.0f} {unit} of {budget[name]:.0f} {unit}")
    return found


def _keep_notebook(project: Project, record: dict[str, Any], work: Path) -> str | None:
    """Move the executed notebook to its place if it can be read; returns its path from the root."""
    target = project.executed(record["profile"], record["chapter"])
    try:
        notebook.read(work / "executed.ipynb")
    except BookError:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    (work / "executed.ipynb").replace(target)
    return target.relative_to(project.root).as_posix()


def _close(project: Project, record: dict[str, Any], verdict: dict[str, Any]) -> Outcome:
    record["status"] = verdict["state"]
    good = verdict["state"] == "passed"
    record["error"] = None if good else {k: verdict.get(k) for k in ("cell", "name", "message")}
    record["why"] = record["reason"] if good else records.summary(record)
    records.write(project, record)
    records.append_history(project, record)
    return Outcome(record["chapter"], record, "seconds" in record, record["reason"])


def expected_seconds(project: Project, chapter: Chapter, profile: str) -> float | None:
    """Seconds that a run will take: the last good run's, else the budget's."""
    last = records.read(project, profile, chapter.id)
    good = last if last["status"] == "passed" else records.read_kept(project, profile, chapter.id)
    if good and good.get("seconds"):
        return good["seconds"]
    budget = chapter.budget.get(profile)
    return budget.seconds if budget else None
