"""Notebooks are stored without outputs, counters and machine metadata; this makes or checks that.

python tools/clean_notebooks.py notebooks            clean in place
python tools/clean_notebooks.py --check notebooks    exit code 1 when one is not clean
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

CELL_KEYS = ("tags", "mystnb")  # metadata that the book or the runner reads
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """A notebook without outputs and without metadata that only one machine cares about."""
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    fresh = nbformat.from_dict({**notebook, "metadata": metadata, "nbformat_minor": 5})
    for cell in fresh.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in CELL_KEYS and v}
        cell.source = cell.source.rstrip()
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nbformat.from_dict(fresh)


def clean(path: Path, check: bool) -> bool:
    """Clean one file, or only look; whether it was clean already."""
    text = path.read_text(encoding="utf8")
    wanted = nbformat.writes(cleaned(nbformat.reads(text, as_version=4)))
    wanted = wanted.rstrip("\n") + "\n"
    if text == wanted:
        return True
    if not check:
        path.write_text(wanted, encoding="utf8", newline="\n")
    return False


def main(arguments: list[str]) -> int:
    """Handle files and folders; returns the exit code."""
    check = "--check" in arguments
    paths: list[Path] = []
    for name in (a for a in arguments if a != "--check"):
        place = Path(name)
        paths += sorted(place.glob("*.ipynb")) if place.is_dir() else [place]
    dirty = [path for path in paths if not clean(path, check)]
    for path in dirty:
        hint = f"not clean; run: python tools/clean_notebooks.py {path}" if check else "cleaned"
        print(f"{path}: {hint}")
    return int(bool(dirty) and check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
