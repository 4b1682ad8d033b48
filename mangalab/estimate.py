"""Memory, compute and cost of fine-tuning, by arithmetic on real model shapes: no weights needed.

Units, everywhere: parameters and tokens are counts; sizes are bytes (`GB` = 1e9 and `GIB` = 2**30
convert); rates are FLOP/s and bytes/s; money is in the unit of the price that is passed in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .shapes import SHAPES as SHAPES
from .shapes import Shape

GB = 10**9
GIB = 2**30
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Scheme:
    """Bytes kept for one trained parameter while it trains (ZeRO, 1910.02054, section 3.1)."""

    weight: float
    gradient: float
    master: float
    optimizer: float

    @property
    def total(self) -> float:
        """Bytes a trained parameter, all states together."""
        return self.weight + self.gradient + self.master + self.optimizer


# 8-bit Adam: one byte for each of the two moments and an fp32 scale per block of 256 (2110.02861).
_ADAM8 = 2 * (1 + 4 / 256)
SCHEMES: Mapping[str, Scheme] = {
    "mixed": Scheme(weight=2, gradient=2, master=4, optimizer=8),
    "fp32": Scheme(weight=4, gradient=4, master=0, optimizer=8),
    "bf16": Scheme(weight=2, gradient=2, master=0, optimizer=4),
    "bf16+adam8": Scheme(weight=2, gradient=2, master=0, optimizer=_ADAM8),
    "fp32+adam8": Scheme(weight=4, gradient=4, master=0, optimizer=_ADAM8),
    "bf16+adam32": Scheme(weight=2, gradient=2, master=0, optimizer=8),
}


@dataclass(frozen=True)
class Device:
    """An accelerator's data sheet: dense bf16 FLOP/s, bytes of memory, bytes/s of bandwidth."""

    name: str
    flops: float
    memory: float
    bandwidth: float


# NVIDIA data sheets, dense tensor-core figures (no structured sparsity); A10G as offered by AWS.
DEVICES: Mapping[str, Device] = {
    d.name: d
    for d in (
        Device("A100-80", 312e12, 80 * GB, 2.039e12),
        Device("A100-40", 312e12, 40 * GB, 1.555e12),
        Device("A10G", 70e12, 24 * GB, 0.6e12),
        Device("L40S", 362e12, 48 * GB, 0.864e12),
        Device("H100", 989e12, 80 * GB, 3.35e12),
        Device("H200", 989e12, 141 * GB, 4.8e12),
    )
}


# --- adapters ---------------------------------------------------------------------------------


def lora_parameters_by_module(
    shape: Shape, r: int, targets: str | Iterable[str] = ("q_proj", "v_proj")
) -> dict[str, int]:
    """Trainable LoRA parameters of each target, all layers together.

    A linear map n_in -> n_out gets A (r x n_in) and B (n_out x r): r (n_in + n_out) parameters
    (LoRA, 2106.09685, section 4.1). `targets` are module names, matched as PEFT does (whole name
    or its last part), or "all-linear". Raises ValueError for r < 1 or a name that is not there.
    """
    if r < 1:
        raise ValueError(f"LoRA rank r={r} is below 1: pass a whole number of at least 1")
    return {
        name: shape.layers * r * (n_in + n_out)
        for name, (n_in, n_out) in shape.select(targets).items()
    }


def lora_parameters(
    shape: Shape, r: int, targets: str | Iterable[str] = ("q_proj", "v_proj")
) -> int:
    """Trainable LoRA parameters of the whole model; see `lora_parameters_by_module`."""
    return sum(lora_parameters_by_module(shape, r, targets).values())


def lora_share(shape: Shape, r: int, targets: str | Iterable[str] = ("q_proj", "v_proj")) -> float:
    """Trainable share in 0..1 as PEFT prints it: adapter / (base + adapter)."""
    adapter = lora_parameters(shape, r, targets)
    return adapter / (shape.parameters + adapter)


def adapter_bytes(
    shape: Shape,
    r: int,
    targets: str | Iterable[str] = ("q_proj", "v_proj"),
    bytes_per_parameter: float = 2,
) -> float:
    """Bytes of a saved adapter (2 a parameter in bf16; PEFT keeps 4, fp32, unless told)."""
    return lora_parameters(shape, r, targets) * bytes_per_parameter


# --- quantised weights ------------------------------------------------------------------------


def bits_per_parameter(
    bits: int = 4, block: int = 64, double: bool = True, double_block: int = 256
) -> float:
    """Bits of a block-quantised weight with its constants (QLoRA, 2305.14314, section 3).

    One fp32 scale a block costs 32/block bits; double quantisation stores it in 8 bits with an
    fp32 scale for every `double_block` of them: 8/block + 32/(block * double_block).
    """
    constants = 8 / block + 32 / (block * double_block) if double else 32 / block
    return bits + constants


def quantised_bytes(shape: Shape, double: bool = True, block: int = 64) -> float:
    """Bytes of a 4-bit base as bitsandbytes loads it: linears in 4 bits, the rest in bf16."""
    rest = shape.parameters - shape.linear_parameters
    return shape.linear_parameters * bits_per_parameter(4, block, double) / 8 + rest * 2


# --- activations ------------------------------------------------------------------------------


def activation_bytes(
    shape: Shape,
    batch: int,
    length: int,
    checkpointing: bool = False,
    attention_maps: bool = False,
) -> float:
    """Bytes of saved 16-bit activations (Korthikanti et al., 2205.05198, equations 1 and 2).

    34 s b h a layer, plus 5 a s^2 b where attention maps are stored (eager attention; fused kernels
    do not). With full checkpointing only the layer inputs, 2 s b h each, and one layer at work
    remain. The constants count a GELU block with a 4h feed-forward and dropout masks: for a
    gated block without dropout read it as an estimate within about a third.
    """
    layer = 34 * length * batch * shape.hidden
    if attention_maps:
        layer += 5 * shape.heads * length**2 * batch
    if not checkpointing:
        return layer * shape.layers
    return 2 * length * batch * shape.hidden * shape.layers + layer


def logits_bytes(shape: Shape, batch: int, length: int, copies: int = 2) -> int:
    """Bytes of fp32 logits over all positions; two copies: the logits and their gradient."""
    return batch * length * shape.vocab * 4 * copies


# --- training memory --------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes of one training step by cause; `master` belongs to mixed precision only."""

    weights: float
    adapters: float
    gradients: float
    master: float
    optimizer: float
    activations: float
    logits: float

    @property
    def states(self) -> float:
        """Bytes that do not depend on the batch."""
        return self.weights + self.adapters + self.gradients + self.master + self.optimizer

    @property
    def total(self) -> float:
        """Bytes altogether (allocator slack and CUDA context, some GB, come on top)."""
        return self.states + self.activations + self.logits

    def rows(self) -> list[dict[str, object]]:
        """One row a cause, for a table: part and GB."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return [{"part": k, "GB": v / GB} for k, v in {**parts, "total": self.total}.items()]


def memory(
    shape: Shape,
    method: str = "lora",
    *,
    r: int = 16,
    targets: str | Iterable[str] = ("q_proj", "v_proj"),
    scheme: str | None = None,
    double: bool = True,
    batch: int = 1,
    length: int = 512,
    checkpointing: bool = True,
    attention_maps: bool = False,
) -> Memory:
    """Training memory of `method` "full", "lora" (bf16 base) or "qlora" (4-bit base).

    `scheme` is how the *trained* parameters are kept (a key of SCHEMES): "mixed" by default for
    full fine-tuning, "fp32" for adapters, which is what PEFT does on a 16-bit or 4-bit base.
    `batch=0` gives the states alone. Raises ValueError for an unknown method or scheme.
    """
    if method not in ("full", "lora", "qlora"):
        raise ValueError(f"method {method!r} is unknown: use full, lora or qlora")
    scheme = scheme or ("mixed" if method == "full" else "fp32")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} is unknown: use one of {', '.join(SCHEMES)}")
    kept = SCHEMES[scheme]
    trained = shape.parameters if method == "full" else lora_parameters(shape, r, targets)
    base = {
        "full": shape.parameters * kept.weight,
        "lora": shape.parameters * 2,
        "qlora": quantised_bytes(shape, double),
    }[method]
    return Memory(
        weights=base,
        adapters=0 if method == "full" else trained * kept.weight,
        gradients=trained * kept.gradient,
        master=trained * kept.master,
        optimizer=trained * kept.optimizer,
        activations=activation_bytes(shape, batch, length, checkpointing, attention_maps),
        logits=logits_bytes(shape, batch, length),
    )


# --- compute, time, money ---------------------------------------------------------------------


def flops_per_token(
    parameters: float, frozen: bool = False, checkpointing: bool = False, adapter: float = 0
) -> float:
    """FLOP to train on one token (Kaplan et al., 2001.08361, section 2.1: C = 6 N).

    Forward 2N, gradients to the activations 2N, gradients to the weights 2N; a frozen base saves
    the last, recomputing the forward pass adds 2N. `adapter` parameters cost 6 each.
    """
    passes = 4 if frozen else 6
    return (passes + (2 if checkpointing else 0)) * parameters + 6 * adapter


def steps(examples: int, batch: int, epochs: float = 1) -> int:
    """Optimiser steps: `ceil(examples / batch)` an epoch (the last batch may be short)."""
    return round(-(-examples // batch) * epochs)


def hours(flops: float, device: Device, mfu: float, devices: int = 1) -> float:
    """Hours for `flops` at the share `mfu` (0..1) of the data-sheet rate of `devices`."""
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu={mfu} is outside 0..1: pass the share of peak, for example 0.4")
    return flops / (device.flops * mfu * devices) / 3600


def cost(hours: float, price_per_device_hour: float, devices: int = 1) -> float:
    """Money for `devices` held for `hours`, in the currency of the price."""
    return hours * price_per_device_hour * devices


def storage_cost(size: float, price_per_gb_month: float) -> float:
    """Money a month for `size` bytes in object storage priced per GB (1e9 bytes)."""
    return size / GB * price_per_gb_month


def decode_seconds_per_token(weight_bytes: float, device: Device, devices: int = 1) -> float:
    """Lower bound of seconds a generated token at batch 1: every weight is read once."""
    return weight_bytes / (device.bandwidth * devices)
