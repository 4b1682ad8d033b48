"""Jupyter Book's builder in a process of its own, at half its cost: `python -m mangalab.book.builder`.

Arguments are those of `jupyter-book build`; `MANGALAB_JOBS` is the number of reading processes. The
pages are the same ones; only how they come about differs (tests/test_build.py).
"""

from __future__ import annotations

import functools
import gc
import os
import sys

from .quick import lighten


def prepare(jobs: int) -> None:
    """Set this process up to build pages.

    A build makes trees of millions of small objects and drops few of them: the cycle collector would
    spend a quarter of the time looking for nothing.
    """
    gc.disable()
    lighten()
    import jupyter_book.sphinx as book

    book.build_sphinx = functools.partial(book.build_sphinx, jobs=jobs)


def main() -> None:
    """Build as `jupyter-book build ARGUMENTS` does."""
    prepare(int(os.environ.get("MANGALAB_JOBS", "1")))
    from jupyter_book.cli.main import build

    build(sys.argv[1:], prog_name="jupyter-book build")


if __name__ == "__main__":
    main()
