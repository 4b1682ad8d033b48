"""Blockwise 4- and 8-bit quantisation from first principles, and guards for 4-bit training.

Formats: nf4 and fp4 (lookup tables of QLoRA, 2305.14314), int4 and int8 (symmetric, scaled by the
largest magnitude of a block) and int4-asymmetric (scaled between minimum and maximum of a block).
nf4 and fp4 equal bitsandbytes bit for bit (tests), so chapters can show what a library does.

Two traps of bitsandbytes 0.50 on CPUs are kept out here. Its native dequantisation is wrong where
the length of a row is no multiple of the block (`unpack_4bit` decodes by hand and is right), and
one forward pass in eval mode repacks the weights so that later gradients are silently wrong on
AVX512-BF16 machines (`guard_4bit_training`).
"""

import copy
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from bitsandbytes.nn import Params4bit

NF4_OFFSET = 0.9677083
FORMATS = ("nf4", "fp4", "int4", "int4-asymmetric", "int8")
_FP4_MAGNITUDES = (0.0, 0.0625, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


def nf4_levels() -> torch.Tensor:
    """The 16 sorted levels of NF4, (16,) float32 in [-1, 1].

    Eight quantiles of N(0, 1) for the positive side and seven for the negative between `NF4_OFFSET`
    and 1/2, an exact zero, all divided by the largest (QLoRA, section 3 and appendix E). The
    probabilities are float32: that reproduces the published table to the last bit.
    """
    from scipy.special import ndtri

    def half(points: int) -> torch.Tensor:
        probabilities = torch.linspace(NF4_OFFSET, 0.5, points)[:-1]
        return torch.tensor(ndtri(probabilities.double().numpy())).float()

    levels = torch.cat([half(9), torch.zeros(1), -half(8)]).sort().values
    return levels / levels.max()


@functools.cache
def levels(fmt: str) -> torch.Tensor:
    """Sorted levels of a symmetric format, float32 in [-1, 1]: (16,) or (255,).

    fp4 has one sign, two exponent and one mantissa bit; its two zeros are one level here.
    Raises ValueError for an unknown format and for int4-asymmetric, which has no fixed levels.
    """
    if fmt == "nf4":
        return nf4_levels()
    if fmt == "fp4":
        positive = torch.tensor(_FP4_MAGNITUDES) / max(_FP4_MAGNITUDES)
        return torch.cat([-positive.flip(0)[:-1], positive])
    if fmt == "int4":
        return torch.arange(-7, 8) / 7
    if fmt == "int8":
        return torch.arange(-127, 128) / 127
    raise ValueError(f"format {fmt!r} has no fixed levels: use nf4, fp4, int4 or int8")


@dataclass(frozen=True)
class Quantized:
    """A quantised tensor.

    `codes` are uint8, two to a byte in 4-bit formats; `scale` is one float32 a block, or itself
    Quantized (double quantisation, then `scale_mean` was subtracted); `minimum` exists in
    int4-asymmetric only.
    """

    codes: torch.Tensor
    scale: "torch.Tensor | Quantized"
    shape: tuple[int, ...]
    fmt: str
    block: int
    minimum: torch.Tensor | None = None
    scale_mean: float = 0.0

    @property
    def bits_per_parameter(self) -> float:
        """Stored bits, codes and constants, a parameter."""
        return 8 * self.bytes / math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Stored bytes: codes, scales and minima (the one mean of the scales is 4 bytes)."""
        double = isinstance(self.scale, Quantized)
        constants = self.scale.bytes + 4 if double else 4 * self.scale.numel()
        return (
            self.codes.numel() + constants + (0 if self.minimum is None else 4 * self.scale.numel())
        )


def quantize(
    weight: torch.Tensor, fmt: str = "nf4", block: int = 64, double: bool = False
) -> Quantized:
    """Quantise `weight` (any shape) in blocks of `block` consecutive values.

    With `double` the scales are quantised too: 8 bits in blocks of 256 after subtracting their
    mean (QLoRA, section 3). Ties go to the lower level. Raises ValueError for an empty or
    non-finite tensor, an unknown format, or `double` with int4-asymmetric.
    """
    _check(weight, fmt, block, double)
    blocks = _blocks(weight.detach().float().reshape(-1), block)
    minimum = None
    if fmt == "int4-asymmetric":
        minimum = blocks.min(dim=1).values
        scale = (blocks.max(dim=1).values - minimum) / 15
        steps = (blocks - minimum[:, None]) / scale.clamp(min=1e-38)[:, None]
        codes = steps.round().clamp(0, 15)
    else:
        scale = blocks.abs().max(dim=1).values
        scaled = (blocks * (1.0 / scale.clamp(min=1e-38))[:, None]).clamp(-1, 1)
        table = levels(fmt)
        codes = torch.bucketize(scaled, (table[:-1] + table[1:]) / 2)
    codes = codes.reshape(-1)[: weight.numel()].to(torch.uint8)
    mean = scale.mean() if double else torch.zeros(())
    return Quantized(
        codes=codes if fmt == "int8" else _pack(codes),
        scale=quantize(scale - mean, "int8", 256) if double else scale,
        shape=tuple(weight.shape),
        fmt=fmt,
        block=block,
        minimum=minimum,
        scale_mean=float(mean),
    )


def dequantize(quantized: Quantized) -> torch.Tensor:
    """The float32 tensor that the codes stand for, in the original shape."""
    n = math.prod(quantized.shape)
    scale = quantized.scale
    if isinstance(scale, Quantized):
        scale = dequantize(scale) + quantized.scale_mean
    codes = _blocks(unpacked_codes(quantized), quantized.block)
    if quantized.minimum is not None:
        values = codes * scale[:, None] + quantized.minimum[:, None]
    else:
        values = levels(quantized.fmt)[codes.long()] * scale[:, None]
    return values.reshape(-1)[:n].reshape(quantized.shape)


def unpacked_codes(quantized: Quantized) -> torch.Tensor:
    """One uint8 code a parameter, flat: the index into the sorted levels."""
    if quantized.fmt == "int8":
        return quantized.codes
    return _unpack(quantized.codes)[: math.prod(quantized.shape)]


def relative_error(weight: torch.Tensor, approximation: torch.Tensor) -> float:
    """||weight - approximation||_F / ||weight||_F, in float64."""
    weight = weight.detach().double()
    return float((weight - approximation.double()).norm() / weight.norm())


def mean_squared_error(weight: torch.Tensor, approximation: torch.Tensor) -> float:
    """Mean of the squared differences, in float64."""
    return float((weight.detach().double() - approximation.double()).square().mean())


def level_usage(quantized: Quantized) -> torch.Tensor:
    """Share of the parameters that use each level, sorted by level; sums to 1."""
    size = 16 if quantized.fmt == "int4-asymmetric" else len(levels(quantized.fmt))
    counts = torch.bincount(unpacked_codes(quantized).long(), minlength=size)
    return counts / counts.sum()


def usage_entropy(quantized: Quantized) -> float:
    """Entropy of `level_usage` in bits: what the codes carry of the bits that they occupy."""
    used = level_usage(quantized).double()
    used = used[used > 0]
    return float(-(used * used.log2()).sum())


def errors(
    weight: torch.Tensor, formats: Iterable[str] = FORMATS, block: int = 64
) -> list[dict[str, object]]:
    """One row a format: relative error, MSE, bits a parameter and entropy of the codes."""
    coded = {fmt: quantize(weight, fmt, block) for fmt in formats}
    return [
        {
            "format": fmt,
            "relative_error": relative_error(weight, dequantize(quantized)),
            "mse": mean_squared_error(weight, dequantize(quantized)),
            "bits": quantized.bits_per_parameter,
            "entropy": usage_entropy(quantized),
        }
        for fmt, quantized in coded.items()
    ]


# --- bitsandbytes models ----------------------------------------------------------------------


def guard_4bit_training(model: torch.nn.Module) -> int:
    """Make a bitsandbytes 4-bit model safe to train on a CPU; returns the number of 4-bit layers.

    Call it right after loading, before any forward pass. Switches the inference repacking off and
    raises RuntimeError if a weight is already repacked, because gradients through it are wrong.
    """
    import bitsandbytes as bnb

    layers = {n: m for n, m in model.named_modules() if isinstance(m, bnb.nn.Linear4bit)}
    for name, layer in layers.items():
        state = getattr(layer.weight, "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise RuntimeError(
                f"{name} is already repacked for inference, its gradients would be wrong: "
                "load the model again and call guard_4bit_training before its first forward pass"
            )
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def unpack_4bit(weight: "Params4bit") -> torch.Tensor:
    """Decode a bitsandbytes 4-bit weight by hand to float32, right for every row length."""
    import bitsandbytes.functional as bnb

    state = weight.quant_state
    if getattr(state, "packing_format_for_cpu", False):
        raise RuntimeError("the weight is repacked for inference: decode it before a forward pass")
    absmax = state.absmax.float()
    if state.nested:
        absmax = bnb.dequantize_blockwise(state.absmax, state.state2).float() + state.offset
    n = math.prod(state.shape)
    codes = _unpack(weight.data.reshape(-1).view(torch.uint8))[:n]
    values = _blocks(state.code.float()[codes.long()], state.blocksize) * absmax.reshape(-1, 1)
    return values.reshape(-1)[:n].reshape(state.shape)


def dequantized_copy(model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A copy whose bitsandbytes 4-bit layers are `nn.Linear` with the decoded weights.

    This is the network that a QLoRA adapter was really fitted to: merge the adapter into this, not
    into the original weights, to get the same function. Take the copy before adding adapters.
    """
    import bitsandbytes as bnb

    copied = copy.deepcopy(model)
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, bnb.nn.Linear4bit):
            parent, _, child = name.rpartition(".")
            setattr(copied.get_submodule(parent), child, _dense(layer, dtype))
    _forget_quantisation(copied)
    return copied.to(dtype)


def _forget_quantisation(model: torch.nn.Module) -> None:
    """Remove the marks by which transformers and PEFT take a model for a quantised one."""
    for owner in (model, getattr(model, "config", None)):
        for mark in ("hf_quantizer", "quantization_method", "quantization_config"):
            if hasattr(owner, mark):
                delattr(owner, mark)
    for mark in ("is_loaded_in_4bit", "is_quantized"):
        if hasattr(model, mark):
            setattr(model, mark, False)


def _dense(layer: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Linear:
    dense = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    dense.weight = torch.nn.Parameter(unpack_4bit(layer.weight).to(dtype), requires_grad=False)
    if layer.bias is not None:
        dense.bias = torch.nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False)
    return dense.train(layer.training)


def _check(weight: torch.Tensor, fmt: str, block: int, double: bool) -> None:
    if fmt not in FORMATS:
        raise ValueError(f"format {fmt!r} is unknown: use one of {', '.join(FORMATS)}")
    if double and fmt == "int4-asymmetric":
        raise ValueError("int4-asymmetric has no double quantisation here: use nf4, fp4 or int4")
    if block < 1 or weight.numel() == 0:
        raise ValueError(f"block={block} and {weight.numel()} values: both must be at least 1")
    if not torch.isfinite(weight).all():
        raise ValueError("the weight has infinite or NaN values: quantise finite weights only")


def _blocks(flat: torch.Tensor, block: int) -> torch.Tensor:
    """(blocks, block) view; a short last block repeats its last value, which moves no extreme."""
    missing = -flat.numel() % block
    if missing:
        flat = torch.cat([flat, flat[-1:].expand(missing)])
    return flat.reshape(-1, block)


def _pack(codes: torch.Tensor) -> torch.Tensor:
    """Two 4-bit codes a byte, the first in the high half (the order of bitsandbytes)."""
    if codes.numel() % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    return (codes[::2] << 4) | codes[1::2]


def _unpack(packed: torch.Tensor) -> torch.Tensor:
    return torch.stack([packed >> 4, packed & 0xF], dim=1).reshape(-1)
