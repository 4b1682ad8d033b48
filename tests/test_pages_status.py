"""Status and executions: state with its reason, the last good run, costs, and the smoke stamp."""

import json

import html_gate
import pytest
import sample_book

from mangalab.book import history
from mangalab.book.pages import Runs
from mangalab.book.project import Project
from mangalab.book.tables import states


def no_link(chapter: str) -> None:
    return None


def row_of(html: str, chapter: str) -> str:
    """The table row that names a chapter."""
    return next(row for row in html.split("<tr")[1:] if f">{chapter}</" in row)


def status(tiny) -> str:
    return states.html(Runs(tiny.project, "cpu"), no_link)


def test_a_fresh_chapter_becomes_stale_with_the_reason(tiny):
    tiny.add("01-one", "record()")
    tiny.run("01-one")
    assert ">Fresh</span>" in row_of(status(tiny), "01-one")
    tiny.add("01-one", "x = 1", "record()")
    row = row_of(status(tiny), "01-one")
    assert ">Stale</span>" in row and "code cells were added" in row


def test_a_failed_chapter_names_its_cell_and_when_it_last_ended_well(tiny):
    tiny.add("01-one", "record()")
    good = tiny.run("01-one").record["started"]
    tiny.add("01-one", "1 / 0", "record()")
    tiny.run("01-one")
    row = row_of(status(tiny), "01-one")
    assert "Failed at cell 3" in row and "ZeroDivisionError" in row
    assert f'datetime="{good}"' in row


def test_the_history_knows_a_good_run_whose_record_is_gone(tiny):
    tiny.add("01-one", "record()")
    good = tiny.run("01-one").record["started"]
    tiny.project.record("cpu", "01-one").unlink()
    row = row_of(status(tiny), "01-one")
    assert "Never run here" in row and f'datetime="{good}"' in row


def test_a_reason_is_escaped(tmp_path):
    folder = sample_book.make(tmp_path)
    error = {"cell": 2, "name": "ValueError", "message": "<script>alert(1)</script>"}
    failed = sample_book.record("05-failed", "cpu", status="failed", error=error)
    sample_book.write(folder / "artifacts/runs/cpu/05-failed.json", failed)
    html = states.html(Runs(Project(folder), "cpu"), no_link)
    assert "&lt;script&gt;" in html and "<script" not in html


def test_executions_show_commit_edits_cells_and_seeds(tmp_path):
    folder = sample_book.make(tmp_path)
    record = sample_book.record(
        "04-ran", "cpu", seeds=[0, 1, 2], commit="abcdef0123456789", dirty=True,
        cells={"cells": 12, "not_done": [11, 12]},
    )  # fmt: skip
    sample_book.write(folder / "artifacts/runs/cpu/04-ran.json", record)
    row = row_of(states.executions_html(Runs(Project(folder), "cpu"), no_link), "Chapter 04-ran")
    for shown in ("abcdef0123", "with edits", "0, 1, 2", "12, 2 not run", "0123456789"):
        assert shown in row


def test_a_cpu_build_lists_gpu_runs_but_no_smoke_runs(tmp_path):
    folder = sample_book.make(tmp_path)
    for profile in ("gpu", "smoke"):
        record = sample_book.record("04-ran", profile, key=f"{profile}-key")
        sample_book.write(folder / f"artifacts/runs/{profile}/04-ran.json", record)
    html = states.executions_html(Runs(Project(folder), "cpu"), no_link)
    assert "gpu-key" in html and "smoke-key" not in html


def test_a_fresh_clone_has_friendly_pages(tmp_path):
    runs = Runs(Project(tmp_path), "cpu")
    assert "make book" in states.executions_html(runs, no_link)
    assert "0 chapters" in states.html(runs, no_link)


# ---------------------------------------------------------------------- the history
def line(**changes: object) -> str:
    run = {"chapter": "01", "profile": "cpu", "status": "passed", "started": "2026-01-01T00:00:00"}
    return json.dumps({**run, **changes}) + "\n"


def test_damaged_history_lines_are_skipped_and_counted(tmp_path):
    path = tmp_path / "history.jsonl"
    broken = '{"chapter": "01", "prof\n[1, 2]\n{"chapter": 3}\n'
    path.write_text(line(values={"a": 1.5, "b": True, "c": "x"}) + broken + line(), encoding="utf8")
    found = history.read(path)
    assert (len(found.runs), found.damaged, found.cut) == (2, 3, False)
    assert found.runs[0]["values"] == {"a": 1.5}


def test_a_long_history_is_read_from_its_end_only(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(line(commit=str(n)) for n in range(5000)), encoding="utf8")
    found = history.read(path, limit=10_000)
    assert found.cut and not found.damaged and len(found.runs) < 120
    assert found.runs[-1]["commit"] == "4999"


# ---------------------------------------------------------------------- built pages
@pytest.mark.parametrize("profile", ["cpu", "smoke"])
def test_every_page_of_a_smoke_build_and_of_no_other_is_stamped(profile):
    shown = html_gate.page_files(sample_book.built(profile))
    assert len(shown) > 5 and any(p.name == "search.html" for p in shown)
    stamped = [p for p in shown if "smoke-mark" in p.read_text(encoding="utf8")]
    assert stamped == (shown if profile == "smoke" else [])
