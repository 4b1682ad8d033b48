"""`mangalab doctor`: is everything here that the book needs?"""

from __future__ import annotations

import hashlib
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
    return [packages(project), models(), data(project), device(), browser(), disk(project)]


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
    return Finding("models", True, ", ".join(path.name for path in paths))


def data(project: Project) -> Finding:
    """The data files against `SHA256SUMS`."""
    folder = project.root / "mangalab" / "data" / "text"
    sums = folder / "SHA256SUMS"
    if not sums.exists():
        return Finding("data", False, f"{sums} is missing; git checkout -- mangalab/data")
    wrong = []
    rows = [row.split() for row in sums.read_text(encoding="utf8").splitlines() if row.strip()]
    for wanted, name in rows:
        path = folder / name.lstrip("*")
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if found != wanted:
            wrong.append(name)
    fix = f"{', '.join(wrong)} changed; git checkout, or tools/data_checksums.py after an edit"
    return Finding("data", not wrong, fix if wrong else f"{len(rows)} files as checked in")


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
