"""A small book for the tests of the site: the real configuration, four made-up chapters.

One chapter ran, one failed, one never ran, one is stale (its code changed after its run). To give
a new page something to show, add to ``PAGES`` (contents), to ``FILES`` (path under the book ->
text or JSON, or a function of the profile that returns one) or to ``record``; nothing else is
needed. ``make(folder)`` lays the book out, ``built(profile)`` builds it once a session.
"""

import atexit
import base64
import functools
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALT = "Two bars, the first one twice as high as the second"
CHAPTERS = ("04-ran", "05-failed", "06-never-run", "07-stale")
INTERVIEW = [f"book/interview/{n}" for n in ("index", "general", "cards", "mock", "by-level", "print")]
PAGES = [f"book/{n}" for n in ("claims", "status", "records", "glossary", "reading-orders")]
PAGES += ["book/estimator", "book/decision-guide"]
PAGES += [*(f"notebooks/{chapter}" for chapter in CHAPTERS), *INTERVIEW, "book/interview/04-ran"]
INDEX = """# Sample

## Values

Loss {measured}`04-ran:loss`, as a share {measured}`04-ran:recall:.1%`, typing error
{measured}`04-ran:los`, other chapter {measured}`06-never-run:loss`.

Chapters {chapter}`04 Four` and {chapter}`09 Nine`.

> [!WARNING]
> An alert as GitHub writes it.

```{verdict-bar}
```

```{findings}
rank classifier
```

```mermaid
flowchart LR
  A["prompt (text)"] --> B[model] --> C[answer]
```

The update is $\\Delta W = \\frac{\\alpha}{r} B A$ with $\\boldsymbol{A}$ wide.
"""
# the real page without its references: the sample has no bibliography
ESTIMATOR = re.sub(r"\s\{cite\}`\w+`", "", (ROOT / "book" / "estimator.md").read_text(encoding="utf8"))
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


def ident(text: str) -> str:
    """A cell's id."""
    return f"c{zlib.crc32(text.encode()):08x}"


def markdown(text: str) -> dict:
    """A Markdown cell."""
    return {"cell_type": "markdown", "metadata": {}, "source": text, "id": ident(text)}


def code(text: str, outputs: list[dict]) -> dict:
    """A code cell with outputs."""
    return {"cell_type": "code", "metadata": {}, "source": text, "outputs": outputs,
            "execution_count": 1 if outputs else None, "id": ident(text)}  # fmt: skip


def tagged(tag: str, cell: dict) -> dict:
    """The cell with a tag."""
    return {**cell, "metadata": {"tags": [tag]}}


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
        markdown(f"# {title}\n\nThe scenario. Singular values say what each direction holds."),
        markdown("## Theory\n\n$$\\hat y = \\sum_i w_i$$\n\n```mermaid\nflowchart LR\n A --> B\n```"),
        tagged("parameters", code("rank = 16", [])),
        tagged("hide-input", code("lab.show(fig)", [figure, sentence] if executed else [])),
        code("lab.table(rows)", [output({"text/html": table, "text/plain": ""})] * executed),
        code("1 / 0", [error] * (executed and fails)),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def record(chapter: str, profile: str, **changes: object) -> dict:
    """A run record with a bit of everything that a chapter leaves behind."""
    return {
        "schema": 1, "chapter": chapter, "profile": profile, "status": "passed", "why": "first run",
        "key": "0123456789abcdef", "started": "2026-11-22T13:00:00+00:00", "seconds": 61.0,
        "peak_mb": 900.0, "seed": 0, "seeds": [0, 1, 2], "device": "cpu", "dtype": "bfloat16",
        "versions": {"torch": "2.13.0"}, "commit": "0" * 40, "dirty": False, "complete": True,
        "parameters": {"rank": 16}, "budget": {"seconds": 60, "mb": 2000}, "over_budget": [],
        "values": {"loss": {"value": 2.3187, "unit": "nats", "n": 120, "low": 2.2, "high": 2.4},
                   "recall": {"value": 0.5, "text": "50 %"},
                   "recall_r16": {"value": 0.931, "text": "93.1 %", "n": 120},
                   "step_ms": {"value": 122.0, "text": "122 ms", "unit": "ms", "kind": "time"}},
        "claims": [{"id": "003-01", "claimed": 83886080, "measured": 32768000,
                    "verdict": "refuted"}],
        "comparisons": COMPARISONS, "decisions": DECISIONS, "spectra": SPECTRA,
        "figures": [{"id": "bars", "alt": ALT, "caption": "Two bars."}],
        **changes,
    }  # fmt: skip


# a chapter's bank: levels, bound values, a formula, code, napkin maths
BANK = [
    {"id": f"sample-{level.lower()}", "level": level, "minutes": 2 + rank,
     "question": f"What does rank {2 ** rank} keep, and why?",
     "answer": "It keeps {recall_r16} of the cases: `W + B A` with $\\sigma_r$ small.",
     "key_insight": "The spectrum of $\\Delta W$ falls fast.",
     "mistake": {"what": "Taking the largest rank.", "tempting": "More sounds better.",
                 "cost": "Memory, at the same recall."},
     "napkin": "2 x 4096 x 16 = 131,072 numbers.", "follow_ups": ["And for rank 1?"]}
    for rank, level in enumerate(("Fresh", "Intermediate", "Advanced", "Expert"))
]  # fmt: skip
COMPARISONS = [
    {"id": "rank", "a": "rank 16", "b": "rank 4", "metric": "recall", "n": 120, "difference": 0.13,
     "low": 0.05, "high": 0.21, "seeds": 3, "method": "paired bootstrap over 3 seeds and 120 examples",
     "verdict": "better"},
    {"id": "alpha", "a": "alpha 32", "b": "alpha 16", "metric": "recall", "n": 120,
     "difference": -0.01, "low": -0.09, "high": 0.07, "seeds": 3, "method": "paired t over 3 seeds",
     "verdict": "no difference shown"},
]  # fmt: skip
DECISIONS = [
    {"id": "rank", "question": "Which rank?", "rule": "The smallest that is not shown worse.",
     "resolution": "rank 16", "scenario": "rank 16", "agrees": True,
     "options": [{"name": f"rank {r}", "metrics": {"recall, %": 10.0 + r, "parameters": 1000 * r}}
                 for r in (4, 16)]},
    {"id": "layers", "question": "Which layers?", "rule": "All, if shown better at 1.5 x the time.",
     "resolution": "all linears", "scenario": "q+v", "agrees": False,
     "options": [{"name": "q+v", "metrics": {"recall, %": 5.9, "ms a step": 193.8}},
                 {"name": "all linears", "metrics": {"recall, %": 27.4, "ms a step": 225.8}}]},
]  # fmt: skip
SPECTRA = [
    {"id": "lora-r16", "rows": [
        {"name": f"model.layers.{layer}.self_attn.{module}", "layer": layer,
         "module": f"self_attn.{module}", "shape": [576, 576], "max_rank": 16,
         "method": "factored", "complete": True, "error_bound": 3.7e-10, "frobenius": 16.5,
         "spectral_norm": 12.4 - layer, "relative": 0.17, "ranks": [1, 2, 4, 8, 16],
         "energy": [0.56, 0.88, 0.95, 0.98, 1.0], "rank_90": 3 + layer, "rank_99": 9,
         "stable_rank": 1.8, "effective_rank": 3.1 + layer, "participation": 2.4,
         "edge": 0.04 if layer else None, "above_edge": 12 if layer else None}
        for layer in range(3) for module in ("q_proj", "v_proj")]},
]  # fmt: skip


def history(profile: str) -> str:
    """One line a run: three good ones and a failed one of the profile, and one smoke run."""
    rows = [("04-ran", profile, day, 2.5 - day / 100, "passed") for day in (18, 20, 22)]
    rows += [("05-failed", profile, 21, 0.0, "failed"), ("04-ran", "smoke", 22, 99.0, "passed")]
    lines = [
        {"chapter": chapter, "profile": run, "status": status, "seconds": 40.0 + day,
         "started": f"2026-11-{day}T13:00:00+00:00", "peak_mb": 900, "key": f"{day:016x}",
         "device": "cpu", "commit": "0" * 40, "error": None if status == "passed" else "failed",
         "values": {"loss": loss, "recall": 0.5, "step_ms": 100.0 + day} if loss else {}}
        for chapter, run, day, loss, status in rows
    ]  # fmt: skip
    return "".join(json.dumps(line) + "\n" for line in lines)


# every other table that is generated from records, on one page
RECORDS = ("executions", "comparisons", "decisions", "atlas", "devices", "trend")
# path under the book -> contents, or a function of the profile that returns them
FILES: dict[str, object] = {
    "book/index.md": INDEX,
    "book/claims.yml": CLAIMS,
    "book/claims.md": "# Claims\n\n## All\n\n```{claims-ledger}\n```\n",
    "book/estimator.md": ESTIMATOR,
    "book/decision-guide.md": (ROOT / "book" / "decision-guide.md").read_text(encoding="utf8"),
    "book/guide.yml": (ROOT / "book" / "guide.yml").read_text(encoding="utf8"),
    "book/published.yml": (ROOT / "book" / "published.yml").read_text(encoding="utf8"),
    "book/status.md": "# Status\n\n## All\n\n```{run-status}\n```\n",
    "book/glossary.yml": [{"term": "singular value", "text": "A singular value is a gain $\\sigma$.",
                           "chapter": "04"}],
    "book/glossary.md": "# Glossary\n\n## Terms\n\n```{glossary-terms}\n```\n",
    "book/reading-orders.yml": [{"id": "interview", "title": "For an interview", "for": "rehearse",
                                 "steps": [{"chapter": "04", "why": "the method"},
                                           {"chapter": "17", "why": "not written yet"},
                                           {"page": "book/claims", "why": "what does not hold"}]}],
    "book/reading-orders.md": "# Orders\n\n## All\n\n```{reading-orders}\n```\n",
    "book/records.md": "# Records\n\n## All\n\n"
    + "".join(f"```{{run-{name}}}\n```\n\n" for name in RECORDS),
    "book/interview/04-ran.yml": BANK,
    "book/interview/04-ran.md": "# Questions\n\nOf the run.\n\n```{interview-bank} 04-ran\n```\n",
    "book/interview/general.yml": [
        {**question, "id": f"general-{n}", "question": f"What is general about {n}?",
         "answer": "Here {04-ran:recall_r16}, there {06-never-run:loss}."}
        for n, question in enumerate(BANK[:2])
    ],
    **{f"{p}.md": (ROOT / f"{p}.md").read_text(encoding="utf8") for p in INTERVIEW},
    "artifacts/history.jsonl": history,
    # the same chapter on a GPU: other device, other numbers
    "artifacts/runs/gpu/04-ran.json": lambda profile: record(
        "04-ran", "gpu", device="NVIDIA H100", seconds=9.0, peak_mb=5000.0),
}  # fmt: skip


def write(path: Path, contents: object) -> None:
    """Write text, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = contents if isinstance(contents, str) else json.dumps(contents)
    path.write_text(text, encoding="utf8")


def fresh(folder: Path, record: dict) -> dict:
    """The record with the inputs that its notebook and parameters have now."""
    from mangalab.book import keys
    from mangalab.book.chapters import load
    from mangalab.book.project import Project

    project = Project(folder)
    chapter = load(project)[record["chapter"]]
    parts = keys.decide(project, chapter, record["profile"]).parts
    parts["claims"] = keys.claim_hashes(project, [claim["id"] for claim in record["claims"]])
    return {**record, "key_parts": parts}


def make(folder: Path, profile: str = "cpu", **files: object) -> Path:
    """Lay out the sample's sources, executed notebooks and records under ``folder``.

    ``files`` are more files, by path, written over the sample's own.
    """
    for name in ("_static", "_vendor"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("_config.yml", "references.bib"):
        shutil.copyfile(ROOT / name, folder / name)
    toc = {"format": "jb-book", "root": "book/index", "chapters": [{"file": p} for p in PAGES]}
    entry = {"tier": 1, "minutes": 5, "budget": {profile: {"seconds": 60, "mb": 2000}}}
    chapters = {name: {"title": f"Chapter {name}", **entry} for name in CHAPTERS}
    for path, contents in {**FILES, "_toc.yml": toc, "chapters.yml": chapters, **files}.items():
        write(folder / path, contents(profile) if callable(contents) else contents)
    for chapter in CHAPTERS:
        write(folder / "notebooks" / f"{chapter}.ipynb", notebook(chapter, executed=False))
    executed, runs = folder / "artifacts/executed" / profile, folder / "artifacts/runs" / profile
    write(executed / "04-ran.ipynb", notebook("04-ran", executed=True))
    write(runs / "04-ran.json", fresh(folder, record("04-ran", profile)))
    failed = record("05-failed", profile, status="failed", values={}, claims=[], comparisons=[],
                    decisions=[], spectra=[], figures=[], complete=False,
                    error={"cell": 5, "name": "ValueError", "message": "bad"})  # fmt: skip
    write(executed / "05-failed.ipynb", notebook("05-failed", executed=True, fails=True))
    write(runs / "05-failed.json", failed)
    write(executed / "07-stale.ipynb", notebook("07-stale", executed=True))
    stale = fresh(folder, record("07-stale", profile, claims=[], comparisons=[], decisions=[]))
    stale["key_parts"]["code"][-1] = "another"
    write(runs / "07-stale.json", stale)
    return folder


def build(
    folder: Path, profile: str = "cpu", whole: bool = True, **environment: str
) -> subprocess.CompletedProcess:
    """Build the book under ``folder`` with warnings as errors, as ``make book`` does."""
    command = [sys.executable, "-m", "mangalab.book.builder"]
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
