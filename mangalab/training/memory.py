"""Giving memory back between the parts of a long run."""

import ctypes
import gc

import torch


def give_back() -> None:
    """Collect what nothing refers to and return freed memory to the system (glibc) or the device.

    The C library keeps freed memory for the next allocation, which is fast inside a training loop
    and costs gigabytes between two parts of a page that have nothing in common. Elsewhere than on
    glibc only the collector runs.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return
