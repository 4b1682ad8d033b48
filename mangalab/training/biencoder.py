"""Fine-tuning the encoder as a retriever: all of its upper layers, or LoRA on their matrices.

The engine is :class:`~mangalab.training.encoder.LeanEncoder` because it was measured to be faster
than sentence-transformers' trainer at the same loss (``benchmarks/contrastive.py``).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .classify import bottoms
from .contrastive import ContrastiveConfig, batches, info_nce, optimizer_for
from .encoder import LINEARS, LeanEncoder, Packed


class LowRank(nn.Module):
    """W -> W + (alpha / r) B A as a parametrization (Hu et al. 2021); B starts at zero."""

    def __init__(self, shape: tuple[int, int], rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.randn(rank, shape[1], generator=generator) * shape[1] ** -0.5)
        self.B = nn.Parameter(torch.zeros(shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, same shape."""
        return weight + self.scale * self.B @ self.A


@dataclass(frozen=True)
class Tuned:
    """A trained encoder, its losses, the number of trained weights and the seconds it took."""

    encoder: LeanEncoder
    losses: list[float]
    parameters: int
    seconds: float


def add_lora(encoder: LeanEncoder, rank: int, alpha: float | None = None, seed: int = 0) -> None:
    """Put LoRA on every matrix of the trained layers and freeze all else; ``alpha`` is 2 r."""
    encoder.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for layer in encoder.layers[encoder.first :]:
        for name in LINEARS:
            weight = getattr(layer, f"{name}_weight")
            part = LowRank(tuple(weight.shape), rank, alpha or 2 * rank, generator).to(weight.device)
            parametrize.register_parametrization(layer, f"{name}_weight", part)


def merge_lora(encoder: LeanEncoder) -> None:
    """Fold the adapters into the weights (float32); the encoder then is a plain one."""
    for layer in encoder.layers:
        for name in LINEARS:
            if parametrize.is_parametrized(layer, f"{name}_weight"):
                parametrize.remove_parametrizations(layer, f"{name}_weight")


@torch.no_grad()
def vectors(
    encoder: LeanEncoder, texts: Sequence[Sequence[int]], cache: Sequence[Tensor] | None = None
) -> Tensor:
    """Mean-pooled vectors (n, d) float32 of token ids, in their order; ``cache`` from ``bottoms``."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    device = encoder.embeddings.word_embeddings.weight.device.type
    found = torch.empty(len(texts), encoder.width)
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        x = torch.cat([cache[i] for i in rows]) if cache else None
        found[rows] = encoder(Packed.of([texts[i] for i in rows], device), x).cpu()
    return found


def tune(
    bert: nn.Module, queries: Sequence[Sequence[int]], documents: Sequence[Sequence[int]],
    positives: Tensor, config: ContrastiveConfig, layers: int = 6, rank: int | None = None,
    per_title: int = 4, excluded: Tensor | None = None, mined: Tensor | None = None,
    dtype: torch.dtype = torch.float32, caches: tuple | None = None,
) -> Tuned:
    """Fine-tune a copy of ``bert`` so that queries find their titles; both are token ids.

    ``layers`` counts the trained ones from the top, ``rank`` asks for LoRA on them. ``caches`` are
    the ``bottoms`` of queries and documents.
    """
    started = time.perf_counter()
    encoder = LeanEncoder(bert, len(bert.encoder.layer) - layers, dtype)
    if rank:
        add_lora(encoder, rank, seed=config.seed)
    if caches is None and encoder.first:
        caches = bottoms(encoder, queries), bottoms(encoder, documents)
    below_q, below_d = caches or (None, None)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimizer, schedule = optimizer_for([{"params": trained}], config)
    losses = []
    for batch in batches(positives, config, mined, excluded, per_title):
        q = _forward(encoder, queries, batch.rows, below_q)
        d = _forward(encoder, documents, batch.titles, below_d)
        positive, allowed = batch.positive.to(q.device), batch.allowed.to(q.device)
        loss = info_nce(q, d, positive, config.temperature, allowed)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    merge_lora(encoder)
    count = sum(p.numel() for p in trained)
    return Tuned(encoder.eval(), torch.stack(losses).tolist(), count, time.perf_counter() - started)


def _forward(encoder: LeanEncoder, texts, rows: Tensor, cache) -> Tensor:
    """Vectors (len(rows), d) with gradients; a text that is drawn twice is encoded once."""
    distinct, place = rows.unique(return_inverse=True)
    picked = distinct.tolist()
    device = encoder.embeddings.word_embeddings.weight.device.type
    x = torch.cat([cache[i] for i in picked]) if cache else None
    return encoder(Packed.of([texts[i] for i in picked], device), x)[place.to(device)]
