"""Which layer learns when, and how fast: gradual unfreezing, discriminative rates and the slanted
triangle of ULMFiT (Howard & Ruder 2018), for an encoder that tells several things of a message.

The layers below the lowest trained one have never moved, so what they put out is computed once, for
every depth (:func:`all_states`), and read by every stage, epoch and seed. That is exact.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .classify import Classifier, ClassifyConfig, Loss, _batches, _in_order
from .encoder import LeanEncoder, Packed

CUT_FRACTION = 0.1
RATIO = 32.0
DECAY = 1 / 2.6  # rate of a layer over that of the layer above it, as in the paper
Watch = Callable[[Classifier], object]


def slanted_triangular(
    step: int, steps: int, cut_fraction: float = CUT_FRACTION, ratio: float = RATIO
) -> float:
    """Factor on the peak rate at ``step`` of ``steps``, 1 / ratio to 1 (paper's equation 3).

    The descent takes steps - cut steps. The paper writes cut * (1 / cut_fraction - 1), which is the
    same where cut_fraction * steps is whole and otherwise too short: its factor then ends below 0.
    """
    if not 0 <= step < steps or not 0 < cut_fraction < 1 or ratio < 1:
        raise ValueError(
            f"slanted_triangular: step {step} of {steps}, cut_fraction {cut_fraction}, ratio {ratio}; "
            "need 0 <= step < steps, 0 < cut_fraction < 1 and ratio >= 1"
        )
    cut = max(1, int(steps * cut_fraction))
    share = step / cut if step < cut else 1 - (step - cut) / max(1, steps - cut)
    return (1 + share * (ratio - 1)) / ratio


@dataclass(frozen=True)
class Schedule(ClassifyConfig):
    """A :class:`ClassifyConfig` whose ``layers`` need not all train from the start.

    ``stages`` has one entry an epoch: how many layers, from the top, train in it; empty trains
    ``layers`` in all of them. 0 trains the head alone. A layer that trains keeps training.
    ``slanted`` replaces warm-up and linear decay by the triangle, drawn over the whole run.
    ``layer_decay`` = ``DECAY`` gives the paper's discriminative rates.
    """

    stages: tuple[int, ...] = ()
    slanted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stages and len(self.stages) != self.epochs:
            raise ValueError(f"{len(self.stages)} stages for {self.epochs} epochs: need one an epoch")
        if list(self.stages) != sorted(self.stages) or any(s < 0 for s in self.stages):
            raise ValueError(f"stages {self.stages}: a layer that trains keeps training, from the top")

    @property
    def trained(self) -> tuple[int, ...]:
        """Layers trained in each epoch."""
        return self.stages or (self.layers,) * self.epochs

    def factor(self, step: int, steps: int) -> float:
        """Factor on every rate at ``step``: the triangle, or warm-up and linear decay."""
        if self.slanted:
            return slanted_triangular(step, steps)
        warm = max(1, round(self.warmup * steps))
        return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


@dataclass(frozen=True)
class Fitted:
    """A trained model, its losses, what ``watch`` said and when, and what the training cost.

    ``seen`` holds (step, layers that train, result of ``watch``). ``layer_tokens`` counts tokens
    times layers trained on them: the work, as far as it grows with the layers.
    """

    model: Classifier
    losses: list[float]
    seen: list[tuple[int, int, object]]
    layer_tokens: int
    seconds: float


@torch.no_grad()
def all_states(encoder: LeanEncoder, messages: Sequence[Sequence[int]]) -> list[list[Tensor]]:
    """Input (t, d) of every layer and, last, the output of the top one, for each message.

    A list over depths of lists over messages; valid for a layer while none below it has moved.
    """
    found = [[torch.empty(0)] * len(messages) for _ in range(len(encoder.layers) + 1)]
    for chosen, batch in _in_order(messages, encoder):
        x = encoder.embed(batch)
        for depth in range(len(found)):
            x = encoder.layers[depth - 1](x, batch) if depth else x
            for index, states in zip(chosen, x.split(batch.lengths.tolist()), strict=True):
                found[depth][index] = states.clone()
    return found


def thaw(model: Classifier, layers: int) -> None:
    """Let the top ``layers`` layers and the head learn, and nothing below them."""
    encoder = model.encoder
    encoder.first = len(encoder.layers) - layers
    for index, layer in enumerate(encoder.layers):
        layer.requires_grad_(index >= encoder.first)


def optimizer_of(model: Classifier, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW over the head and every layer that will train, each layer with its own peak rate.

    A frozen layer has no gradient, and AdamW passes over what has none: no decay, no moments.
    """
    layers = model.encoder.layers
    groups = [{"params": list(model.head.parameters()), "lr": schedule.head_lr, "weight_decay": 0.0}]
    for depth in range(max(schedule.trained)):
        chosen = list(layers[len(layers) - 1 - depth].parameters())
        rate = schedule.lr * schedule.layer_decay**depth
        matrices = [p for p in chosen if p.dim() == 2]
        groups.append({"params": matrices, "lr": rate, "weight_decay": schedule.weight_decay})
        rest = [p for p in chosen if p.dim() != 2]
        groups.append({"params": rest, "lr": rate, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, fused=True)


def fit(
    bert: nn.Module,
    messages: Sequence[Sequence[int]],
    targets: Tensor,
    schedule: Schedule,
    loss: Loss,
    dtype: torch.dtype = torch.float32,
    states: Sequence[Sequence[Tensor]] | None = None,
    watch: Watch | None = None,
    watch_every: int = 0,
) -> Fitted:
    """Fine-tune a copy of ``bert`` by ``schedule`` on token ids and 0/1 ``targets`` (n, labels).

    ``states`` come from :func:`all_states` of the untouched encoder in ``dtype``. ``watch`` is called
    before the first step, after every ``watch_every`` steps and after the last one; its time is not
    counted in ``seconds``. The same seed gives the same weights.
    """
    states = states or all_states(LeanEncoder(bert, 0, dtype), messages)
    model = Classifier(LeanEncoder(bert, 0, dtype), targets.shape[1], schedule.seed)
    optimizer = optimizer_of(model, schedule)
    plan = [(k, o) for e, k in enumerate(schedule.trained) for o in _batches(messages, schedule, e)]
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: schedule.factor(t, len(plan)))
    losses, seen, work, seconds = [], [], 0, 0.0
    for step, (layers, order) in enumerate(plan):
        if watch and (step == 0 or (watch_every and step % watch_every == 0)):
            seen.append((step, layers, watch(model)))
        started = time.perf_counter()
        thaw(model, layers)
        batch = Packed.of([messages[i] for i in order], model.head.weight.device.type)
        x = torch.cat([states[model.encoder.first][i] for i in order])
        value = loss(model(batch, x), targets[order].to(x.device))
        value.backward()
        optimizer.step()
        if step + 1 < len(plan):  # the schedule ends with the last step
            ramp.step()
        optimizer.zero_grad()
        losses.append(value.detach())
        work += layers * len(batch.ids)
        seconds += time.perf_counter() - started
    if watch:
        seen.append((len(plan), plan[-1][0], watch(model)))
    return Fitted(model.eval(), torch.stack(losses).tolist(), seen, work, seconds)
