"""Products with frozen matrices, laid out for the processor once.

oneDNN brings a bfloat16 matrix into the order that its kernel reads, at every product anew. Behind a
few hundred rows, the size of our batches, that takes a third to half of the time, and a frozen matrix
needs it only once. The kernel stays the same; with several threads it may cut its sums elsewhere, so
results agree up to rounding (``tests/test_frozen.py``). ``benchmarks/frozen_products.py`` has ratios.
"""

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 640  # beyond, the layout hardly counts
SHAPE = 128  # rows that the layout is made for; others read it as well
CHUNK = 128  # labels whose logits exist at a time, 25 MB


class Frozen:
    """A frozen ``weight`` W (out, in); :meth:`times` is x W^T of x (rows, in)."""

    def __init__(self, weight: Tensor):
        self.weight = weight

    @cached_property
    def laid(self) -> Tensor | None:
        """W in the kernel's order, from the first product that gains by it."""
        return lay_out(self.weight)

    def times(self, x: Tensor) -> Tensor:
        """x W^T; differentiable only by a caller's own backward (``llama_ops``)."""
        if not 0 < len(x) <= ROWS or self.laid is None:
            return x @ self.weight.T
        return torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.laid, None, "none", [], "")


class Unpacked:
    """A frozen matrix that ``unpack()`` makes anew for each product, never kept: 4-bit weights."""

    def __init__(self, unpack: Callable[[], Tensor]):
        self.unpack = unpack

    @property
    def weight(self) -> Tensor:
        """W (out, in)."""
        return self.unpack()

    def times(self, x: Tensor) -> Tensor:
        """x W^T."""
        return x @ self.weight.T


class LabelNLL(torch.autograd.Function):
    """-log softmax(h W^T)[target] of states h (C, d), float32 (C,), :data:`CHUNK` labels at a time.

    ``words`` holds W.

    The gradient of each label's own loss is taken on the way forward, where its logits exist; the
    way back scales it. W does not train.
    """

    @staticmethod
    def forward(ctx, h, words, targets):
        nll = h.new_empty(len(h), dtype=torch.float32)
        gradient = torch.empty_like(h) if ctx.needs_input_grad[0] else None
        for start in range(0, len(h), CHUNK):
            rows = slice(start, start + CHUNK)
            logp = F.log_softmax(words.times(h[rows]), -1, dtype=torch.float32)
            places = targets[rows, None]
            nll[rows] = -logp.gather(1, places).squeeze(1)
            if gradient is not None:
                p = logp.exp_()
                p.scatter_add_(1, places, -torch.ones_like(places, dtype=p.dtype))
                gradient[rows] = p.to(h.dtype) @ words.weight
        ctx.save_for_backward(gradient)
        return nll

    @staticmethod
    def backward(ctx, dnll):
        (gradient,) = ctx.saved_tensors
        return (dnll[:, None] * gradient).to(gradient.dtype), None, None


def lay_out(weight: Tensor) -> Tensor | None:
    """``weight`` in the kernel's order; None where products do without (float32, GPUs, no oneDNN)."""
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
        return None
    ops = torch.ops.mkldnn
    if not hasattr(ops, "_reorder_linear_weight") or not ops._is_mkldnn_bf16_supported():
        return None
    return ops._reorder_linear_weight(weight.detach().contiguous(), SHAPE)
