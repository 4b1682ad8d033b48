"""The watch over a chapter's processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from mangalab.book import process


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system tells no shares")
def test_pages_that_forked_processes_share_are_counted_once():
    """A parent of half a gigabyte and three forks that write nothing are half a gigabyte, not two."""
    code = """if True:
        import os, sys, time
        held = bytearray(os.urandom(2**20)) * 500
        for _ in range(3):
            if not os.fork():
                break
        print("ready", flush=True)
        time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as top:
        for _ in range(4):
            top.stdout.readline()
        seen = process.Watch()
        family = process._measure(top.pid, seen)
        resident = sum(p.memory_info().rss for p in family) / 2**20
        process._end(top, family)
    assert len(family) == 4 and resident > 1900
    assert 480 < seen.peak_mb < 700
