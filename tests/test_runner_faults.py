"""The runner names every planted fault, and never reports a notebook as good that is not."""

import json
import os
import signal
import time
from pathlib import Path

import filelock
import nbformat
import pytest

from mangalab.book import records
from mangalab.book.project import BookError

SLEEP = "import time; time.sleep(60)"
# one C loop, which no interrupt gets through
STUCK = "import os\nopen('pid', 'w').write(str(os.getpid()))\nsum(range(10**12))"
HOG = "hog = bytearray(200 * 2**20); import time; time.sleep(60)"
# fault: cells, entry of chapters.yml, then what the record must say: state, cell, words, cells not done
CASES = {
    "exception": (["x = 1", "1 / 0", "record()"], {}, "failed", 4, "ZeroDivisionError", [4, 5]),
    "sys-exit-0": (
        ["import sys; sys.exit(0)", "record()"], {}, "failed", 3,
        "SystemExit: the cell called sys.exit(0), later cells did not run", [3, 4]),
    "kernel-exits": (
        ["import os; os._exit(9)", "record()"], {}, "killed", 3, "the kernel died", [3, 4]),
    "kernel-is-killed": (
        ["import os; os.kill(os.getpid(), 9)", "record()"], {}, "killed", 3, "the kernel died", [3, 4]),
    "worker-is-killed": (
        ["import os; os.kill(os.getppid(), 9)", SLEEP], {}, "killed", 3,
        "the notebook's process died (exit code -9)", [3, 4]),
    "cell-timeout": (
        [SLEEP, "record()"], {"cell_timeout": 1}, "timeout", 3, "a cell may take 1 s", [3, 4]),
    "notebook-timeout": (
        [STUCK, "record()"], {"budget": {"cpu": {"seconds": 5, "mb": 2000}}, "timeout": 2},
        "timeout", 3, "the notebook may take 10 s", [3, 4]),
    "memory": (
        [HOG, "record()"], {"budget": {"cpu": {"seconds": 60, "mb": 250}}, "memory": 1.2},
        "killed", 3, " MB, the limit is 300 MB (budget x 1.2)", [3, 4]),
    "no-card": (["x = 1"], {}, "failed", None, "the last cell must be lab.card()", []),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CASES if name != "notebook-timeout"])
def test_fault_in_a_cell_is_named(tiny, name):
    cells, entry, state, cell, words, not_done = CASES[name]
    tiny.add("05-x", *cells, **entry)
    record = tiny.run("05-x").record
    assert (record["status"], record["error"]["cell"]) == (state, cell)
    assert words in record["why"] and words in records.summary(record)
    assert record["cells"] == {"cells": 2 + len(cells), "not_done": not_done}
    assert records.read(tiny.project, "cpu", "05-x") == record


def test_executed_copy_of_a_dead_kernel_does_not_claim_completed_cells(tiny):
    tiny.add("05-x", "print('before')", "import os; os._exit(1)", "record()")
    record = tiny.run("05-x").record
    executed = nbformat.read(tiny.root / record["executed"], as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    states = [cell.metadata.papermill.status for cell in code]
    assert states == ["completed", "completed", "completed", "failed", "pending"]
    assert code[2].outputs[0].text == "before\n"
    assert executed.metadata.mangalab.state == "killed"
    assert str(tiny.root) not in json.dumps(executed)


def test_notebook_timeout_ends_a_kernel_that_cannot_be_interrupted(tiny):
    test_fault_in_a_cell_is_named(tiny, "notebook-timeout")
    assert tiny.project.executed("cpu", "05-x").exists(), "what ran before the end is kept"
    assert ended(int((tiny.root / "notebooks" / "pid").read_text()))


def test_expected_errors_are_no_failure(tiny):
    tiny.add("05-x", "1 / 0", "record()")
    notebook = tiny.read("05-x")
    notebook.cells[3].metadata["tags"] = ["raises-exception"]
    tiny.write("05-x", notebook)
    assert tiny.run("05-x").passed


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"alhpa": 2}, "no parameter 'alhpa'; known: alpha (int), rates (list of float), expr"),
        ({"alpha": "two"}, "'two' is str, but the notebook's 1 is int"),
        ({"alpha": True}, "is bool"),
        ({"rates": ["a"]}, "is list of str"),
        ({"rates": 0.1}, "is float"),
    ],
)
def test_wrong_parameters_stop_before_a_kernel_starts(tiny, entry, words):
    source = "alpha = 1\nrates = [\n    0.1,\n    0.2,\n]\nexpr = 2 * alpha"
    tiny.add("05-x", "record()", parameters=source, smoke=entry)
    record = tiny.run("05-x", profile="smoke").record
    assert not tiny.project.work("smoke", "05-x").exists(), "no worker was started"
    assert record["status"] == "failed" and record["error"]["cell"] is None
    assert words in record["why"]


@pytest.mark.parametrize("parameters", [None, "pass"])
def test_missing_parameters_tag(tiny, parameters):
    tiny.add("05-x", "record()", parameters=parameters)
    if parameters:
        notebook = tiny.read("05-x")
        notebook.cells[2].metadata["tags"] = ["parameters"]  # now two cells carry it
        tiny.write("05-x", notebook)
    record = tiny.run("05-x").record
    assert record["status"] == "failed" and "tagged `parameters`" in record["why"]


@pytest.mark.parametrize("text", ["{", "[]", "<<<<<<< HEAD", '{"cells": 3}', "\x00"])
def test_notebook_that_is_no_notebook(tiny, text):
    tiny.add("05-x", "record()")
    (tiny.root / "notebooks" / "05-x.ipynb").write_text(text, encoding="utf8")
    record = tiny.run("05-x").record
    assert record["status"] == "failed" and "05-x.ipynb is" in record["why"]


def test_one_failing_chapter_stops_no_other_and_exit_code_is_1(tiny):
    tiny.add("05-bad", "1 / 0")
    tiny.add("06-good", "record()")
    done = tiny.command("run")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "05-bad  failed at cell 3: ZeroDivisionError" in done.stdout
    assert "06-good  passed" in done.stdout


def test_second_runner_is_refused(tiny):
    tiny.add("05-x", "record()")
    lock = tiny.project.artifacts / "locks" / "cpu-05-x.lock"
    lock.parent.mkdir(parents=True)
    with filelock.FileLock(lock), pytest.raises(BookError, match="being run by another"):
        tiny.run("05-x")
    assert tiny.run("05-x").passed


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interruption_is_recorded_and_resumed(tiny, sent):
    tiny.add("05-done", "record()")
    slow = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(float(wait))"
    tiny.add("06-slow", slow, "record()", parameters="wait = 60.0")
    process = tiny.command("run", start=True)
    pid = tiny.root / "notebooks" / "pid"
    until(lambda: pid.exists() and pid.read_text())
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error
    assert ended(int(pid.read_text()))
    record = records.read(tiny.project, "cpu", "06-slow")
    assert record["why"] == "killed at cell 3: interrupted"
    tiny.add("06-slow", slow, "record()", parameters="wait = 0.0")
    again = tiny.command("run")
    assert again.returncode == 0
    assert "05-done  fresh" in again.stdout
    assert "ran: last run killed at cell 3: interrupted" in again.stdout


def test_hard_death_of_the_runner_is_recorded(tiny):
    slow = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    tiny.add("05-x", slow, "record()")
    process = tiny.command("run", start=True)
    pid = tiny.root / "notebooks" / "pid"
    until(lambda: pid.exists() and pid.read_text())
    process.kill()
    process.communicate(timeout=60)
    assert ended(int(pid.read_text())), "the kernel ends with its runner"
    record = records.read(tiny.project, "cpu", "05-x")
    assert record["status"] == "killed" and "runner itself died" in record["why"]


def test_artifacts_that_cannot_be_written(tiny):
    tiny.add("05-x", "record()")
    tiny.project.artifacts.write_text("a file where a folder should be", encoding="utf8")
    done = tiny.command("run")
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert "cannot write or read" in done.stdout and "permissions" in done.stdout


def test_disk_full_while_a_record_is_written(tiny, monkeypatch):
    tiny.add("05-x", "record()")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "runs/05-x.json")

    monkeypatch.setattr(records, "write", full)
    with pytest.raises(BookError, match=r"05-x.json: no space left on device; check the disk"):
        tiny.run("05-x")


def test_disk_full_in_a_cell_is_that_cells_failure(tiny):
    tiny.add("05-x", "open('/dev/full', 'w').write('x' * 9999)", "record()")
    assert "failed at cell 3: OSError: [Errno 28]" in tiny.run("05-x").record["why"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--profile", "gpux"], "choose one of: smoke, cpu, gpu"),
        (["run", "99"], "'99' names no chapters; known: 05-x"),
        (["run", "05", "-p", "alhpa=2"], "no parameter 'alhpa'; known: alpha (int)"),
        (["run", "05", "-p", "alpha=x"], "'x' is str"),
        (["run", "05", "-p", "alpha"], "not of the form name=value"),
        (["run", "--nonsense"], "No such option"),
        (["run", "--profile", "gpu"], "needs an NVIDIA GPU"),
    ],
)
def test_bad_input_is_one_sentence_and_loses_nothing(tiny, arguments, words, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")  # no nvidia-smi on any machine
    tiny.add("05-x", "record()", gpu={})
    done = tiny.command(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert words in done.stdout + done.stderr
    assert not tiny.project.record("cpu", "05-x").exists()


def test_output_that_cannot_be_written_is_one_sentence(tiny, capsys):
    from mangalab.book import worker

    tiny.add("05-x", "record()")
    notebooks = tiny.root / "notebooks"
    spec = {"source": str(notebooks / "05-x.ipynb"), "output": str(tiny.root / "no" / "x.ipynb")}
    spec |= {"parameters": {}, "cwd": str(notebooks), "cell_timeout": None}
    (tiny.root / "spec.json").write_text(json.dumps(spec), encoding="utf8")
    worker.main(str(tiny.root / "spec.json"))
    last = capsys.readouterr().out.strip().splitlines()[-1]
    account = json.loads(last.removeprefix(worker.MARK))
    assert account["state"] == "failed" and "check the disk" in account["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("05-x: {title: 3", "no valid YAML"),
        ("- 05-x", "must map chapter ids"),
        ("05-x: {title: t, tier: 1, minutes: 3}", "05-x, budget: field required"),
        ("05-x: {title: t, tier: 1, minutes: 3, budget: {}, smok: {}}", "05-x, smok: extra"),
        ("05-x: {title: t, tier: 1, minutes: 3, budget: {}, needs: [7]}", "05-x, needs"),
        ("05-x: {title: t, tier: 1, minutes: 3, budget: {}, needs: ['7']}", "needs 7, which is no"),
    ],
)
def test_faults_of_chapters_yml(tiny, text, words):
    (tiny.root / "chapters.yml").write_text(text, encoding="utf8")
    done = tiny.command("status")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def until(condition, seconds: float = 60) -> None:
    """Wait until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def ended(pid: int) -> bool:
    """Whether a process is gone (or a zombie that nobody collects) within a moment."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)  # it would spin for hours
    return False
