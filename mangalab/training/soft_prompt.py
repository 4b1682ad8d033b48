"""The lean engine with something in front of the text or inside the layers: soft tokens, given keys
and values, edited activations. It computes what PEFT computes (``tests/test_peft_ladder.py``)."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .llama import Batch, LeanLlama, pack
from .llama_ops import Attention, Grid, SwiGLU
from .sft import Example


@dataclass(frozen=True)
class Change:
    """What a rung does to the forward pass.

    ``soft()`` gives embeddings (m, d) before the text, ``prefix()`` keys and values (kv, m, d_head)
    of every layer, ``edits[place](layer, x)`` replaces an activation; ``length`` is m.
    Places: "qkv", "o", "up" (joint gate and up), "mid" (input of down_proj), "down".
    """

    length: int = 0
    soft: Callable[[], Tensor] | None = None
    prefix: Callable[[], Sequence[tuple[Tensor, Tensor]]] | None = None
    edits: Mapping[str, Callable[[int, Tensor], Tensor]] = field(default_factory=dict)


class EditedLlama(LeanLlama):
    """The lean engine over a frozen base with one :class:`Change`; frozen products are shared."""

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.bfloat16):
        model.requires_grad_(False)
        super().__init__(model, dtype, training=False)
        for i in range(len(self.layers)):
            self._products(i)
        self.change = Change()

    def under(self, change: Change) -> "EditedLlama":
        """The same frozen weights under another change."""
        other = copy.copy(self)
        other.change = change
        return other

    def pack(self, examples: Sequence[Example]) -> Batch:
        """Examples as a batch, with room for soft tokens before each."""
        m = self.change.length if self.change.soft else 0
        return pack([([0] * m + e.ids, m + e.prompt) for e in examples], self.head.device)

    def hidden(self, batch: Batch, bottom: Tensor | None = None) -> Tensor:
        """Final normalised hidden states (T, d) of real and soft tokens."""
        change, grid = self.change, self._grid(batch)
        x = F.embedding(batch.ids, self.core.embed_tokens.weight).to(self.dtype)
        if change.soft:
            rows = (batch.slots % batch.shape[1] < change.length).nonzero().squeeze(1)
            x = x.index_copy(0, rows, change.soft().to(self.dtype).repeat(batch.shape[0], 1))
        prefix = change.prefix() if change.prefix else [None] * len(self.layers)
        for i, pair in enumerate(prefix):
            x = self._layer(i, x, grid, pair)
        return self._norm(x, self.core.norm)

    def _layer(self, i: int, x: Tensor, grid: Grid, pair: tuple[Tensor, Tensor] | None) -> Tensor:
        layer, product = self.layers[i], self._products(i)
        edit = lambda place, h: self.change.edits[place](i, h) if place in self.change.edits else h  # noqa: E731
        qkv = edit("qkv", product["qkv"](self._norm(x, layer.input_layernorm)))
        mixed = attend(qkv, grid, *pair) if pair else Attention.apply(qkv, grid)
        x = x + edit("o", product["o"](mixed))
        h = edit("up", product["up"](self._norm(x, layer.post_attention_layernorm)))
        return x + edit("down", product["down"](edit("mid", SwiGLU.apply(h))))

    def _grid(self, batch: Batch) -> Grid:
        grid = super()._grid(batch)
        if not self.change.prefix:
            return grid
        positions = (batch.slots % batch.shape[1] + self.change.length).unsqueeze(0)
        cos, sin = self.core.rotary_emb(self.head[:1], positions)
        cos, sin = (t[0, :, None, : t.shape[-1] // 2] for t in (cos, sin))
        return replace(grid, cos=cos, sin=sin)


def attend(qkv: Tensor, grid: Grid, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of packed ``qkv`` in which every query also sees ``key`` and ``value``
    (kv, m, d_head), ready turned; they have no query and pass no other part of the layer."""
    (n, length), (heads, kv, d) = grid.shape, grid.heads
    joint = qkv.view(-1, heads + 2 * kv, d)
    a, b = joint[:, : heads + kv].chunk(2, -1)
    turned = torch.cat([a * grid.cos - b * grid.sin, b * grid.cos + a * grid.sin], -1).to(qkv.dtype)
    joint = grid.spread(torch.cat([turned, joint[:, heads + kv :]], 1)).transpose(1, 2)
    q, k, v = joint.split([heads, kv, kv], 1)
    before = lambda own, given: torch.cat([given.to(own.dtype).expand(n, -1, -1, -1), own], 2)  # noqa: E731
    k, v = before(k, key), before(v, value)
    scores = (q.reshape(n, kv, -1, d) @ k.transpose(2, 3)).float() * d**-0.5
    seen = F.pad(grid.future, (key.shape[1], 0))
    weights = (scores.view(n, kv, -1, length, k.shape[2]) + seen).softmax(-1).to(qkv.dtype)
    mixed = (weights.view(n, kv, -1, k.shape[2]) @ v).view(n, heads, length, d).transpose(1, 2)
    return mixed.reshape(n * length, heads * d).index_select(0, grid.slots)


@torch.no_grad()
def context(model: nn.Module, ids: Sequence[int]) -> Change:
    """Plain text before every example as the keys and values that ``model`` computes for it."""
    device = next(model.parameters()).device
    cache = model(torch.tensor([list(ids)], device=device), use_cache=True).past_key_values
    pairs = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
    return Change(len(ids), prefix=lambda: pairs)
