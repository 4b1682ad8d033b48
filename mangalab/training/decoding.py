"""A faster loop for :class:`~mangalab.training.sampling.Sampler`: the same replies from leaner steps.

The library's step copies all keys and values to append one token to them. Here they have their room
from the start; the three query heads of a key head ask together, so that no key is repeated; a
layer's q, k, v (and gate, up) are one product each; a draw needs one random number a row instead of
one a word of the vocabulary. Prompts are read packed, a few at a time, because tensors beyond 32 MB
are given back to the system and faulted in again at every use. ``tests/test_decoding.py`` holds the
replies to the base class's; ``benchmarks/preference.py`` has the times of both.
"""

from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .frozen import Frozen
from .llama import GROUPS
from .parallel import side_by_side
from .sampling import KEPT, Reply, Sampler
from .sft import render

IDLE = 0.25  # share of finished rows at which the cache is packed again
READ = 8  # prompts that are read together


@dataclass
class Cache:
    """Keys and values of each layer, (2, rows * kv heads, room, d), and the places filled, (rows,)."""

    layers: list[Tensor]
    filled: Tensor

    def select(self, rows: Tensor) -> "Cache":
        """This cache with ``rows`` (indices) alone; the old one is freed layer by layer."""
        for i, kv in enumerate(self.layers):
            grid = kv.view(2, len(self.filled), -1, *kv.shape[2:])
            self.layers[i] = grid.index_select(1, rows).flatten(1, 2)
        return Cache(self.layers, self.filled[rows])


@dataclass(frozen=True)
class Prompts:
    """Some prompts packed: tokens (T,), and what the layers need to know about their places."""

    rows: slice  # of the cache
    ids: Tensor
    row: Tensor  # (T,) within ``rows``
    place: Tensor  # (T,)
    turn: tuple[Tensor, Tensor]

    @property
    def ends(self) -> Tensor:
        """Packed places of the last tokens."""
        return torch.bincount(self.row).cumsum(0) - 1


class LeanSampler(Sampler):
    """A :class:`Sampler` with its own forward pass; Llama with SiLU only, without biases."""

    def __init__(
        self, model: nn.Module, tokenizer, dtype: torch.dtype = torch.bfloat16, shared: int = 0
    ):
        super().__init__(model, tokenizer, dtype, shared)
        self.layers = [self._join(layer) for layer in self.model.model.layers]
        self.words = Frozen(self.model.lm_head.weight)

    @staticmethod
    def _join(layer: nn.Module) -> dict[str, Frozen]:
        """A layer's products as joint matrices, whose parts the modules keep as views."""
        joint = {}
        for group, (block, names) in GROUPS.items():
            members = [getattr(getattr(layer, block), name) for name in names]
            whole = torch.cat([member.weight.data for member in members])
            parts = whole.split([len(member.weight) for member in members])
            for member, part in zip(members, parts, strict=True):
                member.weight.data = part
            joint[group] = Frozen(whole)
        return joint

    def follow(self, policy: nn.Module) -> "LeanSampler":
        """As :meth:`Sampler.follow`; the layers that it writes to are laid out again."""
        super().follow(policy)
        for i in range(self.shared, len(self.layers)):
            self.layers[i] = {group: Frozen(old.weight) for group, old in self.layers[i].items()}
        return self

    def sample(
        self, prompts: Sequence[str], max_new_tokens: int, temperature: float = 1.0, seed: int = 0,
        batch: int = 64, each: int = 1,
    ) -> list[Reply]:
        """As :meth:`Sampler.sample`; batches run side by side, each with a generator of its own."""
        heads = [render(self.tokenizer, prompt).ids for prompt in prompts]
        order = sorted(range(len(heads)), key=lambda i: len(heads[i]))
        count = -(-len(heads) * each // batch)
        groups = [order[k::count] for k in range(count)]  # equally long prompts in each

        def write(number: int) -> list[list[int]]:
            generator = torch.Generator().manual_seed(seed * len(groups) + number)
            asked = [heads[i] for i in groups[number]]
            return self._sample(asked, max_new_tokens, temperature, generator, each)

        replies: list[list[Reply]] = [[] for _ in heads]
        for rows, found in zip(groups, side_by_side(write, range(count)), strict=True):
            for number, ids in enumerate(found):
                replies[rows[number // each]].append(self._reply(ids))
        return [reply for group in replies for reply in group]

    def twin(self) -> "LeanSampler":
        """A sampler that follows another policy; weights below ``shared`` and states are common."""
        other = copy(self)
        kept = [*self.model.model.layers[: self.shared], self.model.model.embed_tokens]
        memo = {id(weight): weight for module in kept for weight in module.parameters()}
        other.model = deepcopy(self.model, memo)
        other.layers = [*self.layers[: self.shared],
                        *(self._join(layer) for layer in other.model.model.layers[self.shared :])]
        return other

    @torch.no_grad()
    def _sample(
        self, heads: list[list[int]], steps: int, temperature: float, generator: torch.Generator,
        each: int,
    ) -> list[list[int]]:
        end = self.tokenizer.eos_token_id
        found: list[list[int]] = [[] for _ in range(len(heads) * each)]
        cache, last = self._read_prompts(heads, steps)
        if each > 1:
            copies = torch.arange(len(heads), device=last.device).repeat_interleave(each)
            cache, last = cache.select(copies), last[copies]
        rows = torch.arange(len(found), device=last.device)  # of ``found`` that the cache holds
        going = torch.ones_like(rows, dtype=torch.bool)
        for step in range(steps):
            tokens = draw(self._logits(last), temperature, generator)
            for row, token in zip(rows[going].tolist(), tokens[going].tolist(), strict=True):
                found[row].append(token)
            going &= tokens != end
            if step + 1 == steps or not going.any():
                break
            if going.float().mean() < 1 - IDLE:
                kept = going.nonzero().squeeze(1)
                cache, rows, tokens, going = cache.select(kept), rows[kept], tokens[kept], going[kept]
            last = self._step(tokens, cache)
        return found

    def _logits(self, x: Tensor) -> Tensor:
        return self.words.times(self._norm(x, self.model.model.norm))

    # ------------------------------------------------------------------------ prompts
    def _read_prompts(self, heads: Sequence[list[int]], steps: int) -> tuple[Cache, Tensor]:
        """A cache that holds the prompts and has room for ``steps`` tokens; states of their ends."""
        c, key = self.model.config, tuple(map(tuple, heads))
        lengths = torch.tensor([len(head) for head in heads], device=self.model.device)
        shape = (2, len(heads), c.num_key_value_heads, int(lengths.max()) + steps, c.head_dim)
        grids = [self.model.lm_head.weight.new_zeros(shape) for _ in self.layers]
        kept = self._kept.get(key)
        below = kept or [self._below(part) for part in self._parts(heads)]
        if self.shared and kept is None and len(self._kept) < KEPT:
            self._kept[key] = below
        ends = []
        for part, x, pairs in below:
            pairs = list(pairs)
            for i in range(self.shared, len(self.layers)):
                x, kv = self._packed(i, x, part)
                pairs.append(kv)
            for grid, kv in zip(grids, pairs, strict=True):
                grid[:, part.rows].permute(1, 3, 0, 2, 4)[part.row, part.place] = kv
            ends.append(x[part.ends])
        return Cache([grid.flatten(1, 2) for grid in grids], lengths), torch.cat(ends)

    def _parts(self, heads: Sequence[list[int]]) -> list[Prompts]:
        parts, at = [], self.model.device
        for start in range(0, len(heads), READ):
            rows = slice(start, start + READ)
            row = torch.repeat_interleave(torch.tensor([len(head) for head in heads[rows]], device=at))
            place = torch.cat([torch.arange(len(head), device=at) for head in heads[rows]])
            ids = torch.tensor([i for head in heads[rows] for i in head], device=at)
            parts.append(Prompts(rows, ids, row, place, self._rotary(place)))
        return parts

    def _below(self, part: Prompts) -> tuple[Prompts, Tensor, list[Tensor]]:
        """States that enter layer ``shared``, and keys and values of the layers below it."""
        x, pairs = F.embedding(part.ids, self.model.model.embed_tokens.weight), []
        for i in range(self.shared):
            x, kv = self._packed(i, x, part)
            pairs.append(kv)
        return part, x, pairs

    def _packed(self, i: int, x: Tensor, part: Prompts) -> tuple[Tensor, Tensor]:
        """Layer ``i`` over packed prompts (T, d); its keys and values, (T, 2, kv heads, d)."""
        joint, c = self._asked(i, x, part.turn), self.model.config
        n, length = int(part.row[-1]) + 1, int(part.place.max()) + 1
        grid = joint.new_zeros(n, length, *joint.shape[1:])
        grid[part.row, part.place] = joint
        heads, kv = c.num_attention_heads, c.num_key_value_heads
        q, k, v = grid.transpose(1, 2).split([heads, kv, kv], 1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = self._rest(i, x, mixed.transpose(1, 2)[part.row, part.place].flatten(1))
        return x, joint[:, heads:].reshape(len(x), 2, kv, -1).clone()

    # ------------------------------------------------------------------------ one more token
    def _step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """States (rows, d) of one new token a row, which the cache takes in."""
        c, x = self.model.config, F.embedding(tokens, self.model.model.embed_tokens.weight)
        heads, kv = c.num_attention_heads, c.num_key_value_heads
        rows = torch.arange(len(tokens), device=x.device)
        turn = self._rotary(cache.filled)
        # over all the room: bmm copies a tensor of which it gets a part
        unseen = torch.arange(cache.layers[0].shape[2], device=x.device) > cache.filled[:, None]
        mask = torch.zeros(unseen.shape, device=x.device).masked_fill_(unseen, -torch.inf)
        mask = mask.repeat_interleave(kv, 0)[:, None]
        for i, held in enumerate(cache.layers):
            joint = self._asked(i, x, turn)
            new = joint[:, heads:].view(len(rows), 2, kv, -1)
            held.view(2, len(rows), kv, *held.shape[2:])[:, rows, :, cache.filled] = new
            # the queries of one key head stand under each other, (rows * kv heads, group, d)
            q = joint[:, :heads].reshape(held.shape[1], -1, c.head_dim)
            scores = torch.bmm(q, held[0].transpose(1, 2)).float().mul_(c.head_dim**-0.5).add_(mask)
            mixed = torch.bmm(scores.softmax(-1).to(q.dtype), held[1])
            x = self._rest(i, x, mixed.view(len(rows), -1))
        cache.filled = cache.filled + 1
        return x

    # ------------------------------------------------------------------------ parts of a layer
    def _asked(self, i: int, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Queries and keys, turned, and values: (T, heads + 2 kv heads, d)."""
        c = self.model.config
        turned = c.num_attention_heads + c.num_key_value_heads
        h = self._norm(x, self.model.model.layers[i].input_layernorm)
        joint = self.layers[i]["qkv"].times(h).view(len(x), -1, 2, c.head_dim // 2)
        part, (cos, sin) = joint[:, :turned], turn
        part.copy_((part * cos).addcmul_(part.flip(2), sin))
        return joint.flatten(2)

    def _rest(self, i: int, x: Tensor, mixed: Tensor) -> Tensor:
        layer, joint = self.model.model.layers[i], self.layers[i]
        x = x + joint["o"].times(mixed)
        gate, up = joint["up"].times(self._norm(x, layer.post_attention_layernorm)).chunk(2, -1)
        return x + joint["down"].times(F.silu(gate).mul_(up))

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines that turn the halves of a head, (T, 1, 2, d / 2)."""
        core = self.model.model
        cos, sin = core.rotary_emb(core.norm.weight, positions[None])
        cos, sin = (t[0].view(len(positions), 1, 2, -1) for t in (cos, sin))
        return cos, torch.cat([-sin[:, :, :1], sin[:, :, 1:]], 2)

    def _norm(self, x: Tensor, norm: nn.Module) -> Tensor:
        return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One token a row from softmax(logits / temperature), by inverting its cumulative sum, (rows,)."""
    logits = logits.float()
    if temperature == 0:
        return logits.argmax(-1)
    mass = (logits / temperature).softmax(-1).cumsum(-1)
    point = torch.rand(len(mass), 1, generator=generator).to(mass.device) * mass[:, -1:]
    return torch.searchsorted(mass, point, right=True).squeeze(1).clamp_(max=mass.shape[1] - 1)
