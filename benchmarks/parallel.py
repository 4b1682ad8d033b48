"""`--jobs 1` against `--jobs 2` on CPU chapters that fit side by side; every value must be equal.

    python benchmarks/parallel.py              four synthetic chapters, about 10 s of torch each
    python benchmarks/parallel.py --chapters   the real chapters in profile smoke (one thread each)

The ratio of wall times is printed, and exit code 1 says that a value differed. The synthetic
chapters also run one after the other with two threads each, the other use of two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nbformat  # noqa: E402
import yaml  # noqa: E402
from nbformat.v4 import new_code_cell, new_notebook  # noqa: E402

from mangalab.book import devices  # noqa: E402
from mangalab.book.chapters import load  # noqa: E402
from mangalab.book.parallel import Room, run_all  # noqa: E402
from mangalab.book.progress import describe  # noqa: E402
from mangalab.book.project import BookError, Project  # noqa: E402

TRAIN = """\
import torch
from torch import nn
torch.manual_seed(seed)
layer = nn.TransformerEncoderLayer(384, 12, 1536, dropout=0.0, batch_first=True)
model = nn.TransformerEncoder(layer, 3)
x, values = torch.randn(32, 24, 384), {}
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(steps):
    loss = ((model(x) - x.roll(1, 1)) ** 2).mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    values[f"loss_{step}"] = {"value": loss.item()}
for name, weight in model.named_parameters():
    values[name] = {"value": weight.detach().double().square().sum().item()}
"""
CARD = """\
import json, os, time
values["train_seconds"] = {"value": time.perf_counter(), "kind": "time"}
with open(os.environ["MANGALAB_FRAGMENT"], "w", encoding="utf8") as file:
    json.dump({"schema": 1, "complete": True, "values": values}, file)
"""


def synthetic(root: Path, steps: int) -> Project:
    """A book of four chapters that train a small transformer each, from different seeds."""
    (root / "notebooks").mkdir(parents=True)
    entries = {}
    for seed in range(4):
        name = f"{seed + 1:02d}-synthetic"
        first = new_code_cell(f"seed = {seed}\nsteps = {steps}", metadata={"tags": ["parameters"]})
        cells = [first, new_code_cell(TRAIN), new_code_cell(CARD)]
        nbformat.write(new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")
        budget = {"cpu": {"seconds": 60, "mb": 1000}}
        entries[name] = {"title": name, "tier": 1, "minutes": 1, "budget": budget, "threads": 1}
    (root / "chapters.yml").write_text(yaml.safe_dump(entries), encoding="utf8")
    return Project(root)


def real(root: Path) -> Project:
    """The book itself with its artifacts elsewhere, so that no record of it is touched."""
    root.mkdir()
    for name in ("notebooks", "book", "chapters.yml", "requirements.lock"):
        (root / name).symlink_to(ROOT / name)
    return Project(root)


def timed(project: Project, profile: str, jobs: int, threads: int) -> tuple[float, dict]:
    """Run every chapter; wall seconds, and all values that measure no time."""
    chapters = [*load(project).values()]
    if profile == "cpu":
        chapters = [c.model_copy(update={"threads": threads}) for c in chapters]
    start = time.monotonic()
    room = Room(jobs, devices.cores(), free_mb=devices.free_mb)
    results = run_all(project, chapters, profile, lambda *_: None, room=room, force=True)
    seconds, found = time.monotonic() - start, {}
    for chapter, result in zip(chapters, results, strict=True):
        if isinstance(result, BookError) or not result.passed:
            sys.exit(f"benchmark: {describe(chapter, result)}")
        for key, entry in result.record["values"].items():
            if entry.get("kind") != "time":
                found[chapter.id, key] = entry["value"]
        for entry in result.record.get("comparisons", []):
            found[chapter.id, entry["id"]] = entry["difference"]
    return seconds, found


def unequal(first: dict, second: dict) -> list:
    """Keys whose values are not the same to the last bit."""
    return [key for key in first.keys() | second.keys() if first.get(key) != second.get(key)]


def main() -> None:
    """Print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chapters", action="store_true", help="the real ones, profile smoke")
    parser.add_argument("--steps", type=int, default=35, help="of each synthetic chapter")
    parser.add_argument("--rounds", type=int, default=1, help="of each way; the best counts")
    options = parser.parse_args()
    ways = [(1, 1), (2, 1)] + ([] if options.chapters else [(1, 2)])
    profile = "smoke" if options.chapters else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "book"
        project = real(place) if options.chapters else synthetic(place, options.steps)
        runs = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way in ways:
                runs[way].append(timed(project, profile, *way))
    reference = runs[1, 1][0][1]
    load_average = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"{date.today()}: {devices.cores()} cores, load average {load_average}, profile {profile}")
    print("| jobs | threads each | wall s, best | values that differ from the first row |")
    print("|---|---|---|---|")
    best = {way: min(seconds for seconds, _ in found) for way, found in runs.items()}
    for way, found in runs.items():
        wrong = max(len(unequal(reference, values)) for _, values in found)
        print(f"| {way[0]} | {way[1]} | {best[way]:.1f} | {wrong} of {len(reference)} |")
    print(f"ratio of one job to two, one thread each: {best[1, 1] / best[2, 1]:.2f}")
    sys.exit(any(unequal(reference, values) for _, values in runs[2, 1]))


if __name__ == "__main__":
    main()
