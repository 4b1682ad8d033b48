"""Dask distributed as the engine past one machine: `mangalab run --scheduler tcp://host:8786`.

Start a scheduler (`dask scheduler --host 127.0.0.1`) and, in a checkout of the book at the driver's
commit with the environment of its lock file, workers: one thread for each chapter that may run at
once there, which is cores divided by the threads of a chapter, and `--resources GPU=1` with one GPU:

    dask worker tcp://HOST:8786 --nthreads 1 --nworkers 2
    CUDA_VISIBLE_DEVICES=0 dask worker tcp://HOST:8786 --nthreads 1 --resources GPU=1

Workers need no shared disk: records and executed notebooks come back to the driver, which writes
them. A chapter whose worker dies runs again on another; when that happens too often (Dask's
`allowed-failures`, 3 unless configured) its record says so. Ctrl-C on the driver ends the chapters
on all workers; when the driver itself is killed, they run to their end or limits. Dask sends pickled
code: use a network you trust, or `tls://` with Dask's own settings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import executors
from .chapters import Chapter
from .parallel import Room, room_here, too_many
from .project import BookError, Project

if TYPE_CHECKING:
    from distributed import Client

CONNECT = 10.0  # seconds for the scheduler to answer and for a first worker to be there


@contextmanager
def engine(
    scheduler: str | None, project: Project, chapters: list[Chapter], profile: str, jobs: int | None
) -> Iterator[dict[str, Any]]:
    """What `run_all` runs on: this machine, or the cluster of a scheduler; as its arguments."""
    if scheduler is None:
        room = room_here(profile, jobs)  # a GPU that is not there is bad input, not a failure
        note = too_many(chapters, profile, room)
        if note:
            print(f"mangalab: {note}", file=sys.stderr)
        yield {"room": room}
        return
    with connect(scheduler, project, profile, [c.id for c in chapters]) as cluster:
        yield {"executor": cluster.executor, "halt": cluster.halt, "room": Room(jobs)}


@dataclass(frozen=True)
class Cluster:
    """A connected scheduler: its executor, and a `halt` that reaches every worker."""

    client: Client
    executor: Executor

    def halt(self, token: str, on: bool) -> None:
        """End the jobs of a run (or forget that they had to end) on every worker's machine."""
        self.client.run(executors.halt, token, on)


@contextmanager
def connect(
    address: str, project: Project, profile: str, chapters: list[str], wait: float = CONNECT
) -> Iterator[Cluster]:
    """Connect to a scheduler whose workers can run these chapters.

    Chapters of profile gpu go to workers that offer the resource GPU, one at a time on each unit.
    Raises BookError when the scheduler does not answer, has no suitable worker, or a worker's code,
    notebooks or packages differ from those here.
    """
    client = _client(address, wait)
    try:
        _workers(client, address, profile, wait)
        _same(client, project, chapters)
        resources = {"resources": {"GPU": 1}} if profile == "gpu" else {}
        yield Cluster(client, client.get_executor(pure=False, **resources))
    finally:
        client.close()


def _client(address: str, wait: float) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise BookError(
            "--scheduler needs Dask distributed, which requirements.lock pins; run `make env` "
            "(or install the extra: pip install 'mangalab[cluster]')"
        ) from None
    try:
        return Client(address, timeout=wait, set_as_default=False)
    except (OSError, ValueError) as error:  # no answer in time, or no address at all
        raise BookError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}); start one with "
            "`dask scheduler`, or leave --scheduler out to run on this machine"
        ) from None


def _workers(client: Client, address: str, profile: str, wait: float) -> None:
    """Wait for a first worker; for profile gpu one of them must offer a GPU."""
    try:
        client.wait_for_workers(1, timeout=wait)
    except TimeoutError:
        raise BookError(
            f"the scheduler at {address} has no worker; start one: dask worker {address} --nthreads 1"
        ) from None
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    if profile == "gpu" and not any(w["resources"].get("GPU") for w in workers.values()):
        raise BookError(
            f"no worker of {address} offers a GPU; start one: dask worker {address} --nthreads 1 "
            "--resources GPU=1"
        )


def _same(client: Client, project: Project, chapters: list[str]) -> None:
    """Compare every worker with this machine before anything runs."""
    wanted = executors.inputs(project, chapters)
    root = str(project.root)
    answers = client.run(executors.differs, root, chapters, wanted, on_error="return")
    for worker, answer in answers.items():
        if isinstance(answer, ModuleNotFoundError):
            raise BookError(
                f"worker {worker} cannot import {answer.name}; start it in the environment of "
                "the book (make env)"
            )
        if answer is not None:
            raise BookError(f"{worker}: {answer}")
