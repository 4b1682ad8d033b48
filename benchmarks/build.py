"""How long pages take: a book of 18 chapters built whole, unchanged, and after edits of prose.

    python benchmarks/build.py [--keep FOLDER]

The book is this repository's, its chapters copied until there are eighteen, with the executed
notebooks and records of profile cpu (run `mangalab run` first). Nothing is executed. Each figure is
the wall time of the command that a user types, beside its mark and beside `jupyter-book build --all`
over the same sources in the same run. Pages after the edits are compared with those of a full build.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = 18
VERSION = re.compile(r"(mystnb\.\w+\.css)\?v=\w+")  # says only whether the file was there before
EDIT = "An edit of the benchmark."


def copy_book(folder: Path) -> list[str]:
    """The repository's files under ``folder``, with its chapters repeated; returns their ids."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, folder / name)
    for kind in ("runs", "executed"):
        if not (ROOT / "artifacts" / kind / "cpu").is_dir():
            sys.exit("benchmarks/build.py: no records of profile cpu here; run `mangalab run` first")
        shutil.copytree(ROOT / "artifacts" / kind / "cpu", folder / "artifacts" / kind / "cpu")
    entries = yaml.safe_load((folder / "chapters.yml").read_text(encoding="utf8"))
    originals = list(entries)
    for number in range(1, CHAPTERS + 1):
        if not any(name.startswith(f"{number:02}-") for name in originals):
            copy_chapter(folder, entries, originals[number % len(originals)], number)
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    (folder / "chapters.yml").write_text(text, encoding="utf8")
    return list(entries)


def copy_chapter(folder: Path, entries: dict, origin: str, number: int) -> None:
    """Add a copy of a chapter with its notebook, bank, record and executed notebook."""
    name = f"{number:02}-copy-of-{origin}"
    entries[name] = {**entries[origin], "title": f"Copy {number} of {entries[origin]['title']}"}
    for path in (f"notebooks/{origin}.ipynb", f"artifacts/executed/cpu/{origin}.ipynb"):
        shutil.copyfile(folder / path, (folder / path).with_name(f"{name}.ipynb"))
    record = json.loads((folder / f"artifacts/runs/cpu/{origin}.json").read_text(encoding="utf8"))
    path = folder / f"artifacts/runs/cpu/{name}.json"
    path.write_text(json.dumps({**record, "chapter": name}), encoding="utf8")
    bank = yaml.safe_load((folder / f"book/interview/{origin}.yml").read_text(encoding="utf8"))
    for entry in bank:
        entry["id"] = f"{entry['id']}-{number}"
    path = folder / f"book/interview/{name}.yml"
    path.write_text(yaml.safe_dump(bank, sort_keys=False, allow_unicode=True), encoding="utf8")


Cost = tuple[float, float]  # wall seconds, processor seconds


def clocks() -> Cost:
    """Wall time, and processor time of the programs that this one has run to their end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def since(start: Cost) -> Cost:
    """What was spent since ``start``."""
    wall, processor = clocks()
    return wall - start[0], processor - start[1]


def command(folder: Path, *arguments: str) -> Cost:
    """Cost of `mangalab ARGUMENTS` on the book under ``folder``; nothing may be executed."""
    environment = {**os.environ, "MANGALAB_ROOT": str(folder), "PYTHONPATH": str(ROOT)}
    environment.pop("MANGALAB_PROFILE", None)
    line = [sys.executable, "-m", "mangalab.book.cli", *arguments, "--profile", "cpu"]
    start = clocks()
    done = subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True)
    cost = since(start)
    if done.returncode or (arguments[0] == "book" and "; 0 ran" not in done.stdout):
        sys.exit(f"{' '.join(line)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return cost


def plain(folder: Path) -> Cost:
    """Cost of `jupyter-book build --all` over the same sources, into a folder of its own."""
    line = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "."]
    line += ["--all", "--path-output", str(folder / "_build" / "plain")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MANGALAB_PROFILE": "cpu"}
    start = clocks()
    subprocess.run(line, env=environment, cwd=folder, capture_output=True, check=True)
    return since(start)


def edit_cell(path: Path) -> None:
    """Add a sentence to the last Markdown cell of a notebook."""
    notebook = json.loads(path.read_text(encoding="utf8"))
    cell = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"][-1]
    cell["source"] = "".join(cell["source"]) + f"\n\n{EDIT}"
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf8")


def edit_page(path: Path) -> None:
    """Add a sentence to a Markdown page."""
    path.write_text(path.read_text(encoding="utf8") + f"\n{EDIT}\n", encoding="utf8")


def edit_answer(path: Path) -> None:
    """Add a sentence to the first answer of a bank."""
    bank = yaml.safe_load(path.read_text(encoding="utf8"))
    bank[0]["answer"] += f"\n\n{EDIT}"
    path.write_text(yaml.safe_dump(bank, sort_keys=False, allow_unicode=True), encoding="utf8")


def pages(folder: Path) -> dict[str, str]:
    """Every built page and the search index, by path."""
    html = folder / "_build" / "html"
    files = [*html.rglob("*.html"), html / "searchindex.js"]
    texts = {path: VERSION.sub(r"\1", path.read_text(encoding="utf8")) for path in files}
    return {path.relative_to(html).as_posix(): text for path, text in texts.items()}


def timed_edit(folder: Path, source: str, page: str, edit: Callable[[Path], None]) -> Cost:
    """Cost from an edit of ``source`` to a ``page`` that shows it."""
    before = pages(folder)[page].count(EDIT)
    edit(folder / source)
    cost = command(folder, "book")
    if pages(folder)[page].count(EDIT) <= before:
        sys.exit(f"the edit of {source} did not reach {page}")
    return cost


def measure(folder: Path) -> None:
    """Print a table of all figures."""
    names = copy_book(folder)
    edited = f"notebooks/{names[-1]}"
    figures = {
        "whole book, first build": (command(folder, "build"), 15),
        "whole book again (`--force`)": (command(folder, "build", "--force"), 15),
        "nothing changed": (min(command(folder, "book") for _ in range(3)), 5),
        "a sentence in a notebook's Markdown cell": (
            timed_edit(folder, f"{edited}.ipynb", f"{edited}.html", edit_cell), 10),
        "a sentence in book/how-to-read.md": (
            timed_edit(folder, "book/how-to-read.md", "book/how-to-read.html", edit_page), 10),
        "a sentence in an interview answer": (
            timed_edit(folder, f"book/interview/{names[-1]}.yml", f"{edited}.html", edit_answer), 10),
    }  # fmt: skip
    after_edits = pages(folder)
    command(folder, "build", "--force")
    whole = pages(folder)
    differ = sorted(p for p in whole.keys() | after_edits.keys() if whole.get(p) != after_edits.get(p))
    alternative = plain(folder)
    count = sum(name.endswith(".html") and not name.startswith("_") for name in whole)
    load = os.getloadavg()[0]
    print(f"{count} pages, {len(names)} chapters, {os.cpu_count()} cores, load average {load:.1f}\n")
    print("| what | seconds | processor s | mark, s | times faster than the plain build |")
    print("|---|---|---|---|---|")
    for what, ((wall, processor), mark) in figures.items():
        good = "" if wall <= mark else " **missed**"
        print(f"| {what} | {wall:.1f} | {processor:.1f} | {mark}{good} | {alternative[0] / wall:.1f} |")
    print(f"| `jupyter-book build --all` | {alternative[0]:.1f} | {alternative[1]:.1f} | | 1.0 |")
    print(f"\npages after the edits that differ from a full build's: {differ or 'none'}")


def main() -> None:
    """Measure in a temporary folder, or in one that is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="an empty folder to build in and to leave there")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory(prefix="mangalab-build-") as scratch:
        measure((keep or Path(scratch)).resolve())


if __name__ == "__main__":
    main()
