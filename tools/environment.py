"""Create or renew `.venv` from requirements.lock (standard library only; called by the Makefile).

    python3 tools/environment.py           make .venv match the lock; instant when it already does
    python3 tools/environment.py --here    install into the active environment (conda) instead

TORCH_INDEX=URL picks torch's build, for example https://download.pytorch.org/whl/cpu.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
OLDEST = (3, 11)


def fail(sentence: str) -> None:
    """Stop with one sentence and exit code 2."""
    print(f"environment: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def venv_python(venv: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(root: Path = ROOT) -> str:
    """Return what the environment depends on: lock, packaging, Python version and torch's index."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", "pyproject.toml"):
        digest.update((root / name).read_bytes())
    # a moved clone needs a new environment: scripts and the editable install hold the path
    place = f"{sys.version_info[:2]} {os.environ.get('TORCH_INDEX', '')} {root}"
    return hashlib.sha256(digest.digest() + place.encode()).hexdigest()


def pinned(name: str) -> str:
    """Return the line of the lock that pins `name`."""
    for line in LOCK.read_text(encoding="utf8").splitlines():
        if line.lower().startswith(name.lower() + "=="):
            return line.strip()
    fail(f"{LOCK.name} pins no {name}")
    raise AssertionError


def create(venv: Path) -> None:
    """Create an empty virtual environment with pip."""
    shutil.rmtree(venv, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
    if made.returncode:
        detail = (made.stdout + made.stderr).strip().splitlines()
        fail(
            f"cannot create {venv}: {detail[-1] if detail else 'venv failed'} "
            "(on Debian and Ubuntu: apt install python3-venv)"
        )


def pip(python: Path, label: str, arguments: list[str], total: int) -> None:
    """Run pip, show a counter instead of its log, and print the end of the log if it fails."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUTF8": "1"}
    command = [str(python), "-m", "pip", "install", "--no-input", *arguments]
    tail: list[str] = []
    done, start = 0, time.monotonic()
    print(f"environment: {label} ...", flush=True)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail = [*tail[-24:], line.rstrip()]
            done += line.startswith(("Collecting ", "Requirement already satisfied", "Obtaining "))
            if sys.stdout.isatty():
                print(f"\r  {min(done, total)}/{total} packages", end="", flush=True)
    if sys.stdout.isatty():
        print("\r", end="")
    if process.returncode:
        print("\n".join(tail), file=sys.stderr)
        fail(f"pip could not install {label}; the last lines of its log are above")
    print(f"environment: {label} done in {time.monotonic() - start:.0f} s", flush=True)


def install(python: Path) -> None:
    """Install torch with what its build needs, then exactly the lock, then this package."""
    torch = [pinned("torch"), "--constraint", str(LOCK)]
    if os.environ.get("TORCH_INDEX"):
        torch += ["--index-url", os.environ["TORCH_INDEX"], "--extra-index-url", pypi()]
    rows = [x for x in LOCK.read_text(encoding="utf8").splitlines() if "==" in x and x[0] != "#"]
    pip(python, pinned("torch"), torch, 15)
    everything = ["--no-deps", "--prefer-binary", "-r", str(LOCK)]
    pip(python, f"{len(rows)} pinned packages", everything, len(rows))
    pip(python, "mangalab", ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)], 1)


def pypi() -> str:
    """Return the package index that pip would use by itself."""
    return os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")


def main() -> None:
    """Bring `.venv` to the state that the lock describes."""
    if sys.version_info < OLDEST:
        fail(f"Python {sys.version.split()[0]} is too old, 3.11 or newer is needed")
    if "--here" in sys.argv[1:]:
        install(Path(sys.executable))
        return
    venv = ROOT / ".venv"
    stamp = venv / "mangalab-stamp"
    wanted = fingerprint()
    if venv_python(venv).exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < 4:
        fail(f"{free:.1f} GB free under {ROOT}; 4 GB are needed, 8 GB with a CUDA build of torch")
    print(f"environment: building .venv with Python {sys.version.split()[0]}", flush=True)
    create(venv)
    install(venv_python(venv))
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
