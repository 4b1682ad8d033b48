"""A real Dask cluster of two worker processes on loopback, and object storage by papermill."""

import itertools
import os
import shutil
import signal
import sys

import dask
import fsspec
import pytest
from test_parallel import MEET, run
from test_runner_faults import ended, until

from mangalab.book import cluster, executors, keys, records
from mangalab.book.project import BookError
from mangalab.book.store import Store

HTTP = "127.0.0.1:0"  # Dask's own pages: on loopback, wherever there is a port
FAKE = "#!/bin/sh\necho '0, GPU-aa, H100'\n"
TIMED = "import time; start = time.monotonic(); time.sleep(0.3)"
KILL = "import os, psutil, pathlib\n{guard}psutil.Process().parents()[1].kill()"
WHO = """\
import psutil
record(values={'start': {'value': start}, 'end': {'value': time.monotonic()},
               'worker': {'value': psutil.Process().parents()[1].pid}})
"""


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory):
    """Two worker processes with room for two chapters and one GPU each, in name only."""
    from distributed import LocalCluster

    bin_folder = tmp_path_factory.mktemp("bin")
    (bin_folder / "nvidia-smi").write_text(FAKE, encoding="utf8")
    (bin_folder / "nvidia-smi").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{bin_folder}{os.pathsep}{before}"
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        found = LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", memory_limit=0,
            dashboard_address=HTTP, worker_dashboard_address=HTTP, resources={"GPU": 1},
            local_directory=str(tmp_path_factory.mktemp("dask")), silence_logs=50,
        )  # fmt: skip
    os.environ["PATH"] = before
    yield found
    found.close()


def distribute(tiny, dask_cluster, profile="cpu", **options) -> dict:
    """Run every chapter of a tiny book on the cluster; results by id."""
    names = list(tiny.entries)
    address = dask_cluster.scheduler_address
    with cluster.connect(address, tiny.project, profile, names) as found:
        return run(
            tiny, profile, executor=found.executor, room=None, halt=found.halt, **options
        )


def test_chapters_run_side_by_side_on_the_cluster(tiny, dask_cluster):
    for me, other in (("05-a", "06-b"), ("06-b", "05-a")):
        tiny.add(me, MEET.format(me=me, other=other), "record(values={'a': {'value': alpha}})")
    done = tiny.command("run", "--scheduler", dask_cluster.scheduler_address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "05-a  passed" in done.stdout and "2 good, 0 not; 2 ran" in done.stdout
    assert not keys.why(tiny.project, tiny.chapter("05-a"), "cpu")[0]


def test_one_chapter_at_a_time_for_each_gpu_resource(tiny, dask_cluster):
    for name in ("05-a", "06-b", "07-c"):
        tiny.add(name, TIMED, WHO, budget={"gpu": {"seconds": 60, "mb": 10}}, memory=99)
    results = distribute(tiny, dask_cluster, "gpu")
    workers = {r.record["values"]["worker"]["value"] for r in results.values()}
    assert len(workers) == 2
    for pid in workers:
        found = [r.record["values"] for r in results.values()]
        mine = sorted(
            (v["start"]["value"], v["end"]["value"]) for v in found if v["worker"]["value"] == pid
        )
        assert all(first[1] <= then[0] for first, then in itertools.pairwise(mine))


def test_chapter_whose_worker_died_runs_again_on_another(tiny, dask_cluster):
    first = "flag = pathlib.Path('flag'); first = not flag.exists(); flag.touch()\nif first: "
    wait = "import time; time.sleep(5 if first else 0)"
    tiny.add("05-a", KILL.format(guard=first), wait, "record()")
    tiny.add("06-b", "record()")
    results = distribute(tiny, dask_cluster)
    assert all(result.passed for result in results.values())
    assert results["05-a"].why == "last run killed: the runner itself died during this run"


def test_chapter_that_kills_every_worker_is_recorded_so(tiny, dask_cluster):
    tiny.add("05-a", KILL.format(guard=""), "import time; time.sleep(30)", "record()")
    tiny.add("06-b", "record()")
    results = distribute(tiny, dask_cluster)
    record = results["05-a"].record
    assert record["status"] == "killed"
    assert "its executor lost it: KilledWorker: Attempted to run task" in record["why"]
    assert records.read(tiny.project, "cpu", "05-a") == record
    assert results["06-b"].passed or "is being run" in str(results["06-b"])


def test_interruption_reaches_the_workers(tiny, dask_cluster):
    slow = "import os, time\nopen('{}', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    names = ("05-a", "06-b")
    for name in names:
        tiny.add(name, slow.format(f"pid-{name}"), "record()")
    arguments = ("run", "--scheduler", dask_cluster.scheduler_address)
    process = tiny.command(*arguments, start=True)
    pids = [tiny.root / "notebooks" / f"pid-{name}" for name in names]
    until(lambda: all(pid.exists() and pid.read_text() for pid in pids))
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error + output
    assert all(ended(int(pid.read_text())) for pid in pids)
    for name in names:
        assert records.read(tiny.project, "cpu", name)["why"] == "killed at cell 3: interrupted"


def test_worker_that_differs_is_named_before_anything_runs(tiny, dask_cluster, monkeypatch):
    tiny.add("05-a", "record()")
    original = executors.inputs

    def other(project, chapter):
        return original(project, chapter) | {"notebooks/05-a.ipynb": "older"}

    monkeypatch.setattr(executors, "inputs", other)
    with pytest.raises(BookError, match=r"tcp://.*differs .* in notebooks/05-a.ipynb; bring it to"):
        distribute(tiny, dask_cluster)


def test_scheduler_that_does_not_answer(tiny):
    tiny.add("05-a", "record()")
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        with (
            pytest.raises(BookError, match=rf"no Dask scheduler answers at {address} \("),
            cluster.connect(address, tiny.project, "cpu", [], wait=0.5),
        ):
            pass


def test_missing_extra_says_how_to_get_it(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(BookError, match=r"run `make env` \(or install the extra"),
        cluster.connect("tcp://127.0.0.1:9", tiny.project, "cpu", []),
    ):
        pass


@pytest.mark.parametrize(
    ("workers", "profile", "words"), [(0, "cpu", "has no worker"), (1, "gpu", "offers a GPU")]
)
def test_cluster_without_a_suitable_worker(tiny, workers, profile, words):
    from distributed import LocalCluster

    options = {"dashboard_address": HTTP, "worker_dashboard_address": HTTP}
    with (
        LocalCluster(n_workers=workers, processes=False, **options) as empty,
        pytest.raises(BookError, match=words),
        cluster.connect(empty.scheduler_address, tiny.project, profile, [], wait=1),
    ):
        pass


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_runs_go_to_a_store_and_come_back_on_another_machine(tiny, tmp_path, scheme):
    tiny.add("05-a", "print('seen')", "record(values={'a': {'value': 1}})")
    url = f"{scheme}://{tmp_path}/store"
    record = tiny.run("05-a").record
    Store.open(url, "cpu").put(tiny.project, record)
    system, place = fsspec.core.url_to_fs(url)
    names = {name.split("store/")[1] for name in system.find(place)}
    assert names == {"store.json", "runs/cpu/05-a.json", "executed/cpu/05-a.ipynb"}
    for path in (tiny.project.record("cpu", "05-a"), tiny.project.executed("cpu", "05-a")):
        path.unlink()
    Store.open(url, "cpu").fetch(tiny.project, [tiny.chapter("05-a")], "cpu")
    outcome = tiny.run("05-a")
    assert not outcome.ran and outcome.record == record and "same inputs as" in outcome.why
    assert "seen" in tiny.project.executed("cpu", "05-a").read_text(encoding="utf8")


def test_store_on_the_command_line(tiny, tmp_path):
    tiny.add("05-a", "record(values={'a': {'value': 1}})")
    tiny.add("06-b", "1 / 0")
    url = f"file://{tmp_path}/a store"
    assert tiny.command("run", "--store", url).returncode == 1
    assert (tmp_path / "a store" / "runs" / "cpu" / "06-b.json").exists(), "failures are copied too"
    shutil.rmtree(tiny.project.artifacts)  # now it is another machine
    again = tiny.command("run", "--store", url)
    assert "05-a  fresh (same inputs as the good run of" in again.stdout
    assert "06-b  failed at cell 3" in again.stdout, "only good runs come back"
    tiny.add("05-a", "record(values={'a': {'value': 2}})")
    shutil.rmtree(tiny.project.artifacts)
    assert "05-a  passed" in tiny.command("run", "05", "--store", url).stdout


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("folder", "not an address"),
        ("nonsense://x", "neither papermill nor fsspec knows nonsense://"),
        ("s3://bucket/book", "cannot write s3://bucket/book/store.json: "),
        ("file:///proc/nothing", "cannot write file:///proc/nothing/store.json: "),
    ],
)
def test_store_that_cannot_be_used_is_said_before_anything_runs(tiny, url, words):
    with pytest.raises(BookError, match=words):
        Store.open(url, "cpu")
