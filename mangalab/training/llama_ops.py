"""The differentiable pieces of the lean Llama forward pass, each with its backward written out.

Inputs and outputs have the dtype of the products (bfloat16 or float32); what needs range or
precision, the sums of norms and softmax and the gradients of adapters, is float32 inside.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class LoRAProduct(torch.autograd.Function):
    """y = x W^T + s_i (x A_i^T) B_i^T for linears i that share their input x (T, d_in).

    ``frozen`` holds W (sum of d_out, d_in) and is asked for it again in backward, so that a 4-bit W
    is never kept unpacked. A stacks the A_i, (sum of r_i, d_in); each B_i is (d_out_i, r_i);
    ``parts`` holds (output slice, rank slice, s_i).
    """

    @staticmethod
    def forward(ctx, x, frozen, parts, A, *Bs):
        y = frozen.times(x)
        A, S = A.to(x.dtype), x.new_zeros(len(A), y.shape[1])  # S: the s_i B_i^T as diagonal blocks
        for (out, rank, scale), B in zip(parts, Bs, strict=True):
            S[rank, out] = (scale * B).T
        z = x @ A.T
        ctx.frozen, ctx.parts = frozen, parts
        ctx.save_for_backward(x, z, A, S)
        return y.addmm_(z, S)

    @staticmethod
    def backward(ctx, dy):
        x, z, A, S = ctx.saved_tensors
        dz, dS = dy @ S.T, z.T @ dy
        dBs = [scale * dS[rank, out].T.float() for out, rank, scale in ctx.parts]
        dx = (dy @ ctx.frozen.weight).addmm_(dz, A) if ctx.needs_input_grad[0] else None
        return dx, None, None, (dz.T @ x).float(), *dBs


class FrozenProduct(torch.autograd.Function):
    """y = x W^T with the W of ``frozen``; keeps nothing for backward."""

    @staticmethod
    def forward(ctx, x, frozen):
        ctx.frozen = frozen
        return frozen.times(x)

    @staticmethod
    def backward(ctx, dy):
        return dy @ ctx.frozen.weight, None


class SwiGLU(torch.autograd.Function):
    """silu(gate) * up of a joint (T, 2 d_ff) product; backward recomputes instead of keeping."""

    @staticmethod
    def forward(ctx, h):
        gate, up = h.chunk(2, -1)
        ctx.save_for_backward(h)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, dy):
        (h,) = ctx.saved_tensors
        gate, up = h.chunk(2, -1)
        dh = torch.empty_like(h)
        dgate, dup = dh.chunk(2, -1)
        torch.mul(dy, F.silu(gate), out=dup)
        torch.ops.aten.silu_backward.grad_input(dy * up, gate, grad_input=dgate)
        return dh


class RMSNorm(torch.autograd.Function):
    """x / rms(x) * w in float32 inside, ``x.dtype`` outside; backward recomputes."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        y = x.to(torch.float32, copy=True)  # two dtypes in one operation take twice as long
        size = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        inverse = (size.square() / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, weight, inverse)
        return y.mul_(inverse).mul_(weight.float()).to(x.dtype)

    @staticmethod
    def backward(ctx, dy):
        x, weight, inverse = ctx.saved_tensors
        unit, g = (t.to(torch.float32, copy=True) for t in (x, dy))
        unit.mul_(inverse), g.mul_(weight.float())
        share = (g * unit).mean(-1, keepdim=True)
        return g.addcmul_(unit, share, value=-1).mul_(inverse).to(dy.dtype), None, None


@dataclass(frozen=True)
class Grid:
    """Where packed tokens lie in the (n, L) grid, what they must not see, how heads are turned."""

    slots: Tensor
    shape: tuple[int, int]
    future: Tensor
    cos: Tensor
    sin: Tensor
    heads: tuple[int, int, int]

    def spread(self, x: Tensor) -> Tensor:
        """Packed (T, ...) to (n, L, ...), zero where no token is."""
        n, length = self.shape
        grid = x.new_zeros(n * length, *x.shape[1:]).index_copy_(0, self.slots, x)
        return grid.view(n, length, *x.shape[1:])

    def turn(self, x: Tensor, way: int) -> Tensor:
        """Rotary embedding of (T, h, d) in place; ``way`` -1 turns back."""
        a, b = x.chunk(2, -1)
        old = a.clone()
        a.mul_(self.cos).addcmul_(b, self.sin, value=-way)
        b.mul_(self.cos).addcmul_(old, self.sin, value=way)
        return x


class Attention(torch.autograd.Function):
    """Causal attention of packed q, k, v (T, (heads + 2 kv) d); the softmax sums in float32 inside.

    The query heads of one key head stand under each other, (n kv, group L, d): no key is repeated.
    """

    @staticmethod
    def forward(ctx, qkv, grid):
        (n, length), (heads, kv, d) = grid.shape, grid.heads
        joint = qkv.clone().view(-1, heads + 2 * kv, d)
        grid.turn(joint[:, : heads + kv], 1)
        q, k, v = grid.spread(joint).transpose(1, 2).split([heads, kv, kv], 1)
        q = (q * d**-0.5).reshape(n * kv, -1, d)
        k, v = k.reshape(n * kv, length, d), v.reshape(n * kv, length, d)
        scores = (q @ k.transpose(1, 2)).view(n * kv, -1, length, length)
        weights = scores.add_(grid.future).softmax(-1).view(n * kv, -1, length)
        ctx.grid = grid
        ctx.save_for_backward(q, k, v, weights)
        mixed = (weights @ v).view(n, heads, length, d).transpose(1, 2)
        return mixed.reshape(n * length, heads * d).index_select(0, grid.slots)

    @staticmethod
    def backward(ctx, dy):
        q, k, v, weights = ctx.saved_tensors
        (n, length), (heads, kv, d) = ctx.grid.shape, ctx.grid.heads
        dy = ctx.grid.spread(dy.view(-1, heads, d)).transpose(1, 2).reshape(n * kv, -1, d)
        dweights = dy @ v.transpose(1, 2)
        dscores = torch.ops.aten._softmax_backward_data(dweights, weights, -1, weights.dtype)
        dq, dk = (dscores @ k).mul_(d**-0.5), dscores.transpose(1, 2) @ q
        dv = weights.transpose(1, 2) @ dy
        parts = [g.view(n, -1, length, d) for g in (dq, dk, dv)]
        joint = torch.cat(parts, 1).transpose(1, 2).reshape(n * length, -1, d)
        joint = joint.index_select(0, ctx.grid.slots)
        ctx.grid.turn(joint[:, : heads + kv], -1)
        return joint.view(len(joint), -1), None
