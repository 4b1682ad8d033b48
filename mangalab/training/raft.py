"""Scoring several answers to one prompt in one pass: a prompt with its answers as branches of a tree.

Every answer sees the prompt and itself, never another answer, and stands where it would stand alone.
So its log-probability is that of a separate pass, at the cost of the prompt once.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .frozen import Frozen
from .sft import render
from .trunk import Layout, TrunkBatch, TrunkLlama, gather, pack, scatter

PLACES = 128  # of which all words' log-probabilities are held at once


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
class Choice:
    """Log-probability of each answer of a tree (nats, end of turn included), its number of tokens,
    and the final hidden state (d,) at the prompt's last token."""

    logprobs: list[float]
    tokens: list[int]
    state: Tensor


def tree(tokenizer, prompt: str, answers: Sequence[str]) -> Tree:
    """A chat turn with several possible answers, tokenised as training tokenises them."""
    head = render(tokenizer, prompt)
    ends = [tokenizer(f"{answer}<|im_end|>").input_ids for answer in answers]
    if not ends:
        raise ValueError(f"no answers to score for {prompt[:60]!r}")
    return Tree(head.ids + [i for end in ends for i in end], head.prompt, tuple(map(len, ends)))


def layout(one: Tree) -> Layout:
    """The tree as a row: every answer sees the prompt and itself."""
    branch = torch.tensor(one.branches)
    sees = ((branch[None] == 0) | (branch[None] == branch[:, None])).tril()
    return Layout(one.ids, one.prompt, one.positions, one.sources, sees)


class Choices:
    """Trees with the model's states below the first adapted layer, computed once for all adapters."""

    def __init__(self, model: nn.Module, trees: Sequence[Tree], first: int, dtype: torch.dtype,
                 chunk: int = 12):
        self.trees, self.first, self.dtype = list(trees), first, dtype
        order = sorted(range(len(trees)), key=lambda i: len(trees[i].ids))
        self.rows = [order[start : start + chunk] for start in range(0, len(order), chunk)]
        engine = self._engine(model, first)
        self.bottoms = [engine.bottom(self._batch(rows, engine)) for rows in self.rows]

    def above(self, model: nn.Module, first: int, kept: Sequence[int]) -> "Choices":
        """The trees ``kept``, with states below a higher layer ``first``, from those held here."""
        found = copy(self)
        engine, found.rows, found.bottoms = self._engine(model, first), [], []
        found.trees, found.first = [self.trees[i] for i in kept], first
        place = {i: new for new, i in enumerate(kept)}
        for rows, bottom in zip(self.rows, self.bottoms, strict=True):
            batch = self._batch(rows, engine)
            layouts = [layout(self.trees[i]) for i in rows]
            states = dict(zip(rows, scatter(bottom, layouts, batch.trunk), strict=True))
            if inside := [i for i in rows if i in place]:
                new = found._batch([place[i] for i in inside], engine)
                low = gather([states[i] for i in inside], new.trunk)
                found.rows.append([place[i] for i in inside])
                found.bottoms.append(engine.between(low, new, self.first, first))
        return found

    def score(self, model: nn.Module) -> list[Choice]:
        """A :class:`Choice` a tree, in their order; ``model`` may adapt layers from ``first`` up."""
        engine = self._engine(model, self.first)
        found: list[Choice | None] = [None] * len(self.trees)
        with torch.no_grad():
            for rows, bottom in zip(self.rows, self.bottoms, strict=True):
                for i, choice in zip(rows, self._scored(engine, rows, bottom), strict=True):
                    found[i] = choice
        return found

    def _engine(self, model: nn.Module, first: int) -> TrunkLlama:
        engine = TrunkLlama(model, self.dtype, training=False)
        if engine.first < first:
            raise ValueError(f"layer {engine.first} is adapted, below first={first}")
        engine.first = first
        return engine

    def _batch(self, rows: Sequence[int], engine: TrunkLlama) -> TrunkBatch:
        return pack([layout(self.trees[i]) for i in rows], self.dtype, engine.head.device)

    def _scored(self, engine: TrunkLlama, rows: Sequence[int], bottom: Tensor) -> list[Choice]:
        batch, found = self._batch(rows, engine), []
        hidden = engine.hidden(batch, bottom)
        ends = [_logprobs(hidden[source], engine.words, target) for source, target in zip(
            batch.sources.split(PLACES), batch.targets.split(PLACES), strict=True)]
        picked = torch.cat(ends)
        sizes = [sum(self.trees[i].lengths) for i in rows]
        pieces = zip(rows, picked.split(sizes), batch.sources.split(sizes), strict=True)
        for i, values, source in pieces:  # the first source is the prompt's last token
            one = self.trees[i]
            sums = [part.sum().item() for part in values.split(one.lengths)]
            found.append(Choice(sums, list(one.lengths), hidden[source[0]].float().cpu()))
        return found


def _logprobs(hidden: Tensor, words: Frozen, targets: Tensor) -> Tensor:
    words = words.times(hidden).log_softmax(1, dtype=torch.float32)  # logsumexp takes 2.5 times as long
    return words.gather(1, targets[:, None])[:, 0]
