"""Run records: one small JSON a run, from which everything that the pages show comes."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import filelock

from ..record import SCHEMA, write_json
from .project import Project

STATES = ("passed", "failed", "timeout", "killed", "never-run")
# what the kernel's fragment adds to a record; the runner's own fields win over it
FROM_KERNEL = (
    "seed seeds device dtype versions values comparisons claims decisions figures spectra "
    "modules data packages complete"
).split()


def never_run(chapter: str, profile: str) -> dict[str, Any]:
    """The record of a chapter that was never run here."""
    return {"schema": SCHEMA, "chapter": chapter, "profile": profile, "status": "never-run"}


def read(project: Project, profile: str, chapter: str) -> dict[str, Any]:
    """The last run's record; `never-run` when there is none or it cannot be read."""
    return load(project.record(profile, chapter)) or never_run(chapter, profile)


def read_kept(project: Project, profile: str, chapter: str) -> dict[str, Any] | None:
    """The good record that was put aside when a later run started, if any."""
    return load(project.kept(profile, chapter))


def load(path: Path) -> dict[str, Any] | None:
    """A JSON file of ours; None when it is missing, damaged or of another schema."""
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


def put_aside(project: Project, profile: str, chapter: str) -> None:
    """Move the executed notebook away before a run, so that no page shows an older run's results.

    A good record is kept with it: when the inputs come back to what they were, so does the run.
    """
    record, kept = read(project, profile, chapter), project.kept(profile, chapter)
    executed = project.executed(profile, chapter)
    if record["status"] == "passed" and executed.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        executed.replace(kept.with_suffix(".ipynb"))
        write_json(kept, record)
    executed.unlink(missing_ok=True)


def keep(project: Project, record: dict[str, Any], executed: str) -> None:
    """Put a good record from elsewhere, with its notebook's text, where `restore` finds it."""
    kept = project.kept(record["profile"], record["chapter"])
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.with_suffix(".ipynb").write_text(executed, encoding="utf8")
    write_json(kept, record)


def restore(project: Project, kept: dict[str, Any]) -> None:
    """Make a record that was put aside the current one again."""
    profile, chapter = kept["profile"], kept["chapter"]
    executed = project.executed(profile, chapter)
    executed.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(project.kept(profile, chapter).with_suffix(".ipynb"), executed)
    write(project, kept)


def write(project: Project, record: dict[str, Any]) -> None:
    """Write a record in one step."""
    write_json(project.record(record["profile"], record["chapter"]), record)


def append_history(project: Project, record: dict[str, Any]) -> None:
    """Add one line a run to the append-only history: state, cost and numeric values."""
    keep = "chapter profile status started seconds peak_mb key device commit".split()
    line = {name: record.get(name) for name in keep}
    line["error"] = summary(record) if record["status"] != "passed" else None
    line["values"] = {
        key: entry.get("value")
        for key, entry in record.get("values", {}).items()
        if isinstance(entry.get("value"), int | float)
    }
    lock = project.artifacts / "locks" / "history.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    # several runners write here; a long line could be cut in two by another
    with filelock.FileLock(lock), project.history.open("a", encoding="utf8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def summary(record: dict[str, Any]) -> str:
    """A record's state in a few words: `failed at cell 7: ValueError: ...`."""
    state, error = record["status"], record.get("error") or {}
    words = {"never-run": "never run here", "timeout": "timed out"}.get(state, state)
    if state not in ("failed", "timeout", "killed"):
        return words
    if error.get("cell"):
        words += f" at cell {error['cell']}"
    what = ": ".join(str(error[k]) for k in ("name", "message") if error.get(k))
    return f"{words}: {what}" if what else words


def commit(project: Project) -> tuple[str | None, bool | None]:
    """Commit id and whether tracked files differ from it; (None, None) outside git."""
    try:
        head = _git(project, "rev-parse", "HEAD")
        return head, bool(_git(project, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(project: Project, *arguments: str) -> str:
    command = ["git", "-C", str(project.root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
