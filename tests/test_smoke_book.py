"""The real book in profile smoke: every chapter runs to its card, every page is built."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHAPTERS, reason="no notebooks"),
]


def test_chapters_yml_lists_exactly_the_notebooks():
    listed = yaml.safe_load((ROOT / "chapters.yml").read_text(encoding="utf8"))
    assert sorted(listed) == CHAPTERS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_passed(smoke_book, chapter):
    path = ROOT / "artifacts" / "runs" / "smoke" / f"{chapter}.json"
    record = json.loads(path.read_text(encoding="utf8"))
    assert record["status"] == "passed", record["why"]
    assert record["values"] and record["modules"] and record["cells"]["not_done"] == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_page_shows_the_run(smoke_book, chapter):
    page = (smoke_book / "notebooks" / f"{chapter}.html").read_text(encoding="utf8")
    assert "run card" in page and "Smoke run" in page
    body = re.sub(r"<(code|pre|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    for leak in ("{glue", "{measured}`", "Traceback (most recent", "papermill-error-cell"):
        assert leak not in body


def test_nothing_changed_is_quick_and_runs_nothing(smoke_book):
    start = time.monotonic()
    line = [sys.executable, "-m", "mangalab.book.cli", "book", "--profile", "smoke"]
    environment = {**os.environ, "MANGALAB_ROOT": str(ROOT)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "; 0 ran" in done.stdout and "pages: nothing changed" in done.stdout
    assert time.monotonic() - start < 30
