"""Contrastive training of a retriever on frozen vectors: InfoNCE, negatives, a small adapter.

One description serves every experiment: a query has *positives* (weights over the titles, of which
each step draws one) and *allowed* titles, which may stand in the denominator. In-batch negatives,
mined negatives, filters against false negatives and clicks differ in these two tables only.

The encoder itself is trained in :mod:`mangalab.training.biencoder`; :func:`build_retriever` makes
the artifact that later chapters take their candidates from.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEGATIVES = ("batch", "mined", "both", "all")
SIDES = ("query", "both")


@dataclass(frozen=True)
class ContrastiveConfig:
    """How to train with InfoNCE.

    ``negatives``: the other titles of the batch, the query's own ``mined`` list, both, or all
    titles. ``lr`` is the peak of a schedule with a tenth of warm-up and a linear decay.
    """

    temperature: float = 0.07
    batch_size: int = 128
    steps: int = 200
    lr: float = 1e-3
    negatives: str = "batch"
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self):
        if self.negatives not in NEGATIVES:
            raise ValueError(f"negatives {self.negatives!r}; use one of {', '.join(NEGATIVES)}")
        if min(self.temperature, self.lr, self.batch_size, self.steps) <= 0:
            raise ValueError(f"{self}: temperature, lr, batch_size and steps must be positive")


def info_nce(
    queries: Tensor, documents: Tensor, positive: Tensor, temperature: float = 0.07,
    allowed: Tensor | None = None,
) -> Tensor:
    """Mean of -log softmax_j(cos(q_i, d_j) / temperature) at j = positive_i (1807.03748, eq. 4).

    ``queries`` (b, d), ``documents`` (m, d), ``positive`` (b,) columns. Where ``allowed`` (b, m) is
    false a document is left out of that query's denominator; the positive always stays in.
    """
    logits = F.normalize(queries, dim=1) @ F.normalize(documents, dim=1).T / temperature
    if allowed is not None:
        kept = allowed | F.one_hot(positive, logits.shape[1]).bool()
        logits = logits.masked_fill(~kept, -torch.inf)
    return F.cross_entropy(logits, positive)


class Adapter(nn.Module):
    """x + W2 gelu(LayerNorm(W1 x)): d -> d/2 -> d; W2 starts at zero, so training starts at x."""

    def __init__(self, width: int, hidden: int | None = None, seed: int = 0):
        super().__init__()
        hidden = hidden or width // 2
        self.down, self.norm = nn.Linear(width, hidden), nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, width)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.down.weight, std=width**-0.5, generator=generator)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (n, d) -> (n, d); their length is free, cosine ignores it."""
        return x + self.up(F.gelu(self.norm(self.down(x))))


@torch.no_grad()
def mine(
    scores: Tensor, known: Tensor, count: int = 7, skip: int = 0, margin: float | None = None,
) -> Tensor:
    """The ``count`` best-scored titles of each query that are not ``known`` positives, as a mask.

    ``scores`` and ``known`` (n, titles). With ``margin`` a title must score below (1 - margin) times
    the query's lowest known positive; ``skip`` then leaves out the first of what remains. The rule
    of sentence-transformers' ``mine_hard_negatives`` on vectors that are there already.
    """
    if count < 1 or skip < 0:
        raise ValueError(f"mine: count {count}, skip {skip}; need count >= 1 and skip >= 0")
    ranked = scores.masked_fill(known, -torch.inf)
    if margin is not None:
        ranked = ranked.masked_fill(~below_margin(scores, known, margin), -torch.inf)
    order = ranked.topk(min(skip + count, scores.shape[1]), dim=1).indices[:, skip:]
    return torch.zeros_like(known).scatter(1, order, True) & ranked.isfinite()


def below_margin(scores: Tensor, known: Tensor, margin: float) -> Tensor:
    """Titles that score clearly below the lowest known positive of their query, (n, titles)."""
    lowest = scores.masked_fill(~known, torch.inf).amin(1, keepdim=True)
    return scores <= lowest - margin * lowest.abs()


@dataclass(frozen=True)
class Batch:
    """Rows of the training queries, the title drawn for each, the titles in play and who sees them.

    ``rows`` (b,), ``titles`` (m,) distinct columns of the catalogue, ``positive`` (b,) places in
    ``titles``, ``allowed`` (b, m).
    """

    rows: Tensor
    titles: Tensor
    positive: Tensor
    allowed: Tensor


def batches(
    positives: Tensor, config: ContrastiveConfig, mined: Tensor | None = None,
    excluded: Tensor | None = None, per_title: int = 1,
) -> Iterator[Batch]:
    """``config.steps`` seeded batches from ``positives`` (n, titles), weights of what to draw.

    ``mined`` (n, titles) are the query's own negatives; ``excluded`` are never used as negatives
    of that query. ``per_title`` > 1 draws titles first and then so many queries for each: fewer
    documents to encode. Queries without any positive are never drawn.
    """
    if config.negatives in ("mined", "both") and mined is None:
        raise ValueError(f"negatives={config.negatives!r} needs mined=, a mask from mine()")
    generator = torch.Generator().manual_seed(config.seed)
    usable = positives.sum(1).nonzero().squeeze(1)
    queue = torch.empty(0, dtype=torch.long)
    for _ in range(config.steps):
        if per_title > 1:
            rows, chosen = _by_title(positives, config.batch_size, per_title, generator)
        else:
            while len(queue) < config.batch_size:
                queue = torch.cat([queue, usable[torch.randperm(len(usable), generator=generator)]])
            rows, queue = queue[: config.batch_size], queue[config.batch_size :]
            chosen = torch.multinomial(positives[rows], 1, generator=generator).squeeze(1)
        yield _batch(rows, chosen, config.negatives, mined, excluded, positives.shape[1])


def train_adapter(
    queries: Tensor, documents: Tensor, positives: Tensor, config: ContrastiveConfig,
    side: str = "both", mined: Tensor | None = None, excluded: Tensor | None = None,
) -> Adapter:
    """Train an adapter on frozen vectors of queries (n, d) and titles (m, d); see :func:`batches`.

    ``side="query"`` moves queries only, so that an index of documents stays valid; "both" sends
    both through the same adapter. The same seed gives the same weights.
    """
    if side not in SIDES:
        raise ValueError(f"side {side!r}; use one of {', '.join(SIDES)}")
    model = Adapter(queries.shape[1], seed=config.seed)
    optimizer, schedule = optimizer_for([{"params": list(model.parameters())}], config)
    with _one_thread():
        for batch in batches(positives, config, mined, excluded):
            d = documents[batch.titles]
            d = model(d) if side == "both" else d
            q = model(queries[batch.rows])
            loss = info_nce(q, d, batch.positive, config.temperature, batch.allowed)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def optimizer_for(groups: list[dict], config: ContrastiveConfig):
    """AdamW and its schedule: a tenth of warm-up, then linearly to zero."""
    decay = config.weight_decay
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=decay, fused=True)
    warm = max(1, config.steps // 10)
    ramp = lambda i: min((i + 1) / warm, (config.steps - i) / max(1, config.steps - warm))  # noqa: E731
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, ramp)


def cosine(queries: Tensor, documents: Tensor) -> Tensor:
    """Cosines (n, m) of vectors (n, d) and (m, d)."""
    return F.normalize(queries, dim=1) @ F.normalize(documents, dim=1).T


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices this small lose more by waiting for a second thread than it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _by_title(positives: Tensor, size: int, per_title: int, generator: torch.Generator):
    """Titles drawn by how often they are a positive, and ``per_title`` queries for each of them."""
    counts = positives.sum(0)
    wanted = min(max(1, size // per_title), int((counts > 0).sum()))
    titles = torch.multinomial((counts > 0).float(), wanted, generator=generator)
    weights = positives.T[titles]
    rows = torch.multinomial(weights, per_title, replacement=True, generator=generator)
    return rows.flatten(), titles.repeat_interleave(per_title)


def _batch(rows, chosen, negatives, mined, excluded, width) -> Batch:
    """Titles in play and who sees them, for the kinds of ``NEGATIVES``."""
    allowed = torch.zeros(len(rows), width, dtype=torch.bool)
    if negatives in ("batch", "both"):
        allowed[:, chosen] = True
    if negatives in ("mined", "both"):
        allowed |= mined[rows]
    if negatives == "all":
        allowed[:] = True
    if excluded is not None:
        allowed &= ~excluded[rows]
    allowed[torch.arange(len(rows)), chosen] = True
    titles = allowed.any(0).nonzero().squeeze(1)
    return Batch(rows, titles, torch.searchsorted(titles, chosen), allowed[:, titles])


def build_retriever(folder: Path, **parameters) -> dict:
    """The artifact "retriever" of chapter 02: see :func:`mangalab.training.retriever.build`."""
    from .retriever import build

    return build(folder, **parameters)
