"""Where everything lies, and the one error type that a user sees as a single sentence."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROFILES = ("smoke", "cpu", "gpu")


class BookError(Exception):
    """Something a user can put right; the message is one sentence and names the way out."""


@dataclass(frozen=True)
class Project:
    """Paths of one book, all under ``root``."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The book around ``start`` (default: ``MANGALAB_ROOT``, then the working directory)."""
        chosen = os.environ.get("MANGALAB_ROOT")
        here = Path(start or chosen or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "chapters.yml").is_file():
                return cls(folder)
        raise BookError(
            f"no chapters.yml in {here} or above; go to the book's folder or set MANGALAB_ROOT"
        )

    @property
    def artifacts(self) -> Path:
        """Folder of everything that runs leave on this machine."""
        return self.root / "artifacts"

    @property
    def lock_file(self) -> Path:
        """The pinned packages."""
        return self.root / "requirements.lock"

    @property
    def history(self) -> Path:
        """One line a run, append-only."""
        return self.artifacts / "history.jsonl"

    def notebook(self, chapter: str) -> Path:
        """A chapter's source, stored without outputs."""
        return self.root / "notebooks" / f"{chapter}.ipynb"

    def record(self, profile: str, chapter: str) -> Path:
        """The record of a chapter's last run."""
        return self.artifacts / "runs" / profile / f"{chapter}.json"

    def executed(self, profile: str, chapter: str) -> Path:
        """The notebook of a chapter's last run, with its outputs."""
        return self.artifacts / "executed" / profile / f"{chapter}.ipynb"

    def kept(self, profile: str, chapter: str) -> Path:
        """The last good record, put aside when a new run starts; its notebook lies beside it."""
        return self.artifacts / "kept" / profile / f"{chapter}.json"

    def work(self, profile: str, chapter: str) -> Path:
        """Scratch folder of a run: spec, log, fragment, unfinished notebook."""
        return self.artifacts / "work" / profile / chapter

    def html(self, profile: str) -> Path:
        """Folder of the built pages; the default profile has the usual place."""
        base = self.root / "_build"
        return (base if profile == "cpu" else base / profile / "_build") / "html"


def check_profile(profile: str) -> str:
    """Return ``profile`` if there is one of that name."""
    if profile not in PROFILES:
        raise BookError(f"there is no profile {profile!r}; choose one of: {', '.join(PROFILES)}")
    return profile


def explain(error: OSError) -> str:
    """An operating system error as one sentence with the way out."""
    place = f" {error.filename}" if error.filename else ""
    reason = (error.strerror or str(error)).lower()
    return f"cannot write or read{place}: {reason}; check the disk's free space and permissions"


_parsed: dict[tuple[str, int, int], Any] = {}


def read_yaml(path: Path) -> Any:
    """Contents of a YAML file of ours; parsed once for as long as its size and time stay the same.

    The claims file takes most of a second, and every chapter's freshness asks for it.
    """
    import yaml

    state = path.stat()
    key = (str(path), state.st_mtime_ns, state.st_size)
    if key not in _parsed:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same language, in C
        _parsed[key] = yaml.load(path.read_text(encoding="utf8"), Loader=loader)
    return _parsed[key]
