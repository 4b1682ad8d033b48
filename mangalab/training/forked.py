"""Several replies to one prompt in one row, so that the prompt is computed once for all of them.

The two sides of a preference pair, and the samples of an online step, share their prompt, which is
the longer part of the text. Here a row holds the prompt and then its replies, one after the other:
each reply sees the prompt and itself, and counts its positions on from the prompt's end, which is
what it would see in a row of its own (``tests/test_forked.py`` holds values and gradients to that).
Two more savings are exact as well: above the last layer's keys and values only the places that are
read go on, and the log-probability of a label keeps no logits for the way back.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from .frozen import Frozen, LabelNLL, Unpacked
from .llama import Batch, LeanLlama
from .llama_ops import Attention, FrozenProduct, Grid, SwiGLU
from .parallel import side_by_side
from .sft import Example, Prepared

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
ROWS = 12  # examples that are read together: tensors beyond 32 MB are faulted in at every use


@dataclass(frozen=True)
class Fork(Batch):
    """A packed batch whose rows hold a prompt and all replies to it.

    ``positions`` (T,) as the rotary embedding counts them; ``owner`` (n, L) 0 in the prompt, k in
    the k-th reply, -1 in the padding; ``spans`` the packed places of prompt and reply of each
    example. Equal examples share their places. ``sources`` and ``targets`` follow the examples.
    """

    positions: Tensor
    owner: Tensor
    spans: tuple[tuple[slice, slice], ...]

    @property
    def counts(self) -> Tensor:
        """Labels of each example, (examples,)."""
        return torch.tensor([r.stop - r.start for _, r in self.spans], device=self.ids.device)

    @property
    def ends(self) -> Tensor:
        """Packed place of the last token of each example, (examples,)."""
        return torch.tensor([r.stop - 1 for _, r in self.spans], device=self.ids.device)


def fork(examples: Sequence[Example], device: torch.device | str = "cpu") -> Fork:
    """Pack examples, those with equal prompts into one row."""
    groups: dict[tuple, dict[tuple, None]] = {}
    for row, example in enumerate(examples):
        if not 0 < example.prompt < len(example.ids):
            raise ValueError(
                f"example {row}: a prompt of {example.prompt} in {len(example.ids)} tokens leaves "
                "no label to train on; give it a prompt and a completion")
        groups.setdefault(_prompt(example), {})[_reply(example)] = None
    length = max(len(prompt) + sum(map(len, replies)) for prompt, replies in groups.items())
    ids, slots, positions, places = [], [], [], {}
    owner = torch.full((len(groups), length), -1)
    for row, (prompt, replies) in enumerate(groups.items()):
        first, start = len(ids), len(ids)
        for number, part in enumerate((prompt, *replies)):
            begin, shift = len(ids), 0 if number == 0 else len(prompt)
            owner[row, begin - start : begin - start + len(part)] = number
            positions += range(shift, shift + len(part))
            ids += part
            if number:
                places[prompt, part] = slice(first, first + len(prompt)), slice(begin, len(ids))
        slots += range(row * length, row * length + len(ids) - start)
    spans = tuple(places[_prompt(e), _reply(e)] for e in examples)
    sources = [i for p, r in spans for i in (p.stop - 1, *range(r.start, r.stop - 1))]
    targets = [i for e in examples for i in e.ids[e.prompt :]]
    tensor = lambda values: torch.tensor(values, device=device)  # noqa: E731
    return Fork(tensor(ids), tensor(slots), (len(groups), length), tensor(sources), tensor(targets),
                tensor(positions), owner.to(device), spans)


def _prompt(example: Example) -> tuple[int, ...]:
    return tuple(example.ids[: example.prompt])


def _reply(example: Example) -> tuple[int, ...]:
    return tuple(example.ids[example.prompt :])


@cache
def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory; where it is not glibc, nothing happens.

    A step frees some 100 MB. Given back to the system, they are faulted in again page by page at
    the next step, which took up to a tenth of it.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(MMAP_THRESHOLD, 2**25)


class ForkedLlama(LeanLlama):
    """:class:`LeanLlama` over :class:`Fork` batches; ``bottom`` and ``hidden`` work as there."""

    def __init__(
        self, model: nn.Module, dtype: torch.dtype = torch.bfloat16, training: bool = True
    ):
        keep_freed_memory()
        super().__init__(model, dtype, training)
        for i in range(self.first, len(self.layers)):  # here, not by two threads at their first use
            self._products(i)

    def read(self, batch: Fork, places: Tensor, bottom: Tensor | None = None) -> Tensor:
        """Final normalised states at ``places`` (C,) alone, (C, d)."""
        x = self.bottom(batch) if bottom is None else bottom.to(self.dtype)
        last = len(self.layers) - 1
        if self.first > last:
            return self._norm(x.index_select(0, places), self.core.norm)
        x = self._run(x, batch, range(self.first, last))
        layer, product = self.layers[last], self._products(last)
        qkv = product["qkv"](self._norm(x, layer.input_layernorm))
        seen = Attention.apply(qkv, self._grid(batch)).index_select(0, places)
        x = x.index_select(0, places) + product["o"](seen)
        h = product["up"](self._norm(x, layer.post_attention_layernorm))
        return self._norm(x + product["down"](SwiGLU.apply(h)), self.core.norm)

    def label_nll(self, batch: Fork, bottom: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of each label, float32 (C,)."""
        return LabelNLL.apply(self.read(batch, batch.sources, bottom), self.words, batch.targets)

    def logps(self, batch: Fork, bottom: Tensor | None = None) -> Tensor:
        """Log-probability of each example's completion, (examples,)."""
        nll = self.label_nll(batch, bottom)
        rows = torch.arange(len(batch.spans), device=nll.device)
        owner = torch.repeat_interleave(rows, batch.counts)
        return -torch.zeros(len(rows), device=nll.device).index_add(0, owner, nll)

    def without_adapters(self) -> "ForkedLlama":
        """The reference: this engine with its adapters off, on the same frozen weights."""
        bare = copy(self)
        bare._products = lambda i: {  # type: ignore[method-assign]
            name: _frozen(product.frozen) for name, product in self._products(i).items()}
        return bare

    def _grid(self, batch: Fork) -> Grid:
        c = self.config
        cos, sin = self.core.rotary_emb(self.head[:1], batch.positions.unsqueeze(0))
        cos, sin = (t[0, :, None, : t.shape[-1] // 2].to(self.dtype) for t in (cos, sin))
        asks, holds = batch.owner[:, :, None], batch.owner[:, None, :]
        seen = ((holds == 0) | (holds == asks)).tril()
        unseen = cos.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)
        unseen = unseen.repeat_interleave(c.num_key_value_heads, 0)[:, None]
        heads = (c.num_attention_heads, c.num_key_value_heads, c.head_dim)
        return Grid(batch.slots, batch.shape, unseen, cos, sin, heads)


def _frozen(frozen: Frozen | Unpacked) -> Callable[[Tensor], Tensor]:
    return lambda x: FrozenProduct.apply(x, frozen)


def together(examples: Sequence[Example], size: int = ROWS) -> Iterator[list[int]]:
    """Rows of all examples, ``size`` at a time, equal prompts and similar lengths side by side."""
    order = sorted(range(len(examples)), key=lambda i: (examples[i].prompt, examples[i].ids))
    for start in range(0, len(order), size):
        yield order[start : start + size]


@torch.no_grad()
def prepare(engine: ForkedLlama, examples: Sequence[Example], size: int = ROWS) -> Prepared:
    """Run the frozen bottom once over ``examples``, shared prompts once, and keep its output."""
    done = Prepared(list(examples), engine.first)
    if engine.first == 0:
        return done
    done.bottoms = [None] * len(examples)
    for i in range(engine.first):
        engine._products(i)

    def read(rows: list[int]) -> None:
        batch = fork([examples[i] for i in rows], engine.head.device)
        states = engine.bottom(batch)
        for i, spans in zip(rows, batch.spans, strict=True):
            done.bottoms[i] = torch.cat([states[span] for span in spans])

    side_by_side(read, together(examples, size))
    return done


def collate(data: Prepared, rows: Sequence[int]) -> tuple[Fork, Tensor | None]:
    """Forked examples ``rows`` and their cached states."""
    examples = [data.examples[i] for i in rows]
    if not data.bottoms:
        return fork(examples), None
    batch = fork(examples, data.bottoms[0].device)
    states = data.bottoms[0].new_empty(len(batch.ids), data.bottoms[0].shape[1])
    for i, (prompt, reply) in zip(rows, batch.spans, strict=True):
        k = data.examples[i].prompt
        states[prompt], states[reply] = data.bottoms[i][:k], data.bottoms[i][k:]
    return batch, states
