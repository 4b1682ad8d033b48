"""Tables of the page Estimator, and what its calculator reads: from `mangalab.sizing`."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from html import escape
from typing import Any

from ..estimate import GB
from ..shapes import Shape
from ..sizing import METHODS, OPTIMIZERS, PRECISIONS, SHAPES, Plan, memory
from ..sizing.compute import flops_per_token
from ..sizing.devices import DEVICES
from .project import BookError, Project, read_yaml

MEASURED, PUBLISHED = "benchmarks/estimate_memory.json", "book/published.yml"
LIMIT = 0.15  # what the page promises of our own runs
COLUMNS = (
    ("all weights, mixed", {"method": "full", "precision": "mixed"}),
    (
        "all weights, bf16, 8-bit AdamW",
        {"method": "full", "precision": "bf16", "optimizer": "adamw-8bit"},
    ),
    ("LoRA", {"method": "lora", "targets": "all-linear"}),
    ("QLoRA", {"method": "qlora", "targets": "all-linear"}),
    ("inference, 16 bits", {"method": "inference"}),
    ("inference, 4 bits", {"method": "inference-4bit"}),
)
MODELS = (
    "SmolLM2-135M",
    "Llama-3.2-1B",
    "Llama-3.2-3B",
    "Mistral-7B",
    "Llama-3-8B",
    "Llama-2-13B",
    "Llama-3-70B",
)


def plan_of(options: dict[str, Any]) -> Plan:
    """A plan from its JSON or YAML: `model` names a shape or `shape` holds one's fields."""
    rest = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    name, given = rest.pop("model", ""), rest.pop("shape", None)
    if given is None and name not in SHAPES:
        raise BookError(f"{PUBLISHED}: {name!r} is no known shape; known: {', '.join(SHAPES)}")
    return Plan(Shape(**given) if given else SHAPES[name], **rest)


def calculator_data() -> dict[str, Any]:
    """What the calculator's script reads: shapes, devices, choices, a plan's defaults."""
    defaults = {f.name: f.default for f in fields(Plan) if f.name != "shape"}
    return {
        "shapes": {name: asdict(shape) for name, shape in SHAPES.items()},
        "devices": {n: {"memory": d.memory, "flops": d.flops} for n, d in DEVICES.items()},
        "methods": list(METHODS),
        "precisions": {name: f"{name}: {p.says}" for name, p in PRECISIONS.items()},
        "optimizers": list(OPTIMIZERS),
        "defaults": defaults,
    }


def calculator() -> str:
    """The calculator's place and its data; without a script nothing of it is seen."""
    data = json.dumps(calculator_data()).replace("<", "\\u003c")
    return (
        '<div class="est-app" hidden></div>'
        f'<script type="application/json" class="est-data">{data}</script>'
    )


def table(caption: str, head: list[str], rows: list[list[str]]) -> str:
    """A table with its caption; first cells are headings of rows, cells are HTML."""
    columns = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    start = f'<div class="est-scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'{start}<table class="est-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def presets() -> str:
    """Peak GB of known models by method, at batch 1 and 2048 tokens."""
    rows = []
    for name in MODELS:
        plans = [Plan(SHAPES[name], batch=1, length=2048, **options) for _, options in COLUMNS]
        rows.append([escape(name), *(f"{memory(plan).total / GB:,.1f}" for plan in plans)])
    caption = ("Peak GB of one device: 1 sequence of 2048 tokens, checkpointed, adapters of rank 16 on "
               "all linears; without CUDA context and allocator slack")  # fmt: skip
    return table(caption, ["model", *(title for title, _ in COLUMNS)], rows)


def ratio(estimate: float, measured: float) -> str:
    """Estimate over measurement, marked where it is further off than the page promises."""
    value = estimate / measured
    far = abs(value - 1) > LIMIT
    return f'<span class="est-far">{value:.2f}</span>' if far else f"{value:.2f}"


def measured(project: Project) -> str:
    """Our own runs beside the estimate: live tensors, and resident memory without and with slack."""
    path = project.root / MEASURED
    if not path.exists():
        return "<p>Not measured here yet: <code>python benchmarks/estimate_memory.py</code></p>"
    found = json.loads(path.read_text(encoding="utf8"))
    cases = found["cases"]
    rows = [measured_row(case) for case in cases]
    head = ["run", "estimate, MB", "live tensors, MB", "ratio", "resident, MB", "ratio",
            "with slack, MB", "ratio", "framework, MB"]  # fmt: skip
    caption = f"Peak memory of training on {found['machine']}, {found['date']}, torch {found['torch']}"
    good = [sum(abs(case["estimate"] / size(case) - 1) <= LIMIT for case in cases) for size in SIZES]
    words = (f"<p>Of {len(cases)} runs the estimate is within {LIMIT:.0%} of the live tensors in "
             f"{good[0]}, of the resident memory in {good[1]}, and of the resident memory with the "
             f"allocator's slack in {good[2]}.</p>")  # fmt: skip
    return words + table(caption, head, rows)


# Measured bytes of a case: live tensors; resident less framework, freed memory given back at once; the
# same with the allocator as it comes.
SIZES = (
    lambda case: case["tensors"],
    lambda case: case["mapped_peak"] - case["mapped_framework"],
    lambda case: case["peak"] - case["framework"],
)


def measured_row(case: dict[str, Any]) -> list[str]:
    """One of our runs."""
    how = "checkpointed" if case["checkpointing"] else "all kept"
    what = f"{case['model']}: {case['case']} ({case['precision']}, {how})"
    cells = [escape(what), f"{case['estimate'] / 1e6:,.0f}"]
    for size in SIZES:
        cells += [f"{size(case) / 1e6:,.0f}", ratio(case["estimate"], size(case))]
    return [*cells, f"{case['framework'] / 1e6:,.0f}"]


def published(project: Project) -> str:
    """Published measurements beside the estimate, then the sources with their settings."""
    found = read_yaml(project.root / PUBLISHED)
    rows = []
    for row in found["memory"]:
        total, told = memory(plan_of(row["plan"])).total, row["value"] * row["unit"]
        rows.append([escape(row["name"]), escape(row["source"]), f"{told / GB:.2f}",
                     f"{total / GB:.2f}", ratio(total, told)])  # fmt: skip
    speeds = []
    for row in found["speed"]:
        rate = flops_per_token(plan_of(row["plan"])) * row["tokens_per_second"]
        share = rate / DEVICES[row["device"]].flops
        speeds.append([escape(row["name"]), escape(row["source"]), escape(row["device"]),
                       f"{row['tokens_per_second']:,}", f"{share:.0%}"])  # fmt: skip
    memory_head = ["run", "source", "published, GB", "estimate, GB", "ratio"]
    speed_head = ["run", "source", "device", "tokens a second", "share"]
    return (
        table("Published peak memory, and the estimate of the same plan", memory_head, rows)
        + table("Published speed as a share of the data sheet's rate, recomputation counted",
                speed_head, speeds)
        + sources(found["sources"])
    )  # fmt: skip


def sources(found: dict[str, dict[str, str]]) -> str:
    """Where the published figures come from, and under which settings."""
    items = (
        f'<dt>{escape(name)}</dt><dd><a href="{escape(source["url"])}">{escape(source["title"])}</a>. '
        f"{escape(source['settings'])}</dd>"
        for name, source in found.items()
    )
    return f'<dl class="est-sources">{"".join(items)}</dl>'
