"""`mangalab new`: the skeleton runs as written, bad and taken names write nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_accept import ROOT, call

from mangalab.book import chapters
from mangalab.book.interview import load_bank
from mangalab.book.project import BookError, Project

sys.path.insert(0, str(ROOT / "tools"))

import clean_notebooks

NAME = "97-embedding-adapter"  # a number that the book will not take
HEADINGS = [
    "The scenario", "Mathematical foundations", "Inside the model", "Implementation", "Experiments",
    "Decision points", "Claims checked", "Production gates and monitoring", "Interview drill",
    "References", "Run card",
]  # fmt: skip


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Project:
    """The real book's front matter without its chapters' runs."""
    for name in ("chapters.yml", "requirements.lock", "book/claims.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    monkeypatch.setenv("MANGALAB_ROOT", str(tmp_path))
    return Project(tmp_path)


def test_a_new_chapter_runs_as_it_is_and_records_real_values(copy):
    before = (copy.root / "chapters.yml").read_text(encoding="utf8")
    claims = copy.root / "book" / "claims.yml"
    planted = {"id": "002-01", "seed": "002", "chapter": NAME, "text": "t", "claimed": 1}
    more = yaml.safe_dump([{**planted, "kind": "experiment"}])
    claims.write_text(f"{claims.read_text(encoding='utf8')}\n{more}", encoding="utf8")
    done = call("new", NAME, "--title", "Embedding: an adapter", "--tier", "2")
    assert done.exit_code == 0 and f"mangalab run {NAME} --profile smoke" in done.output
    entry = chapters.load(copy)[NAME]
    assert (entry.title, entry.tier) == ("Embedding: an adapter", 2)
    after = (copy.root / "chapters.yml").read_text(encoding="utf8").splitlines()
    assert [line for line in before.splitlines() if line not in after] == []  # comments stay
    entries = list(yaml.safe_load("\n".join(after)))  # `load` puts what a chapter needs before it
    assert entries == sorted(entries)
    assert clean_notebooks.clean(copy.notebook(NAME), check=True)
    found = json.loads(copy.notebook(NAME).read_text(encoding="utf8"))
    lines = [line for cell in found["cells"] for line in "".join(cell["source"]).splitlines()]
    assert [line[3:] for line in lines if line.startswith("## ")] == HEADINGS
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MANGALAB_ROOT": str(copy.root)}
    command = [sys.executable, "-m", "mangalab.book.cli", "run", NAME, "--profile", "smoke"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    record = json.loads(copy.record("smoke", NAME).read_text(encoding="utf8"))
    assert record["complete"] and record["parameters"]["length"] == 512
    assert 0 < record["values"]["pairwise_error"]["value"] < 1e-4
    assert [d["id"] for d in record["decisions"]] == ["how-to-add"]
    assert record["comparisons"][0]["verdict"] in ("better", "worse", "no difference shown")
    assert [(c["id"], c["verdict"]) for c in record["claims"]] == [("002-01", "beyond this run")]


def test_the_question_bank_is_valid(copy):
    call("new", NAME, "--title", "A")
    bank = load_bank(copy.root / "book" / "interview" / f"{NAME}.yml")
    assert [question["level"] for question in bank] == ["Fresh"]


def test_a_page_for_the_questions_where_the_contents_take_one(copy):
    page = copy.root / "book" / "interview" / f"{NAME}.md"
    call("new", NAME, "--title", "A")
    assert not page.exists()
    (copy.root / "_toc.yml").write_text("- glob: book/interview/[0-9]*\n", encoding="utf8")
    call("new", "96-b", "--title", "B")
    text = page.with_name("96-b.md").read_text(encoding="utf8")
    assert "{interview-bank} 96-b" in text and "{chapter}`96 B`" in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("embedding", "no chapter id"), ("2-a", "no chapter id"), ("02_a", "no chapter id"),
        ("02-A", "no chapter id"), ("02-a:b", "no chapter id"), ("02-", "no chapter id"),
        ("../02-a", "no chapter id"), ("02-a.", "no chapter id"), ("02-" + "a" * 60, "no chapter id"),
        ("04-lora-qlora", "in chapters.yml already"), ("04-other", "number 04 belongs to 04-lora"),
    ],
)  # fmt: skip
def test_bad_and_taken_names_write_nothing(copy, name, words):
    before = tree(copy.root)
    with pytest.raises(BookError, match=words):
        call("new", name, "--title", "A")
    assert tree(copy.root) == before


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_nothing_of_somebody_elses_is_overwritten_and_a_failure_leaves_nothing(copy, monkeypatch):
    mine = copy.notebook(NAME)
    mine.write_text("mine", encoding="utf8")
    with pytest.raises(BookError, match="is there already"):
        call("new", NAME, "--title", "A")
    assert mine.read_text(encoding="utf8") == "mine"
    mine.unlink()
    before = tree(copy.root)
    from mangalab.book import scaffold

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scaffold, "_replace", full)
    with pytest.raises(OSError, match="No space"):
        scaffold.New(copy, NAME, "A", 1).write()
    assert tree(copy.root) == before


@pytest.mark.parametrize("title", ["", " ", "two\nlines", "x" * 101])
def test_bad_titles(copy, title):
    with pytest.raises(BookError, match="a title is one line"):
        call("new", NAME, "--title", title)


def test_titles_that_yaml_would_misread(copy):
    for number, title in enumerate(["yes", "a: b # c", "'quoted'", "- dash", "Größe 漫画"], start=20):
        call("new", f"{number}-x", "--title", title)
        assert chapters.load(copy)[f"{number}-x"].title == title
