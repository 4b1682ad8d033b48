"""Runs many chapters: which may start now, what waits for what, and what comes of each.

Chapters run longest first, as many side by side as threads, memory and GPUs allow; a chapter waits
for those whose records it reads, and is not run when one of them is not good. Values never depend
on how many run at once: each chapter has its own process and its declared number of threads.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from typing import Any

from . import devices, executors, records
from .chapters import Chapter
from .executors import Delivery, Job
from .process import Watch
from .project import BookError, Project
from .runner import Outcome, expected_seconds

STEP = 0.25  # seconds between two looks at what runs
PATIENCE = 30  # seconds that interrupted jobs have to write their records
Result = Outcome | BookError
Show = Callable[[Chapter, Watch | None, Result | None], None]


@dataclass(frozen=True)
class Room:
    """What may be used at once; None means no limit here (another machine sees to it)."""

    jobs: int | None = None
    cores: int | None = None
    gpus: tuple[str, ...] | None = None
    free_mb: Callable[[], float] | None = None


def room_here(profile: str, jobs: int | None = None) -> Room:
    """This machine's room: its cores and free memory, and one chapter at a time on each GPU."""
    gpus = tuple(gpu.id for gpu in devices.gpus()) if profile == "gpu" else None
    return Room(jobs, devices.cores(), gpus, devices.free_mb)


def too_many(chapters: list[Chapter], profile: str, room: Room) -> str | None:
    """Why fewer than the wanted number of chapters will run side by side, in a sentence."""
    used, fit = 0, 0
    for threads in sorted(chapter.threads_for(profile) for chapter in chapters):
        used += threads
        fit += used <= (room.cores or used)
    fit = max(1, fit)
    if not room.jobs or min(room.jobs, len(chapters)) <= fit:
        return None
    return (
        f"--jobs {room.jobs}: at most {fit} side by side, because chapters have the threads that "
        f"chapters.yml gives them and this machine has {room.cores} cores"
    )


def run_all(
    project: Project,
    chapters: list[Chapter],
    profile: str,
    show: Show,
    executor: Executor | None = None,
    room: Room | None = None,
    halt: Callable[[str, bool], None] = executors.halt,
    **options: Any,
) -> list[Result]:
    """Run chapters side by side where there is room; one that fails never stops the others.

    Without an executor, threads of this process watch one worker process a chapter. Any other
    executor gets jobs that pickle; `halt(token, on)` must then reach the machines that run them.
    `show(chapter, watch, outcome)` is called at the start, while a chapter runs and at its end.
    Raises KeyboardInterrupt after every running chapter has recorded its interruption.
    """
    room = room or (Room() if executor else room_here(profile))
    pool = executor or ThreadPoolExecutor(max_workers=max(1, len(chapters)))
    runs = _Runs(project, chapters, profile, show, pool, room, options, foreign=bool(executor))
    try:
        while runs.waiting or runs.running:
            runs.step()
    except BaseException:
        halt(runs.token, True)
        if runs.gather(PATIENCE):
            halt(runs.token, False)
        raise
    finally:
        if executor is None:
            pool.shutdown()
    return [runs.results[chapter.id] for chapter in chapters]


class _Runs:
    """The state of one call of `run_all`."""

    def __init__(
        self,
        project: Project,
        chapters: list[Chapter],
        profile: str,
        show: Show,
        pool: Executor,
        room: Room,
        options: dict[str, Any],
        foreign: bool,
    ) -> None:
        self.project, self.profile, self.show = project, profile, show
        self.pool, self.room, self.options, self.foreign = pool, room, options, foreign
        self.token = uuid.uuid4().hex
        self.waiting = chapters if room.jobs == 1 else in_order(project, chapters, profile)
        self.waiting = list(self.waiting)
        self.running: dict[Future[Delivery], Job] = {}
        self.seen: dict[str, Watch] = {}
        self.results: dict[str, Result] = {}

    def step(self) -> None:
        """Start what has room, wait a moment, and deal with what ended or moved on."""
        for chapter in list(self.waiting):
            self._consider(chapter)
        if not self.running:
            return
        done, _ = wait(self.running, timeout=STEP, return_when=FIRST_COMPLETED)
        for future in done:
            self._collect(future)
        for job in self.running.values():
            seen = executors.progress(self.project, job)
            if seen:
                self.seen[job.chapter.id] = seen
                self.show(job.chapter, seen, None)

    def _consider(self, chapter: Chapter) -> None:
        """Start a chapter, leave it waiting, or settle that it cannot run."""
        waiting = {other.id for other in self.waiting}
        busy = waiting | {job.chapter.id for job in self.running.values()}
        if busy & {*chapter.needs}:
            return
        missing = next((need for need in chapter.needs if not self._good(need)), None)
        if missing is None and not self._has_room(chapter):
            return
        self.waiting.remove(chapter)
        self.show(chapter, None, None)
        if missing is None:
            self._start(chapter)
        else:
            self._settle(chapter, BookError(self._without(missing)))

    def _good(self, need: str) -> bool:
        result = self.results.get(need)
        if result is None:
            return records.read(self.project, self.profile, need)["status"] == "passed"
        return isinstance(result, Outcome) and result.passed

    def _without(self, need: str) -> str:
        record = records.read(self.project, self.profile, need)
        words = records.summary(record)
        if isinstance(self.results.get(need), BookError):
            words = "not run this time"
        return f"it reads the record of {need}, which is {words!r}; put that right first"

    def _has_room(self, chapter: Chapter) -> bool:
        """Whether a chapter fits beside those that run; alone it always does."""
        jobs = [*self.running.values()]
        room, threads = self.room, chapter.threads_for(self.profile)
        if not jobs:
            return True
        if room.jobs and len(jobs) >= room.jobs:
            return False
        if room.gpus is not None and not self._free_gpus():
            return False
        used = sum(job.chapter.threads_for(self.profile) for job in jobs)
        if room.cores and used + threads > room.cores:
            return False
        promised = sum(
            max(0.0, self._mb(job.chapter) - self._seen(job).mb) for job in self.running.values()
        )
        return not room.free_mb or self._mb(chapter) + promised <= room.free_mb()

    def _mb(self, chapter: Chapter) -> float:
        budget = chapter.budget.get(self.profile)
        return budget.mb if budget else 0.0

    def _seen(self, job: Job) -> Watch:
        return self.seen.get(job.chapter.id, Watch())

    def _free_gpus(self) -> list[str]:
        taken = {job.gpu for job in self.running.values()}
        return [gpu for gpu in self.room.gpus or () if gpu not in taken]

    def _start(self, chapter: Chapter) -> None:
        known = [records.read(self.project, self.profile, k) for k in (*chapter.needs, chapter.id)]
        job = Job(
            str(self.project.root), chapter, self.profile, self.token, self.options,
            gpu=next(iter(self._free_gpus()), None),
            records=tuple(record for record in known if record["status"] != "never-run"),
            inputs=executors.inputs(self.project, [chapter.id]) if self.foreign else None,
        )  # fmt: skip
        try:
            self.running[self.pool.submit(executors.run_job, job)] = job
        except Exception as error:  # a broken pool, a closed client
            self._settle(chapter, executors.lost(self.project, job, error))

    def _collect(self, future: Future[Delivery]) -> None:
        job = self.running.pop(future)
        try:
            delivery = future.result()
            executors.receive(self.project, self.profile, delivery)
            result = delivery.outcome
        except Exception as error:  # whatever an executor does must not hide the others
            result = executors.lost(self.project, job, error)
        self._settle(job.chapter, result)

    def _settle(self, chapter: Chapter, result: Result) -> None:
        self.results[chapter.id] = result
        self.show(chapter, None, result)

    def gather(self, seconds: float) -> bool:
        """Wait for the jobs that were told to end, keep what they bring back; whether all did."""
        done, late = wait(self.running, timeout=seconds)
        for future in done:
            self._collect(future)
        for future in late:
            future.cancel()
        return not late


def in_order(project: Project, chapters: list[Chapter], profile: str) -> list[Chapter]:
    """Longest first, counting what waits for a chapter as part of it."""
    followers = {c.id: [d for d in chapters if c.id in d.needs] for c in chapters}

    @cache
    def length(name: str) -> float:
        chapter = next(c for c in chapters if c.id == name)
        own = expected_seconds(project, chapter, profile) or 0.0
        return own + max((length(d.id) for d in followers[name]), default=0.0)

    return sorted(chapters, key=lambda c: -length(c.id))
