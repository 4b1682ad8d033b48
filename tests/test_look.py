"""`mangalab status`, `why`, `doctor` and `clean`: what jobs read, what is told, what is deleted."""

import datetime as dt
import json
import os
import subprocess
import sys
from collections import namedtuple

import filelock
import pytest
from test_accept import ROOT, book, call, passed  # noqa: F401

from mangalab.book import doctor, records
from mangalab.book.project import BookError, Project


def ago(days: float) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(days=days)).isoformat(timespec="seconds")


def test_help_starts_at_once_and_names_every_command():
    """The best of five: another process may hold the machine up, the program must not."""
    line, best = [sys.executable, "-m", "mangalab.book.cli", "--help"], 9.0
    for _ in range(5):
        start = os.times().children_user
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
        best = min(best, os.times().children_user - start)
    assert best < 0.4, f"{best:.2f} s of processor time"
    for name in "run build book status why accept diff clean doctor new spectrum estimate".split():
        assert f" {name} " in done.stdout


def test_every_command_has_an_example_and_says_its_exit_codes():
    from mangalab.book.cli import app

    for command in app.registered_commands:
        text = command.callback.__doc__
        assert "Example: mangalab " in text and "xit code" in text, command.callback.__name__


# ------------------------------------------------------------------ status and why
def test_status_as_data(book):  # noqa: F811
    passed(book, "05-x", started=ago(3), over_budget=["90 s of 60 s"])
    told = json.loads(call("status", "--json").output)
    assert (told["schema"], told["profile"], told["ok"]) == (1, "cpu", False)
    ran, never = told["chapters"]
    assert ran["fresh"] is True and not ran["would_run"] and ran["over_budget"] == ["90 s of 60 s"]
    assert ran["age_days"] == pytest.approx(3, abs=0.01)
    assert (never["status"], never["fresh"], never["last_good"]) == ("never-run", None, None)
    assert set(ran) == {
        "chapter", "title", "status", "summary", "running", "fresh", "would_run", "reason", "started",
        "seconds", "peak_mb", "over_budget", "last_good", "age_days"}  # fmt: skip


def test_silence_has_a_name(book):  # noqa: F811
    passed(book, "05-x", started=ago(3))
    assert call("status", "05", "--max-age", "4").exit_code == 0
    done = call("status", "--max-age", "2")
    assert done.exit_code == 1
    assert "too old: 05-x: the last good run was" in done.output and "3.0 days ago" in done.output
    assert "too old: 06-y: no good run is known here" in done.output
    assert json.loads(call("status", "--max-age", "2", "--json").output)["too_old"]


def test_a_failed_run_does_not_hide_an_older_good_one(book):  # noqa: F811
    good = passed(book, "05-x", started=ago(1))
    book.project.history.parent.mkdir(exist_ok=True)
    records.append_history(book.project, good)
    passed(book, "05-x", started=ago(0), status="failed", error={"cell": 2})
    assert call("status", "05", "--max-age", "2").exit_code == 0
    assert call("status", "05", "--max-age", "0.5").exit_code == 1


def test_why_as_data(book):  # noqa: F811
    told = json.loads(call("why", "05", "--json").output)
    assert told == {"schema": 1, "chapter": "05-x", "profile": "cpu", "would_run": True,
                    "reason": "never run here"}  # fmt: skip


# ------------------------------------------------------------------ doctor
def test_doctor_as_data_and_exit_code(book, monkeypatch):  # noqa: F811
    findings = [doctor.Finding("a", True, "fine"), doctor.Finding("b", False, "bad", "mend", False)]
    monkeypatch.setattr(doctor, "examine", lambda project, profile: findings)
    done = call("doctor", "--json")
    assert done.exit_code == 0 and json.loads(done.output)["findings"][1] == {
        "name": "b", "ok": False, "text": "bad", "fix": "mend", "needed": False}  # fmt: skip
    findings.append(doctor.Finding("c", False, "broken", "repair"))
    done = call("doctor")
    assert done.exit_code == 1 and "FAIL  c: broken; repair" in done.output
    assert "note  b: bad; mend" in done.output


def test_doctor_names_each_planted_fault(book, monkeypatch):  # noqa: F811
    project = book.project
    assert "some missing instead of 1.0" in doctor.packages(project).text
    (project.notebook("05-x")).unlink()
    assert doctor.chapters(project).text == "no notebook for 05-x"
    monkeypatch.setattr(doctor, "OLDEST", (99, 0))
    assert not doctor.python().ok
    monkeypatch.setattr(doctor, "gpus", lambda: [])
    assert doctor.device("cpu").ok and not doctor.device("gpu").ok
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: usage(1e9))
    assert not doctor.disk(project).ok
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("m", "available")(1e9))
    found = doctor.memory(project, "cpu")
    assert not found.ok and not found.needed and "1.0 GB free, 05-x takes 2.0" in found.text

    class Refused:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def bind(self, _):
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(doctor.socket, "socket", Refused)
    assert "not permitted" in doctor.ports().text


def test_a_check_that_breaks_does_not_end_the_others(book, monkeypatch):  # noqa: F811
    def broken(*_):
        raise RuntimeError("boom")

    for name in ("models", "data", "browser"):
        monkeypatch.setattr(doctor, name, broken)
    found = {one.name: one for one in doctor.examine(book.project)}
    assert "RuntimeError: boom" in found["models"].text and not found["models"].ok
    assert len(found) == 10 and all(one.fix for one in found.values() if not one.ok)


# ------------------------------------------------------------------ clean
@pytest.fixture
def littered(book):  # noqa: F811
    passed(book, "05-x")
    (book.root / "_build" / "html").mkdir(parents=True)
    book.project.history.write_text("{}\n", encoding="utf8")
    kept = book.root / "kept.txt"
    kept.write_text("mine", encoding="utf8")
    (book.project.artifacts / "link").symlink_to(book.root / "notebooks", target_is_directory=True)
    return book


def test_clean_removes_only_what_was_generated(littered):
    before = {p.name for p in littered.root.iterdir()}
    assert "would remove" in call("clean", "--dry-run").output
    assert {p.name for p in littered.root.iterdir()} == before
    assert call("clean", "--yes").exit_code == 0
    assert {p.name for p in littered.root.iterdir()} == before - {"_build"}
    assert [p.name for p in littered.project.artifacts.iterdir()] == ["history.jsonl"]
    assert littered.project.notebook("05-x").exists()  # behind a link: only the link went
    assert call("clean", "--yes").output == "nothing to remove\n"
    call("clean", "--yes", "--all")
    assert not littered.project.history.exists()


def test_clean_asks_and_without_a_terminal_refuses(littered):
    with pytest.raises(BookError, match="add --yes"):
        call("clean")
    assert (littered.root / "_build").exists()


def test_clean_waits_for_a_running_chapter(littered):
    lock = littered.project.artifacts / "locks" / "cpu-05-x.lock"
    lock.parent.mkdir()
    with filelock.FileLock(lock), pytest.raises(BookError, match="cpu-05-x is running"):
        call("clean", "--yes")
    assert Project(littered.root).record("cpu", "05-x").exists()


def test_make_clean_keeps_the_history(littered):
    make = ["make", "-s", "-f", str(ROOT / "Makefile"), "clean"]
    subprocess.run(make, cwd=littered.root, check=True)
    assert not (littered.root / "_build").exists() and littered.project.notebook("05-x").exists()
    assert [p.name for p in littered.project.artifacts.iterdir()] == ["history.jsonl"]
