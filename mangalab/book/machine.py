"""What a run's bits and times depend on below the level of the device class: the processor."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Processor model and number of cores, such as `AMD EPYC 7763 64-Core Processor, 2 cores`.

    Two machines of one model give the same bits for the same inputs; two models need not (another
    vector width adds in another order).
    """
    return f"{_model()}, {os.cpu_count()} cores"


def _model() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf8", errors="replace").splitlines()
    except OSError:
        rows = []
    named = (row.partition(":")[2].strip() for row in rows if row.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
