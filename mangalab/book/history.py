"""The append-only history of runs, read from its end and with a bound."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 8 * 2**20  # bytes: about two thousand runs of a large chapter


@dataclass(frozen=True)
class History:
    """Runs from old to new, how many lines were no runs, and whether older ones were left unread."""

    runs: list[dict[str, Any]]
    damaged: int = 0
    cut: bool = False

    def of(self, profile: str, chapter: str) -> list[dict[str, Any]]:
        """The runs of one chapter in one profile, from old to new."""
        wanted = (profile, chapter)
        return [run for run in self.runs if (run["profile"], run["chapter"]) == wanted]


def read(path: Path, limit: int = LIMIT) -> History:
    """The last `limit` bytes of a history; an empty one where there is no file.

    A line that is no JSON object with chapter, profile, status and start is counted and skipped:
    a machine that lost power in the middle of a line must not cost the page its other runs.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            text = file.read().decode("utf8", errors="replace")
    except OSError:
        return History([])
    lines = text.split("\n")
    cut = size > limit
    found = [_run(line) for line in (lines[1:] if cut else lines) if line.strip()]
    runs = [run for run in found if run is not None]
    return History(runs, damaged=len(found) - len(runs), cut=cut)


def _run(line: str) -> dict[str, Any] | None:
    try:
        run = json.loads(line)
    except ValueError:
        return None
    names = ("chapter", "profile", "status", "started")
    if not isinstance(run, dict) or not all(isinstance(run.get(name), str) for name in names):
        return None
    values = run.get("values")
    values = values if isinstance(values, dict) else {}
    numbers = {key: value for key, value in values.items() if is_number(value)}
    cost = {name: run[name] if is_number(run.get(name)) else None for name in ("seconds", "peak_mb")}
    return {**run, **cost, "values": numbers}


def is_number(value: object) -> bool:
    """Whether a recorded value is a finite number (a boolean is none)."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and math.isfinite(value)
