"""What `mangalab clean` may delete: generated things only, and the history only when asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import filelock

from .project import BookError, Project


def targets(project: Project, everything: bool) -> list[Path]:
    """Pages, records, executed notebooks and logs; with `everything` the history of runs too."""
    found = [project.root / "_build"]
    inside = sorted(project.artifacts.iterdir()) if project.artifacts.is_dir() else []
    found += [place for place in inside if everything or place != project.history]
    return [place for place in found if place.exists() or place.is_symlink()]


def size(places: list[Path]) -> int:
    """Bytes of files under `places`; links are not followed."""
    files = (file for place in places for file in (place, *place.rglob("*")))
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())


def remove(places: list[Path]) -> None:
    """Delete; a link goes, what it points to stays."""
    for place in places:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()


def check_idle(project: Project) -> None:
    """Raise BookError while a chapter runs: its files must not vanish under it."""
    for path in sorted((project.artifacts / "locks").glob("*.lock")):
        try:
            with filelock.FileLock(path, timeout=0):
                continue
        except filelock.Timeout:
            raise BookError(f"{path.stem} is running; wait for it or end it, then clean") from None
