"""Uniform integer grids, rounding with a straight-through gradient, and an encoder that runs on them.

A grid of b bits keeps x as integers: q = clamp(round(x / scale) + zero_point), x' = scale (q -
zero_point) (Jacob et al. 2018, equation 1). The zero point is an integer, so that 0.0 stays 0.0.
``tests/test_fakequant.py`` holds it to torch's own fake-quantise functions and to integer products.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .classify import Classifier, ClassifyConfig, Trained, _batches, _optimizer
from .encoder import Layer, LeanEncoder, Packed

M = TypeVar("M", Classifier, LeanEncoder)


@dataclass(frozen=True)
class Grid:
    """Integers ``low`` .. ``high`` with a ``scale`` and an integer ``zero_point``, broadcast to x."""

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int

    def codes(self, x: Tensor) -> Tensor:
        """Integers as floats, same shape as ``x``."""
        return (x / self.scale + self.zero_point).round().clamp(self.low, self.high)

    def values(self, x: Tensor) -> Tensor:
        """``x`` rounded to the grid."""
        return self.scale * (self.codes(x) - self.zero_point)


@dataclass(frozen=True)
class Spec:
    """How a tensor is cut into grids.

    ``per`` is "tensor", "channel" (one grid for each row) or "group" (``group`` consecutive values
    of a row). Symmetric grids are signed, lack the lowest integer and have zero point 0.
    """

    bits: int = 8
    per: str = "channel"
    symmetric: bool = True
    group: int = 64

    def __post_init__(self):
        if not 2 <= self.bits <= 16 or self.per not in ("tensor", "channel", "group"):
            raise ValueError(f"{self}: need 2 to 16 bits, per tensor, channel or group")

    def grid(self, low: Tensor, high: Tensor) -> Grid:
        """The grid that just holds [low, high] and zero; both broadcast to the data."""
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
        if self.symmetric:
            top = 2 ** (self.bits - 1) - 1
            scale = torch.maximum(-low, high).clamp(min=1e-12) / top
            return Grid(scale, torch.zeros_like(scale), -top, top)
        top = 2**self.bits - 1
        scale = (high - low).clamp(min=1e-12) / top
        return Grid(scale, (-low / scale).round().clamp(0, top), 0, top)

    def fit(self, x: Tensor) -> Grid:
        """Grid of the extremes of ``x`` (rows, columns), for data of the shape :meth:`cut` gives."""
        cut = self.cut(x)
        axes = {"tensor": (0, 1), "channel": (1,), "group": (2,)}[self.per]
        return self.grid(cut.amin(axes, keepdim=True), cut.amax(axes, keepdim=True))

    def cut(self, x: Tensor) -> Tensor:
        """(rows, columns), for groups (rows, columns / group, group)."""
        if self.per != "group":
            return x
        if x.shape[-1] % self.group:
            raise ValueError(
                f"rows of {x.shape[-1]} are no multiple of group {self.group}: choose a divisor")
        return x.view(len(x), -1, self.group)


class _Straight(torch.autograd.Function):
    """Forward: round to the grid. Backward: identity inside the range, zero where it clipped."""

    @staticmethod
    def forward(ctx, x, grid):
        codes = x / grid.scale + grid.zero_point
        ctx.save_for_backward((codes >= grid.low - 0.5) & (codes <= grid.high + 0.5))
        return grid.scale * (codes.round().clamp(grid.low, grid.high) - grid.zero_point)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None


def fake_quantize(x: Tensor, spec: Spec | None, grid: Grid | None = None) -> Tensor:
    """``x`` (rows, columns) rounded to its grid, with the straight-through gradient (Bengio 2013).

    ``grid`` fixes the range (static); without it the range is that of ``x`` (dynamic).
    """
    if spec is None:
        return x
    data = x.float()
    with torch.no_grad():
        grid = grid or spec.fit(data)
    return _Straight.apply(spec.cut(data), grid).view_as(x)


@dataclass(frozen=True)
class Scheme:
    """What is rounded in every linear of the encoder: weights, inputs, and what is left alone.

    ``ranges`` holds input ranges (low, high) by "layer.linear", from :func:`observe`; inputs without
    one get their range from each batch. ``skip`` names linears or whole layers ("5",
    "5.down") that stay in full precision.
    """

    weight: Spec | None = field(default_factory=Spec)
    activation: Spec | None = None
    ranges: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    skip: Sequence[str] = ()


class QuantLayer(Layer):
    """A transformer layer whose linears see rounded weights and rounded inputs."""

    scheme: Scheme
    index: int
    seen: dict | None = None

    def _linear(self, name: str, x: Tensor) -> Tensor:
        key, s = f"{self.index}.{name}", self.scheme
        if self.seen is not None:
            low, high = self.seen.get(key, (x[0].float(), x[0].float()))
            self.seen[key] = (torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0)))
        if key in s.skip or str(self.index) in s.skip:
            return super()._linear(name, x)
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        held = s.ranges.get(key)
        grid = s.activation.grid(held[0].min(), held[1].max()) if held and s.activation else None
        x = fake_quantize(x, s.activation, grid).to(x.dtype)
        return F.linear(x, fake_quantize(weight, s.weight).to(x.dtype), bias.to(x.dtype))


def quantized(
    model: M, scheme: Scheme, dtype: torch.dtype | None = None
) -> M:
    """A copy of ``model`` that computes under ``scheme``; its masters are the model's weights.

    Embeddings, norms and head stay as they are, as in torch's dynamic quantisation. The copy can be
    trained further: that is quantisation-aware training.
    """
    table = getattr(model, "encoder", model).embeddings  # never trained: all copies share it
    found = copy.deepcopy(model, {id(table): table})
    encoder = getattr(found, "encoder", found)
    encoder.dtype = dtype or encoder.dtype
    for index, layer in enumerate(encoder.layers):
        layer.__class__ = QuantLayer  # same weights, another rule for linears
        layer.scheme, layer.index = scheme, index
    return found


@torch.no_grad()
def observe(model: Classifier, messages: Sequence[Sequence[int]], size: int = 64) -> dict:
    """Ranges (low, high), each (in,), of the inputs of every linear over ``messages``."""
    watched, seen = quantized(model, Scheme(weight=None)), {}
    for layer in watched.encoder.layers:
        layer.seen = seen
    for start in range(0, len(messages), size):
        watched(Packed.of(messages[start : start + size], model.head.weight.device.type))
    return seen


def train_on(
    model: Classifier, messages: Sequence[Sequence[int]], targets: Tensor, config: ClassifyConfig
) -> Trained:
    """Train ``model`` in place under its own rounding: the loop of :func:`classify.train`.

    ``targets`` are labels (n,). All layers train; the same seed gives the same weights.
    """
    started = time.perf_counter()
    plan = [order for e in range(config.epochs) for order in _batches(messages, config, e)]
    optimizer, schedule = _optimizer(model, config, len(plan))
    losses = []
    for order in plan:
        batch = Packed.of([messages[i] for i in order], model.head.weight.device.type)
        value = F.cross_entropy(model(batch), targets[order].to(batch.ids.device))
        value.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(value.item())
    return Trained(model.eval(), losses, time.perf_counter() - started)
