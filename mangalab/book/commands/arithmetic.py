"""`mangalab spectrum` and `mangalab estimate`: the book's tools on a reader's own models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..project import BookError
from .shared import AsJson


def spectrum(
    path: Annotated[Path, typer.Argument(help="adapter folder, .safetensors file or model folder")],
    base: Annotated[
        Path | None, typer.Option(help="what PATH was trained from, for whole checkpoints")
    ] = None,
    rank: Annotated[int, typer.Option(help="r of the energy-at-r column", min=1)] = 16,
    top: Annotated[
        int | None, typer.Option(help="only the k largest values of each matrix (faster)", min=1)
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="leave out weights that do not match")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Spectrum of a weight update, module by module: how many directions it really uses.

    PATH is a LoRA adapter (adapter_config.json beside adapter_model.safetensors), or with --base a
    checkpoint: a .safetensors file, a model folder (sharded or not), or a folder of the hub's cache.
    Weights are read one matrix at a time and only from safetensors.
    Columns: rank that holds 90 % of the energy, effective rank, stable rank, energy in the first r.

    Exit codes: 0 shown, 2 not found or not readable.

    Example: mangalab spectrum my-adapter --rank 8
    """
    from ..spectrum_table import measure, table, totals

    rows = measure(path, base, rank, top, partial)
    if as_json:
        told = {"schema": 1, "path": str(path), "base": str(base) if base else None, "rank": rank,
                "summary": totals(rows), "modules": rows}  # fmt: skip
        print(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        print("\n".join(table(rows, rank)))


def estimate(
    model: Annotated[str, typer.Argument(help="a shape's name, or the path of a config.json")] = "",
    method: Annotated[str, typer.Option(help="full, lora or qlora")] = "lora",
    rank: Annotated[int, typer.Option(help="LoRA rank", min=1)] = 16,
    targets: Annotated[str, typer.Option(help="modules, with commas, or all-linear")] = "q_proj,v_proj",
    scheme: Annotated[str, typer.Option(help="how trained parameters are kept (see --list)")] = "",
    batch: Annotated[int, typer.Option(help="sequences in one step; 0: states only", min=0)] = 1,
    sequence: Annotated[int, typer.Option(help="tokens in a sequence", min=1)] = 512,
    checkpointing: Annotated[bool, typer.Option(help="recompute activations")] = True,
    device: Annotated[str, typer.Option(help="name of an accelerator (see --list)")] = "A100-80",
    tokens: Annotated[float, typer.Option(help="training tokens, for the hours", min=0)] = 0,
    mfu: Annotated[float, typer.Option(help="share of the data sheet's FLOP/s")] = 0.4,
    listed: Annotated[bool, typer.Option("--list", help="known shapes, devices, schemes")] = False,
    as_json: AsJson = False,
) -> None:
    """Memory, adapter size and hours of a fine-tuning run, by arithmetic: no weights are loaded.

    What the arithmetic leaves out (allocator slack, CUDA context) comes on top; the fit on the
    device is judged without it. Exit codes: 0 shown, 2 bad input.

    Example: mangalab estimate llama-3-8b --method qlora --rank 16 --batch 4 --sequence 2048
    """
    from .. import estimate_table as tables

    if not model and not listed:
        raise BookError("name a model, or see the known ones: mangalab estimate --list")
    if listed:
        found = tables.known()
    else:
        plan = tables.Plan(model, method, rank, targets, scheme, batch, sequence, checkpointing,
                           device, tokens, mfu)  # fmt: skip
        found = tables.figures(plan)
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        print("\n".join(tables.list_lines(found) if listed else tables.lines(found)))


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command()(spectrum)
    app.command()(estimate)
