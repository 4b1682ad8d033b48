"""`mangalab doctor`: is everything here that the book needs?"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from dataclasses import dataclass

from .project import Project

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, whether it is well, and the fix if it is not."""

    name: str
    ok: bool
    text: str
    needed: bool = True

    def line(self) -> str:
        """The finding as one line."""
        mark = "ok  " if self.ok else ("FAIL" if self.needed else "note")
        return f"{mark}  {self.name}: {self.text}"


def examine(project: Project) -> list[Finding]:
    """Run every check; none of them loads a model."""
    return [packages(project), models(), data(), device(), browser(), disk(project)]


def packages(project: Project) -> Finding:
    """The installed versions against the lock."""
    wrong = []
    for row in project.lock_file.read_text(encoding="utf8").splitlines():
        name, equals, version = row.partition("==")
        if not equals or row[0] == "#":
            continue
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found.split("+")[0] != version:
            wrong.append(f"{name} {found} instead of {version}")
    text = "; ".join(wrong[:5]) + "; run `make env`" if wrong else "all as the lock says"
    return Finding("packages", not wrong, text)


def models() -> Finding:
    """The weights of both default models, by their SHA-256."""
    from .. import models as zoo

    try:
        paths = [zoo.encoder_path(), zoo.causal_lm_path()]
    except Exception as error:  # whatever is wrong with a model package is the finding
        return Finding("models", False, f"{error}; run `make env`")
    return Finding("models", True, ", ".join(str(path) for path in paths))


def data() -> Finding:
    """The data files against their recorded checksums."""
    from ..data import _files

    changed = _files.changed_files()
    fix = "git checkout, or tools/data_checksums.py --write after an edit that is meant"
    text = f"{', '.join(changed)} changed; {fix}" if changed else "as recorded"
    return Finding("data", not changed, text)


def device() -> Finding:
    """Cores, and the GPU if there is one."""
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        gpu = ""
    return Finding("device", True, f"{os.cpu_count()} cores, {gpu or 'no NVIDIA GPU'}")


def browser() -> Finding:
    """A Chromium for the page tests; reading and building need none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    text = found or "no Chromium: page tests are skipped (apt install chromium)"
    return Finding("browser", bool(found), text, needed=False)


def disk(project: Project) -> Finding:
    """Free space where records, pages and the model cache go."""
    free = shutil.disk_usage(project.root).free / 1e9
    return Finding("disk", free > 2, f"{free:.0f} GB free (2 GB are needed)")
