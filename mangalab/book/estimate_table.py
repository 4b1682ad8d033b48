"""`mangalab estimate`: the arithmetic of `mangalab.estimate` for one plan, as data and as lines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import estimate
from ..shapes import SHAPES, Shape
from .drift_report import columns
from .project import BookError

SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """One fine-tuning run; sizes in tokens and sequences, `mfu` in 0..1."""

    model: str
    method: str = "lora"
    rank: int = 16
    targets: str = "q_proj,v_proj"
    scheme: str = ""
    batch: int = 1
    sequence: int = 512
    checkpointing: bool = True
    device: str = "A100-80"
    tokens: float = 0
    mfu: float = 0.4


def shape_of(name: str) -> Shape:
    """A known shape by name, whatever its case, or that of a config.json (or of its folder)."""
    by_name = {known.lower(): shape for known, shape in SHAPES.items()}
    if name.lower() in by_name:
        return by_name[name.lower()]
    path = Path(name) / "config.json" if Path(name).is_dir() else Path(name)
    if not name or not path.is_file():
        known = ", ".join(SHAPES)
        raise BookError(f"{name!r} is no known shape and no path of a config.json; known: {known}")
    try:
        return Shape.from_config(json.loads(path.read_text(encoding="utf8")), path.parent.name)
    except (ValueError, UnicodeDecodeError) as error:
        raise BookError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise BookError(f"{path} is no model configuration: {error} is missing or wrong") from None


def figures(plan: Plan) -> dict[str, Any]:
    """Everything about one plan: bytes by cause, counts, fit on the device, hours."""
    shape, device = shape_of(plan.model), device_of(plan.device)
    targets = plan.targets if plan.targets == "all-linear" else plan.targets.split(",")
    adapted = plan.method in ("lora", "qlora")
    try:
        memory = estimate.memory(
            shape, plan.method, r=plan.rank, targets=targets, scheme=plan.scheme or None,
            batch=plan.batch, length=plan.sequence, checkpointing=plan.checkpointing)  # fmt: skip
        adapter = estimate.lora_parameters(shape, plan.rank, targets) if adapted else 0
        hours = _hours(plan, shape, adapter, device)
    except ValueError as error:
        raise BookError(str(error)) from None
    return {
        "schema": SCHEMA,
        "plan": {**asdict(plan), "model": shape.name},
        "parameters": shape.parameters,
        "trained": adapter if adapted else shape.parameters,
        "trained_share": adapter / (shape.parameters + adapter) if adapted else 1.0,
        "adapter_bytes": {"bf16": adapter * 2, "fp32": adapter * 4} if adapted else None,
        "memory_bytes": {**asdict(memory), "total": memory.total},
        "device": {"name": device.name, "memory": device.memory, "fits": memory.total < device.memory},
        "hours": hours,
    }


def device_of(name: str) -> estimate.Device:
    """A device by name, whatever its case."""
    by_name = {known.lower(): device for known, device in estimate.DEVICES.items()}
    if name.lower() not in by_name:
        raise BookError(f"device {name!r} is unknown; known: {', '.join(estimate.DEVICES)}")
    return by_name[name.lower()]


def _hours(plan: Plan, shape: Shape, adapter: int, device: estimate.Device) -> float | None:
    if not plan.tokens:
        return None
    frozen = plan.method != "full"
    each = estimate.flops_per_token(shape.parameters, frozen, plan.checkpointing, adapter)
    return estimate.hours(each * plan.tokens, device, plan.mfu)


def lines(found: dict[str, Any]) -> list[str]:
    """What a terminal shows."""
    plan, sizes, device, gb = found["plan"], found["adapter_bytes"], found["device"], estimate.GB
    how = f", rank {plan['rank']} on {plan['targets']}" if sizes else ""
    text = [
        f"{plan['model']}, {plan['method']}{how}, batch {plan['batch']} x {plan['sequence']} tokens",
        f"parameters {found['parameters']:,}, trained {found['trained']:,} "
        f"({found['trained_share']:.4%})",
    ]
    if sizes:
        bf16, fp32 = sizes["bf16"] / 1e6, sizes["fp32"] / 1e6
        text.append(f"adapter on disk {bf16:.1f} MB in bf16, {fp32:.1f} MB in fp32")
    rows = [(name, f"{size / gb:10.3f} GB") for name, size in found["memory_bytes"].items()]
    text += ["", *columns(rows), ""]
    verdict = "fits" if device["fits"] else "does not fit"
    size = f"{device['name']} ({device['memory'] / gb:.0f} GB)"
    text.append(f"{verdict} on {size}, before the allocator's slack")
    if found["hours"] is not None:
        share = f"{plan['mfu']:.0%} of its peak"
        text.append(f"{found['hours']:.2f} h for {plan['tokens']:,.0f} tokens at {share}")
    return text


def known() -> dict[str, Any]:
    """Shapes, devices and schemes by name."""
    return {
        "schema": SCHEMA,
        "shapes": {name: {"parameters": shape.parameters, "linears": list(shape.linears)}
                   for name, shape in SHAPES.items()},
        "devices": {name: {"memory": device.memory, "flops": device.flops}
                    for name, device in estimate.DEVICES.items()},
        "schemes": {name: scheme.total for name, scheme in estimate.SCHEMES.items()},
    }  # fmt: skip


def list_lines(found: dict[str, Any]) -> list[str]:
    """What a terminal shows of `known`."""
    shapes = [(n, f"{s['parameters']:,}", ", ".join(s["linears"])) for n, s in found["shapes"].items()]
    devices = [(n, f"{d['memory'] / estimate.GB:.0f} GB", f"{d['flops'] / 1e12:.0f} TFLOP/s")
               for n, d in found["devices"].items()]  # fmt: skip
    schemes = [(n, f"{total:g} bytes a trained parameter") for n, total in found["schemes"].items()]
    return ["shapes (parameters, modules)", *columns(shapes), "", "devices", *columns(devices), "",
            "schemes", *columns(schemes)]  # fmt: skip
