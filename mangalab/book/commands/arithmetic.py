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
        int | None, typer.Option(help="only the k largest values of each matrix (fast)", min=1)
    ] = None,
    tol: Annotated[
        float | None, typer.Option(help="with --top: interval width / largest value (1e-6)")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="with --top: MB that one matrix may take (512)")
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

    --top K with --base finds only the K largest singular values, 20 times faster and more on matrices
    2048 wide and wider, each with bounds that hold (the table says how wide, and by which road:
    krylov, gram or dense). Rank 90 % is then "-" where K values do not hold as much. A matrix that
    does not fit into --memory is read in blocks at every pass. Of an adapter all values are exact and
    cost nothing: --top only shortens the list.

    Exit codes: 0 shown, 2 not found or not readable.

    Example: mangalab spectrum my-adapter --rank 8

    Example: mangalab spectrum tuned-model --base model --top 16
    """
    from ..spectrum_table import measure, table, totals
    from ..spectrum_top import measure_top, top_table, top_totals

    certified = top is not None and base is not None
    if not certified and not (tol is None and memory is None):
        raise BookError("--tol and --memory go with --top and --base: name both, or leave them out")
    if certified:
        rows = measure_top(path, base, rank, top, partial, tol=tol, memory=memory)
        summary, lines = top_totals(rows), top_table(rows, rank)
    else:
        rows = measure(path, base, rank, top, partial)
        summary, lines = totals(rows), table(rows, rank)
    if as_json:
        told = {"schema": 1, "path": str(path), "base": str(base) if base else None, "rank": rank,
                "top": top, "summary": summary, "modules": rows}  # fmt: skip
        print(json.dumps(told, indent=1, ensure_ascii=False))
    else:
        print("\n".join(lines))


def estimate(
    model: Annotated[str, typer.Argument(help="a shape's name, or the path of a config.json")] = "",
    method: Annotated[
        str, typer.Option(help="full, lora, qlora, prompt, prefix, inference or inference-4bit")
    ] = "lora",
    rank: Annotated[int, typer.Option(help="LoRA rank")] = 16,
    targets: Annotated[str, typer.Option(help="modules, with commas, or all-linear")] = "",
    virtual_tokens: Annotated[int, typer.Option(help="of prompt and prefix tuning")] = 20,
    precision: Annotated[str, typer.Option(help="fp32, bf16, mixed or autocast (see --list)")] = "",
    optimizer: Annotated[
        str, typer.Option(help="adamw, adamw-8bit, adafactor, sgd or sgd-momentum")
    ] = "adamw",
    batch: Annotated[int, typer.Option(help="sequences a device and step; 0: states only")] = 1,
    sequence: Annotated[int, typer.Option(help="tokens in a sequence")] = 512,
    loss_tokens: Annotated[int, typer.Option(help="tokens whose logits exist at once; 0: all")] = 0,
    new_tokens: Annotated[int, typer.Option(help="generated tokens, for inference")] = 0,
    checkpointing: Annotated[bool, typer.Option(help="compute activations anew, keep few")] = True,
    attention: Annotated[str, typer.Option(help="fused, or eager (keeps attention maps)")] = "fused",
    sharding: Annotated[str, typer.Option(help="none, zero1, zero2 or zero3 (FSDP)")] = "none",
    devices: Annotated[int, typer.Option(help="how many devices train together")] = 1,
    device: Annotated[str, typer.Option(help="name of an accelerator (see --list)")] = "A100-80",
    overhead_gb: Annotated[float, typer.Option(help="CUDA context, allocator, framework")] = 0,
    tokens: Annotated[float, typer.Option(help="training tokens, for hours and dollars", min=0)] = 0,
    mfu: Annotated[float, typer.Option(help="share of the data sheet's FLOP/s, 0 to 1")] = 0.4,
    price: Annotated[
        float | None, typer.Option(help="dollars an hour and device today; none is built in")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="known shapes, devices, ...")] = False,
    as_json: AsJson = False,
) -> None:
    """Memory by cause and phase, hours and dollars of a fine-tuning run; no weights are loaded.

    Counts what PyTorch keeps: weights, gradients, optimizer states, every saved tensor of a layer,
    logits. The largest phase of a step is the peak. Held against measured runs: the page Estimator.
    What is no tensor (CUDA context, allocator slack) comes on top: --overhead-gb. A share of 0.4 of
    the data sheet's rate is good; the page shows what published runs reached.

    Exit codes: 0 shown, 2 bad input.

    Example: mangalab estimate llama-3-8b --method qlora --batch 4 --tokens 1e7 --price 2
    """
    from .. import estimate_table as tables

    if not model and not listed:
        raise BookError("name a model, or see the known ones: mangalab estimate --list")
    if listed:
        found = tables.known()
        print(json.dumps(found, indent=1) if as_json else "\n".join(tables.list_lines(found)))
        return
    plan = tables.plan_of(
        model, targets, method=method, rank=rank, virtual_tokens=virtual_tokens, precision=precision,
        optimizer=optimizer, batch=batch, length=sequence, loss_tokens=loss_tokens,
        new_tokens=new_tokens, checkpointing=checkpointing, attention=attention, sharding=sharding,
        devices=devices, overhead_bytes=overhead_gb * 1e9)  # fmt: skip
    found = tables.figures(plan, tables.device_of(device), tokens, mfu, price)
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        tables.show(found)


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command()(spectrum)
    app.command()(estimate)
