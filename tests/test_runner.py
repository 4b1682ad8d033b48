"""Records, run keys with their reasons, resumption, prose, and the command line around them."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from mangalab.book import build, keys, notebook, records
from mangalab.record import file_hash


@pytest.fixture
def good(tiny):
    """A tiny book with one chapter that passed, imported one module and opened one data file."""
    package = tiny.root / "mangalab"
    (package / "data" / "text").mkdir(parents=True)
    (package / "used.py").write_text("A = 1\n", encoding="utf8")
    (package / "other.py").write_text("B = 1\n", encoding="utf8")
    (package / "data" / "text" / "rows.tsv").write_text("id\n1\n", encoding="utf8")
    (tiny.root / "book").mkdir()
    claims(tiny, {"003-01": 1, "003-02": 1})
    tiny.add("05-x", final(tiny), parameters="alpha = 1\nranks = (1, 2)")
    assert tiny.run("05-x").passed
    return tiny


def claims(tiny, claimed: dict) -> None:
    """Write a claims file."""
    entries = [{"id": name, "claimed": value} for name, value in claimed.items()]
    (tiny.root / "book" / "claims.yml").write_text(json.dumps(entries), encoding="utf8")


def final(tiny) -> str:
    """The last cell: a fragment that names what was imported, opened and checked."""
    hashes = {
        "modules": {"mangalab/used.py": file_hash(tiny.root / "mangalab" / "used.py")},
        "data": {"rows.tsv": file_hash(tiny.root / "mangalab" / "data" / "text" / "rows.tsv")},
        "claims": [{"id": "003-01", "verdict": "held"}],
        "values": {"recall": {"value": 0.5}, "word": {"value": "yes"}},
        "seed": 0,
        "packages": ["some"],
    }
    return f"record(**{hashes!r})"


def reason(tiny, profile: str = "cpu") -> str | None:
    """Why the chapter would run now; None when it would not."""
    needed, text = keys.why(tiny.project, tiny.chapter("05-x"), profile)
    return text if needed else None


def edit_cell(tiny, index: int, source: str) -> None:
    """Change one cell of the chapter's source."""
    source_notebook = tiny.read("05-x")
    source_notebook.cells[index].source = source
    tiny.write("05-x", source_notebook)


def test_record_has_every_field_of_the_design(good):
    record = records.read(good.project, "cpu", "05-x")
    wanted = (
        "schema chapter profile status why reason key key_parts parameters started seconds peak_mb "
        "commit dirty values claims modules data complete executed budget error seed"
    )
    assert set(wanted.split()) <= record.keys()
    assert record["parameters"] == {"alpha": 1, "ranks": [1, 2]}
    assert record["peak_mb"] > 30 and record["seconds"] > 0
    history = good.project.history.read_text(encoding="utf8").splitlines()
    assert [json.loads(line)["values"] for line in history] == [{"recall": 0.5}]


def test_nothing_changed_runs_nothing(good):
    before = good.project.record("cpu", "05-x").read_bytes()
    outcome = good.run("05-x")
    assert (outcome.ran, outcome.why) == (False, "nothing changed")
    assert good.project.record("cpu", "05-x").read_bytes() == before


def test_every_input_has_its_reason(good):
    used = good.root / "mangalab" / "used.py"
    changes = [
        (used, "A = 2\n", "mangalab/used.py changed"),
        (good.root / "mangalab/data/text/rows.tsv", "id\n2\n", "data file rows.tsv changed"),
        (good.root / "requirements.lock", "some==2.0\n", "requirements.lock: some changed"),
        (good.root / "requirements.lock", "other==1.0\nsome==1.0\n", None),
        (good.root / "mangalab/other.py", "B = 2\n", None),
        (good.root / "requirements.lock", "# comment\nsome==1.0\n", None),
    ]
    for path, text, wanted in changes:
        old = path.read_text(encoding="utf8")
        path.write_text(text, encoding="utf8")
        assert reason(good) == wanted
        path.write_text(old, encoding="utf8")
    assert reason(good) is None
    used.unlink()
    assert reason(good) == "mangalab/used.py changed"


def test_only_the_claims_that_a_chapter_checks_matter(good):
    claims(good, {"003-01": 1, "003-02": 2, "003-03": 3})
    assert reason(good) is None
    claims(good, {"003-01": 2, "003-02": 1})
    assert reason(good) == "claim 003-01 changed"


def test_code_and_parameters_have_their_reasons(good):
    edit_cell(good, 1, "alpha = 2\nranks = (1, 2)")
    assert reason(good) == "code cell 1 changed"
    edit_cell(good, 1, "alpha = 1\nranks = (1, 2)")
    source = good.read("05-x")
    source.cells.insert(3, new_code_cell("y = 2"))
    good.write("05-x", source)
    assert reason(good) == "code cells were added (3 -> 4), from cell 3 on"
    good.add("05-x", final(good), parameters="alpha = 1\nranks = (1, 2)", smoke={"ranks": [1]})
    assert reason(good) is None
    assert reason(good, "smoke") == "never run here"
    record = records.read(good.project, "cpu", "05-x")
    device = keys.device_class("cpu")
    now = keys.parts(good.project, good.read("05-x"), {"alpha": 1, "ranks": [1]}, device, record)
    assert keys.judge(record, now) == (True, "parameter ranks changed")


def test_prose_never_reruns_and_reaches_the_page(good):
    source = good.read("05-x")
    source.cells[0].source = "# New title"
    source.cells.append(new_markdown_cell("New end."))
    source.cells[3].metadata["tags"] = ["hide-input"]
    good.write("05-x", source)
    assert reason(good) is None
    assert build.refresh(good.project, "cpu", [good.chapter("05-x")]) == []
    page = nbformat.read(good.project.executed("cpu", "05-x"), as_version=4)
    assert (page.cells[0].source, page.cells[-1].source) == ("# New title", "New end.")
    assert page.cells[3].metadata.tags == ["hide-input"]
    before = good.project.executed("cpu", "05-x").stat().st_mtime_ns
    build.refresh(good.project, "cpu", [good.chapter("05-x")])
    assert good.project.executed("cpu", "05-x").stat().st_mtime_ns == before


def test_new_answers_reach_the_page_with_measured_values(tiny):
    drill = "from IPython.display import Markdown, display\nclass lab:\n    drill = staticmethod("
    drill += "lambda: display(Markdown('old')))\nlab.drill()"
    tiny.add("05-x", drill, "record(values={'base_recall': {'value': 0.5, 'text': '50%'}})")
    assert tiny.run("05-x").passed
    bank = tiny.root / "book" / "interview" / "05-x.yml"
    bank.parent.mkdir(parents=True)
    question = {"id": "a", "level": "Fresh", "minutes": 2, "question": "Why?", "key_insight": "k"}
    question["mistake"] = {"what": "w", "tempting": "t", "cost": "c"}
    chapters = [tiny.chapter("05-x")]
    for answer, words in (("Now {base_recall}.", "Now 50%."), ("Better {base_recall}", "Better")):
        bank.write_text(json.dumps([{**question, "answer": answer}]), encoding="utf8")
        assert build.refresh(tiny.project, "cpu", chapters) == []
        assert words in tiny.project.executed("cpu", "05-x").read_text(encoding="utf8")
    bank.write_text(json.dumps([{**question, "answer": "{no_such_key}"}]), encoding="utf8")
    assert "no_such_key" in build.refresh(tiny.project, "cpu", chapters)[0]


def test_prose_of_a_stale_run_is_left_alone(good):
    source = good.read("05-x")
    source.cells[0].source = "# New title"
    source.cells[2].source += "\nz = 1"
    good.write("05-x", source)
    before = good.project.executed("cpu", "05-x").read_bytes()
    build.refresh(good.project, "cpu", [good.chapter("05-x")])
    assert good.project.executed("cpu", "05-x").read_bytes() == before


def test_outputs_and_injected_cell_survive_new_prose(tiny):
    cells = ("print(alpha)", "record()")
    tiny.add("05-x", *cells, parameters="alpha = 1.0", smoke={"alpha": 7})
    assert tiny.run("05-x", profile="smoke").passed
    source = tiny.read("05-x")
    source.cells.insert(3, new_markdown_cell("Between."))
    executed = nbformat.read(tiny.project.executed("smoke", "05-x"), as_version=4)
    page = build.refresh_prose(executed, source)
    injected = page.cells[2]
    assert injected.metadata.tags == ["injected-parameters", "remove-cell"]
    assert "alpha = 7" in injected.source
    assert [c.source for c in page.cells[4:6]] == ["Between.", "print(alpha)"]
    assert page.cells[5].outputs == [new_output("stream", name="stdout", text="7\n")]
    nbformat.validate(page)


def test_going_back_brings_the_good_run_back(good):
    edit_cell(good, 2, good.read("05-x").cells[2].source + "\n1 / 0")
    assert good.run("05-x").record["status"] == "failed"
    assert "ZeroDivision" in good.project.executed("cpu", "05-x").read_text(encoding="utf8")
    edit_cell(good, 2, good.read("05-x").cells[2].source.removesuffix("\n1 / 0"))
    assert reason(good) is None
    outcome = good.run("05-x")
    assert not outcome.ran and outcome.passed and "same inputs as the good run" in outcome.why
    assert "ZeroDivision" not in good.project.executed("cpu", "05-x").read_text(encoding="utf8")


def test_broken_notebook_costs_no_results(good):
    path = good.project.notebook("05-x")
    text = path.read_text(encoding="utf8")
    path.write_text("<<<<<<< HEAD\n" + text, encoding="utf8")
    assert good.run("05-x").record["status"] == "failed"
    assert not good.project.executed("cpu", "05-x").exists(), "no page shows an older run's results"
    path.write_text(text, encoding="utf8")
    assert good.run("05-x").passed and good.project.executed("cpu", "05-x").exists()


def test_page_never_shows_the_run_before_the_last(tiny):
    tiny.add("05-x", "1 / 0")
    assert tiny.run("05-x").record["executed"]
    tiny.project.notebook("05-x").write_text("{", encoding="utf8")
    assert tiny.run("05-x").record["executed"] is None
    assert not tiny.project.executed("cpu", "05-x").exists()


def test_force_and_budget(good):
    entry = {"cpu": {"seconds": 0.1, "mb": 10}}
    entry = {"budget": entry, "timeout": 900, "memory": 900}
    good.add("05-x", final(good), parameters="alpha = 1\nranks = (1, 2)", **entry)
    outcome = good.run("05-x", force=True)
    assert outcome.ran and outcome.why == "asked for" and outcome.passed
    assert [text.split(" of ")[1] for text in outcome.record["over_budget"]] == ["0 s", "10 MB"]
    assert good.command("run").returncode == 0
    strict = good.command("run", "--strict")
    assert strict.returncode == 1 and "over budget" in strict.stdout


def test_overridden_parameter_reaches_the_kernel_and_the_next_run_says_so(tiny):
    tiny.add("05-x", "record(values={'a': {'value': alpha}})", parameters="alpha = 1")
    done = tiny.command("run", "05", "--param", "alpha=3")
    assert done.returncode == 0
    record = records.read(tiny.project, "cpu", "05-x")
    assert record["values"] == {"a": {"value": 3}} and record["parameters"] == {"alpha": 3}
    assert reason(tiny) == "parameter alpha changed"


def test_kernel_environment(tiny):
    names = "MANGALAB_PROFILE MANGALAB_ROOT OMP_WAIT_POLICY HF_HUB_OFFLINE PYTHONHASHSEED".split()
    cell = f"record(values={{k: {{'value': os.environ[k]}} for k in {names}}}, cwd=os.getcwd())"
    tiny.add("05-x", cell)
    record = tiny.run("05-x").record
    values = [record["values"][name]["value"] for name in names]
    assert values == ["cpu", str(tiny.root), "PASSIVE", "1", "0"]


def test_order_follows_needs(tiny):
    tiny.add("18-last", "record()", needs=["20-first"])
    tiny.add("20-first", "record()")
    from mangalab.book.chapters import load

    assert list(load(tiny.project)) == ["20-first", "18-last"]


def test_status_and_why(good):
    assert "05-x  passed" in good.command("status").stdout
    assert good.command("why", "05").stdout == "05-x: would not run: nothing changed\n"
    edit_cell(good, 2, good.read("05-x").cells[2].source + "\nz = 1")
    assert "stale: code cell 2 changed" in good.command("status").stdout


@pytest.mark.parametrize("live", [True, False])
def test_progress_shows_cell_and_time_left(good, capsys, monkeypatch, live):
    from mangalab.book import progress
    from mangalab.book.process import Watch

    shown = progress.Progress(good.project, "cpu", 3)
    shown.live = live
    chapter, seen = good.chapter("05-x"), Watch({"cell": 7, "cells": 20}, seconds=30)
    shown.show(chapter, None, None)
    shown.expected[chapter.id] = 150
    shown.show(chapter, seen, None)
    wanted = "[1/3] 05-x  cell 7/20  30 s elapsed, about 2:00 left"
    assert (wanted in capsys.readouterr().out) == live
    monkeypatch.setattr(progress, "PLAIN_EVERY", -1)
    seen.seconds = 200
    shown.show(chapter, seen, None)
    assert "3:20 elapsed, longer than expected" in capsys.readouterr().out


def test_parameters_are_read_without_running(tiny):
    source = (
        "from os import sep\nalpha: float = 1\nranks = [\n 1,\n 2]\nexpr = alpha * 2\nx, y = 1, 2"
    )
    tiny.add("05-x", parameters=source)
    found = notebook.parameters(tiny.read("05-x"), "05-x.ipynb")
    assert found == {"alpha": 1, "ranks": [1, 2], "expr": notebook.UNKNOWN}


def test_build_gates_on_records_and_skips_when_nothing_changed(good, monkeypatch):
    calls = []

    def builder(project, profile, whole):
        calls.append(profile)
        page = project.html(profile) / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("page", encoding="utf8")
        return []

    monkeypatch.setattr(build, "_jupyter_book", builder)
    chapters = [good.chapter("05-x")]
    assert build.build(good.project, "cpu", chapters).ok
    assert not build.build(good.project, "cpu", chapters).built
    edit_cell(good, 0, "# Other prose")
    assert build.build(good.project, "cpu", chapters).built
    monkeypatch.setattr(build, "_jupyter_book", lambda *_: ["a.md:1: WARNING: unknown reference"])
    assert not build.build(good.project, "cpu", chapters, force=True).ok
