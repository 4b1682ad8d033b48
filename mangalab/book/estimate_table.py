"""`mangalab estimate`: what `mangalab.sizing` says of one plan, as data and as tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .. import estimate
from ..sizing import (
    METHODS,
    OPTIMIZERS,
    PRECISIONS,
    SHAPES,
    Memory,
    Plan,
    PlanError,
    bill,
    memory,
    shape_of,
    trained_parameters,
)
from ..sizing.devices import DEVICES
from .project import BookError

SCHEMA = 2
GB = estimate.GB


def device_of(name: str) -> estimate.Device:
    """A device by name, whatever its case."""
    by_name = {known.lower(): device for known, device in DEVICES.items()}
    if name.lower() not in by_name:
        raise BookError(f"device {name!r} is unknown; known: {', '.join(DEVICES)}")
    return by_name[name.lower()]


def plan_of(model: str, targets: str, *, precision: str, method: str, **options: Any) -> Plan:
    """A plan from options; empty ones take the method's own: mixed for full fine-tuning, else bf16;
    queries and values for LoRA, whatever the model calls them."""
    try:
        shape = shape_of(model)
        names = list(shape.linears)
        chosen = targets if targets == "all-linear" else tuple(targets.split(","))
        return Plan(
            shape, method, targets=chosen if targets else (names[0], names[2]),
            precision=precision or ("mixed" if method == "full" else "bf16"), **options)  # fmt: skip
    except PlanError as error:
        raise BookError(str(error)) from None


def figures(
    plan: Plan,
    device: estimate.Device,
    tokens: float = 0,
    mfu: float = 0.4,
    price: float | None = None,
) -> dict[str, Any]:
    """Everything about one plan: bytes by cause and phase, counts, fit on the device, time, money."""
    try:
        found = memory(plan)
        trained = trained_parameters(plan)
        spent = None if not tokens or plan.generates else bill(plan, tokens, device, mfu, price)
    except (PlanError, ValueError) as error:
        raise BookError(str(error)) from None
    shape = plan.shape
    adapter = trained if not plan.full and not plan.generates else 0
    share = 1.0 if plan.full else trained / (shape.parameters + trained)
    return {
        "schema": SCHEMA,
        "plan": {"model": shape.name, **options_of(plan)},
        "parameters": shape.parameters,
        "trained": trained,
        "trained_share": share,
        "adapter_bytes": {"bf16": adapter * 2, "fp32": adapter * 4} if adapter else None,
        "memory_bytes": {**found.parts, "total": found.total},
        "peak": found.peak,
        "phases": {p: {**parts, "total": sum(parts.values())} for p, parts in found.phases.items()},
        "device": {"name": device.name, "memory": device.memory, "fits": found.total < device.memory},
        "bill": None if spent is None else {**asdict(spent), "mfu": mfu, "price": price},
        "hours": None if spent is None else spent.hours,
        "decode_seconds_per_token": decode(plan, found, device),
    }


def options_of(plan: Plan) -> dict[str, Any]:
    """A plan's choices, without the shape."""
    return {name: value for name, value in asdict(plan).items() if name != "shape"}


def decode(plan: Plan, found: Memory, device: estimate.Device) -> float | None:
    """Least seconds a generated token: weights and cache are read once."""
    if not plan.generates:
        return None
    parts = found.phases["generation"]
    return estimate.decode_seconds_per_token(parts["weights"] + parts["cache"], device)


def show(found: dict[str, Any]) -> None:
    """Print the tables of `figures`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print("\n".join(head(found)), markup=False, soft_wrap=True)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("GB", justify="left")
    phases = found["phases"]
    for phase in phases:
        table.add_column(phase + (" *" if phase == found["peak"] else ""), justify="right")
    causes = dict.fromkeys(c for parts in phases.values() for c in parts if c != "total")
    for cause in causes:
        sizes = [parts.get(cause, 0) for parts in phases.values()]
        if any(sizes):
            table.add_row(cause, *(f"{size / GB:.3f}" if size else "" for size in sizes))
    table.add_section()
    table.add_row("total", *(f"{parts['total'] / GB:.3f}" for parts in phases.values()))
    console.print(table)
    console.print("\n".join(tail(found)), markup=False, soft_wrap=True)


def head(found: dict[str, Any]) -> list[str]:
    """The lines above the table."""
    plan, sizes = found["plan"], found["adapter_bytes"]
    how = ""
    if plan["method"] in ("lora", "qlora"):
        targets = plan["targets"] if isinstance(plan["targets"], str) else ",".join(plan["targets"])
        how = f", rank {plan['rank']} on {targets}"
    if plan["method"] in ("prompt", "prefix"):
        how = f", {plan['virtual_tokens']} virtual tokens"
    text = [f"{plan['model']}, {plan['method']}{how}, {plan['precision']}, "
            f"batch {plan['batch']} x {plan['length']} tokens a device",
            f"parameters {found['parameters']:,}, trained {found['trained']:,} "
            f"({found['trained_share']:.4%})"]  # fmt: skip
    if sizes:
        bf16, fp32 = sizes["bf16"] / 1e6, sizes["fp32"] / 1e6
        text.append(f"adapter on disk {bf16:.1f} MB in bf16, {fp32:.1f} MB in fp32")
    return text


def tail(found: dict[str, Any]) -> list[str]:
    """The lines below the table: fit, time, money."""
    device, spent = found["device"], found["bill"]
    verdict = "fits" if device["fits"] else "does not fit"
    total = found["memory_bytes"]["total"]
    text = [f"* the peak: {total / GB:.3f} GB = {total / estimate.GIB:.3f} GiB; {verdict} on "
            f"{device['name']} ({device['memory'] / GB:.0f} GB)"]  # fmt: skip
    if not found["plan"]["overhead_bytes"]:
        text.append("  without CUDA context, allocator slack and framework: see --overhead-gb")
    if found["decode_seconds_per_token"] is not None:
        text.append(f"a generated token takes {found['decode_seconds_per_token'] * 1e3:.2f} ms or more")
    return text + (bill_lines(spent) if spent else [])


def bill_lines(spent: dict[str, Any]) -> list[str]:
    """Time and money."""
    text = [f"{spent['flops']:.3g} FLOP ({spent['flops_per_token']:.3g} a token) for "
            f"{spent['tokens']:,.0f} tokens: {spent['hours']:.2f} h at {spent['mfu']:.0%} of the data "
            f"sheet's rate, {spent['device_hours']:.2f} device hours"]  # fmt: skip
    if spent["dollars"] is not None:
        text.append(f"${spent['dollars']:,.2f} at your ${spent['price']:g} an hour and device")
    return text


def known() -> dict[str, Any]:
    """Shapes, devices, methods, precisions and optimizers by name."""
    return {
        "schema": SCHEMA,
        "shapes": {name: {"parameters": shape.parameters, "linears": list(shape.linears)}
                   for name, shape in SHAPES.items()},
        "devices": {name: {"memory": device.memory, "flops": device.flops}
                    for name, device in DEVICES.items()},
        "methods": list(METHODS),
        "precisions": {name: precision.says for name, precision in PRECISIONS.items()},
        "optimizers": list(OPTIMIZERS),
    }  # fmt: skip


def list_lines(found: dict[str, Any]) -> list[str]:
    """What a terminal shows of `known`."""
    from .drift_report import columns

    shapes = [(n, f"{s['parameters']:,}", ", ".join(s["linears"])) for n, s in found["shapes"].items()]
    devices = [(n, f"{d['memory'] / GB:.0f} GB", f"{d['flops'] / 1e12:.0f} TFLOP/s")
               for n, d in found["devices"].items()]  # fmt: skip
    names = [f"{key}: {', '.join(found[key])}" for key in ("methods", "optimizers")]
    return ["shapes (parameters, modules)", *columns(shapes), "", "devices", *columns(devices), "",
            "precisions", *columns(list(found["precisions"].items())), "", *names]  # fmt: skip
