"""The lean engine with something in front of the text or inside the layers: soft tokens, given keys
and values, edited activations. It computes what PEFT computes (``tests/test_peft_ladder.py``)."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .llama_ops import SwiGLU
from .sft import Example
from .trunk import TrunkBatch, TrunkLlama, pack, plain


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


class EditedLlama(TrunkLlama):
    """The lean engine over a frozen base with one :class:`Change`; frozen products are shared.

    Soft tokens are the same before every example: they belong to the tokens that a batch shares.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.bfloat16):
        model.requires_grad_(False)
        super().__init__(model, dtype, training=False)
        self.build(range(len(self.layers)))
        self.change, _ = Change(), self.words  # here once, for all that share this engine

    def under(self, change: Change) -> "EditedLlama":
        """The same frozen weights under another change."""
        other = copy.copy(self)
        other.change = change
        return other

    def pack(self, examples: Sequence[Example]) -> TrunkBatch:
        """Examples as a batch, with room for soft tokens or given keys before each."""
        change = self.change
        m = change.length if change.soft else 0
        rows = [plain(Example([0] * m + e.ids, m + e.prompt)) for e in examples]
        batch = pack(rows, self.dtype, self.head.device)
        if not change.prefix:
            return batch
        return replace(batch, positions=batch.positions + change.length,
                       mask=F.pad(batch.mask, (change.length, 0)))

    def hidden(self, batch: TrunkBatch, bottom: Tensor | None = None) -> Tensor:
        """Final normalised hidden states (K, d) of the places that predict something."""
        change, turn = self.change, self._turn(batch)
        x = F.embedding(batch.ids, self.core.embed_tokens.weight).to(self.dtype)
        if change.soft:
            x = torch.cat([change.soft().to(self.dtype), x[change.length :]])
        pairs = change.prefix() if change.prefix else [None] * len(self.layers)
        for i, pair in enumerate(pairs):
            x = self._layer(i, x, batch, turn, pair)
        return self._norm(x, self.core.norm)

    def _layer(
        self, i: int, x: Tensor, batch: TrunkBatch, turn: tuple[Tensor, Tensor],
        pair: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        layer, product = self.layers[i], self._products(i)
        edit = lambda place, h: self.change.edits[place](i, h) if place in self.change.edits else h  # noqa: E731
        qkv = edit("qkv", product["qkv"](self._norm(x, layer.input_layernorm)))
        mixed = self._attend(qkv, batch, turn, pair)
        if i == len(self.layers) - 1:
            x, mixed = x.index_select(0, batch.kept), mixed.index_select(0, batch.kept)
        x = x + edit("o", product["o"](mixed))
        h = edit("up", product["up"](self._norm(x, layer.post_attention_layernorm)))
        return x + edit("down", product["down"](edit("mid", SwiGLU.apply(h))))


@torch.no_grad()
def context(model: nn.Module, ids: Sequence[int]) -> Change:
    """Plain text before every example as the keys and values that ``model`` computes for it."""
    device = next(model.parameters()).device
    cache = model(torch.tensor([list(ids)], device=device), use_cache=True).past_key_values
    pairs = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
    return Change(len(ids), prefix=lambda: pairs)
