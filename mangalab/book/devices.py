"""What this machine has: cores, free memory, GPUs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from .project import BookError


@dataclass(frozen=True)
class Gpu:
    """One GPU: its identifier, which CUDA_VISIBLE_DEVICES understands, and its name."""

    id: str
    name: str


def gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible, all of the first one's name.

    GPUs of another name are left out: results depend on the kind of device. Raises BookError when
    there is none.
    """
    query = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
        rows = [[part.strip() for part in row.split(",", 2)] for row in done.stdout.splitlines()]
        table = [Gpu(uuid, name) for _, uuid, name in rows]
    except (OSError, ValueError, subprocess.SubprocessError):
        table = []
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is not None:
        chosen = [name.strip() for name in wanted.split(",") if name.strip()]
        table = [gpu for name in chosen for gpu in _named(name, table)]
    if not table:
        raise BookError("profile gpu needs an NVIDIA GPU and its driver; use PROFILE=cpu")
    return [gpu for gpu in table if gpu.name == table[0].name]


def _named(wanted: str, table: list[Gpu]) -> list[Gpu]:
    """The GPU that one entry of CUDA_VISIBLE_DEVICES means; MIG slices keep their own identifier."""
    if wanted.isdigit():
        return table[int(wanted) : int(wanted) + 1]
    if wanted.startswith("MIG-"):
        return [Gpu(wanted, table[0].name)] if table else []
    return [gpu for gpu in table if gpu.id.startswith(wanted)]


def cores() -> int:
    """Cores that this process may use (affinity and container limits count)."""
    from joblib import cpu_count

    return cpu_count()


def free_mb() -> float:
    """Memory that programs can still get without swapping, in MB."""
    import psutil

    return psutil.virtual_memory().available / 2**20
