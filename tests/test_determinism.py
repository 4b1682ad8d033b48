"""Two runs of a chapter with the same seed on one machine give the same values, times apart."""

import json
from pathlib import Path

import pytest

from mangalab.book.chapters import load
from mangalab.book.project import Project
from mangalab.book.runner import run_chapter

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def untimed(record: dict) -> dict:
    """Values and comparisons of a record without those that measure time."""
    values = {k: v["value"] for k, v in record["values"].items() if v.get("kind") != "time"}
    return values | {c["id"]: c["difference"] for c in record["comparisons"]}


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_second_run_gives_the_same_values(smoke_book, tmp_path, chapter):
    for name in ("notebooks", "book", "chapters.yml", "requirements.lock"):
        (tmp_path / name).symlink_to(ROOT / name)
    again = Project(tmp_path)
    outcome = run_chapter(again, load(again)[chapter], "smoke")
    second = json.loads((tmp_path / f"artifacts/runs/smoke/{chapter}.json").read_text("utf8"))
    first = json.loads((ROOT / f"artifacts/runs/smoke/{chapter}.json").read_text("utf8"))
    assert second["status"] == "passed", outcome
    assert len(untimed(second)) > 20
    differing = {k: (v, untimed(second).get(k)) for k, v in untimed(first).items()
                 if untimed(second).get(k) != v}
    assert not differing
