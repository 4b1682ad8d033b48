"""A group of processes on this machine: started together, ended together, within a time limit."""

import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path

PRELOAD = ("mangalab.training.resumable", "mangalab.distributed.replicas",
           "transformers.models.bert.modeling_bert")  # fmt: skip


class GroupError(RuntimeError):
    """A worker that failed, or a group that did not end in time."""


def context() -> multiprocessing.context.BaseContext:
    """How processes start: from one that has imported the libraries, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOAD))
    return found


def warm() -> None:
    """Start the process that children are forked from now, so that it imports beside this one."""
    if context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


def single_thread() -> None:
    """One CPU thread in this process, and products in the precision that the whole book uses.

    Two ranks on two cores must not compete for both; and a child that multiplies otherwise than its
    parent cannot be compared with it bit for bit. In profile gpu models stay on the CPU here: ranks
    meet over gloo, and memory is counted by the CPU's allocator.
    """
    import torch

    from ..profiles import choose_dtype

    if os.environ.get("MANGALAB_PROFILE") == "gpu":
        os.environ["MANGALAB_PROFILE"] = "cpu"
    torch.set_num_threads(1)
    choose_dtype("cpu")


def join(rank: int, world: int, meeting: str, backend: str = "gloo", limit: float = 60) -> None:
    """Meet the other ranks; a file is the meeting place, so that no port has to be free."""
    import torch.distributed as dist

    if sys.platform.startswith("linux"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(backend, init_method=Path(meeting).as_uri(), rank=rank, world_size=world,
                            timeout=timedelta(seconds=limit))


def _rank(
    work: Callable, rank: int, world: int, meeting: str, backend: str, pipe, given: tuple
) -> None:
    """One process of a group; sends ("ok", result) or ("failed", what happened)."""
    try:
        single_thread()
        join(rank, world, meeting, backend)
        pipe.send(("ok", work(rank, world, *given)))
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
    finally:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def launch(work: Callable, world: int, *given, limit: float = 120, backend: str = "gloo") -> list:
    """Run ``work(rank, world, *given)`` in ``world`` processes; returns their results in rank order.

    ``work`` is a function of a module (children import it by name). Raises GroupError, with the
    child's own traceback, if one fails, dies or does not answer within ``limit`` seconds; no process
    outlives the call.
    """
    started, found = context(), [None] * world
    with tempfile.TemporaryDirectory() as folder:
        ends = [started.Pipe(duplex=False) for _ in range(world)]
        shared = (world, str(Path(folder) / "meeting"), backend)
        processes = [
            started.Process(target=_rank, args=(work, rank, *shared, pipe, given), daemon=True)
            for rank, (_, pipe) in enumerate(ends)
        ]
        try:
            for process, (_, theirs) in zip(processes, ends, strict=True):
                process.start()
                theirs.close()
            _collect([mine for mine, _ in ends], found, time.monotonic() + limit)
        finally:
            stop(processes)
    return found


def _collect(pipes: list, found: list, deadline: float) -> None:
    open_pipes = dict(zip(pipes, range(len(pipes)), strict=True))
    while open_pipes:
        ready = wait(list(open_pipes), max(0.0, deadline - time.monotonic()))
        if not ready:
            raise GroupError(f"ranks {sorted(open_pipes.values())} gave no answer in time")
        for pipe in ready:
            rank = open_pipes.pop(pipe)
            try:
                word, result = pipe.recv()
            except EOFError:
                raise GroupError(f"rank {rank} died without a word (killed? no memory?)") from None
            if word != "ok":
                raise GroupError(f"rank {rank} failed:\n{result}")
            found[rank] = result


def stop(processes: list) -> None:
    """End processes that still live; ask first, then insist."""
    for process in processes:
        if process.pid is not None:
            process.join(timeout=2)
    for process in processes:
        if process.pid is not None and process.is_alive():
            process.kill()
            process.join(timeout=5)
