"""Two runs of a chapter with the same seed on one machine give the same values, times apart."""

import json
from pathlib import Path

import pytest

from mangalab.book.chapters import load
from mangalab.book.parallel import run_all
from mangalab.book.project import Project

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def untimed(record: dict) -> dict:
    """Values and comparisons of a record without those that measure time."""
    values = {k: v["value"] for k, v in record["values"].items() if v.get("kind") != "time"}
    return values | {c["id"]: c["difference"] for c in record["comparisons"]}


@pytest.fixture(scope="module")
def again(smoke_book, tmp_path_factory) -> Path:
    """The book's smoke run once more in another folder, as many chapters side by side as fit."""
    root = tmp_path_factory.mktemp("again")
    for name in ("notebooks", "book", "mangalab", "chapters.yml", "requirements.lock"):
        (root / name).symlink_to(ROOT / name)
    project = Project(root)
    chapters = list(load(project).values())
    run_all(project, chapters, "smoke", lambda *_: None)
    return root


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_second_run_gives_the_same_values(again, chapter):
    path = f"artifacts/runs/smoke/{chapter}.json"
    first, second = (json.loads((root / path).read_text("utf8")) for root in (ROOT, again))
    assert second["status"] == "passed", second["why"]
    assert len(untimed(second)) > 20
    differing = {k: (v, untimed(second).get(k)) for k, v in untimed(first).items()
                 if untimed(second).get(k) != v}
    assert not differing
