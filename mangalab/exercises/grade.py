"""Run a reader's file against its checks, in a process of its own with a time limit.

python -m mangalab.exercises.grade 4 my_file.py
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from .catalogue import exercise
from .checks import CHECKS, Finding

SECONDS = 120


class AnswerError(RuntimeError):
    """An answer that cannot be graded: no file, no function, an exception, no end."""


def grade(number: int, path: Path, seconds: float = SECONDS) -> list[Finding]:
    """Findings of the check of exercise ``number`` on the file ``path``, in order.

    Raises AnswerError with the reader's own traceback when the file raises, and when it takes
    longer than ``seconds``.
    """
    if not path.is_file():
        raise AnswerError(f"there is no file {path}; write it: mangalab exercise {number}")
    command = [sys.executable, "-m", "mangalab.exercises.grade", str(number), str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, encoding="utf8")
    except subprocess.TimeoutExpired:
        raise AnswerError(f"{path.name} did not end within {seconds:.0f} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        raise AnswerError(done.stderr.strip() or f"{path.name} ended with code {done.returncode}")
    return [Finding(**json.loads(line)) for line in lines]


def _load(path: Path, function: str):
    spec = importlib.util.spec_from_file_location("answer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(found := getattr(module, function, None)):
        raise AttributeError(f"{path.name} has no function {function}()")
    return found


def _own_frames(error: Exception, path: Path) -> str:
    """The traceback from the reader's file on: the frames of the check tell a reader nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f"  {path.name}, line {f.lineno}: {f.line}"
        for f in frames
        if Path(f.filename).name == path.name
    ]
    return "\n".join([*own, f"{type(error).__name__}: {error}"])


def main(number: int, path: Path) -> int:
    """Print one JSON line a finding; a fault of the answer goes to standard error, code 1."""
    one = exercise(number)
    try:
        for finding in CHECKS[number](_load(path, one.function)):
            print(json.dumps(asdict(finding)), flush=True)
    except Exception as error:  # whatever a reader's file may raise is shown as theirs
        print(_own_frames(error, path), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
