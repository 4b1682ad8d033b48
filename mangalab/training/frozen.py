"""Products with frozen matrices, laid out for the processor once.

oneDNN brings a bfloat16 matrix into the order that its kernel reads, at every product anew. Behind a
few hundred rows, the size of our batches, that takes a third to half of the time, and a frozen matrix
needs it only once. The kernel stays the same; with several threads it may cut its sums elsewhere, so
results agree up to rounding (``tests/test_frozen.py``). ``benchmarks/frozen_products.py`` has ratios.
"""

from collections.abc import Callable

import torch
from torch import Tensor

ROWS = 640  # beyond, the layout hardly counts
SHAPE = 128  # rows that the layout is made for; others read it as well


class Frozen:
    """A frozen ``weight`` W (out, in); :meth:`times` is x W^T of x (rows, in)."""

    def __init__(self, weight: Tensor):
        self.weight, self.laid = weight, lay_out(weight)

    def times(self, x: Tensor) -> Tensor:
        """x W^T; differentiable only by a caller's own backward (``llama_ops``)."""
        if self.laid is None or not 0 < len(x) <= ROWS:
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


def lay_out(weight: Tensor) -> Tensor | None:
    """``weight`` in the kernel's order; None where products do without (float32, GPUs, no oneDNN)."""
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
        return None
    ops = torch.ops.mkldnn
    if not hasattr(ops, "_reorder_linear_weight") or not ops._is_mkldnn_bf16_supported():
        return None
    return ops._reorder_linear_weight(weight.detach().contiguous(), SHAPE)
