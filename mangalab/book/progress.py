"""What the terminal shows while chapters run: a line for each end, and a live line of what runs."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

from . import records
from .chapters import Chapter
from .process import Watch
from .project import BookError, Project
from .runner import Outcome, expected_seconds
from .store import Store

PLAIN_EVERY = 30  # seconds between two lines about running chapters where there is no terminal


class Progress:
    """Prints progress with the time left, ends and the final count."""

    def __init__(
        self, project: Project, profile: str, total: int, store: Store | None = None
    ) -> None:
        self.project, self.profile, self.total = project, profile, total
        self.live = sys.stdout.isatty()
        self.store, self.not_stored = store, 0
        self.done, self.last_line = 0, time.monotonic()
        self.expected: dict[str, float | None] = {}
        self.running: dict[str, Watch] = {}

    def show(
        self, chapter: Chapter, seen: Watch | None, outcome: Outcome | BookError | None
    ) -> None:
        """Callback of `run_all`: start (neither), progress (`seen`) or end (`outcome`)."""
        if outcome is not None:
            self.running.pop(chapter.id, None)
            self._end(chapter, outcome)
        elif seen is not None and seen.seconds:
            self.running[chapter.id] = seen
            self._tick()
        else:
            self.expected[chapter.id] = expected_seconds(self.project, chapter, self.profile)
            self.running[chapter.id] = Watch()

    def _tick(self) -> None:
        due = time.monotonic() - self.last_line > PLAIN_EVERY
        if not (self.live or due):
            return
        line = f"[{self.done + 1}/{self.total}] {self._state()}"
        if self.live:
            width = max(20, shutil.get_terminal_size().columns - 1)
            print(f"\r\x1b[K{line[:width]}", end="", flush=True)
        else:
            self.last_line = time.monotonic()
            print(line)

    def _state(self) -> str:
        """One running chapter at length, several in a few words each."""
        begun = [(name, seen) for name, seen in self.running.items() if seen.seconds]
        if len(begun) > 1:
            return "  |  ".join(f"{name} {_cell(seen)} {clock(seen.seconds)}" for name, seen in begun)
        name, seen = begun[0]
        line = f"{name}  cell {_cell(seen)}  {clock(seen.seconds)} elapsed"
        expected = self.expected.get(name)
        if expected:
            left = expected - seen.seconds
            line += f", about {clock(left)} left" if left > 0 else ", longer than expected"
        return line

    def _end(self, chapter: Chapter, outcome: Outcome | BookError) -> None:
        self.done += 1
        clear = "\r\x1b[K" if self.live else ""
        print(f"{clear}[{self.done}/{self.total}] {describe(chapter, outcome)}", flush=True)
        if self.store and isinstance(outcome, Outcome):
            self._copy(self.store, outcome)

    def _copy(self, store: Store, outcome: Outcome) -> None:
        try:
            store.put(self.project, outcome.record)
        except BookError as error:  # the run itself is good and stays on this disk
            self.not_stored += 1
            print(f"    {error}", flush=True)

    def conclude(self, results: list[Outcome | BookError], strict: bool) -> bool:
        """Print the count of states; whether all is well."""
        bad = [r for r in results if isinstance(r, BookError) or not r.passed]
        over = [r for r in results if isinstance(r, Outcome) and r.record.get("over_budget")]
        ran = sum(isinstance(r, Outcome) and r.ran for r in results)
        line = f"{len(results)} chapters: {len(results) - len(bad)} good, {len(bad)} not"
        line += f"; {ran} ran" + (f"; {len(over)} over budget" if over else "")
        print(line + (f"; {self.not_stored} not copied to the store" if self.not_stored else ""))
        return not (bad or self.not_stored) and not (strict and over)


def _cell(seen: Watch) -> str:
    return f"{seen.account.get('cell', 0)}/{seen.account.get('cells', 0)}"


def describe(chapter: Chapter, outcome: Outcome | BookError) -> str:
    """One line about a chapter's end: state, cost and reason."""
    if isinstance(outcome, BookError):
        return f"{chapter.id}  not run: {outcome}"
    record = outcome.record
    if not outcome.ran and outcome.passed:
        return f"{chapter.id}  fresh ({outcome.why})"
    line = f"{chapter.id}  {records.summary(record)}"
    if outcome.ran:
        line += f"  {clock(record['seconds'])}, {record['peak_mb']} MB  (ran: {outcome.why})"
    for words in record.get("over_budget") or []:
        line += f"\n    over budget: {words}"
    return line


def clock(seconds: float) -> str:
    """Seconds as `42 s` or `7:05`."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 100 else f"{whole // 60}:{whole % 60:02d}"


def ages(record: dict[str, Any]) -> str:
    """The start of a run as `2026-11-22 13:40`."""
    return str(record.get("started", ""))[:16].replace("T", " ")
