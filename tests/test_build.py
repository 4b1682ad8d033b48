"""Builds: what makes pages stale, what an edit of prose costs, and that no page differs for it."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import sample_book

from mangalab.book.build import State, build
from mangalab.book.chapters import load
from mangalab.book.project import Project

VERSION = re.compile(r"(mystnb\.\w+\.css)\?v=\w+")
EDIT = "A sentence more."


@pytest.fixture
def book(tmp_path: Path) -> Project:
    """The sample's sources and records, not built."""
    return Project(sample_book.make(tmp_path / "book"))


def edit(path: Path, old: str, new: str) -> None:
    """Replace text in a file; it must be there."""
    text = path.read_text(encoding="utf8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf8")


def pages(project: Project) -> dict[str, str]:
    """Every built page and the search index.

    A query after the name of myst-nb's style sheet says only whether the file was there before.
    """
    html = project.html("cpu")
    files = [*html.rglob("*.html"), html / "searchindex.js"]
    plain = {path: VERSION.sub(r"\1", path.read_text(encoding="utf8")) for path in files}
    return {path.relative_to(html).as_posix(): text for path, text in plain.items()}


def log(project: Project) -> str:
    """What the builder printed."""
    return (project.artifacts / "build" / "cpu.log").read_text(encoding="utf8")


# ---------------------------------------------------------------------- without a build
NOTEBOOK = "notebooks/04-ran.ipynb"


@pytest.mark.parametrize(
    ("name", "old", "new", "prose"),
    [
        (NOTEBOOK, "The scenario.", EDIT, True),
        ("book/index.md", "Chapters {chapter}", EDIT, True),
        ("book/interview/04-ran.yml", "spectrum of", EDIT, True),
        (NOTEBOOK, "# 04-ran", "# Another title", False),
        (NOTEBOOK, "## Theory", "(a-label)=\\n## Theory", False),
        ("book/index.md", "## Values", "## Numbers", False),
        ("artifacts/runs/cpu/04-ran.json", "2.3187", "2.4187", False),
        ("book/claims.yml", "80 layers", "81 layers", False),
        ("_static/custom.css", "--ml-good", "--ml-fine", False),
        ("_config.yml", "title:", "title: Another #", False),
    ],
)
def test_only_prose_inside_of_a_page_is_built_alone(book, name, old, new, prose):
    last = asdict(State.now(book, "cpu"))
    edit(book.root / name, old, new)
    state = State.now(book, "cpu")
    assert asdict(state) != last
    assert state.only_prose_since(last) is prose


def test_a_page_more_or_less_is_a_whole_build(book):
    last = asdict(State.now(book, "cpu"))
    (book.root / "book" / "new.md").write_text("# New\n", encoding="utf8")
    assert not State.now(book, "cpu").only_prose_since(last)


def test_a_question_renamed_is_a_whole_build(book):
    bank = book.root / "book" / "interview" / "04-ran.yml"
    bank.write_text("- id: one\n  level: Fresh\n", encoding="utf8")
    last = asdict(State.now(book, "cpu"))
    edit(bank, "id: one", "id: two")
    assert not State.now(book, "cpu").only_prose_since(last)


@pytest.mark.parametrize("name", ["artifacts/history.jsonl", "reference/cpu/04-ran.json"])
def test_history_and_reference_are_inputs(book, name):
    (book.root / "reference" / "cpu").mkdir(parents=True)
    (book.root / "reference" / "cpu" / "04-ran.json").write_text("{}", encoding="utf8")
    last = State.now(book, "cpu")
    line = {"chapter": "04-ran", "profile": "cpu", "status": "passed", "seconds": 1.0, "values": {},
            "started": "2026-11-23T13:00:00+00:00", "peak_mb": 1}  # fmt: skip
    with (book.root / name).open("a", encoding="utf8") as file:
        file.write(json.dumps(line) + "\n")
    assert State.now(book, "cpu") != last


def test_a_run_that_grew_stale_is_an_input(book):
    """No file of the press changes when a module of the package does, but the status page must."""
    last = State.now(book, "cpu").tables
    edit(book.root / NOTEBOOK, "rank = 16", "rank = 8")
    assert State.now(book, "cpu").tables != last


# ---------------------------------------------------------------------- with builds
@pytest.mark.slow
def test_an_edit_of_prose_builds_what_a_whole_build_would(book, monkeypatch):
    chapters = list(load(book).values())
    assert build(book, "cpu", chapters).ok
    assert not build(book, "cpu", chapters).built
    edit(book.root / NOTEBOOK, "The scenario.", f"The scenario. {EDIT}")
    edit(book.root / "book" / "status.md", "## All", f"## All\n\n{EDIT}")
    with monkeypatch.context() as serial:  # side by side, the log names only ends of groups of pages
        serial.setenv("MANGALAB_JOBS", "1")
        assert build(book, "cpu", chapters).ok
    part, said = pages(book), log(book)
    assert ("05-failed" in said, "04-ran" in said) == (False, True)
    assert EDIT in part["notebooks/04-ran.html"] and EDIT in part["book/status.html"]
    monkeypatch.setenv("MANGALAB_JOBS", "1")  # one reader, everything: the plain way
    shutil.rmtree(book.root / "_build")
    assert build(book, "cpu", chapters).ok
    whole = pages(book)
    assert part.keys() == whole.keys()
    assert [name for name in whole if part[name] != whole[name]] == []


@pytest.mark.slow
def test_a_page_that_failed_fails_until_it_is_put_right(book):
    """Jupyter Book says 0 the second time."""
    chapters = list(load(book).values())
    edit(book.root / "book" / "index.md", "## Values", "[nowhere](no-such-page.md)\n\n## Values")
    for _ in range(2):
        done = build(book, "cpu", chapters)
        assert done.built and any("no-such-page" in line for line in done.complaints)
    edit(book.root / "book" / "index.md", "[nowhere](no-such-page.md)", "")
    assert build(book, "cpu", chapters).ok


def test_the_builder_reads_yaml_as_before():
    """The quick parser and the plain one agree on every YAML file of the book."""
    import yaml

    for path in sample_book.ROOT.glob("**/*.yml"):
        if not {".venv", "_build", "artifacts", ".git"} & set(path.relative_to(sample_book.ROOT).parts):
            text = path.read_text(encoding="utf8")
            quick = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            assert quick == yaml.load(text, yaml.loader.SafeLoader), path
