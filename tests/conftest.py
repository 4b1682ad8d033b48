"""Fixtures: a tiny book in a temporary folder, and the real book's smoke run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from browsing import chromium, from_disk, served, site, visit  # noqa: F401  fixtures
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")



def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright's event loop runs in this thread until the session ends."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


# what lab.card() leaves behind, written by hand so that a tiny notebook imports nothing heavy
CARD = """\
import json, os
def record(complete=True, **more):
    with open(os.environ["MANGALAB_FRAGMENT"], "w", encoding="utf8") as file:
        json.dump({"schema": 1, "complete": complete, **more}, file)
"""


class TinyBook:
    """A book of small notebooks under one folder, with the runner's view of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: dict[str, dict] = {}
        (root / "notebooks").mkdir(parents=True)
        (root / "requirements.lock").write_text("some==1.0\n", encoding="utf8")

    def add(self, name: str, *cells: str, parameters: str | None = "alpha = 1", **entry) -> None:
        """Add or replace a chapter; the last cell of a good one calls `record()`."""
        body = [new_markdown_cell(f"# {name}")]
        if parameters is not None:
            body.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        body += [new_code_cell(source) for source in (CARD, *cells)]
        self.write(name, new_notebook(cells=body))
        budget = {profile: {"seconds": 60, "mb": 2000} for profile in ("cpu", "smoke")}
        self.entries[name] = {"title": name, "tier": 1, "minutes": 1, "budget": budget, **entry}
        text = yaml.safe_dump(self.entries, sort_keys=False)
        (self.root / "chapters.yml").write_text(text, encoding="utf8")

    def write(self, name: str, notebook) -> None:
        """Write a notebook as a chapter's source."""
        nbformat.write(notebook, self.root / "notebooks" / f"{name}.ipynb")

    def read(self, name: str):
        """A chapter's source."""
        return nbformat.read(self.root / "notebooks" / f"{name}.ipynb", as_version=4)

    @property
    def project(self):
        from mangalab.book.project import Project

        return Project(self.root)

    def chapter(self, name: str):
        """A chapter's entry as the runner sees it."""
        from mangalab.book.chapters import load

        return load(self.project)[name]

    def run(self, name: str, profile: str = "cpu", **options):
        """Run one chapter in this process (its worker is a process of its own)."""
        from mangalab.book.runner import run_chapter

        return run_chapter(self.project, self.chapter(name), profile, **options)

    def command(self, *arguments: str, start: bool = False):
        """Run `mangalab ARGUMENTS` on this book; with `start`, return the running process."""
        environment = {**os.environ, "MANGALAB_ROOT": str(self.root), "PYTHONPATH": str(ROOT)}
        environment.pop("MANGALAB_PROFILE", None)
        line = [sys.executable, "-m", "mangalab.book.cli", *arguments]
        if start:
            pipe = subprocess.PIPE
            return subprocess.Popen(
                line, env=environment, stdout=pipe, stderr=pipe, text=True,
                # a suite started in the background of a shell inherits an ignored Ctrl-C
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyBook:
    """An empty book whose path has a space in it."""
    return TinyBook(tmp_path / "tiny book")


@pytest.fixture(scope="session")
def smoke_book() -> Path:
    """The real book in profile smoke, run and built once a session; the folder of its pages."""
    line = [sys.executable, "-m", "mangalab.book.cli", "book", "--profile", "smoke"]
    environment = {**os.environ, "MANGALAB_ROOT": str(ROOT)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return ROOT / "_build" / "smoke" / "_build" / "html"
