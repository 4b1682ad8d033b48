"""A lean BERT encoder for short messages: the function of Hugging Face's, less its waste.

* tokens lie packed, (T, d): padding never enters a linear layer, only attention sees a grid;
* q, k and v are one product; masters stay float32, products run in ``dtype``;
* embeddings are frozen, and so are the layers below ``first``: their output can be computed once
  (:meth:`LeanEncoder.bottom`) and trained upon for many epochs, exactly, for there is no dropout.

``tests/test_classify.py`` holds it to Hugging Face's forward pass and gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LINEARS = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "out": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
}
NORMS = {"norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"}


@dataclass(frozen=True)
class Packed:
    """T tokens of n messages, the longest of length L, one message after the other.

    ``ids`` and ``positions`` (T,); ``slots`` (T,) places of the tokens in the flattened (n, L)
    grid; ``fill`` (n * L,) the way back, 0 where the grid is empty; ``mask`` (n, 1, 1, L) true on
    tokens; ``rows`` (T,) the message of each token; ``lengths`` (n,).
    """

    ids: Tensor
    positions: Tensor
    rows: Tensor
    slots: Tensor
    fill: Tensor
    mask: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, messages: Sequence[Sequence[int]], device: str = "cpu") -> "Packed":
        """Pack token ids of ``messages``; none may be empty."""
        lengths = torch.tensor([len(ids) for ids in messages])
        if not len(messages) or int(lengths.min()) < 1:
            raise ValueError("pack: need at least one message, each of at least one token")
        n, longest = len(messages), int(lengths.max())
        mask = torch.arange(longest) < lengths[:, None]
        slots = mask.flatten().nonzero().squeeze(1)
        fill = torch.zeros(n * longest, dtype=torch.long)
        fill[slots] = torch.arange(len(slots))
        ids = torch.tensor([token for message in messages for token in message])
        parts = (ids, slots % longest, slots // longest, slots, fill, mask[:, None, None], lengths)
        return cls(*(part.to(device) for part in parts))


class _ToGrid(torch.autograd.Function):
    """(T, d) -> (n * L, d). Empty places repeat token 0; attention's mask hides them, and their
    gradient is zero, so backward is a gather too (index_add is many times slower)."""

    @staticmethod
    def forward(ctx, x, fill, slots):
        ctx.save_for_backward(fill, slots)
        return x[fill]

    @staticmethod
    def backward(ctx, grad):
        return grad[ctx.saved_tensors[1]], None, None


class _FromGrid(torch.autograd.Function):
    """(n * L, d) -> (T, d); backward leaves zeros in the empty places."""

    @staticmethod
    def forward(ctx, x, slots):
        ctx.save_for_backward(slots)
        ctx.places = len(x)
        return x[slots]

    @staticmethod
    def backward(ctx, grad):
        whole = grad.new_zeros(ctx.places, grad.shape[1])
        whole[ctx.saved_tensors[0]] = grad
        return whole, None


class Layer(nn.Module):
    """One transformer block of BERT (post-norm) on packed tokens; float32 master weights."""

    def __init__(self, block: nn.Module, heads: int, eps: float):
        super().__init__()
        self.heads, self.eps = heads, eps
        for name, sources in (LINEARS | {k: (v,) for k, v in NORMS.items()}).items():
            found = [block.get_submodule(source) for source in sources]
            for kind in ("weight", "bias"):
                value = torch.cat([getattr(m, kind).detach().float() for m in found])
                self.register_parameter(f"{name}_{kind}", nn.Parameter(value.clone()))

    def forward(self, x: Tensor, batch: Packed) -> Tensor:
        """Hidden states (T, d) -> (T, d)."""
        x = self._norm("norm1", x + self._linear("out", self._attend(x, batch)))
        return self._norm("norm2", x + self._linear("down", F.gelu(self._linear("up", x))))

    def _attend(self, x: Tensor, batch: Packed) -> Tensor:
        n, longest = batch.mask.shape[0], batch.mask.shape[-1]
        grid = _ToGrid.apply(self._linear("qkv", x), batch.fill, batch.slots)
        q, k, v = grid.view(n, longest, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # torch's fused attention is 10x slower here: bfloat16, a mask and a backward pass on a CPU
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        mixed = scores.masked_fill(~batch.mask, -torch.inf).softmax(-1) @ v
        return _FromGrid.apply(mixed.transpose(1, 2).reshape(n * longest, -1), batch.slots)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), bias.to(x.dtype), self.eps)


class LeanEncoder(nn.Module):
    """Token ids -> mean-pooled sentence vectors, with the weights of a Hugging Face ``BertModel``.

    Layers from ``first`` on have gradients (``first = 6`` of MiniLM: none); the weights are copied,
    the source model is never changed. Embeddings are shared with it.
    """

    def __init__(self, bert: nn.Module, first: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        config, blocks = bert.config, bert.encoder.layer
        if config.model_type != "bert" or config.hidden_act != "gelu":
            raise ValueError(
                f"LeanEncoder reads BERT models with GELU, got {config.model_type} with "
                f"{config.hidden_act}: use the Hugging Face model itself"
            )
        if not 0 <= first <= len(blocks):
            raise ValueError(f"first={first}: this encoder has {len(blocks)} layers, choose 0..")
        self.first, self.dtype, self.embeddings = first, dtype, bert.embeddings
        self.width = config.hidden_size
        eps = config.layer_norm_eps
        self.layers = nn.ModuleList(Layer(b, config.num_attention_heads, eps) for b in blocks)
        self.embeddings.requires_grad_(False)
        self.layers[:first].requires_grad_(False)

    def embed(self, batch: Packed) -> Tensor:
        """Input of layer 0, (T, d)."""
        table = self.embeddings
        x = table.word_embeddings.weight[batch.ids] + table.token_type_embeddings.weight[0]
        return table.LayerNorm(x + table.position_embeddings.weight[batch.positions]).to(self.dtype)

    @torch.no_grad()
    def bottom(self, batch: Packed) -> Tensor:
        """Hidden states (T, d) below the first trained layer."""
        return self.hidden(batch, stop=self.first)

    def hidden(self, batch: Packed, x: Tensor | None = None, stop: int | None = None) -> Tensor:
        """Hidden states (T, d) after layer ``stop`` - 1 (default: last); ``x`` is a cached bottom."""
        start = 0 if x is None else self.first
        x = self.embed(batch) if x is None else x
        for layer in self.layers[start:stop]:
            x = layer(x, batch)
        return x

    def forward(self, batch: Packed, x: Tensor | None = None) -> Tensor:
        """Mean over the tokens of each message, (n, d) float32."""
        return pool(self.hidden(batch, x), batch)

    def write_to(self, bert: nn.Module) -> nn.Module:
        """Copy the weights into a Hugging Face ``BertModel`` of the same shape; returns it."""
        for layer, block in zip(self.layers, bert.encoder.layer, strict=True):
            for name, sources in (LINEARS | {k: (v,) for k, v in NORMS.items()}).items():
                for kind in ("weight", "bias"):
                    parts = getattr(layer, f"{name}_{kind}").detach().chunk(len(sources))
                    for source, part in zip(sources, parts, strict=True):
                        getattr(block.get_submodule(source), kind).data.copy_(part)
        return bert

    def matrices(self) -> dict[str, Tensor]:
        """Weight matrices by Hugging Face's names (``encoder.layer.0...``), q, k and v apart."""
        found = {}
        for index, layer in enumerate(self.layers):
            for name, sources in LINEARS.items():
                parts = getattr(layer, f"{name}_weight").detach().chunk(len(sources))
                names = (f"encoder.layer.{index}.{source}" for source in sources)
                found |= dict(zip(names, parts, strict=True))
        return found

    @torch.no_grad()
    def set_matrices(self, matrices: dict[str, Tensor]) -> None:
        """Overwrite the weights that :meth:`matrices` names."""
        for name, part in self.matrices().items():
            part.copy_(matrices[name])


def pool(x: Tensor, batch: Packed) -> Tensor:
    """Mean of packed states (T, d) over each message, (n, d) float32: MiniLM's sentence vector."""
    sums = x.new_zeros(len(batch.lengths), x.shape[1], dtype=torch.float32)
    return sums.index_add(0, batch.rows, x.float()) / batch.lengths[:, None]
