"""Distilling the causal LM: a pruned student learns its teacher's next-token distributions.

The teacher's logits at the answer tokens are stored once (:func:`tell`), in bfloat16; a student then
trains on golden answers, on the teacher's own answers, or on those stored distributions, with the
engine and the schedule of ``sft``. Students come from ``distill.student_from``.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import sft
from .distill import forward_kl
from .llama import LeanLlama
from .sft import Example, History, Prepared, SFTConfig

TokenLoss = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def tell(
    teacher: nn.Module, data: Sequence[Example] | Prepared, dtype: torch.dtype = torch.bfloat16,
    chunk: int = 16,
) -> list[Tensor]:
    """The teacher's logits (labels, vocabulary) at the label tokens of each example, bfloat16, CPU.

    Pass :class:`Prepared` data where several models have the layers below ``first`` in common.
    """
    engine, found = LeanLlama(teacher, dtype, training=False), []
    data = sft._prepared(engine, data, cache=False)
    for start in range(0, len(data.examples), chunk):
        rows = range(start, min(start + chunk, len(data.examples)))
        batch, bottom = sft._collate(data, rows, engine)
        pieces = engine.logits(batch, bottom).bfloat16().cpu()
        pieces = pieces.split(_labels([data.examples[i] for i in rows]))
        found += [piece.clone() for piece in pieces]
    return found


def train(
    student: nn.Module, data: Sequence[Example] | Prepared, told: Sequence[Tensor], config: SFTConfig,
    loss: TokenLoss = forward_kl, dtype: torch.dtype = torch.bfloat16,
) -> History:
    """Minimise ``loss(student logits, teacher logits)`` over the label tokens; in place.

    Trains what requires gradients. Order, schedule and clipping are those of ``sft.train``, which is
    the control without a teacher.
    """
    engine = LeanLlama(student, dtype)
    data = sft._prepared(engine, data)
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    history, started = History(), time.perf_counter()
    plan = list(sft._epochs(data, config))
    for step, rows in enumerate(plan):
        for group in optimizer.param_groups:
            group["lr"] = sft.learning_rate(step, len(plan), config)
        batch, bottom = sft._collate(data, rows, engine)
        target = torch.cat([told[i] for i in rows]).to(batch.ids.device)
        value = loss(engine.logits(batch, bottom), target)
        value.backward()
        norm = nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        history.losses.append(value.item())
        history.grad_norms.append(norm.item())
        history.tokens += len(batch.targets)
    history.seconds = time.perf_counter() - started
    return history


@dataclass(frozen=True)
class Examined:
    """Per example: mean NLL of its labels (nats), whether all of them are the arg-max, and the mean
    KL(teacher || student) a label token (nats)."""

    nll: list[float]
    exact: list[bool]
    kl: list[float]


def examine(
    student: nn.Module, data: Sequence[Example] | Prepared, told: Sequence[Tensor],
    dtype: torch.dtype = torch.bfloat16,
) -> Examined:
    """Likelihood of the labels and distance to the teacher's stored logits, from one pass."""
    rows, examples = [], data.examples if isinstance(data, Prepared) else data
    for example, mine, theirs in zip(examples, tell(student, data, dtype), told, strict=True):
        labels, logits = torch.tensor(example.ids[example.prompt :]), mine.float()
        right = bool((logits.argmax(-1) == labels).all())
        rows.append((F.cross_entropy(logits, labels).item(), right, forward_kl(logits, theirs).item()))
    return Examined(*(list(column) for column in zip(*rows, strict=True)))


def another(student: nn.Module) -> nn.Module:
    """A copy of ``student`` to train: what requires gradients is its own, all else is shared."""
    shared = [p for p in student.parameters() if not p.requires_grad] + list(student.buffers())
    return copy.deepcopy(student, {id(tensor): tensor for tensor in shared})


def answers(tokenizer, prompts: Sequence[str], completions: Sequence[str]) -> list[Example]:
    """Examples of prompts with the teacher's own answers: the data of sequence-level distillation
    (Kim & Rush 2016)."""
    pairs = zip(prompts, completions, strict=True)
    return [sft.render(tokenizer, prompt, completion) for prompt, completion in pairs]


def cheapest_cut(
    model: nn.Module, drop: int, examples: Sequence[Example], starts: Sequence[int],
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[int, dict[int, float]]:
    """Where a block of ``drop`` layers is missed least: (first layer of it, NLL by first layer).

    Scores the unhealed model without layers i .. i + drop - 1 on ``examples``, for i in ``starts``.
    """
    layers, found = model.model.layers, {}
    try:
        for start in starts:
            model.model.layers = nn.ModuleList([*layers[:start], *layers[start + drop :]])
            model.config.num_hidden_layers = len(model.model.layers)
            found[start] = sft.score(model, examples, dtype).mean_nll
    finally:
        model.model.layers, model.config.num_hidden_layers = layers, len(layers)
    return min(found, key=found.get), found


def _labels(examples: Sequence[Example]) -> list[int]:
    return [len(e.ids) - e.prompt for e in examples]
