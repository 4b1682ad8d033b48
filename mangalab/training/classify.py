"""Fine-tuning the encoder as a classifier: one intent a message, or a set of them.

The loop is ours because it was measured to be faster than sentence-transformers and ``Trainer`` on
the same data at the same loss (``benchmarks/classify.py``).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import LeanEncoder, Packed, pool

Loss = Callable[[Tensor, Tensor], Tensor]
POOL = 4  # batches that are sorted by length together: like lengths meet, order stays random


@dataclass(frozen=True)
class ClassifyConfig:
    """How to train. ``layers`` counts the trained layers from the top, 0 trains the head alone.

    ``lr`` is the peak rate of the top layer and ``layer_decay`` the factor from each layer to the
    one below (Howard & Ruder 2018); the fresh head learns at ``head_lr``. ``warmup`` is a share of
    all steps, followed by a linear decay to zero. There is no dropout.
    """

    layers: int = 6
    lr: float = 2e-4
    head_lr: float = 1e-3
    layer_decay: float = 1.0
    epochs: int = 2
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.warmup < 1 or min(self.lr, self.head_lr) <= 0 or self.layers < 0:
            raise ValueError(f"{self}: need 0 <= warmup < 1, lr > 0, head_lr > 0, layers >= 0")
        if min(self.epochs, self.batch_size) < 1 or not 0 < self.layer_decay <= 1:
            raise ValueError(f"{self}: need epochs >= 1, batch_size >= 1, 0 < layer_decay <= 1")


def focal_loss(
    logits: Tensor, targets: Tensor, gamma: float = 2.0, weight: Tensor | None = None
) -> Tensor:
    """Mean of -(1 - p)^gamma log p, p the probability of the target (Lin et al. 2017, equation 4).

    ``logits`` (n, classes), ``targets`` (n,). ``gamma`` = 0 is cross-entropy. With class ``weight``
    (classes,) the mean is weighted, as in ``F.cross_entropy``.
    """
    if gamma < 0:
        raise ValueError(f"gamma must be 0 or more, got {gamma}")
    log_p = logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    # at p = 1 the power has no slope for gamma < 1: stay a hair away from zero
    losses = -((-torch.expm1(log_p)).clamp_min(1e-8) ** gamma) * log_p
    if weight is None:
        return losses.mean()
    return (weight[targets] * losses).sum() / weight[targets].sum()


def balanced_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Class weights n / (classes * n_c), (classes,): every class weighs the same in the loss."""
    counts = torch.bincount(torch.as_tensor(labels), minlength=classes)
    if int(counts.min()) == 0:
        empty = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"classes {empty} have no example: no weight can make up for that")
    return counts.sum() / (classes * counts)


def tokenize(tokenizer, texts: Sequence[str], max_length: int = 64) -> list[list[int]]:
    """Token ids with [CLS] and [SEP], cut at ``max_length``."""
    return tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]


class Classifier(nn.Module):
    """Encoder and a linear head on the mean-pooled vector."""

    def __init__(self, encoder: LeanEncoder, classes: int, seed: int = 0):
        super().__init__()
        self.encoder = encoder
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Linear(encoder.width, classes)
        self.head.weight.data.normal_(0, 0.02, generator=generator)
        self.head.bias.data.zero_()
        self.to(encoder.embeddings.word_embeddings.weight.device)

    def forward(self, batch: Packed, x: Tensor | None = None) -> Tensor:
        """Logits (n, classes) float32; ``x`` is the cached input of the first trained layer."""
        return self.head(self.encoder(batch, x))


@dataclass(frozen=True)
class Outputs:
    """What a model says of n messages: ``logits`` (n, classes), ``features`` (n, d), on CPU."""

    logits: Tensor
    features: Tensor


@dataclass(frozen=True)
class Trained:
    """A trained classifier with its loss at every step and the seconds it took."""

    model: Classifier
    losses: list[float]
    seconds: float


@torch.no_grad()
def bottoms(encoder: LeanEncoder, messages: Sequence[Sequence[int]]) -> list[Tensor]:
    """Input (t, d) of the first trained layer for each message: computed once for many runs."""
    found: list[Tensor] = [torch.empty(0)] * len(messages)
    for chosen, batch in _in_order(messages, encoder):
        states = encoder.bottom(batch).split(batch.lengths.tolist())
        for index, x in zip(chosen, states, strict=True):
            found[index] = x
    return found


def train(
    bert: nn.Module,
    messages: Sequence[Sequence[int]],
    targets: Tensor,
    config: ClassifyConfig,
    loss: Loss = F.cross_entropy,
    dtype: torch.dtype = torch.float32,
    cache: Sequence[Tensor] | None = None,
) -> Trained:
    """Fine-tune a copy of ``bert`` with a fresh head on token ids ``messages``.

    ``targets`` are labels (n,) or sets as 0/1 floats (n, classes) with a loss to match. ``dtype``
    is that of the products; masters are float32. ``cache`` comes from :func:`bottoms` of an
    encoder with the same frozen layers. The same seed gives the same weights.
    """
    started = time.perf_counter()
    first = len(bert.encoder.layer) - config.layers
    classes = targets.shape[1] if targets.dim() == 2 else int(targets.max()) + 1
    encoder = LeanEncoder(bert, first, dtype)
    model = Classifier(encoder, classes, config.seed)
    cache = bottoms(encoder, messages) if cache is None and first else cache
    plan = [order for e in range(config.epochs) for order in _batches(messages, config, e)]
    optimizer, schedule = _optimizer(model, config, len(plan))
    losses = []
    for order in plan:
        batch = Packed.of([messages[i] for i in order], model.head.weight.device.type)
        x = torch.cat([cache[i] for i in order]) if cache else None
        value = loss(model(batch, x), targets[order].to(batch.ids.device))
        value.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(value.detach())
    return Trained(model.eval(), torch.stack(losses).tolist(), time.perf_counter() - started)


@torch.no_grad()
def predict(
    model: Classifier, messages: Sequence[Sequence[int]], cache: Sequence[Tensor] | None = None
) -> Outputs:
    """Logits and pooled features of ``messages``, in their order; ``cache`` as in :func:`train`."""
    features = torch.empty(len(messages), model.head.in_features)
    for chosen, batch in _in_order(messages, model.encoder):
        x = torch.cat([cache[i] for i in chosen]) if cache else None
        features[chosen] = model.encoder(batch, x).cpu()
    logits = F.linear(features, model.head.weight.cpu(), model.head.bias.cpu())
    return Outputs(logits, features)


@torch.no_grad()
def layer_features(encoder: LeanEncoder, messages: Sequence[Sequence[int]]) -> Tensor:
    """Mean-pooled states after the embeddings and after each layer, (layers + 1, n, d) on CPU."""
    found = torch.empty(len(encoder.layers) + 1, len(messages), encoder.width)
    for chosen, batch in _in_order(messages, encoder):
        x = encoder.embed(batch)
        found[0, chosen] = pool(x, batch).cpu()
        for index, layer in enumerate(encoder.layers, start=1):
            x = layer(x, batch)
            found[index, chosen] = pool(x, batch).cpu()
    return found


def _batches(messages: Sequence, config: ClassifyConfig, epoch: int) -> list[list[int]]:
    """Random batches of like lengths: shuffle, sort within a few batches, cut, shuffle again."""
    generator = torch.Generator().manual_seed(1000 * config.seed + epoch)
    order = torch.randperm(len(messages), generator=generator).tolist()
    size, found = config.batch_size, []
    for start in range(0, len(order), size * POOL):
        pooled = sorted(order[start : start + size * POOL], key=lambda i: len(messages[i]))
        found += [pooled[i : i + size] for i in range(0, len(pooled), size)]
    return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()]


def _in_order(messages: Sequence, encoder: LeanEncoder, size: int = 64):
    """(indices, batch) over all messages, sorted by length so that grids have few empty places."""
    order = sorted(range(len(messages)), key=lambda i: len(messages[i]))
    device = encoder.embeddings.word_embeddings.weight.device.type
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield chosen, Packed.of([messages[i] for i in chosen], device)


def _optimizer(model: Classifier, config: ClassifyConfig, steps: int):
    """AdamW with a rate per layer, no decay of biases and norms, warm-up and linear decay."""
    groups = [{"params": list(model.head.parameters()), "lr": config.head_lr, "weight_decay": 0.0}]
    layers = model.encoder.layers
    for index in range(model.encoder.first, len(layers)):
        rate = config.lr * config.layer_decay ** (len(layers) - 1 - index)
        for matrix, decay in ((True, config.weight_decay), (False, 0.0)):
            chosen = [p for p in layers[index].parameters() if (p.dim() == 2) == matrix]
            groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups, fused=True)
    warm = max(1, round(config.warmup * steps))
    ramp = lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))  # noqa: E731
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, ramp)
