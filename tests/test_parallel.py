"""Chapters side by side: what waits for what, never another value, and every fault reported."""

import os
import pickle
import signal
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor

import pytest
from test_runner_faults import ended, until

from mangalab.book import executors, keys, parallel, progress, records
from mangalab.book.chapters import load
from mangalab.book.parallel import Room
from mangalab.book.process import THREADS, Watch
from mangalab.book.project import BookError, Project
from mangalab.book.runner import Outcome

# a cell that ends only when the chapter of the other name runs at the same time
MEET = """\
import pathlib, time
pathlib.Path("{me}").touch()
end = time.monotonic() + 30
while not pathlib.Path("{other}").exists():
    assert time.monotonic() < end, "the other chapter did not run meanwhile"
    time.sleep(0.05)
"""

def run(tiny, profile="cpu", executor=None, room=Room(2, 2), **options) -> dict:
    """Run every chapter of a tiny book; results by id."""
    chapters = [*load(tiny.project).values()]
    found = parallel.run_all(
        tiny.project, chapters, profile, lambda *_: None, executor=executor, room=room, **options
    )
    return {chapter.id: result for chapter, result in zip(chapters, found, strict=True)}


def test_two_chapters_of_one_thread_run_side_by_side(tiny):
    for me, other in (("05-a", "06-b"), ("06-b", "05-a")):
        tiny.add(me, MEET.format(me=me, other=other), "record()", threads=1)
    assert all(result.passed for result in run(tiny).values())


class Recorder(Executor):
    """Runs nothing: every job passes after a moment; remembers which jobs were there at once."""

    def __init__(self) -> None:
        self.now: set[tuple] = set()
        self.together: list[set[tuple]] = []

    def submit(self, run_job, job) -> Future:
        pickle.loads(pickle.dumps((run_job, job)))  # what every executor may do
        me, future = (job.chapter.id, job.gpu), Future()
        self.now.add(me)
        self.together.append(set(self.now))
        record = {**records.never_run(job.chapter.id, job.profile), "status": "passed"}

        def finish() -> None:
            self.now.discard(me)
            future.set_result(executors.Delivery(Outcome(job.chapter.id, record, True, "")))

        threading.Timer(0.1, finish).start()
        return future


def at_once(tiny, room: Room, profile: str = "cpu") -> list[set[tuple]]:
    """The sets of (chapter, GPU) that a room lets run side by side."""
    recorder = Recorder()
    assert all(result.passed for result in run(tiny, profile, recorder, room).values())
    return recorder.together


@pytest.mark.parametrize(
    ("room", "most"),
    [(Room(None, 4), 2), (Room(None, 2), 1), (Room(None, 8), 4), (Room(3, 8), 3), (Room(1, 8), 1)],
)
def test_threads_and_jobs_bound_what_runs_at_once(tiny, room, most):
    for name in ("05-a", "06-b", "07-c", "08-d"):
        tiny.add(name, "record()", threads=2)
    assert max(map(len, at_once(tiny, room))) == most


@pytest.mark.parametrize(("free", "most"), [(1000, 1), (3999, 1), (4000, 2), (9000, 3)])
def test_memory_bounds_what_runs_at_once(tiny, free, most):
    """Chapters of 2000 MB that have not taken any of it yet; alone, one always runs."""
    for name in ("05-a", "06-b", "07-c"):
        tiny.add(name, "record()", threads=1)
    room = Room(None, 8, free_mb=lambda: float(free))
    assert max(map(len, at_once(tiny, room))) == most


def test_kernel_has_the_declared_threads_and_the_key_knows(tiny):
    cell = f"record(values={{k: {{'value': os.environ[k]}} for k in {THREADS}}})"
    tiny.add("05-a", cell, threads=3)
    assert {v["value"] for v in tiny.run("05-a").record["values"].values()} == {"3"}
    assert {v["value"] for v in tiny.run("05-a", "smoke").record["values"].values()} == {"1"}
    assert not keys.why(tiny.project, tiny.chapter("05-a"), "cpu")[0]
    tiny.add("05-a", cell, threads=1)
    wanted = (True, "threads changed from 3 to 1")
    assert keys.why(tiny.project, tiny.chapter("05-a"), "cpu") == wanted


def test_one_chapter_at_a_time_on_each_gpu(tiny, monkeypatch, tmp_path):
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    rows = "0, GPU-aa, H100\\n1, GPU-bb, H100\\n2, GPU-cc, T4\\n3, GPU-dd, H100"
    fake.write_text(f"#!/bin/sh\nprintf '{rows}\\n'\n", encoding="utf8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb,2,0")
    seen = "record(values={'gpu': {'value': os.environ['CUDA_VISIBLE_DEVICES']}})"
    for name in ("05-a", "06-b", "07-c", "08-d"):
        tiny.add(name, seen, threads=1, budget={"gpu": {"seconds": 60, "mb": 10}}, memory=99)
    room = parallel.room_here("gpu")
    assert room.gpus == ("GPU-bb", "GPU-aa"), "the T4 is another kind of device"
    sets = at_once(tiny, Room(None, 8, room.gpus), "gpu")
    assert max(map(len, sets)) == 2
    assert all(len({gpu for _, gpu in pairs}) == len(pairs) for pairs in sets)
    assert {gpu for pairs in sets for _, gpu in pairs} == {"GPU-bb", "GPU-aa"}
    record = tiny.run("05-a", "gpu", gpu="GPU-aa", force=True).record
    assert record["values"]["gpu"]["value"] == "GPU-aa"
    assert record["key_parts"]["device"] == "gpu H100"


def test_longest_first_and_what_others_wait_for_counts(tiny):
    for name, seconds in (("05-a", 10), ("06-b", 30), ("07-c", 25)):
        needs = ["05-a"] if name == "07-c" else []
        tiny.add(name, "record()", needs=needs, budget={"cpu": {"seconds": seconds, "mb": 9}})
    chapters = [*load(tiny.project).values()]
    names = [c.id for c in parallel.in_order(tiny.project, chapters, "cpu")]
    assert names == ["05-a", "06-b", "07-c"]
    records.write(tiny.project, {**records.never_run("07-c", "cpu"), "status": "passed", "seconds": 1})
    names = [c.id for c in parallel.in_order(tiny.project, chapters, "cpu")]
    assert names == ["06-b", "05-a", "07-c"]


def test_chapter_waits_for_those_it_needs(tiny):
    read = "import json\nwith open('../artifacts/runs/cpu/06-first.json') as f: r = json.load(f)"
    tiny.add("05-last", read, "record(values={'seen': r['values']['a']})", needs=["06-first"])
    tiny.add("06-first", "record(values={'a': {'value': alpha}})")
    assert run(tiny)["05-last"].record["values"]["seen"]["value"] == 1
    assert not run(tiny)["05-last"].ran
    tiny.add("06-first", "record(values={'a': {'value': alpha}})", parameters="alpha = 2")
    again = run(tiny)["05-last"]
    assert again.why == "the run of 06-first changed"
    assert again.record["values"]["seen"]["value"] == 2


def test_chapter_whose_need_failed_says_so_and_others_go_on(tiny):
    tiny.add("05-bad", "1 / 0")
    tiny.add("06-good", "record()")
    tiny.add("18-after", "record()", needs=["05-bad"])
    tiny.add("19-next", "record()", needs=["18-after"])
    done = tiny.command("run", "--jobs", "2")
    assert done.returncode == 1
    assert "06-good  passed" in done.stdout
    words = "18-after  not run: it reads the record of 05-bad, which is 'failed at cell 3: ZeroDiv"
    assert words in done.stdout
    assert "19-next  not run: it reads the record of 18-after, which is 'not run" in done.stdout
    assert records.read(tiny.project, "cpu", "18-after")["status"] == "never-run"


def test_jobs_that_cannot_fit_are_said_plainly(tiny):
    tiny.add("05-a", "record()")
    tiny.add("06-b", "record()", threads=1)
    chapters = [*load(tiny.project).values()]
    words = parallel.too_many(chapters, "cpu", Room(2, 2))
    assert words.startswith("--jobs 2: at most 1 side by side") and "2 cores" in words
    assert parallel.too_many(chapters, "smoke", Room(2, 2)) is None
    assert parallel.too_many(chapters, "cpu", Room(None, 2)) is None


def test_any_executor_and_the_same_values(tiny):
    for name in ("05-a", "06-b"):
        tiny.add(name, f"record(values={{'a': {{'value': alpha * 2, 'text': '{name}'}}}})")
    with ProcessPoolExecutor(2) as pool:
        first = run(tiny, executor=pool, room=None)
    second = run(tiny, room=Room(1), force=True)
    for name in first:
        assert first[name].passed and second[name].ran
        assert first[name].record["values"] == second[name].record["values"]
        assert first[name].record["key"] == second[name].record["key"]
    assert len(tiny.project.history.read_text(encoding="utf8").splitlines()) == 4


def test_broken_executor_is_reported(tiny):
    die = "import os, psutil\npsutil.Process().parents()[1].kill()\nimport time; time.sleep(60)"
    tiny.add("05-a", die, "record()")
    tiny.add("18-b", "record()", needs=["05-a"])
    tiny.add("06-c", "record()", budget={"cpu": {"seconds": 1, "mb": 10}}, memory=99)
    with ProcessPoolExecutor(1) as pool:
        results = run(tiny, executor=pool, room=Room(1))
    record = results["05-a"].record
    assert record["status"] == "killed"
    assert "its executor lost it: BrokenProcessPool" in record["why"]
    assert records.read(tiny.project, "cpu", "05-a") == record
    assert "its executor gave no result: BrokenProcessPool" in str(results["06-c"])
    assert "05-a, which is 'killed: its executor lost it" in str(results["18-b"])


def test_worker_with_its_own_disk_delivers_record_and_notebook(tiny, tmp_path, monkeypatch):
    """The driver's folder does not exist where the job runs; nothing but the delivery comes back."""
    tiny.add("05-a", "record(values={'a': {'value': 1}})")
    read = "print(open('../artifacts/runs/cpu/05-a.json').read())"
    tiny.add("18-b", read, "record()", needs=["05-a"])
    driver = Project(tmp_path / "driver")
    (driver.root / "book").mkdir(parents=True)
    monkeypatch.setenv("MANGALAB_ROOT", str(tiny.root))
    for name in ("05-a", "18-b"):
        needed = [records.read(driver, "cpu", "05-a")] if name == "18-b" else []
        tiny.project.record("cpu", "05-a").unlink(missing_ok=True)  # only the driver has it
        job = executors.Job(str(driver.root), tiny.chapter(name), "cpu", "t", records=tuple(needed),
                            inputs=executors.inputs(tiny.project, [name]))  # fmt: skip
        delivery = executors.run_job(job)
        executors.receive(driver, "cpu", delivery)
        assert records.read(driver, "cpu", name) == delivery.outcome.record
        assert delivery.outcome.passed and driver.executed("cpu", name).exists()
    assert len(driver.history.read_text(encoding="utf8").splitlines()) == 2


@pytest.mark.parametrize("name", ["mangalab/book/process.py", "notebooks/05-a.ipynb", "package some"])
def test_worker_with_other_code_is_refused(tiny, name, monkeypatch):
    tiny.add("05-a", "record()")
    wanted = executors.inputs(tiny.project, ["05-a"]) | {name: "other"}
    job = executors.Job(str(tiny.root), tiny.chapter("05-a"), "cpu", "t", inputs=wanted)
    error = executors.run_job(job).outcome
    assert isinstance(error, BookError)
    assert f"differs from this machine in {name}; bring it to the same commit" in str(error)
    assert not tiny.project.record("cpu", "05-a").exists()


def test_interrupting_two_chapters_records_both_and_leaves_no_process(tiny):
    slow = "import os, time\nopen('{}', 'w').write(str(os.getpid()))\ntime.sleep(float(wait))"
    names = ("05-a", "06-b")
    for name in names:
        tiny.add(name, slow.format(f"pid-{name}"), "record()", parameters="wait = 60.0", threads=1)
    process = tiny.command("run", "--profile", "smoke", "--jobs", "2", start=True)
    pids = [tiny.root / "notebooks" / f"pid-{name}" for name in names]
    until(lambda: all(pid.exists() and pid.read_text() for pid in pids))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error
    assert all(ended(int(pid.read_text())) for pid in pids)
    for name in names:
        assert records.read(tiny.project, "smoke", name)["why"] == "killed at cell 3: interrupted"


def test_two_runners_at_once_run_each_chapter_once(tiny):
    for name in ("05-a", "06-b", "07-c"):
        tiny.add(name, "import time; time.sleep(1)", "record()")
    both = [tiny.command("run", "-P", "smoke", "--jobs", "2", start=True) for _ in range(2)]
    texts = [process.communicate(timeout=60)[0] for process in both]
    assert len(tiny.project.history.read_text(encoding="utf8").splitlines()) == 3
    refused = sum(text.count("is being run by another mangalab") for text in texts)
    fresh = sum(text.count("fresh (nothing changed)") for text in texts)
    assert refused + fresh == 3
    for process, text in zip(both, texts, strict=True):
        assert process.returncode == (1 if "being run by another" in text else 0)


def test_history_lines_are_never_cut_in_two(tiny):
    values = {f"value_{k}": {"value": float(k)} for k in range(2000)}
    record = {**records.never_run("05-a", "cpu"), "status": "passed", "values": values}
    tiny.project.artifacts.mkdir()
    write = lambda: [records.append_history(tiny.project, record) for _ in range(20)]  # noqa: E731
    threads = [threading.Thread(target=write) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    lines = tiny.project.history.read_text(encoding="utf8").splitlines()
    assert len(lines) == 80 and len(set(lines)) == 1


def test_live_line_lists_what_runs(tiny, capsys, monkeypatch):
    for name in ("05-a", "06-b"):
        tiny.add(name, "record()")
    shown = progress.Progress(tiny.project, "cpu", 3)
    shown.live = True
    monkeypatch.setenv("COLUMNS", "120")
    for name, cell in (("05-a", 7), ("06-b", 3)):
        shown.show(tiny.chapter(name), None, None)
        shown.show(tiny.chapter(name), Watch({"cell": cell, "cells": 20}, seconds=30), None)
    assert "[1/3] 05-a 7/20 30 s  |  06-b 3/20 30 s" in capsys.readouterr().out
    shown.show(tiny.chapter("05-a"), None, BookError("it is locked"))
    assert "[1/3] 05-a  not run: it is locked\n" in capsys.readouterr().out
    shown.live = False
    shown.show(tiny.chapter("06-b"), Watch({"cell": 4, "cells": 20}, seconds=31), None)
    assert capsys.readouterr().out == "", "no terminal: a line now and then only"
