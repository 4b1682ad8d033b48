"""`mangalab accept` and `diff` on a small book: what is refused, written and told."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mangalab.book import keys, notebook, records, reference, tolerances
from mangalab.book.cli import app
from mangalab.book.project import BookError, Project

ROOT = Path(__file__).resolve().parents[1]


def passed(book, name: str, profile: str = "cpu", **changes) -> dict:
    """Write the record of a good run of a chapter with its inputs as they are now."""
    record = {
        "schema": 1, "chapter": name, "profile": profile, "status": "passed", "complete": True,
        "started": "2026-11-22T13:00:00+00:00", "seconds": 20.0, "peak_mb": 500, "device": "cpu",
        "dtype": "float32", "commit": "c" * 40, "dirty": False, "machine": "M, 2 cores",
        "seeds": [0], "versions": {"torch": "2.13.0"}, "parameters": {"alpha": 1}, "packages": [],
        "values": {"recall": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100, "text": "50 %"}},
        "comparisons": [], "claims": [], "decisions": [], "modules": {}, "data": {},
    }  # fmt: skip
    source = notebook.read(book.project.notebook(name))
    parameters = keys.prepare(source, book.chapter(name), profile, None)
    device = changes.pop("device_class", keys.device_class("cpu"))
    record["key_parts"] = keys.parts(book.project, source, parameters, device, record)
    record["key"] = keys.digest(record["key_parts"])
    record |= changes
    records.write(book.project, record)
    return record


@pytest.fixture
def book(tiny, monkeypatch):
    """A book of two chapters with tolerances, and the command line pointed at it."""
    for name in ("05-x", "06-y"):
        tiny.add(name, "record()")
    (tiny.root / "reference").mkdir()
    text = (ROOT / "reference" / "tolerances.yml").read_text(encoding="utf8")
    (tiny.root / "reference" / "tolerances.yml").write_text(text, encoding="utf8")
    monkeypatch.setenv("MANGALAB_ROOT", str(tiny.root))
    return tiny


def call(*arguments: str):
    """Run a command in this process; a BookError is raised as it is."""
    done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, BookError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_accept_then_diff_then_drift(book):
    passed(book, "05-x")
    done = call("accept", "05")
    assert done.exit_code == 0 and "is the first reference: reference/cpu/05-x.json" in done.output
    assert call("diff", "05").exit_code == 0
    low = {"value": 0.1, "low": 0.05, "high": 0.2, "n": 100}
    passed(book, "05-x", key="other", started="2026-11-23T13:00:00+00:00", values={"recall": low})
    done = call("diff", "05")
    assert done.exit_code == 1 and "0.5 -> 0.1" in done.output
    told = json.loads(call("diff", "05", "--json").output)
    assert told["exit_code"] == 1 and told["counts"]["drift"] == 1
    done = call("accept", "05", "--dry-run")
    assert "recall" in done.output and call("diff", "05").exit_code == 1
    assert call("accept", "05").exit_code == 0 and call("diff", "05").exit_code == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "failed", "error": {"cell": 3, "name": "ValueError", "message": "bad"}},
         "failed at cell 3: ValueError: bad"),
        ({"complete": False}, "incomplete"),
        ({"dirty": True}, "dirty: tracked files differed"),
        ({"dirty": None, "commit": None}, "dirty: no commit known"),
    ],
)  # fmt: skip
def test_accept_refuses_with_name_and_reason_and_takes_the_others(book, changes, reason):
    passed(book, "05-x", **changes)
    passed(book, "06-y")
    done = call("accept")
    assert done.exit_code == 1 and f"05-x  refused: {reason}" in done.output
    assert [p.name for p in (book.root / "reference/cpu").iterdir()] == ["06-y.json"]


def test_accept_refuses_stale_never_run_and_smoke(book):
    passed(book, "05-x")
    book.add("05-x", "x = 2", "record()")
    done = call("accept")
    assert "05-x  refused: stale: code cells were added" in done.output
    assert "06-y  refused: never run here" in done.output
    assert not (book.root / "reference" / "cpu").exists()
    for command in ("accept", "diff"):
        with pytest.raises(BookError, match="smoke run"):
            call(command, "--profile", "smoke")


def test_dirty_is_accepted_when_asked_and_says_so(book):
    passed(book, "05-x", dirty=True)
    assert call("accept", "05", "--allow-dirty").exit_code == 0
    assert reference.read(book.project, "cpu", "05-x")["dirty"] is True


def test_diff_tells_what_is_missing(book):
    assert call("diff").exit_code == 1  # nothing ran at all: silence is a fault
    passed(book, "05-x")
    passed(book, "06-y")
    done = call("diff")
    assert done.exit_code == 2 and "no reference: run `mangalab accept`" in done.output
    assert done.output.splitlines()[0].endswith(": no reference")
    call("accept", "05")
    assert call("diff").exit_code == 2 and call("diff", "05").exit_code == 0
    passed(book, "05-x", status="timeout", error={"cell": 2})
    done = call("diff", "05")
    assert done.exit_code == 1 and "not compared: timed out at cell 2" in done.output


def test_a_gpu_run_has_its_own_reference(book):
    book.entries["05-x"]["budget"]["gpu"] = {"seconds": 60, "mb": 2000}
    passed(book, "05-x", "gpu", device_class="gpu NVIDIA H100 80GB HBM3", device="cuda")
    assert call("accept", "05", "--profile", "gpu").exit_code == 0  # needs no GPU here
    assert (book.root / "reference/gpu-nvidia-h100-80gb-hbm3/05-x.json").exists()
    assert call("diff", "05", "--profile", "gpu").exit_code == 0
    passed(book, "05-x", "gpu", device_class="gpu NVIDIA T4", device="cuda", seconds=900.0)
    assert call("diff", "05", "--profile", "gpu").exit_code == 2  # another device: nothing to say
    options = ["--profile", "gpu", "--reference", "gpu-nvidia-h100-80gb-hbm3"]
    done = call("diff", "05", *options)
    assert done.exit_code == 0 and "device_class" in done.output


def test_a_reference_has_one_line_a_value_and_stable_order(book):
    record = passed(book, "05-x", values={"b": {"value": 0.1 + 0.2}, "a": {"value": 1, "n": 2}})
    call("accept", "05")
    text = (book.root / "reference/cpu/05-x.json").read_text(encoding="utf8")
    assert text.endswith("}\n") and '  "a": {"value": 1, "n": 2},\n  "b": {"value": 0.300000' in text
    assert json.loads(text)["values"]["b"]["value"] == 0.1 + 0.2  # not one bit is lost
    shuffled = {**record, "values": dict(reversed(record["values"].items()))}
    assert reference.text(reference.reduce(shuffled)) == text
    assert not list((book.root / "reference" / "cpu").glob("*.tmp"))


def test_a_damaged_reference_is_one_sentence(book):
    passed(book, "05-x")
    call("accept", "05")
    (book.root / "reference/cpu/05-x.json").write_text("{", encoding="utf8")
    with pytest.raises(BookError, match="damaged"):
        call("diff", "05")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("seed: 0.05", "seed: -1"),
        ("time: 1.5", "tiem: 1.5\ntime: 1.5"),
        ("overrides:\n", 'overrides:\n  "05-x:*": {kind: seed}\n'),
        ("overrides:\n", 'overrides:\n  "05-x:*": {kind: loose, why: because I say so}\n'),
    ],
)
def test_wrong_tolerances_are_named(book, edit, words):
    path = book.root / "reference" / "tolerances.yml"
    path.write_text(path.read_text(encoding="utf8").replace(edit, words), encoding="utf8")
    name = re.match(r"\w+", words)[0]
    with pytest.raises(BookError, match=rf"tolerances\.yml, {name}"):
        tolerances.load(book.project)


def test_every_override_of_the_book_still_names_a_value():
    project = Project(ROOT)
    limits = tolerances.load(project)
    known = set()
    for path in (ROOT / "reference").glob("*/*.json"):
        accepted = json.loads(path.read_text(encoding="utf8"))
        known |= {f"{path.stem}:{key}" for key in accepted["values"]}
        known |= {f"{path.stem}:comparison {key}" for key in accepted["comparisons"]}
        known |= {f"{path.stem}:claim {key}" for key in accepted["claims"]}
    from fnmatch import fnmatchcase

    unused = [p for p in limits.overrides if not any(fnmatchcase(key, p) for key in known)]
    assert not known or not unused


def test_every_accepted_run_belongs_to_a_chapter_and_is_formatted():
    from mangalab.book import chapters

    known = chapters.load(Project(ROOT))
    for path in (ROOT / "reference").glob("*/*.json"):
        text = path.read_text(encoding="utf8")
        assert path.stem in known, f"{path} is of no chapter: remove it"
        assert text == reference.text(json.loads(text)), "written by hand; use mangalab accept"
