"""A small book for the tests of the site: the real configuration, three made-up chapters."""

import atexit
import base64
import functools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALT = "Two bars, the first one twice as high as the second"
CHAPTERS = ("04-ran", "05-failed", "06-never-run")
TOC = """format: jb-book
root: book/index
chapters:
  - file: book/claims
  - file: book/status
  - file: notebooks/04-ran
  - file: notebooks/05-failed
  - file: notebooks/06-never-run
"""
INDEX = """# Sample

## Values

Loss {measured}`04-ran:loss`, as a share {measured}`04-ran:recall:.1%`, typing error
{measured}`04-ran:los`, other chapter {measured}`06-never-run:loss`.

Chapters {chapter}`04 Four` and {chapter}`09 Nine`.

> [!WARNING]
> An alert as GitHub writes it.

```mermaid
flowchart LR
  A["prompt (text)"] --> B[model] --> C[answer]
```

The update is $\\Delta W = \\frac{\\alpha}{r} B A$ with $\\boldsymbol{A}$ wide.
"""
CLAIMS = [
    {"id": "003-01", "seed": "003", "text": "84M trained <b>parameters</b>", "claimed": 83886080,
     "unit": "parameters", "kind": "compute", "verdict": "wrong", "correct": 32768000,
     "derivation": "80 layers", "check": "lora_parameters", "chapter": "04-ran"},
    {"id": "001-02", "seed": "001", "text": "focal loss always helps", "claimed": None,
     "unit": None, "kind": "experiment", "verdict": "unsupported", "correct": None,
     "derivation": "", "check": None, "chapter": "05-failed"},
]  # fmt: skip


def picture(width: int = 40, height: int = 20) -> str:
    """A small red PNG, base64-encoded."""
    rows = b"".join(b"\0" + b"\xd5\x5e\x00" * width for _ in range(height))

    def part(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header)
    png += part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    return base64.b64encode(png).decode()


def markdown(text: str) -> dict:
    """A Markdown cell."""
    return {"cell_type": "markdown", "metadata": {}, "source": text, "id": f"m{hash(text) % 9999}"}


def code(text: str, outputs: list[dict]) -> dict:
    """A code cell with outputs."""
    return {"cell_type": "code", "metadata": {}, "source": text, "outputs": outputs,
            "execution_count": 1 if outputs else None, "id": f"c{hash(text) % 9999}"}  # fmt: skip


def output(data: dict, metadata: dict | None = None) -> dict:
    """A displayed output."""
    return {"output_type": "display_data", "data": data, "metadata": metadata or {}}


def notebook(title: str, executed: bool, fails: bool = False) -> dict:
    """A chapter with a formula, a figure, a diagram, a wide table and perhaps an error."""
    figure = output({"image/png": picture(), "text/plain": "<Image>"}, {"image/png": {"alt": ALT}})
    sentence = output({"text/markdown": "Rank 16 keeps **93.1 %** of $\\sigma$.", "text/plain": ""})
    table = "<table>" + "<tr>" + "<td>a wide cell of text</td>" * 20 + "</tr></table>"
    error = {"output_type": "error", "ename": "ValueError", "evalue": "bad", "traceback": ["bad"]}
    cells = [
        markdown(f"# {title}\n\nThe scenario."),
        markdown(
            "## Theory\n\n$$\\hat y = \\sum_i w_i$$\n\n```mermaid\nflowchart LR\n A --> B\n```"
        ),
        code("lab.show(fig)", [figure, sentence] if executed else []),
        code("lab.table(rows)", [output({"text/html": table, "text/plain": ""})] * executed),
        code("1 / 0", [error] * (executed and fails)),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def record(chapter: str, profile: str, **changes: object) -> dict:
    """A run record with one value, one claim and one figure."""
    return {
        "schema": 1, "chapter": chapter, "profile": profile, "status": "passed", "why": "first run",
        "key": "0123456789abcdef", "started": "2026-11-22T13:00:00+00:00", "seconds": 61.0,
        "peak_mb": 900.0, "seed": 0, "device": "cpu", "dtype": "bfloat16",
        "values": {"loss": {"value": 2.3187, "unit": "nats", "n": 120, "low": 2.2, "high": 2.4},
                   "recall": {"value": 0.5, "text": "50 %"}},
        "claims": [{"id": "003-01", "claimed": 83886080, "measured": 32768000,
                    "verdict": "refuted"}],
        **changes,
    }  # fmt: skip


def write(path: Path, contents: object) -> None:
    """Write text, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = contents if isinstance(contents, str) else json.dumps(contents)
    path.write_text(text, encoding="utf8")


def make(folder: Path, profile: str = "cpu") -> Path:
    """Lay out the sample's sources, executed notebooks and records under ``folder``."""
    for name in ("_static", "_vendor"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("_config.yml", "references.bib"):
        shutil.copyfile(ROOT / name, folder / name)
    write(folder / "_toc.yml", TOC)
    write(folder / "book" / "index.md", INDEX)
    write(folder / "book" / "claims.yml", CLAIMS)
    write(folder / "book" / "claims.md", "# Claims\n\n## All\n\n```{claims-ledger}\n```\n")
    write(folder / "book" / "status.md", "# Status\n\n## All\n\n```{run-status}\n```\n")
    entry = {"tier": 1, "minutes": 5, "budget": {profile: {"seconds": 60, "mb": 2000}}}
    write(folder / "chapters.yml", {c: {"title": f"Chapter {c}", **entry} for c in CHAPTERS})
    for chapter in CHAPTERS:
        write(folder / "notebooks" / f"{chapter}.ipynb", notebook(chapter, executed=False))
    executed, runs = folder / "artifacts/executed" / profile, folder / "artifacts/runs" / profile
    write(executed / "04-ran.ipynb", notebook("04-ran", executed=True))
    write(runs / "04-ran.json", record("04-ran", profile))
    failed = record("05-failed", profile, status="failed", values={}, claims=[],
                    error={"cell": 5, "name": "ValueError", "message": "bad"})  # fmt: skip
    write(executed / "05-failed.ipynb", notebook("05-failed", executed=True, fails=True))
    write(runs / "05-failed.json", failed)
    return folder


def build(
    folder: Path, profile: str = "cpu", whole: bool = True, **environment: str
) -> subprocess.CompletedProcess:
    """Build the book under ``folder`` with warnings as errors, as ``make book`` does."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    command += [str(folder), "-W", "--keep-going", "-n", *(["--all"] * whole)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "MANGALAB_PROFILE": profile, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


@functools.cache
def built(profile: str) -> Path:
    """The sample's built pages, made once a session; its sources lie two folders up."""
    folder = Path(tempfile.mkdtemp(prefix="mangalab-sample-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = build(make(folder, profile), profile)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build" / "html"
