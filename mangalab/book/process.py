"""Watching a worker: its reports, its memory, its time, and ending all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from .worker import MARK

STEP = 0.25  # seconds between two looks at a worker
LARGE = 200 * 2**20  # bytes; smaller processes share too little to matter
# every library that a chapter may load counts its threads by one of these
THREADS = """OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS BLIS_NUM_THREADS RAYON_NUM_THREADS
VECLIB_MAXIMUM_THREADS NUMEXPR_NUM_THREADS LOKY_MAX_CPU_COUNT""".split()

# glibc gives freed tensors back to the system and every training step faults them in again, 4 KB at a
# time: keep them, and fault them in by 2 MB (bytes; other allocators ignore these). Values do not
# change. Without the first two, steps of chapter 01 took a sixth longer; without the rest, four
# trainings of chapter 11 took 7 % longer, and chapter 15 peaked at 5.7 GB, not at 6.7
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "536870912",
          "MALLOC_TOP_PAD_": "67108864", "MALLOC_ARENA_MAX": "2",
          "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclass
class Watch:
    """What became of a worker."""

    account: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    mb: float = 0.0  # of worker, kernel and all below them, at the last look
    peak_mb: float = 0.0
    returncode: int | None = None
    timed_out: bool = False
    too_big: bool = False


@dataclass(frozen=True)
class Limits:
    """What a run may take at most: wall seconds, resident memory of its processes in MB."""

    seconds: float
    mb: float


def watch(
    spec_file: Path, environment: dict[str, str], limits: Limits, tick: Callable[[Watch], None]
) -> Watch:
    """Run a worker to its end or to a limit; its log goes to `worker.log` beside the spec.

    `tick` is called every `STEP` seconds. Whatever ends this function (time, memory, interruption,
    an error) ends the worker and its kernel too; so does the death of this process, because the
    worker then reads the end of its standard input.
    """
    seen, start = Watch(), time.monotonic()
    with (spec_file.parent / "worker.log").open("w", encoding="utf8") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "mangalab.book.worker", str(spec_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            encoding="utf8",
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the runner only, which then ends the worker
        )
        reader = threading.Thread(target=_listen, args=(worker.stdout, seen, log), daemon=True)
        reader.start()
        family: list[psutil.Process] = []
        try:
            while seen.returncode is None and not (seen.timed_out or seen.too_big):
                try:
                    seen.returncode = worker.wait(STEP)
                except subprocess.TimeoutExpired:
                    family = _measure(worker.pid, seen) or family
                seen.seconds = time.monotonic() - start
                if seen.returncode is None:
                    seen.timed_out = seen.seconds > limits.seconds
                    seen.too_big = seen.mb > limits.mb
                tick(seen)
        finally:
            _end(worker, family)
            reader.join(2)
            worker.stdin.close()
    return seen


def _listen(stream: Any, seen: Watch, log: Any) -> None:
    for line in stream:
        if line.startswith(MARK):
            seen.account = json.loads(line[len(MARK) :])
        elif line.strip() and not log.closed:
            log.write(line)


def _measure(pid: int, seen: Watch) -> list[psutil.Process]:
    """Add up the memory of a process and all below it; returns them.

    Resident memory, and where it would count pages twice (several large processes, forked ones share
    what neither has written since) each one's proportional share of its pages, on Linux.
    """
    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]
    except psutil.Error:
        return []
    sizes = {process: _size(process, "rss") for process in family}
    large = [process for process, size in sizes.items() if size > LARGE]
    # shares take longer to ask for, so only where they can make a difference
    if len(large) > 1 and sum(sizes.values()) > seen.peak_mb * 2**20:
        sizes |= {process: _size(process, "pss") or sizes[process] for process in large}
    seen.mb = sum(sizes.values()) / 2**20
    seen.peak_mb = max(seen.peak_mb, seen.mb)
    return family


def _size(process: psutil.Process, kind: str) -> int:
    """Bytes of a process's memory, `rss` or `pss`; 0 where it ended meanwhile or nobody can tell."""
    try:
        info = process.memory_info() if kind == "rss" else process.memory_full_info()
    except psutil.Error:
        return 0
    return getattr(info, kind, 0)


def _end(worker: subprocess.Popen[str], family: list[psutil.Process]) -> None:
    """Kill the worker, its kernel (which has a session of its own) and all below them."""
    family = _measure(worker.pid, Watch()) or family
    for process in family:
        try:
            process.kill()  # psutil checks that the process id still means the same process
        except psutil.Error:
            continue
    if worker.poll() is None:
        worker.kill()
    worker.wait()


def environment(
    project: Any, profile: str, work: Path, threads: int, gpu: str | None = None
) -> dict[str, str]:
    """The variables of a worker and its kernel; the reader's own IPython set-up stays out.

    The number of threads is part of a result (sums are split by it), so it is never left to the
    machine or to what else runs on it; `gpu` is the one device that the chapter may see.
    """
    package = Path(__file__).resolve().parents[2]
    ours = {
        "MANGALAB_PROFILE": profile,
        "MANGALAB_ROOT": str(project.root),
        "MANGALAB_FRAGMENT": str(work / "fragment.json"),
        **dict.fromkeys(THREADS, str(threads)),
        **MALLOC,
        "OMP_DYNAMIC": "FALSE",  # these two would lower the number on a busy machine
        "MKL_DYNAMIC": "FALSE",
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "2000",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "IPYTHONDIR": str(work / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(work / "runtime"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    if os.environ.get("MANGALAB_MODELS", "default") != "hub":
        ours["HF_HUB_OFFLINE"] = "1"
    if os.environ.get("GLIBC_TUNABLES"):  # a reader's own come first
        del ours["GLIBC_TUNABLES"]
    if gpu:
        ours["CUDA_VISIBLE_DEVICES"] = gpu
    path = [str(package), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **ours, "PYTHONPATH": os.pathsep.join(p for p in path if p)}
