"""Scoring several answers to one prompt in one pass: a prompt with its answers as branches of a tree.

Every answer sees the prompt and itself, never another answer, and stands where it would stand alone.
So its log-probability is that of a separate pass, at the cost of the prompt once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .llama import Batch, Grid, LeanLlama
from .sft import render


@dataclass(frozen=True)
class Tree:
    """Ids of a prompt and of its answers one after the other, and the length of each."""

    ids: list[int]
    prompt: int
    lengths: tuple[int, ...]

    @property
    def positions(self) -> list[int]:
        """Places as each answer alone after the prompt would have them."""
        return [*range(self.prompt), *(self.prompt + i for n in self.lengths for i in range(n))]

    @property
    def branches(self) -> list[int]:
        """0 for the prompt, else the number of the answer from 1."""
        return [0] * self.prompt + [j for j, n in enumerate(self.lengths, 1) for _ in range(n)]

    @property
    def sources(self) -> list[int]:
        """For every answer token, the place that predicts it."""
        found, start = [], self.prompt
        for n in self.lengths:
            found += [self.prompt - 1, *range(start, start + n - 1)]
            start += n
        return found


@dataclass(frozen=True)
class TreeBatch(Batch):
    """A batch of trees: places of its tokens (T,) and who sees whom, (n, L, L), 0 or -inf."""

    positions: Tensor
    hidden_from: Tensor


@dataclass(frozen=True)
class Choice:
    """Log-probability of each answer of a tree (nats, end of turn included), its number of tokens,
    and the final hidden state (d,) at the prompt's last token."""

    logprobs: list[float]
    tokens: list[int]
    state: Tensor


class TreeLlama(LeanLlama):
    """The lean engine on trees."""

    def _grid(self, batch: TreeBatch) -> Grid:
        grid, c = super()._grid(batch), self.config
        cos, sin = self.core.rotary_emb(self.head[:1], batch.positions.unsqueeze(0))
        cos, sin = (t[0, :, None, : t.shape[-1] // 2] for t in (cos, sin))
        seen = batch.hidden_from.repeat_interleave(c.num_key_value_heads, 0).unsqueeze(1)
        return Grid(grid.slots, grid.shape, seen, cos, sin, grid.heads)


def tree(tokenizer, prompt: str, answers: Sequence[str]) -> Tree:
    """A chat turn with several possible answers, tokenised as training tokenises them."""
    head = render(tokenizer, prompt)
    ends = [tokenizer(f"{answer}<|im_end|>").input_ids for answer in answers]
    if not ends:
        raise ValueError(f"no answers to score for {prompt[:60]!r}")
    return Tree(head.ids + [i for end in ends for i in end], head.prompt, tuple(map(len, ends)))


def tree_batch(trees: Sequence[Tree], device: str = "cpu") -> TreeBatch:
    """Pack trees; labels are all tokens of all answers."""
    length = max(len(tree.ids) for tree in trees)
    hidden_from = torch.full((len(trees), length, length), -torch.inf)
    ids, slots, positions, sources, targets = [], [], [], [], []
    for row, one in enumerate(trees):
        n, branch = len(one.ids), torch.tensor(one.branches)
        sees = ((branch[None] == 0) | (branch[None] == branch[:, None])).tril()
        hidden_from[row, :n, :n][sees] = 0.0
        hidden_from[row, n:, 0] = 0.0  # pads attend to something, so that no softmax is empty
        sources += [len(ids) + place for place in one.sources]
        targets += one.ids[one.prompt :]
        slots += range(row * length, row * length + n)
        positions += one.positions
        ids += one.ids
    tensor = lambda values: torch.tensor(values, device=device)  # noqa: E731
    return TreeBatch(tensor(ids), tensor(slots), (len(trees), length), tensor(sources),
                     tensor(targets), tensor(positions), hidden_from.to(device))


class Choices:
    """Trees with the model's states below the first adapted layer, computed once for all adapters."""

    def __init__(self, model: nn.Module, trees: Sequence[Tree], first: int, dtype: torch.dtype,
                 chunk: int = 24):
        self.trees, self.first, self.dtype = list(trees), first, dtype
        order = sorted(range(len(trees)), key=lambda i: len(trees[i].ids))
        self.rows = [order[start : start + chunk] for start in range(0, len(order), chunk)]
        engine = TreeLlama(model, dtype, training=False)
        if engine.first < first:
            raise ValueError(f"layer {engine.first} is adapted, below first={first}")
        engine.first = first
        self.bottoms = [engine.bottom(self._batch(rows, engine)) for rows in self.rows]

    def score(self, model: nn.Module) -> list[Choice]:
        """A :class:`Choice` a tree, in their order; ``model`` may adapt layers from ``first`` up."""
        engine = TreeLlama(model, self.dtype, training=False)
        if engine.first < self.first:
            raise ValueError(f"layer {engine.first} is adapted, below first={self.first}")
        engine.first = self.first
        found: list[Choice | None] = [None] * len(self.trees)
        with torch.no_grad():
            for rows, bottom in zip(self.rows, self.bottoms, strict=True):
                for i, choice in zip(rows, self._scored(engine, rows, bottom), strict=True):
                    found[i] = choice
        return found

    def _batch(self, rows: Sequence[int], engine: LeanLlama) -> TreeBatch:
        return tree_batch([self.trees[i] for i in rows], engine.head.device)

    def _scored(self, engine: TreeLlama, rows: Sequence[int], bottom: Tensor) -> list[Choice]:
        batch, found = self._batch(rows, engine), []
        hidden = engine.hidden(batch, bottom)
        logits = (hidden.index_select(0, batch.sources) @ engine.head.T).float()
        picked = logits.gather(1, batch.targets[:, None])[:, 0] - logits.logsumexp(1)
        starts = torch.tensor([len(self.trees[i].ids) for i in rows]).cumsum(0).tolist()
        sizes = [sum(self.trees[i].lengths) for i in rows]
        for i, end, values in zip(rows, starts, picked.split(sizes), strict=True):
            one = self.trees[i]
            sums = [part.sum().item() for part in values.split(one.lengths)]
            last = end - len(one.ids) + one.prompt - 1
            found.append(Choice(sums, list(one.lengths), hidden[last].float().cpu()))
        return found
