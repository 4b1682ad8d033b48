"""Distilling a classifier: a student learns from a teacher's soft labels, its states, or both.

A teacher speaks once: :func:`listen` stores its logits and hidden states, and every student then
trains on the stored words. Students are the teacher's body with layers left out
(:func:`student_from`), trained by the loop of ``classify`` with another loss.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .classify import Classifier, ClassifyConfig, Trained, _batches, _in_order, _optimizer
from .encoder import LeanEncoder, Packed, pool

UNLABELLED = -1


# ---------------------------------------------------------------------------- losses
def forward_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over rows of KL(p || q), p and q the softmax of teacher and student logits over T.

    Logits (n, classes). Covers the teacher's modes: q must put mass wherever p does (Hinton et al.
    2015). In the student its gradient is that of cross-entropy with soft targets, (q - p) / T.
    """
    _check(student, teacher, temperature)
    q, p = (F.log_softmax(z.float() / temperature, -1) for z in (student, teacher))
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def reverse_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over rows of KL(q || p): the student is punished for what the teacher would not say.

    It may ignore some of the teacher's modes (Gu et al. 2024). Arguments as :func:`forward_kl`.
    """
    _check(student, teacher, temperature)
    q, p = (F.log_softmax(z.float() / temperature, -1) for z in (student, teacher))
    return F.kl_div(p, q, reduction="batchmean", log_target=True)


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p || q): the factor keeps the size of the gradient when T grows (Hinton et al. 2015)."""
    return temperature**2 * forward_kl(student, teacher, temperature)


def hidden_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared error of hidden states (t, d), averaged over the matched layers.

    Jiao et al. 2020, equation 8, without their projection: here both have the same width.
    """
    if len(student) != len(teacher) or not student:
        raise ValueError(f"hidden_loss: {len(student)} and {len(teacher)} layers; match one to one")
    pairs = zip(student, teacher, strict=True)
    return torch.stack([F.mse_loss(s.float(), t.float()) for s, t in pairs]).mean()


def _check(student: Tensor, teacher: Tensor, temperature: float) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"logits {tuple(student.shape)} and {tuple(teacher.shape)}: both models must share their "
            "classes (or vocabulary)"
        )
    if temperature <= 0:
        raise ValueError(f"temperature {temperature}: must be above 0, 1 leaves the logits alone")


# ---------------------------------------------------------------------------- models
def evenly(layers: int, keep: int) -> tuple[int, ...]:
    """``keep`` layers of ``layers``, evenly spread, the last one included: (6, 3) -> (1, 3, 5)."""
    if not 0 < keep <= layers:
        raise ValueError(f"keep {keep} of {layers} layers: choose 1 to {layers}")
    return tuple((i + 1) * layers // keep - 1 for i in range(keep))


def student_from(model: nn.Module, layers: Sequence[int]) -> nn.Module:
    """A copy of a BERT or Llama model that has only ``layers`` of it, in that order.

    Weights are copied, nothing is shared with ``model``, which stays as it is.
    """
    stack = getattr(getattr(model, "model", None), "layers", None)
    where = ("model.layers", stack) if stack is not None else ("encoder.layer", model.encoder.layer)
    if not layers or not set(layers) <= set(range(len(where[1]))):
        raise ValueError(f"layers {tuple(layers)}: this model has 0 to {len(where[1]) - 1}")
    kept = nn.ModuleList(copy.deepcopy(where[1][i]) for i in layers)
    # the layers left out must not be copied on the way
    student = copy.deepcopy(model, {id(where[1]): kept})
    for index, layer in enumerate(kept):
        attention = getattr(layer, "self_attn", None)
        if attention is not None:
            attention.layer_idx = index  # place in the key-value cache
    student.config = copy.deepcopy(model.config)
    student.config.num_hidden_layers = len(kept)
    if getattr(student.config, "layer_types", None):
        student.config.layer_types = [student.config.layer_types[i] for i in layers]
    if stack is not None:
        student.model.config = student.config
    return student


# ---------------------------------------------------------------------------- the teacher's words
@dataclass(frozen=True)
class Lessons:
    """What students learn from. ``labels`` (n,), -1 where nobody labelled; ``logits`` (n, classes)
    of the teacher; ``states``: for each message the teacher's hidden states (layers, t, d)."""

    labels: Tensor
    logits: Tensor | None = None
    states: list[Tensor] | None = None

    def first(self, n: int) -> "Lessons":
        """The lessons of the first ``n`` messages."""
        cut = lambda x: None if x is None else x[:n]  # noqa: E731
        return Lessons(self.labels[:n], cut(self.logits), cut(self.states))


@torch.no_grad()
def listen(
    teacher: Classifier, messages: Sequence[Sequence[int]], layers: Sequence[int] = ()
) -> tuple[Tensor, list[Tensor]]:
    """The teacher's logits (n, classes) float32 and, per message, its states after ``layers``
    (len(layers), t, d), both on CPU and in the order of ``messages``."""
    logits = torch.empty(len(messages), teacher.head.out_features)
    states: list[Tensor] = [torch.empty(0)] * len(messages)
    for chosen, batch in _in_order(messages, teacher.encoder):
        out, found = _forward(teacher, batch, layers)
        logits[chosen] = out.float().cpu()
        if layers:
            pieces = torch.stack(found).cpu().split(batch.lengths.tolist(), dim=1)
            for index, piece in zip(chosen, pieces, strict=True):
                states[index] = piece.clone()
    return logits, states if layers else []


def ensemble(logits: Sequence[Tensor]) -> Tensor:
    """Logits of the product of experts, (n, classes): the mean over models of log-probabilities."""
    return torch.stack([F.log_softmax(z, -1) for z in logits]).mean(0)


# ---------------------------------------------------------------------------- training
@dataclass(frozen=True)
class Recipe:
    """Weights of the three terms: ``hard`` cross-entropy on labels (where there are any), ``soft``
    T^2 KL to the teacher, ``hidden`` error of the states; ``temperature`` T of the soft term.

    ``squared`` false leaves T^2 out of the soft term, to see what it is for.
    """

    hard: float = 0.0
    soft: float = 0.0
    hidden: float = 0.0
    temperature: float = 1.0
    squared: bool = True

    def __post_init__(self):
        if min(self.hard, self.soft, self.hidden) < 0 or self.hard + self.soft + self.hidden == 0:
            raise ValueError(f"{self}: weights must not be negative, and one must be above 0")
        if self.temperature <= 0:
            raise ValueError(f"{self}: temperature must be above 0")

    def loss(self, logits: Tensor, labels: Tensor, told: Tensor | None, states=(), said=()) -> Tensor:
        """The weighted sum; a term of weight 0 is never computed."""
        parts = []
        known = labels != UNLABELLED
        if self.hard and bool(known.any()):
            # a batch that is labelled in part has a smaller hard term, not a louder one
            share = known.float().mean()
            parts.append(self.hard * share * F.cross_entropy(logits[known], labels[known]))
        if self.soft:
            factor = 1.0 if self.squared else self.temperature**-2
            parts.append(self.soft * factor * soft_loss(logits, told, self.temperature))
        if self.hidden:
            parts.append(self.hidden * hidden_loss(states, said))
        return torch.stack(parts).sum() if parts else logits.sum() * 0.0


def train(
    bert: nn.Module,
    messages: Sequence[Sequence[int]],
    lessons: Lessons,
    recipe: Recipe,
    config: ClassifyConfig,
    classes: int,
    dtype: torch.dtype = torch.float32,
    head: nn.Linear | None = None,
    steps: int | None = None,
) -> Trained:
    """Train a copy of ``bert`` (see :func:`student_from`) on ``lessons``; all layers move.

    With ``recipe.hidden``, layer i is matched with row i of ``lessons.states``. ``head`` gives the
    head's first values (default: fresh). ``steps`` ends the plan early or repeats epochs, so that
    data sets of different size can be given equal compute. With labels alone it is
    ``classify.train``, step for step.
    """
    started = time.perf_counter()
    _complete(lessons, recipe, len(messages))
    model = Classifier(LeanEncoder(bert, 0, dtype), classes, config.seed)
    if head is not None:
        model.head.load_state_dict(head.state_dict())
    plan = _plan(messages, config, steps)
    optimizer, schedule = _optimizer(model, replace(config, layers=len(bert.encoder.layer)), len(plan))
    device, losses = model.head.weight.device, []
    matched = range(len(model.encoder.layers)) if recipe.hidden else ()
    for order in plan:
        batch = Packed.of([messages[i] for i in order], device.type)
        logits, states = _forward(model, batch, matched)
        told = lessons.logits[order].to(device) if recipe.soft else None
        said = torch.cat([lessons.states[i] for i in order], 1).to(device) if recipe.hidden else ()
        value = recipe.loss(logits, lessons.labels[order].to(device), told, states, said)
        value.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(value.detach())
    return Trained(model.eval(), torch.stack(losses).tolist(), time.perf_counter() - started)


def _plan(messages: Sequence, config: ClassifyConfig, steps: int | None) -> list[list[int]]:
    """Batches of ``config.epochs`` passes, or exactly ``steps`` of as many passes as they need."""
    plan: list[list[int]] = []
    epoch = 0
    while (epoch < config.epochs) if steps is None else (len(plan) < steps):
        plan += _batches(messages, config, epoch)
        epoch += 1
    return plan[:steps]


def _complete(lessons: Lessons, recipe: Recipe, n: int) -> None:
    """Refuse a recipe that asks for what the teacher never said."""
    if len(lessons.labels) != n:
        raise ValueError(f"{len(lessons.labels)} labels for {n} messages")
    for term, there in (("soft", lessons.logits), ("hidden", lessons.states)):
        if getattr(recipe, term) and (there is None or len(there) != n):
            have = 0 if there is None else len(there)
            raise ValueError(f"recipe.{term} > 0 needs the teacher on {n} messages, has {have}")


def _forward(model: Classifier, batch: Packed, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the hidden states (T, d) after each of ``layers``."""
    if not len(layers):
        return model(batch), []
    x, found = model.encoder.embed(batch), {}
    for index, layer in enumerate(model.encoder.layers):
        x = found[index] = layer(x, batch)
    return model.head(pool(x, batch)), [found[i] for i in layers]
