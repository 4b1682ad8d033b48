"""The lean engine for rows that start alike, and a training loop on it.

All prompts of chapter 14 open with the same task line. Its tokens see only each other, so their
states are the same in every row: here they are computed once for a batch. The last layer feeds
nothing but logits, so there only the places that predict a label go on. Both change the work, not
the function; gradients of the shared tokens are the sums over the rows that look at them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .llama import Batch, LeanLlama
from .llama_ops import FrozenProduct, SwiGLU
from .sft import Example, History, Prepared, SFTConfig, _epochs, learning_rate


@dataclass(frozen=True)
class Layout:
    """What a row holds: ids, the place of each token, who may be seen (t, t), which places predict."""

    ids: Sequence[int]
    prompt: int
    positions: Sequence[int]
    sources: Sequence[int]
    sees: Tensor


@dataclass(frozen=True)
class TrunkBatch(Batch):
    """A batch whose rows share their first ``trunk`` tokens.

    The packed tokens are the trunk, then what is left of each row; ``shape`` is the grid of the
    latter. ``positions`` (T,) are the tokens' places, ``mask`` (n, 1, L, trunk + L) is 0 or -inf,
    ``kept`` (K,) the packed places that predict something; ``sources`` (C,) index these.
    """

    trunk: int
    positions: Tensor
    mask: Tensor
    kept: Tensor


def plain(example: Example) -> Layout:
    """A causal row whose completion is to be predicted."""
    n = len(example.ids)
    return Layout(example.ids, example.prompt, range(n), range(example.prompt - 1, n - 1),
                  torch.ones(n, n, dtype=torch.bool).tril())


def trunk_length(rows: Sequence[Layout]) -> int:
    """How many first tokens all rows share, fewer than any prompt has."""
    columns = zip(*(row.ids for row in rows), strict=False)
    same = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, columns))
    return min(same, *(row.prompt - 1 for row in rows))


def pack(rows: Sequence[Layout], dtype: torch.dtype, device: str = "cpu") -> TrunkBatch:
    """Pack rows behind the tokens that they share; all tokens after a prompt are labels."""
    trunk, first = trunk_length(rows), rows[0]
    length = max(len(row.ids) for row in rows) - trunk
    mask = torch.full((len(rows), 1, length, trunk + length), -torch.inf, dtype=dtype)
    ids, positions, slots = list(first.ids[:trunk]), list(first.positions[:trunk]), []
    sources, targets = [], []
    for i, row in enumerate(rows):
        n, start = len(row.ids) - trunk, len(ids) - trunk
        mask[i, 0, :n, : trunk + n][row.sees[trunk:]] = 0.0
        mask[i, 0, n:, 0] = 0.0  # pads attend to something, so that no softmax is empty
        slots += range(i * length, i * length + n)
        sources += [start + place for place in row.sources]
        targets += row.ids[row.prompt :]
        ids += row.ids[trunk:]
        positions += row.positions[trunk:]
    tensor = lambda values: torch.tensor(values, device=device)  # noqa: E731
    kept, where = tensor(sources).unique(return_inverse=True)
    return TrunkBatch(tensor(ids), tensor(slots), (len(rows), length), where, tensor(targets),
                      trunk, tensor(positions), mask.to(device), kept)


class TrunkLlama(LeanLlama):
    """The lean engine on :class:`TrunkBatch`; :meth:`hidden` gives the kept places only, (K, d)."""

    def hidden(self, batch: TrunkBatch, bottom: Tensor | None = None) -> Tensor:
        """Final normalised hidden states (K, d) of the places that predict something."""
        x = self.bottom(batch) if bottom is None else bottom.to(self.dtype)
        x = self._run(x, batch, range(self.first, len(self.layers)), batch.kept)
        return self._norm(x, self.core.norm)

    def logits(self, batch: TrunkBatch, bottom: Tensor | None = None) -> Tensor:
        """Logits (C, vocabulary) at the places that predict labels, float32."""
        logits = FrozenProduct.apply(self.hidden(batch, bottom), self.words)
        return logits.float().index_select(0, batch.sources)

    def build(self, layers: range) -> None:
        """Join the weights of ``layers`` now, before passes through them run side by side."""
        for i in layers:
            self._products(i)

    def between(self, x: Tensor, batch: TrunkBatch, first: int, to: int) -> Tensor:
        """States (T, d) that enter layer ``to``, from those that enter layer ``first``."""
        with torch.no_grad():
            return self._run(x.to(self.dtype), batch, range(first, to))

    def _run(self, x: Tensor, batch: TrunkBatch, layers: range, kept: Tensor | None = None) -> Tensor:
        turn = self._turn(batch)
        for i in layers:
            layer, product = self.layers[i], self._products(i)
            qkv = product["qkv"](self._norm(x, layer.input_layernorm))
            mixed = self._attend(qkv, batch, turn)
            if kept is not None and i == layers[-1]:
                x, mixed = x.index_select(0, kept), mixed.index_select(0, kept)
            x = x + product["o"](mixed)
            h = product["up"](self._norm(x, layer.post_attention_layernorm))
            x = x + product["down"](SwiGLU.apply(h))
        return x if layers or kept is None else x.index_select(0, kept)

    def _turn(self, batch: TrunkBatch) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, 1, d/2) of the tokens' places."""
        cos, sin = self.core.rotary_emb(self.head[:1], batch.positions.unsqueeze(0))
        return tuple(t[0, :, None, : t.shape[-1] // 2].to(self.dtype) for t in (cos, sin))

    def _attend(
        self, qkv: Tensor, batch: TrunkBatch, turn: tuple[Tensor, Tensor],
        given: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attention output (T, heads d): the trunk on itself, each row on the trunk and itself.

        ``given`` keys and values (kv, m, d), ready turned, are seen by all; the mask has room for them.
        """
        c, (n, length), t = self.config, batch.shape, batch.trunk
        heads, kv, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        joint = Rotary.apply(qkv.view(len(qkv), -1, d), *turn, heads + kv)
        first, rest = joint.split([t, len(joint) - t])
        grid = joint.new_zeros(n * length, heads + 2 * kv, d).index_copy(0, batch.slots, rest)
        q, k, v = grid.view(n, length, -1, d).transpose(1, 2).split([heads, kv, kv], 1)
        tq, tk, tv = first.transpose(0, 1).unsqueeze(0).split([heads, kv, kv], 1)
        if given:
            tk, tv = (torch.cat([g[None].to(own.dtype), own], 2)
                      for g, own in zip(given, (tk, tv), strict=True))
        k, v = (torch.cat([a.expand(n, -1, -1, -1), b], 2) for a, b in ((tk, k), (tv, v)))
        mixed = Attention.apply(q, k, v, batch.mask).transpose(1, 2)
        mixed = mixed.reshape(n * length, heads * d).index_select(0, batch.slots)
        if not t:
            return mixed
        own = Attention.apply(tq, tk, tv, F.pad(_future(t, mixed), (tk.shape[2] - t, 0)))
        return torch.cat([own[0].transpose(0, 1).reshape(t, heads * d), mixed])


class Attention(torch.autograd.Function):
    """Attention of q (n, heads, L, d) on k, v (n, kv, T, d) under a mask (n or 1, 1, L, T): 0, -inf.

    All in the inputs' dtype; the softmax sums in float32 inside. The query heads of one key head
    stand under each other: no key is repeated. torch's fused kernel takes several times as long here
    (a mask, bfloat16 and a backward pass on a CPU: ``benchmarks/shared_attention.py``).
    """

    @staticmethod
    def forward(ctx, q, k, v, mask):
        (n, heads, length, d), (kv, keys) = q.shape, k.shape[1:3]
        q = (q * d**-0.5).reshape(n * kv, -1, d)
        k, v = k.reshape(n * kv, keys, d), v.reshape(n * kv, keys, d)
        scores = (q @ k.transpose(1, 2)).view(n, heads, length, keys)
        weights = scores.add_(mask).softmax(-1).view(n * kv, -1, keys)
        ctx.save_for_backward(q, k, v, weights)
        return (weights @ v).view(n, heads, length, d)

    @staticmethod
    def backward(ctx, dy):
        q, k, v, weights = ctx.saved_tensors
        shape, way = dy.shape, torch.ops.aten._softmax_backward_data
        n, d = shape[0], shape[-1]
        dy = dy.reshape(len(q), -1, d)
        dscores = way(dy @ v.transpose(1, 2), weights, -1, weights.dtype)
        dq = (dscores @ k).mul_(d**-0.5)
        dk, dv = dscores.transpose(1, 2) @ q, weights.transpose(1, 2) @ dy
        dk, dv = (x.view(n, -1, *x.shape[1:]) for x in (dk, dv))
        return dq.view(shape), dk, dv, None


def _future(n: int, like: Tensor) -> Tensor:
    return like.new_full((1, 1, n, n), -torch.inf).triu(1)


class Rotary(torch.autograd.Function):
    """Turn the first ``n`` heads of (T, h, d) by their places; backward turns back."""

    @staticmethod
    def forward(ctx, x, cos, sin, n):
        ctx.save_for_backward(cos, sin)
        ctx.n = n
        return _turned(x, cos, sin, n)

    @staticmethod
    def backward(ctx, dy):
        cos, sin = ctx.saved_tensors
        return _turned(dy, cos, -sin, ctx.n), None, None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, n: int) -> Tensor:
    y = x.clone()
    (a, b), (new_a, new_b) = x[:, :n].chunk(2, -1), y[:, :n].chunk(2, -1)
    new_a.mul_(cos).addcmul_(b, sin, value=-1)
    new_b.mul_(cos).addcmul_(a, sin)
    return y


def train(model: nn.Module, data: Prepared, config: SFTConfig, dtype: torch.dtype) -> History:
    """:func:`mangalab.training.sft.train` on this engine: the same batches, steps and loss.

    ``data`` must carry its bottoms; it raises ValueError if a layer below them trains.
    """
    engine, rows = TrunkLlama(model, dtype), [plain(example) for example in data.examples]
    if engine.first < data.first:
        raise ValueError(f"layer {engine.first} trains, below the prepared first={data.first}")
    engine.first = data.first
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    history, started = History(), time.perf_counter()
    batches = list(_epochs(data, config))
    for step, chosen in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(batches), config)
        batch = pack([rows[i] for i in chosen], dtype, engine.head.device)
        loss = engine.loss(batch, gather([data.bottoms[i] for i in chosen], batch.trunk))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        history.losses.append(loss.item())
        history.grad_norms.append(norm.item())
        history.tokens += len(batch.targets)
    history.seconds = time.perf_counter() - started
    return history


def gather(states: Sequence[Tensor], trunk: int) -> Tensor:
    """States (t, d) of whole rows as a batch packs them: the shared tokens once."""
    return torch.cat([states[0][:trunk], *(row[trunk:] for row in states)])


def scatter(packed: Tensor, rows: Sequence[Layout], trunk: int) -> list[Tensor]:
    """Packed states as one tensor (t, d) a row."""
    parts = packed[trunk:].split([len(row.ids) - trunk for row in rows])
    return [torch.cat([packed[:trunk], part]) for part in parts]
