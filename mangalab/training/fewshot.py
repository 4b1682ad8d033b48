"""Learning an intent from a handful of messages: prototypes, meta-learning, SetFit.

Everything works on frozen sentence vectors (n, d), or on token states cached below the trained
layers (:func:`mangalab.training.classify.bottoms`), so that an episode costs a fraction of a second.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .encoder import LeanEncoder, Packed, pool

Params = dict[str, Tensor]


def draw(labels: Tensor, k: int, seed: int) -> Tensor:
    """Indices (classes * k,) of ``k`` random examples a class, class by class; no repetition."""
    generator, found = torch.Generator().manual_seed(seed), []
    for c, count in enumerate(torch.bincount(labels).tolist()):
        if count < k:
            raise ValueError(f"class {c} has {count} examples, {k} were asked for: lower k")
        found.append(_pick(labels, c, k, generator))
    return torch.cat(found)


def _pick(labels: Tensor, c: int, k: int, generator: torch.Generator) -> Tensor:
    members = (labels == c).nonzero().squeeze(1)
    return members[torch.randperm(len(members), generator=generator)[:k]]


def prototypes(x: Tensor, labels: Tensor) -> Tensor:
    """Mean of each class, (classes, d) (Snell et al. 2017, equation 1)."""
    share = F.one_hot(labels).to(x)
    return (share / share.sum(0)).T @ x


def distance_logits(x: Tensor, centres: Tensor, squared: bool = True) -> Tensor:
    """Minus the (squared) Euclidean distance to each centre, (n, classes)."""
    gaps = (x[:, None] - centres).square().sum(-1)
    return -gaps if squared else -(gaps + 1e-12).sqrt()


@dataclass(frozen=True)
class MetaConfig:
    """Episodes of ``ways`` classes with ``shots`` supports and ``queries`` queries each.

    ``inner_lr`` and ``inner_steps`` belong to the adaptation on the supports (MAML and ANIL).
    """

    episodes: int = 60
    ways: int = 5
    shots: int = 5
    queries: int = 8
    lr: float = 3e-4
    inner_lr: float = 1.0
    inner_steps: int = 5
    seed: int = 0

    def __post_init__(self):
        if min(self.episodes, self.shots, self.queries, self.inner_steps) < 1 or self.ways < 2:
            raise ValueError(f"{self}: need 2 or more ways and 1 or more of everything else")


def episodes(labels: Tensor, config: MetaConfig) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(supports, queries, their labels) of random classes, renumbered from 0."""
    generator, k = torch.Generator().manual_seed(config.seed), config.shots
    if (least := int(torch.bincount(labels).min())) < k + config.queries:
        raise ValueError(f"a class has {least} examples: lower shots {k} or queries {config.queries}")
    for _ in range(config.episodes):
        chosen = torch.randperm(int(labels.max()) + 1, generator=generator)[: config.ways]
        grid = torch.stack([_pick(labels, c, k + config.queries, generator) for c in chosen])
        names = torch.arange(config.ways)
        yield (grid[:, :k].flatten(), grid[:, k:].flatten(),
               names.repeat_interleave(k), names.repeat_interleave(config.queries))


def train_projection(
    x: Tensor, labels: Tensor, config: MetaConfig, squared: bool = True
) -> tuple[Tensor, list[float]]:
    """Linear map (d, d) trained from the identity as a prototypical network; and the losses.

    A learned scale goes with it, or plain distances of unit vectors could not become confident.
    """
    weight = torch.eye(x.shape[1], device=x.device, requires_grad=True)
    scale = torch.tensor(10.0, device=x.device, requires_grad=True)
    optimizer, losses = torch.optim.Adam([weight, scale], lr=config.lr), []
    for supports, queries, ys, yq in episodes(labels, config):
        centres = prototypes(x[supports] @ weight.T, ys)
        logits = scale * distance_logits(x[queries] @ weight.T, centres, squared)
        losses.append(_step(optimizer, F.cross_entropy(logits, yq.to(x.device))))
    return weight.detach(), losses


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


class TopLayers(nn.Module):
    """The trained layers of an encoder and a linear head, on cached states below them."""

    def __init__(self, encoder: LeanEncoder, ways: int):
        super().__init__()
        self.layers = encoder.layers[encoder.first :]
        self.head = nn.Linear(encoder.width, ways)
        for p in self.head.parameters():
            nn.init.zeros_(p)
        self.to(encoder.embeddings.word_embeddings.weight.device)

    def features(self, batch: Packed, x: Tensor) -> Tensor:
        """Sentence vectors (n, d) from packed states (T, d)."""
        for layer in self.layers:
            x = layer(x, batch)
        return pool(x, batch)

    def forward(self, batch: Packed, x: Tensor) -> Tensor:
        """Logits (n, ways)."""
        return self.head(self.features(batch, x))


@dataclass(frozen=True)
class States:
    """Messages as token ids, with their states (t, d) below the first trained layer."""

    messages: Sequence[Sequence[int]]
    below: Sequence[Tensor]

    def pack(self, rows: Tensor) -> tuple[Packed, Tensor]:
        """The messages ``rows`` and their states, packed."""
        found = rows.tolist()
        x = torch.cat([self.below[i] for i in found])
        return Packed.of([self.messages[i] for i in found], x.device.type), x

    @torch.no_grad()
    def map(self, function: Callable[[Packed, Tensor], Tensor], rows: Tensor, size: int = 64) -> Tensor:
        """``function(batch, states)`` of the messages ``rows``, in their order."""
        order = sorted(range(len(rows)), key=lambda i: len(self.messages[int(rows[i])]))
        parts = [function(*self.pack(rows[order[i : i + size]])) for i in range(0, len(order), size)]
        whole = torch.cat(parts)
        return whole[torch.tensor(order).argsort().to(whole.device)]


def adapt(
    start: Params, loss: Callable[[Params], Tensor], steps: int, lr: float, second_order: bool
) -> Params:
    """``steps`` of gradient descent from ``start``, as a function of ``start``.

    With ``second_order`` the steps are differentiated too (MAML); without, an outer gradient passes
    through them unchanged: first-order MAML (Finn et al. 2017, section 5.2).
    """
    now = dict(start)
    for _ in range(steps):
        grads = torch.autograd.grad(loss(now), list(now.values()), create_graph=second_order)
        now = {name: p - lr * g for (name, p), g in zip(now.items(), grads, strict=True)}
    return now


def head_loss(z: Tensor, y: Tensor) -> Callable[[Params], Tensor]:
    """Cross-entropy on vectors ``z`` as a function of the head's weight and bias."""
    y = y.to(z.device)
    return lambda head: F.cross_entropy(F.linear(z, head["weight"], head["bias"]), y)


def whole_loss(model: TopLayers, packed: tuple, y: Tensor) -> Callable[[Params], Tensor]:
    """Cross-entropy as a function of all parameters of ``model``."""
    y = y.to(packed[1].device)
    return lambda params: F.cross_entropy(functional_call(model, params, packed), y)


def meta_train(
    model: TopLayers, states: States, labels: Tensor, config: MetaConfig, whole: bool = False
) -> list[float]:
    """Find a start from which few steps suffice; changes ``model``, returns the query losses.

    ANIL (Raghu et al. 2020): the inner loop moves the head alone, exactly differentiated. With
    ``whole`` it moves the layers as well, to first order (FOMAML).
    """
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=config.lr), []
    for supports, queries, ys, yq in episodes(labels, config):
        near, far = states.pack(supports), states.pack(queries)
        if whole:
            start = dict(model.named_parameters())
            inner, outer = whole_loss(model, near, ys), whole_loss(model, far, yq)
        else:
            start = dict(model.head.named_parameters())
            inner = head_loss(model.features(*near), ys)
            outer = head_loss(model.features(*far), yq)
        moved = adapt(start, inner, config.inner_steps, config.inner_lr, not whole)
        losses.append(_step(optimizer, outer(moved)))
    return losses


def pair_loss(z: Tensor, labels: Tensor) -> Tensor:
    """Squared error of every pair's cosine against 1 (same class) or 0, both kinds weighed alike.

    SetFit (Tunstall et al. 2022) draws as many positive as negative pairs; here all count.
    """
    i, j = torch.triu_indices(len(z), len(z), 1, device=z.device)
    labels = labels.to(z.device)
    unit, same = F.normalize(z, dim=-1), labels[i] == labels[j]
    errors = ((unit[i] * unit[j]).sum(-1) - same.float()).square()
    return (errors[same].mean() + errors[~same].mean()) / 2


def setfit(
    model: TopLayers, states: States, rows: Tensor, labels: Tensor, steps: int, lr: float,
    seed: int = 0, each: int = 5,
) -> list[float]:
    """Contrastive training of the layers on messages ``rows``, ``each`` of every class a step.

    A class with one message is paired with itself. AdamW with a linear decay; returns the losses.
    """
    generator, losses = torch.Generator().manual_seed(seed), []
    optimizer = torch.optim.AdamW(model.layers.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        picks = [_pick(labels, c, each, generator) for c in range(int(labels.max()) + 1)]
        chosen = torch.cat([p if len(p) > 1 else p.repeat(2) for p in picks])
        loss = pair_loss(model.features(*states.pack(rows[chosen])), labels[chosen])
        losses.append(_step(optimizer, loss))
        schedule.step()
    return losses
