"""Freed memory goes back to the system where the C library keeps it."""

import platform

import psutil
import pytest
import torch

from mangalab.training.memory import give_back


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library's own allocator")
def test_freed_tensors_leave_the_process():
    """Small blocks come from the heap, which keeps them when they are freed below a live one."""
    process = psutil.Process()
    blocks = [torch.ones(4096) for _ in range(8000)]
    last = torch.ones(4096)
    del blocks
    before = process.memory_info().rss
    give_back()
    assert before - process.memory_info().rss > 60 * 2**20
    assert last.sum() == 4096


def test_it_can_be_called_with_nothing_to_give():
    give_back()
    give_back()
