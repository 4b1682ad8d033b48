"""`mangalab doctor`: is everything here that the book needs?"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from .chapters import load
from .machine import machine
from .project import BookError, Project

OLDEST = (3, 11)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCHEMA = 1


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, whether it is well, and the fix if it is not.

    What is not `needed` (a browser, a GPU on a CPU profile) never fails the whole.
    """

    name: str
    ok: bool
    text: str
    fix: str = ""
    needed: bool = True

    def line(self) -> str:
        """The finding as one line."""
        mark = "ok  " if self.ok else ("FAIL" if self.needed else "note")
        return f"{mark}  {self.name}: {self.text}" + ("" if self.ok else f"; {self.fix}")


def examine(project: Project, profile: str = "cpu") -> list[Finding]:
    """Run every check; none loads a model, and none can end the others."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", python),
        ("packages", lambda: packages(project)),
        ("chapters", lambda: chapters(project)),
        ("models", models),
        ("data", data),
        ("device", lambda: device(profile)),
        ("memory", lambda: memory(project, profile)),
        ("disk", lambda: disk(project)),
        ("ports", ports),
        ("browser", browser),
    ]
    return [_safely(name, check) for name, check in checks]


def _safely(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a check that breaks is a finding too
        what = f"{type(error).__name__}: {error}"
        return Finding(name, False, what, "rm -r .venv && make env, then look again")


def well(findings: list[Finding]) -> bool:
    """Whether everything that is needed is there."""
    return all(finding.ok or not finding.needed for finding in findings)


def python() -> Finding:
    """The interpreter, and where it lives."""
    new = sys.version_info[:2] >= OLDEST
    text = f"{platform.python_version()} at {sys.executable}"
    return Finding("python", new, text, "install Python 3.11 or newer, then make env")


def packages(project: Project) -> Finding:
    """The installed versions against the lock."""
    rows, wrong = 0, []
    for row in project.lock_file.read_text(encoding="utf8").splitlines():
        name, equals, version = row.partition("==")
        if not equals or row[0] == "#":
            continue
        rows += 1
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if found.split("+")[0] != version:
            wrong.append(f"{name} {found} instead of {version}")
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    text = "; ".join(wrong[:5]) + more if wrong else f"{rows} as the lock says"
    return Finding("packages", not wrong, text, "make env")


def chapters(project: Project) -> Finding:
    """chapters.yml, and a notebook for each entry."""
    try:
        known = load(project)
    except BookError as error:
        return Finding("chapters", False, str(error), "correct chapters.yml")
    gone = [name for name in known if not project.notebook(name).is_file()]
    text = f"no notebook for {', '.join(gone)}" if gone else f"{len(known)} with their notebooks"
    return Finding("chapters", not gone, text, "write it, or take the entry out of chapters.yml")


def models() -> Finding:
    """The weights of both default models, by their SHA-256, and the cache of converted ones."""
    from .. import models as zoo

    try:
        zoo.encoder_path(), zoo.causal_lm_path()
    except Exception as error:  # whatever is wrong with a model package is the finding
        return Finding("models", False, str(error), f"rm -r {zoo.cache_dir()} && make env")
    return Finding("models", True, f"both verified, cache in {zoo.cache_dir()}")


def data() -> Finding:
    """The data files against their recorded checksums."""
    from ..data import _files

    changed = _files.changed_files()
    fix = "git checkout, or tools/data_checksums.py --write after an edit that is meant"
    text = f"{', '.join(changed)} changed" if changed else "as recorded"
    return Finding("data", not changed, text, fix)


def device(profile: str) -> Finding:
    """The processor, and the GPU: asked for by profile gpu, else only named."""
    gpu = gpus()
    text = f"{machine()}, {', '.join(gpu) or 'no NVIDIA GPU'}"
    if profile != "gpu":
        return Finding("device", True, text)
    if not gpu:
        fix = "install the NVIDIA driver (nvidia-smi must list the GPU), or use --profile cpu"
        return Finding("device", False, text, fix)
    import torch

    build = f"torch {torch.__version__} {'sees' if torch.cuda.is_available() else 'does not see'} it"
    fix = "install a CUDA build: unset TORCH_INDEX, rm -r .venv, make env"
    return Finding("device", torch.cuda.is_available(), f"{text}; {build}", fix)


def gpus() -> list[str]:
    """Name and memory of each NVIDIA GPU that the driver lists."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def memory(project: Project, profile: str) -> Finding:
    """Free memory against the hungriest chapter of the profile."""
    import psutil

    free = psutil.virtual_memory().available / 1e6
    budgets = {c.id: c.budget[profile].mb for c in load(project).values() if profile in c.budget}
    most = max(budgets, key=budgets.__getitem__, default="")
    text = f"{free / 1e3:.1f} GB free" + (f", {most} takes {budgets[most] / 1e3:.1f}" if most else "")
    fix = "close other programs, or run --profile smoke; a chapter that runs out is killed"
    return Finding("memory", free > budgets.get(most, 0), text, fix, needed=False)


def disk(project: Project) -> Finding:
    """Free space where records, pages and the model cache go."""
    from ..models import cache_dir

    places = {"the book": project.root, "the model cache": _existing(cache_dir())}
    free = {name: shutil.disk_usage(place).free / 1e9 for name, place in places.items()}
    text = ", ".join(f"{size:.0f} GB free for {name}" for name, size in free.items())
    fix = "2 GB are needed: free some, or set MANGALAB_CACHE to a larger disk"
    return Finding("disk", min(free.values()) > 2, text, fix)


def _existing(place):
    return next(folder for folder in (place, *place.parents) if folder.exists())


def ports() -> Finding:
    """Five loopback ports, which is what one notebook's kernel opens."""
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(5):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", 0))
        except OSError as error:
            fix = "allow TCP on 127.0.0.1 (firewall, sandbox): kernels talk over it"
            return Finding("ports", False, f"no loopback port: {error.strerror or error}", fix)
    return Finding("ports", True, "loopback ports for kernels can be opened")


def browser() -> Finding:
    """A Chromium for the page tests; reading and building need none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    text = found or "no Chromium: page tests are skipped"
    return Finding("browser", bool(found), text, "apt install chromium", needed=False)
