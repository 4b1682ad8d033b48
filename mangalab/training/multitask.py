"""One encoder, several heads: tasks that label different messages are trained together.

The layers below the trained ones are frozen and their states come from a cache. A step takes messages
of every stream, encodes each stream once, and masks the loss of a task where a message has no label.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import LeanEncoder, Packed, pool
from .weighing import WEIGHTINGS

KINDS = ("one", "set", "tags")  # softmax a message, sigmoids a message, softmax a token
IGNORED = -100  # the label of tokens that are no part of the message
Target = Tensor | list[Tensor]


@dataclass(frozen=True)
class Task:
    """A head with ``width`` outputs; it is trained on the messages of one stream."""

    name: str
    kind: str
    width: int
    stream: str

    def __post_init__(self):
        if self.kind not in KINDS or self.width < 1:
            raise ValueError(f"{self}: kind is one of {KINDS}, width at least 1")


@dataclass(frozen=True)
class Stream:
    """n messages as token ids, their cached bottom, and for each task its targets and who has one.

    Targets: labels (n,) for "one", 0/1 floats (n, width) for "set", a list of n label vectors (t,)
    for "tags". ``masks`` (n,) are true where a label exists; a task without a mask has them all.
    """

    messages: Sequence[Sequence[int]]
    cache: Sequence[Tensor]
    targets: Mapping[str, Target] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def batch(self, rows: Sequence[int], device: str = "cpu") -> tuple[Packed, Tensor]:
        """The messages ``rows``, packed, and their cached states."""
        x = torch.cat([self.cache[i] for i in rows]).to(device)
        return Packed.of([self.messages[i] for i in rows], device), x

    def labels(self, task: Task, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(targets, mask) of ``task`` for ``rows``; tags of all messages in one vector."""
        found = self.targets[task.name]
        targets = torch.cat([found[i] for i in rows]) if task.kind == "tags" else found[rows]
        mask = self.masks.get(task.name)
        return targets, torch.ones(len(rows), dtype=torch.bool) if mask is None else mask[rows]


@dataclass(frozen=True)
class MultiConfig:
    """How to train. ``shared`` layers under all heads and ``private`` ones above them are trained.

    Each step takes ``rows`` messages of every stream. ``weight_lr`` moves the uncertainties or the
    weights of GradNorm, whose restoring force is ``alpha``.
    """

    weighting: str = "equal"
    steps: int = 100
    rows: int = 16
    shared: int = 2
    private: int = 0
    lr: float = 4e-4
    head_lr: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    weight_lr: float = 0.1
    alpha: float = 1.5
    seed: int = 0

    def __post_init__(self):
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting {self.weighting!r}: use one of {', '.join(WEIGHTINGS)}")
        if min(self.steps, self.rows) < 1 or min(self.shared, self.private) < 0:
            raise ValueError(f"{self}: need steps and rows of at least 1, layers of at least 0")


class MultiModel(nn.Module):
    """Encoder whose top layers are shared, then private; one linear head a task."""

    def __init__(
        self, bert: nn.Module, tasks: Sequence[Task], config: MultiConfig, dtype: torch.dtype
    ):
        super().__init__()
        depth = len(bert.encoder.layer)
        self.tasks, self.split = {t.name: t for t in tasks}, depth - config.private
        self.encoder = LeanEncoder(bert, self.split - config.shared, dtype)
        tops = self.encoder.layers[self.split :]
        self.private = nn.ModuleDict({t.name: copy.deepcopy(tops) for t in tasks})
        self.encoder.layers[self.split :].requires_grad_(False)
        self.heads = nn.ModuleDict()
        for task in tasks:  # seeded by name: a head starts alike in every company
            generator = torch.Generator().manual_seed(1000 * config.seed + sum(task.name.encode()))
            self.heads[task.name] = nn.Linear(self.encoder.width, task.width)
            self.heads[task.name].weight.data.normal_(0, 0.02, generator=generator)
            self.heads[task.name].bias.data.zero_()
        self.to(self.encoder.embeddings.word_embeddings.weight.device)

    @property
    def device(self) -> str:
        """Where the weights are."""
        return self.encoder.embeddings.word_embeddings.weight.device.type

    @property
    def shared(self) -> list[nn.Parameter]:
        """The trained parameters that all heads share."""
        return [p for p in self.encoder.layers[self.encoder.first : self.split].parameters()]

    def own(self, name: str) -> list[nn.Parameter]:
        """The parameters that only task ``name`` uses."""
        return [*self.private[name].parameters(), *self.heads[name].parameters()]

    def states(self, batch: Packed, x: Tensor | None = None) -> Tensor:
        """Hidden states (T, d) after the last shared layer; ``x`` is the cached bottom."""
        return self.encoder.hidden(batch, x, stop=self.split)

    def logits(self, name: str, states: Tensor, batch: Packed) -> Tensor:
        """(n, width) of task ``name``, or (T, width) for tags; float32."""
        for layer in self.private[name]:
            states = layer(states, batch)
        tags = self.tasks[name].kind == "tags"
        return self.heads[name](states.float() if tags else pool(states, batch))


def masked_loss(task: Task, logits: Tensor, targets: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    """Mean loss over the messages with a label (over their tokens for tags); 0 where there is none.

    ``mask`` (n,) is by message; ``rows`` (T,) says which message a token belongs to.
    """
    if task.kind == "tags":
        targets = torch.where(mask[rows], targets, IGNORED)
        total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        return total / (targets != IGNORED).sum().clamp_min(1)
    if task.kind == "one":
        each = F.cross_entropy(logits, targets.clamp_min(0), reduction="none")
    else:
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return (each * mask).sum() / mask.sum().clamp_min(1)


@dataclass(frozen=True)
class MultiRun:
    """A trained model, its ``losses`` and ``weights`` (steps, tasks), inner products of the tasks'
    gradients at each step where they were needed, and seconds."""

    model: MultiModel
    losses: Tensor
    weights: Tensor
    grams: list[Tensor]
    seconds: float


def task_gradients(
    model: MultiModel, losses: Sequence[Tensor], out: Tensor | None = None
) -> Tensor:
    """Gradient of each loss on the shared parameters, flattened: (tasks, parameters).

    Written into ``out`` if given: fresh memory of this size costs as much as the products. The
    gradients of what a task has for itself go to ``.grad`` on the way, unweighted.
    """
    shared = model.shared
    sizes = [p.numel() for p in shared]
    out = losses[0].new_empty(len(losses), sum(sizes)) if out is None else out
    for row, name, loss in zip(out, model.tasks, losses, strict=True):
        own = model.own(name)
        found = torch.autograd.grad(loss, [*shared, *own], retain_graph=True)
        for part, g in zip(row.split(sizes), found, strict=False):
            part.copy_(g.flatten())
        for p, g in zip(own, found[len(shared) :], strict=True):
            p.grad = g
    return out


def task_losses(
    model: MultiModel, streams: Mapping[str, Stream], rows: Mapping[str, Sequence[int]]
) -> list[Tensor]:
    """Masked loss of every task on the given rows of its stream; each stream is encoded once.

    Messages without a label of any of the model's tasks add nothing and are left out.
    """
    found, device = {}, model.device
    for name in dict.fromkeys(task.stream for task in model.tasks.values()):
        tasks = [t for t in model.tasks.values() if t.stream == name]
        used = _labelled(streams[name], tasks, rows[name])
        batch, x = streams[name].batch(used, device)
        states = model.states(batch, x)
        for task in tasks:
            targets, mask = (part.to(device) for part in streams[name].labels(task, used))
            logits = model.logits(task.name, states, batch)
            found[task.name] = masked_loss(task, logits, targets, mask, batch.rows)
    return [found[name] for name in model.tasks]


def _labelled(stream: Stream, tasks: Sequence[Task], rows: Sequence[int]) -> list[int]:
    """Those of ``rows`` with a label of one of ``tasks``; one message, if none has."""
    masks = [stream.labels(task, rows)[1] for task in tasks]
    kept = torch.stack(masks).any(0).nonzero().flatten().tolist() or [0]
    return [rows[i] for i in kept]


def train_multi(
    bert: nn.Module, tasks: Sequence[Task], streams: Mapping[str, Stream], config: MultiConfig,
    dtype: torch.dtype = torch.float32, watch: Callable[[int, MultiModel], None] | None = None,
) -> MultiRun:
    """Train a fresh model on ``tasks``. A stream's batches depend on the seed and the stream alone,
    so a control that trains one task meets the same messages in the same order. ``watch`` is called
    with the step and the model before each step and once after the last."""
    started = time.perf_counter()
    model = MultiModel(bert, tasks, config, dtype).train()
    weighting = WEIGHTINGS[config.weighting](len(tasks), config.weight_lr, config.alpha, config.seed)
    optimizer, schedule = _optimizer(model, config)
    names = dict.fromkeys(task.stream for task in tasks)
    plans = {name: _plan(len(streams[name].messages), config, name) for name in names}
    losses, weights, grams, flat = [], [], [], None
    for step in range(config.steps):
        if watch:
            watch(step, model)
        optimizer.zero_grad()
        found = task_losses(model, streams, {name: plan[step] for name, plan in plans.items()})
        losses.append(torch.stack([loss.detach().cpu() for loss in found]))
        if weighting.gradients:
            flat = task_gradients(model, found, flat)
            grams.append((flat @ flat.T).cpu())
            weights.append(weighting.weights(losses[-1], grams[-1]))
            _set_gradients(model.shared, weights[-1].to(flat) @ flat)
        else:
            weights.append(weighting.weights(losses[-1], None))
            sum(w * loss for w, loss in zip(weights[-1].tolist(), found, strict=True)).backward()
        optimizer.step()
        schedule.step()
    if watch:
        watch(config.steps, model)
    seconds = time.perf_counter() - started
    return MultiRun(model.eval(), torch.stack(losses), torch.stack(weights), grams, seconds)


def _set_gradients(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p)


@torch.no_grad()
def predict_multi(
    model: MultiModel, stream: Stream, names: Sequence[str], size: int = 64
) -> dict[str, list[Tensor]]:
    """Logits of the tasks ``names`` for every message, in order: (width,) each, (t, width) for tags."""
    found = {name: [torch.empty(0)] * len(stream.messages) for name in names}
    order = sorted(range(len(stream.messages)), key=lambda i: len(stream.messages[i]))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch, x = stream.batch(rows, model.device)
        states, lengths = model.states(batch, x), batch.lengths.tolist()
        for name in names:
            logits = model.logits(name, states, batch).cpu()
            parts = logits.split(lengths) if model.tasks[name].kind == "tags" else logits
            for row, part in zip(rows, parts, strict=True):
                found[name][row] = part
    return found


def _plan(n: int, config: MultiConfig, stream: str) -> list[list[int]]:
    """Row numbers of each step: whole shuffled passes, cut into batches."""
    generator = torch.Generator().manual_seed(1000 * config.seed + sum(stream.encode()))
    passes = -(-config.steps * config.rows // n)
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(passes)]).tolist()
    return [order[i * config.rows : (i + 1) * config.rows] for i in range(config.steps)]


def _optimizer(model: MultiModel, config: MultiConfig):
    """AdamW; heads at their own rate; no decay of biases and norms; warm-up and linear decay."""
    trunk = model.shared + [p for top in model.private.values() for p in top.parameters()]
    groups = [{"params": list(model.heads.parameters()), "lr": config.head_lr, "weight_decay": 0.0}]
    for matrix, decay in ((True, config.weight_decay), (False, 0.0)):
        chosen = [p for p in trunk if (p.dim() == 2) == matrix]
        groups.append({"params": chosen, "lr": config.lr, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups, fused=True)
    warm, steps = max(1, round(config.warmup * config.steps)), config.steps
    ramp = lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))  # noqa: E731
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, ramp)
