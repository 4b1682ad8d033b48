"""The two commands and what they stand on: lock, environment files, Makefile, instant import."""

import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import environment  # noqa: E402

LOCK = [
    row
    for row in (ROOT / "requirements.lock").read_text(encoding="utf8").splitlines()
    if row and row[0] != "#"
]
PINS = {canonicalize_name(row.split("==")[0]): row.split("==")[1] for row in LOCK}
# left out on purpose: what builds C++ code, tools that only build packages, and what MLflow needs only
# to log into a hosted service or to read a repository
LEFT_OUT = {"llm", "llama-cpp-python", "setuptools", "wheel", "google-auth", "gitpython"}


def test_lock_pins_everything_once():
    assert all(re.fullmatch(r"[\w.\-]+==[\w.]+", row) for row in LOCK)
    assert len(PINS) == len(LOCK)
    assert PINS["torch"] == "2.13.0"


def test_installed_versions_are_the_locked_ones():
    wrong = {name: metadata.version(name).split("+")[0] for name in PINS if name != "flit-core"}
    assert {name: found for name, found in wrong.items() if found != PINS[name]} == {}


def test_lock_is_closed_under_dependencies():
    """What --no-deps does not bring must be in the lock itself."""
    missing = set()
    for name in PINS.keys() - {"flit-core", "torch"}:
        for text in metadata.requires(name) or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                missing |= {canonicalize_name(need.name)} - PINS.keys() - LEFT_OUT
    assert missing == set()


def test_conda_file_agrees_with_the_lock():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf8"))
    *plain, pip = conda["dependencies"]
    python = next(row for row in plain if row.startswith("python="))
    version = tuple(int(part) for part in python.removeprefix("python=").split("."))
    assert version >= environment.OLDEST
    for row in pip["pip"]:
        name, _, pinned = row.partition("==")
        assert PINS[canonicalize_name(name)] == pinned


def test_readme_names_only_targets_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    named = set(re.findall(r"`?make ([a-z]+)", readme))
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.M))
    assert {"book", "test"} <= named <= targets


def test_readme_names_only_commands_that_exist():
    from mangalab.book.cli import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands}
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    assert set(re.findall(r"bin/mangalab ([a-z]+)", readme)) <= known


def test_makefile_says_so_when_python_is_too_old(tmp_path):
    """With only an old interpreter on the path, one sentence and exit code 2."""
    for name in ("sh", "make", "echo"):
        (tmp_path / name).symlink_to(f"/bin/{name}" if name != "make" else "/usr/bin/make")
    for name in ("python3", "python3.11"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n", encoding="utf8")
        (tmp_path / name).chmod(0o755)
    variables = {"PATH": str(tmp_path)}
    done = subprocess.run(["make", "env"], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Python 3.11 or newer was not found" in done.stderr


def test_stamp_follows_lock_and_place(tmp_path):
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    first = environment.fingerprint(tmp_path)
    assert first == environment.fingerprint(tmp_path) != environment.fingerprint(ROOT)
    (tmp_path / "requirements.lock").write_text("torch==2.14.0\n", encoding="utf8")
    assert environment.fingerprint(tmp_path) != first


def test_old_python_and_missing_pin_are_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(environment, "OLDEST", (99, 0))
    with pytest.raises(SystemExit, match="2"):
        environment.main()
    assert "is too old" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        environment.pinned("nonsense")
    assert "pins no nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["mangalab", "mangalab.lab", "mangalab.book.cli"])
def test_import_is_light(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
    assert time.monotonic() - start < 6


def test_ci_runs_the_readmes_command_without_a_terminal():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf8")
    assert script.rstrip().endswith("make test </dev/null")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_workflows_are_yaml_and_run_the_same_commands():
    texts = {p.name: p.read_text(encoding="utf8") for p in (ROOT / ".github/workflows").iterdir()}
    assert set(texts) == {"tests.yml", "nightly.yml", "pages.yml", "watchdog.yml"}
    assert all(yaml.safe_load(text)["jobs"] for text in texts.values())
    assert "bash .ci/run" in texts["tests.yml"] and "mangalab book" in texts["nightly.yml"]
