"""A cross-encoder: query and title in one sequence, one score out, trained on graded lists.

The engine is :class:`~mangalab.training.encoder.LeanEncoder` because it was measured to be faster
than sentence-transformers' trainer at the same loss (``benchmarks/rerank.py``). Frozen lower layers
are run once for each pair (:func:`states`), and all epochs, losses and seeds start from there.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ranking
from .encoder import LeanEncoder, Packed, pool
from .late import ABSENT

HEADS = ("match", "pooled")
TOGETHER = 32  # pairs in a batch without gradients: least time a pair of 16, 32 and 64, two cores
SEP = 102  # closes each of the two texts; the same in every uncased BERT vocabulary


@dataclass(frozen=True)
class RerankConfig:
    """How to train. ``layers`` counts the trained ones from the top; ``lists`` queries a step.

    ``lr`` is the peak rate of the layers, ``head_lr`` of the head; a tenth of warm-up, then a linear
    decay to zero. There is no dropout.
    """

    loss: str = "ranknet"
    head: str = "match"
    layers: int = 1
    lr: float = 2e-4
    head_lr: float = 1e-2
    epochs: int = 1
    lists: int = 4
    seed: int = 0

    def __post_init__(self):
        if self.loss not in ranking.LOSSES or self.head not in HEADS:
            raise ValueError(
                f"{self}: loss is one of {', '.join(ranking.LOSSES)}, head of {', '.join(HEADS)}")
        if min(self.lr, self.head_lr, self.epochs, self.lists, self.layers) <= 0:
            raise ValueError(f"{self}: rates, epochs, lists and layers must be positive")


class PairEncoder(LeanEncoder):
    """The encoder on pairs [CLS] query [SEP] title [SEP], with BERT's second segment for the title."""

    def embed(self, batch: Packed) -> Tensor:
        """Input of layer 0, (T, d)."""
        table = self.embeddings
        x = table.word_embeddings.weight[batch.ids]
        x = x + table.token_type_embeddings.weight[in_title(batch).long()]
        return table.LayerNorm(x + table.position_embeddings.weight[batch.positions]).to(self.dtype)


class CrossEncoder(nn.Module):
    """Pair encoder and a head that reads one number.

    ``pooled`` is the textbook's: a fresh linear map of the mean over all tokens, random at the
    start. ``match`` has one weight: ``scale`` times the mean over the query's tokens of the best
    cosine with a token of the title, of states that have already read each other. It needs no
    training to mean something.
    """

    def __init__(self, encoder: PairEncoder, head: str = "match", seed: int = 0):
        super().__init__()
        self.encoder, self.kind = encoder, head
        self.scale = nn.Parameter(torch.tensor(20.0)) if head == "match" else None
        self.shift = nn.Parameter(torch.tensor(0.0)) if head == "match" else None
        self.head = nn.Linear(encoder.width, 1) if head == "pooled" else None
        if self.head is not None:
            generator = torch.Generator().manual_seed(seed)
            self.head.weight.data.normal_(0, 0.02, generator=generator)
            self.head.bias.data.zero_()
        self.to(encoder.embeddings.word_embeddings.weight.device)

    def forward(self, batch: Packed, x: Tensor | None = None) -> Tensor:
        """Scores (n,) float32; ``x`` is the cached input of the first trained layer."""
        hidden = self.encoder.hidden(batch, x)
        if self.head is not None:
            return self.head(pool(hidden, batch)).squeeze(1)
        return self.scale * joint_maxsim(hidden, batch) + self.shift

    def head_parameters(self) -> list[nn.Parameter]:
        """Weights that are not the encoder's."""
        return [p for name, p in self.named_parameters() if not name.startswith("encoder.")]


@dataclass(frozen=True)
class Trained:
    """A trained cross-encoder, its loss at every step, its trained weights, the seconds it took."""

    model: CrossEncoder
    losses: list[float]
    parameters: int
    seconds: float


def pair(query: Sequence[int], title: Sequence[int]) -> list[int]:
    """Token ids of one pair, from those of its two texts: the second [CLS] is dropped."""
    return [*query, *title[1:]]


def in_title(batch: Packed) -> Tensor:
    """True (T,) on the tokens behind the first [SEP] of each pair."""
    closed = (batch.ids == SEP).long()
    before = closed.cumsum(0) - closed
    start = F.pad(batch.lengths.cumsum(0)[:-1], (1, 0))
    return before > before[start][batch.rows]


def joint_maxsim(hidden: Tensor, batch: Packed) -> Tensor:
    """Mean over a pair's query tokens of the best cosine with a token of its title, (n,)."""
    n, longest = batch.mask.shape[0], batch.mask.shape[-1]
    unit = F.normalize(hidden.float(), dim=1)
    grid = unit.new_zeros(n * longest, unit.shape[1]).index_copy(0, batch.slots, unit)
    title = torch.zeros(n * longest, dtype=torch.bool, device=unit.device)
    title[batch.slots] = in_title(batch)
    grid, title = grid.view(n, longest, -1), title.view(n, longest)
    query = batch.mask[:, 0, 0] & ~title
    query &= (query.cumsum(1) > 1) & (query.cumsum(1) < query.sum(1, keepdim=True))  # words only
    widest = int(query.any(0).nonzero().max()) + 1
    cosines = grid[:, :widest] @ grid.transpose(1, 2)
    best = cosines.masked_fill(~title[:, None], ABSENT).amax(2)
    asked = query[:, :widest]
    return (best * asked).sum(1) / asked.sum(1)


@torch.no_grad()
def states(bert: nn.Module, pairs: Sequence[Sequence[int]], layers: int, dtype: torch.dtype):
    """What enters the first of the trained ``layers``, for every pair; None if all are trained."""
    encoder = PairEncoder(bert, len(bert.encoder.layer) - layers, dtype)
    device = encoder.embeddings.word_embeddings.weight.device.type
    if not encoder.first:
        return None
    encoder.layers.to(dtype)
    found: list[Tensor] = [torch.empty(0)] * len(pairs)
    for cells in _in_order(pairs):
        batch = Packed.of([pairs[i] for i in cells], device)
        for cell, x in zip(cells, encoder.bottom(batch).split(batch.lengths.tolist()), strict=True):
            found[cell] = x.clone()
    return found


def train(
    bert: nn.Module, pairs: Sequence[Sequence[int]], grades: Tensor, config: RerankConfig,
    dtype: torch.dtype = torch.float32, cache: Sequence[Tensor] | None = None,
) -> Trained:
    """Train a copy of ``bert`` on ``grades`` (queries, m); ``pairs`` are its cells, row by row.

    ``cache`` comes from :func:`states`. The same seed gives the same weights.
    """
    started = time.perf_counter()
    model = untrained(bert, config, dtype)
    encoder, (n, m) = model.encoder, grades.shape
    cache = cache or states(bert, pairs, config.layers, dtype)
    _centre(model, pairs, cache)
    grades, device = grades.float(), encoder.embeddings.word_embeddings.weight.device
    optimizer, schedule = _optimizer(model, config, config.epochs * -(-n // config.lists))
    generator, losses = torch.Generator().manual_seed(config.seed), []
    for _ in range(config.epochs):
        for rows in torch.randperm(n, generator=generator).split(config.lists):
            cells = [row * m + j for row in rows.tolist() for j in range(m)]
            scores = _forward(model, pairs, cells, cache).view(len(rows), m)
            loss = ranking.LOSSES[config.loss](scores, grades[rows].to(device))
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    seconds = time.perf_counter() - started
    return Trained(model.eval(), torch.stack(losses).tolist(), count, seconds)


def untrained(bert: nn.Module, config: RerankConfig, dtype: torch.dtype) -> CrossEncoder:
    """The model that :func:`train` starts from."""
    encoder = PairEncoder(bert, len(bert.encoder.layer) - config.layers, dtype)
    return CrossEncoder(encoder, config.head, config.seed)


def serving(model):
    """A copy of a :class:`CrossEncoder` or an encoder that answers requests: same scores, no casts.

    Its layers are held in the precision of their products; training keeps float32 and casts every
    weight in every pass, which one short request pays in full. Embeddings stay shared.
    """
    encoder = getattr(model, "encoder", model)
    shared = {id(encoder.embeddings): encoder.embeddings}
    made = copy.deepcopy(model, shared).eval().requires_grad_(False)
    getattr(made, "encoder", made).layers.to(encoder.dtype)
    return made


@torch.no_grad()
def _centre(model: CrossEncoder, pairs, cache) -> None:
    """Let scores start around 0, where the losses have slopes; no ranking changes."""
    if model.shift is not None:
        model.shift -= _forward(model, pairs, range(min(64, len(pairs))), cache).mean()


@torch.no_grad()
def score(
    model: CrossEncoder, pairs: Sequence[Sequence[int]], cache: Sequence[Tensor] | None = None,
    size: int = TOGETHER,
) -> Tensor:
    """Scores (n,) of pairs in their order, on CPU; like lengths share a batch."""
    found = torch.empty(len(pairs))
    for cells in _in_order(pairs, size):
        found[cells] = _forward(model, pairs, cells, cache).float().cpu()
    return found


def _in_order(pairs: Sequence[Sequence[int]], size: int = TOGETHER) -> list[list[int]]:
    """Indices in batches of like lengths."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _forward(model: CrossEncoder, pairs, cells: Sequence[int], cache) -> Tensor:
    device = model.encoder.embeddings.word_embeddings.weight.device.type
    x = torch.cat([cache[i] for i in cells]) if cache else None
    return model(Packed.of([pairs[i] for i in cells], device), x)


def _optimizer(model: CrossEncoder, config: RerankConfig, steps: int):
    """AdamW with a rate for layers and one for the head; warm-up and linear decay."""
    layers = [p for p in model.encoder.parameters() if p.requires_grad]
    groups = [{"params": layers, "lr": config.lr, "weight_decay": 0.01},
              {"params": model.head_parameters(), "lr": config.head_lr, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, fused=True)
    warm = max(1, round(0.1 * steps))
    ramp = lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))  # noqa: E731
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, ramp)
