"""Teaching a trained router something new without losing the old: one loop for all methods.

All methods take the same number of steps of the same size: a rehearsal buffer fills half of each batch.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.utils import parametrize

from .classify import Classifier, predict
from .encoder import LINEARS, Packed

MATRICES = tuple(f"{name}_weight" for name in LINEARS)


@dataclass(frozen=True)
class Rows:
    """Token ids of n messages, the ``states`` (t, d) below the trained layers, ``targets`` (n,)."""

    messages: Sequence[Sequence[int]]
    states: Sequence[Tensor]
    targets: Tensor

    def take(self, index: Sequence[int]) -> "Rows":
        """The rows with these numbers."""
        pick = lambda found: [found[i] for i in index]  # noqa: E731
        return Rows(pick(self.messages), pick(self.states), self.targets[list(index)])

    def __add__(self, other: "Rows") -> "Rows":
        targets = torch.cat([self.targets, other.targets])
        return Rows([*self.messages, *other.messages], [*self.states, *other.states], targets)


@dataclass(frozen=True)
class Plan:
    """How to adapt. ``lr`` is the peak rate of the layers, ``head_lr`` of the head; linear decay.

    ``rank`` > 0 trains LoRA factors of the layers' matrices in their place; ``penalty`` is the lambda
    of EWC, ``distill`` the weight of the old model's answers (LwF) at ``temperature``.
    """

    steps: int = 24
    batch_size: int = 32
    lr: float = 5e-4
    head_lr: float = 3e-3
    rank: int = 0
    penalty: float = 0.0
    distill: float = 0.0
    temperature: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1 or min(self.rank, self.penalty, self.distill) < 0:
            raise ValueError(f"{self}: need steps and batch_size >= 1; rank, penalty, distill >= 0")


@dataclass(frozen=True)
class Anchor:
    """What EWC holds on to: weights ``theta`` and their importance ``fisher``, by name."""

    theta: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]

    def penalty(self, model: nn.Module) -> Tensor:
        """Sum of F (theta - theta*)^2 / 2; rows that the head has gained since are free."""
        parts = [
            (self.fisher[n] * (p[: len(self.theta[n])] - self.theta[n]).square()).sum() / 2
            for n, p in trained(model).items()
        ]
        return torch.stack(parts).sum()


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that have gradients, by name."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def grown(old: Classifier, classes: int, seed: int = 0) -> Classifier:
    """A copy of ``old``, frozen parts shared, with ``classes`` outputs; new head rows are random."""
    frozen = [old.encoder.embeddings, *old.encoder.layers[: old.encoder.first]]
    model = copy.deepcopy(old, {id(part): part for part in frozen})
    model.head = Classifier(model.encoder, classes, seed).head
    for name, value in old.head.named_parameters():
        getattr(model.head, name).data[: len(value)] = value.data
    return model


class _LowRank(nn.Module):
    """W + 2 B A with B = 0 at the start, A random."""

    def __init__(self, shape: torch.Size, rank: int, generator: torch.Generator):
        super().__init__()
        start = torch.randn(rank, shape[1], generator=generator) * shape[1] ** -0.5
        self.A, self.B = nn.Parameter(start), nn.Parameter(torch.zeros(shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 2 * self.B @ self.A


def _add_lora(layers: nn.ModuleList, rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers.requires_grad_(False)
    for layer in layers:
        for name in MATRICES:
            low = _LowRank(getattr(layer, name).shape, rank, generator)
            parametrize.register_parametrization(layer, name, low.to(getattr(layer, name).device))


def _merge_lora(layers: nn.ModuleList) -> None:
    for layer in layers:
        for name in MATRICES:
            parametrize.remove_parametrizations(layer, name)
    layers.requires_grad_(True)


def _cycle(n: int, size: int, steps: int, generator: torch.Generator) -> list[list[int]]:
    """``steps`` batches of ``size`` numbers below ``n``: shuffled passes, one after the other."""
    passes = -(-size * steps // n)
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(passes)]).tolist()
    return [order[i * size : (i + 1) * size] for i in range(steps)]


def adapt(
    old: Classifier, new: Rows, plan: Plan, classes: int,
    buffer: Rows | None = None, anchor: Anchor | None = None,
) -> Classifier:
    """A copy of ``old``, taught ``new``, with ``classes`` outputs; deterministic for a seed."""
    model = grown(old, classes, plan.seed).train()
    layers, device = model.encoder.layers[model.encoder.first :], model.head.weight.device
    if plan.rank:
        _add_lora(layers, plan.rank, plan.seed)
    generator = torch.Generator().manual_seed(plan.seed)
    fresh = plan.batch_size // 2 if buffer else plan.batch_size
    batches = _cycle(len(new.messages), fresh, plan.steps, generator)
    rows = new + buffer if buffer else new
    if buffer:
        again = _cycle(len(buffer.messages), plan.batch_size - fresh, plan.steps, generator)
        batches = [b + [len(new.messages) + i for i in e] for b, e in zip(batches, again, strict=True)]
    said = predict(old, rows.messages, rows.states).logits.to(device) if plan.distill else None
    moved = [p for p in layers.parameters() if p.requires_grad]
    groups = [{"params": moved, "lr": plan.lr}, {"params": model.head.parameters(), "lr": plan.head_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / plan.steps)
    for index in batches:
        part = rows.take(index)
        z = model(Packed.of(part.messages, device.type), torch.cat(list(part.states)))
        loss = F.cross_entropy(z, part.targets.to(device))
        if plan.penalty:
            loss = loss + plan.penalty * anchor.penalty(model)
        if plan.distill:
            loss = loss + plan.distill * distillation(z, said[index], plan.temperature)
        loss.backward()
        optimizer.step()
        ramp.step()
        optimizer.zero_grad()
    if plan.rank:
        _merge_lora(layers)
    return model.eval()


def distillation(z: Tensor, old: Tensor, temperature: float) -> Tensor:
    """T^2 KL(old || new) over the classes that the old model knew (Li & Hoiem 2016)."""
    new = F.log_softmax(z[:, : old.shape[1]] / temperature, 1)
    return temperature**2 * F.kl_div(new, F.softmax(old / temperature, 1), reduction="batchmean")


def log_likelihood(
    params: Mapping[str, Tensor], x: Tensor, target: Tensor, heads: int, eps: float
) -> Tensor:
    """log p(target | x) of one message, states x (t, d), as a function of the parameters."""
    for i in sorted({name.split(".")[2] for name in params if ".layers." in name}):
        w = {n.split(".")[3]: p for n, p in params.items() if n.startswith(f"encoder.layers.{i}.")}
        of = lambda name, w=w: (w[f"{name}_weight"], w[f"{name}_bias"])  # noqa: E731
        norm = lambda name, x: F.layer_norm(x, x.shape[-1:], *of(name), eps)  # noqa: B023, E731
        q, k, v = F.linear(x, *of("qkv")).view(len(x), 3, heads, -1).permute(1, 2, 0, 3)
        mixed = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        x = norm("norm1", x + F.linear(mixed.transpose(0, 1).reshape(x.shape), *of("out")))
        x = norm("norm2", x + F.linear(F.gelu(F.linear(x, *of("up"))), *of("down")))
    z = F.linear(x.mean(0), params["head.weight"], params["head.bias"])
    return F.log_softmax(z, 0).gather(0, target[None])[0]


def fisher(model: Classifier, rows: Rows, seed: int | None = 0, chunk: int = 8) -> dict[str, Tensor]:
    """Diagonal Fisher information by name: mean square of a message's gradient of log p(y | x).

    y is drawn from the model's answer; ``seed=None`` takes the rows' targets: the empirical Fisher.
    """
    params = {n: p.detach() for n, p in trained(model).items()}
    found, targets = {n: torch.zeros_like(p) for n, p in params.items()}, rows.targets
    if seed is not None:
        chances = predict(model, rows.messages, rows.states).logits.softmax(1)
        targets = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(seed))[:, 0]
    each = vmap(grad(log_likelihood), in_dims=(None, 0, 0, None, None))
    shape = model.encoder.layers[0].heads, model.encoder.layers[0].eps
    lengths = torch.tensor([len(ids) for ids in rows.messages])
    for length in lengths.unique().tolist():
        for part in (lengths == length).nonzero()[:, 0].split(chunk):
            x = torch.stack([rows.states[i].float() for i in part.tolist()])
            for name, g in each(params, x, targets[part].to(x.device), *shape).items():
                found[name] += g.square().sum(0)
    return {name: total / len(targets) for name, total in found.items()}
