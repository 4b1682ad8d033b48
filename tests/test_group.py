"""Groups of processes: results in order, faults named, nothing left behind; ranks agree with one."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mangalab.distributed import killed, replicas
from mangalab.distributed.group import GroupError, launch
from mangalab.training.resumable import Recipe

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = [[101, 2054 + i, 2003 + 3 * i, 102][: 3 + i % 2] for i in range(12)]
LABELS = [i % 4 for i in range(12)]


def add(rank, world, number):
    import torch
    import torch.distributed as dist

    total = torch.tensor([float(rank + number)])
    dist.all_reduce(total)
    return rank, float(total)


def fail(rank, world):
    if rank == 1:
        raise ValueError("planted")
    time.sleep(60)


def die(rank, world):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def sleep(rank, world):
    time.sleep(60)


def alive():
    return [p for p in multiprocessing.active_children() if p.is_alive()]


@pytest.mark.slow
def test_results_come_in_rank_order():
    assert launch(add, 2, 10) == [(0, 21.0), (1, 21.0)]
    assert alive() == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_failures_are_named_and_nothing_is_left():
    with pytest.raises(GroupError, match="planted"):
        launch(fail, 2)
    with pytest.raises(GroupError, match="died without a word"):
        launch(die, 2)
    with pytest.raises(GroupError, match="no answer in time"):
        launch(sleep, 2, limit=5)
    assert alive() == []


@pytest.mark.slow
@pytest.mark.model
def test_two_ranks_have_the_gradient_of_one():
    even = replicas.Job(MESSAGES, LABELS, [range(0, 12, 2), range(1, 12, 2)], layers=1, steps=2)
    uneven = replicas.Job(MESSAGES, LABELS, [range(3), range(3, 12)], layers=1)
    mended = replicas.Job(MESSAGES, LABELS, [range(3), range(3, 12)], layers=1, weighted=True)
    jobs = {"even": even, "uneven": uneven, "mended": mended}
    ranks = launch(replicas.several, 2, jobs, ["replicated", "fsdp, resharded"], 2)
    true = replicas.alone(even)
    found = {n: ranks[0]["jobs"][n]["gradient"] for n in jobs}
    off = {n: np.linalg.norm(g - true) / np.linalg.norm(true) for n, g in found.items()}
    assert off["even"] < 1e-5 and off["mended"] < 1e-5 < 1e-2 < off["uneven"]
    assert ranks[0]["jobs"]["even"]["weights"] == ranks[1]["jobs"]["even"]["weights"]
    whole, shard = (ranks[0]["memory"][m] for m in ("replicated", "fsdp, resharded"))
    for part in ("weights", "gradients", "optimizer"):
        assert shard[part] == pytest.approx(whole[part] / 2, rel=0.01)
    assert whole["peak"] > sum(whole[p] for p in ("weights", "gradients", "optimizer"))


@pytest.mark.slow
@pytest.mark.model
def test_killed_run_resumes_to_the_same_bits(tmp_path):
    task = killed.Task(MESSAGES, LABELS, Recipe(5, 6, dropout=0.1), tmp_path / "points", 2, classes=4)
    assert killed.train(task, kill_at=3) is None
    assert sorted(p.name for p in task.folder.glob("*.safetensors")) == ["state-000002.safetensors"]
    resumed = killed.train(task, resume=True)
    whole = killed.train(killed.Task(MESSAGES, LABELS, task.recipe, tmp_path / "other", 2, classes=4))
    assert resumed == whole
    assert alive() == []


@pytest.mark.slow
@pytest.mark.model
def test_torchrun_finds_the_true_gradient():
    """The entry that chapter 09 names: two gloo processes, started by torch's own launcher."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "mangalab.distributed"]  # fmt: skip
    told = subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=ROOT)
    found = re.search(r"2 processes: gradient within (\S+) of one process; (.+)", told.stdout)
    assert found, told.stderr[-2000:]
    assert float(found[1]) < 1e-5 and found[2] == "replicas equal: True"
