"""Learning from pairs of replies: Bradley-Terry reward model, DPO, SimPO.

The policy is a PEFT model whose base is the SFT model, so the reference is the same model with its
adapter off and costs no second copy. Its log-probabilities never change and are computed once; the
frozen layers below the adapters run once too, and a prompt runs once for all its replies
(:mod:`.forked`). ``benchmarks/preference.py`` has the times beside TRL's.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .forked import ForkedLlama, collate, prepare, together
from .parallel import side_by_side
from .sft import Example, Prepared, SFTConfig, _initialise, _restore, learning_rate, render

LOSSES = ("dpo", "simpo")


@dataclass(frozen=True)
class Pair:
    """Two replies to a prompt, the preferred one first."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class PreferenceConfig(SFTConfig):
    """Adds to the optimiser's settings: ``beta``, the loss, and SimPO's target margin ``gamma``."""

    beta: float = 0.1
    loss: str = "dpo"
    gamma: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if self.loss not in LOSSES or self.beta <= 0:
            raise ValueError(f"loss {self.loss!r}, beta {self.beta}: {' or '.join(LOSSES)}, beta > 0")


@dataclass
class Pairs:
    """Examples of the chosen replies, then of the rejected ones, with the reference's log-probs."""

    data: Prepared
    reference: Tensor  # (2 n,)

    def __len__(self) -> int:
        return len(self.data.examples) // 2

    def rows(self, pairs: Sequence[int]) -> list[int]:
        """Rows of the chosen replies of ``pairs``, then of the rejected ones."""
        return [*pairs, *(i + len(self) for i in pairs)]


@dataclass
class PreferenceHistory:
    """For each step: loss, implicit reward margin, share of pairs in the right order; seconds."""

    losses: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Part(NamedTuple):
    """Part of a batch: its loss summed over ``count`` terms, and the margins of its pairs."""

    loss: Tensor
    count: int
    margins: Tensor | None = None


# ---------------------------------------------------------------------------- losses
def implicit_rewards(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """beta * log(pi / pi_ref) of each reply (Rafailov et al. 2023, equation 5, up to a constant)."""
    return beta * (policy - reference)


def dpo_loss(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Mean of -log sigmoid of the margin of implicit rewards; (2 n,) with the chosen replies first."""
    chosen, rejected = implicit_rewards(policy, reference, beta).chunk(2)
    return -F.logsigmoid(chosen - rejected).mean()


def simpo_loss(policy: Tensor, lengths: Tensor, beta: float, gamma: float) -> Tensor:
    """Meng et al. 2024: log-probs a token, no reference, a target margin ``gamma``."""
    chosen, rejected = (policy / lengths).chunk(2)
    return -F.logsigmoid(beta * (chosen - rejected) - gamma).mean()


def bradley_terry_loss(rewards: Tensor) -> Tensor:
    """-log sigmoid of the difference of rewards; (2 n,) with the chosen replies first."""
    chosen, rejected = rewards.chunk(2)
    return -F.logsigmoid(chosen - rejected).mean()


# ---------------------------------------------------------------------------- log-probabilities
def sequence_logps(engine: ForkedLlama, data: Prepared, rows: Sequence[int]) -> Tensor:
    """Log-probability of each completion, summed over its tokens, (rows,)."""
    return engine.logps(*collate(data, rows))


def label_counts(data: Prepared, rows: Sequence[int]) -> Tensor:
    """Completion tokens of each example."""
    return torch.tensor([len(data.examples[i].ids) - data.examples[i].prompt for i in rows])


@torch.no_grad()
def all_logps(engine: ForkedLlama, data: Prepared) -> Tensor:
    """:func:`sequence_logps` of all examples, without gradients."""
    return _for_all(data, lambda rows: sequence_logps(engine, data, rows))


def _for_all(data: Prepared, compute: Callable[[list[int]], Tensor]) -> Tensor:
    """``compute`` over all rows, a few at a time, in the order of the examples."""
    parts = list(together(data.examples))
    done = torch.cat(side_by_side(torch.no_grad()(compute), parts))
    found = torch.empty_like(done)
    found[[i for rows in parts for i in rows]] = done
    return found


def prepare_pairs(
    model: nn.Module, tokenizer, pairs: Sequence[Pair], dtype: torch.dtype = torch.bfloat16
) -> Pairs:
    """Render pairs, cache states below the adapters, and the reference's log-probs, adapter off."""
    if not pairs:
        raise ValueError("no pairs: every request's replies were equally good; sample more requests")
    examples = [render(tokenizer, p.prompt, p.chosen) for p in pairs]
    examples += [render(tokenizer, p.prompt, p.rejected) for p in pairs]
    engine = ForkedLlama(model, dtype)
    data = prepare(engine, examples)
    return Pairs(data, all_logps(engine.without_adapters(), data))


@torch.no_grad()
def restart(model: nn.Module, seed: int, name: str = "default") -> nn.Module:
    """Put the adapter back to its start, A drawn by ``seed`` and B zero: the reference again."""
    _initialise(model, name, "zero", seed)
    for key, weight in model.named_parameters():
        if f"lora_B.{name}." in key:
            weight.zero_()
    return model


def reload(model: nn.Module, updates: Mapping, name: str = "default") -> nn.Module:
    """Put the factors of ``updates`` (module name to A, B) of an earlier run back into the adapter."""
    _restore(model, name, updates)
    return model


# ---------------------------------------------------------------------------- training
def train_replies(
    model: nn.Module, data: Sequence[Example] | Prepared, config: SFTConfig,
    dtype: torch.dtype = torch.bfloat16,
) -> PreferenceHistory:
    """``sft.train`` on this module's engine: the mean NLL of completion tokens; losses only."""
    engine = ForkedLlama(model, dtype)
    data = data if isinstance(data, Prepared) else prepare(engine, data)

    def step(rows: list[int]) -> Part:
        nll = engine.label_nll(*collate(data, rows))
        return Part(nll.sum(), len(nll))

    return _fit(trainable(model), len(data.examples), config, step)


def train_pairs(
    model: nn.Module, pairs: Pairs, config: PreferenceConfig, dtype: torch.dtype = torch.bfloat16
) -> PreferenceHistory:
    """Minimise the DPO or SimPO loss; trains what requires gradients. Two replies a pair."""
    engine = ForkedLlama(model, dtype)

    def step(chosen: list[int]) -> Part:
        rows = pairs.rows(chosen)
        policy, reference = sequence_logps(engine, pairs.data, rows), pairs.reference[rows]
        good, bad = implicit_rewards(policy.detach(), reference, config.beta).chunk(2)
        if config.loss == "dpo":
            loss = dpo_loss(policy, reference, config.beta)
        else:
            lengths = label_counts(pairs.data, rows).to(policy.device)
            loss = simpo_loss(policy, lengths, config.beta, config.gamma)
        return Part(len(chosen) * loss, len(chosen), good - bad)

    return _fit(trainable(model), len(pairs), config, step)


def log_ratios(model: nn.Module, pairs: Pairs, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """log pi - log pi_ref of the chosen replies, then of the rejected ones, (2, n)."""
    return (all_logps(ForkedLlama(model, dtype), pairs.data) - pairs.reference).view(2, -1)


def evaluate_pairs(model: nn.Module, pairs: Pairs, beta: float, dtype=torch.bfloat16) -> Tensor:
    """Margin of implicit rewards of each pair, (n,); above 0 the model orders it rightly."""
    chosen, rejected = beta * log_ratios(model, pairs, dtype)
    return chosen - rejected


class RewardModel:
    """A linear head on the last token's state of ``model``, whose adapter trains with it."""

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.bfloat16, seed: int = 0):
        self.model, self.engine = model, ForkedLlama(model, dtype)
        width = model.config.hidden_size
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randn(width, generator=generator)
        self.head = nn.Parameter((draw / width).to(self.engine.head.device))

    def rewards(self, data: Prepared, rows: Sequence[int]) -> Tensor:
        """Reward of each prompt with its completion, (rows,); its origin means nothing."""
        batch, bottom = collate(data, rows)
        return self.engine.read(batch, batch.ends, bottom).float() @ self.head

    def train(self, pairs: Pairs, config: SFTConfig) -> PreferenceHistory:
        """Minimise the Bradley-Terry loss (1952)."""
        def step(chosen: list[int]) -> Part:
            rewards = self.rewards(pairs.data, pairs.rows(chosen))
            good, bad = rewards.detach().chunk(2)
            return Part(len(chosen) * bradley_terry_loss(rewards), len(chosen), good - bad)

        return _fit([*trainable(self.model), self.head], len(pairs), config, step)

    @torch.no_grad()
    def score(self, data: Prepared | Sequence[Example]) -> Tensor:
        """Rewards of examples, (n,); states cached for a policy on the same base serve as well."""
        data = data if isinstance(data, Prepared) else prepare(self.engine, data)
        return _for_all(data, lambda rows: self.rewards(data, rows))


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that require gradients."""
    return [p for p in model.parameters() if p.requires_grad]


def _fit(
    parameters: list[nn.Parameter], n: int, config: SFTConfig, step: Callable[[list[int]], Part],
) -> PreferenceHistory:
    """AdamW on ``step(rows)`` over shuffled batches; order and rates follow ``config`` alone."""
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    generator, history = torch.Generator().manual_seed(config.seed), PreferenceHistory()
    orders = [torch.randperm(n, generator=generator).tolist() for _ in range(config.epochs)]
    size, started = config.batch_size, time.perf_counter()
    batches = [order[i : i + size] for order in orders for i in range(0, n, size)]
    for number, batch in enumerate(batches):
        parts = accumulate(step, batch, parameters)
        count = sum(part.count for part in parts)
        history.losses.append(sum(part.loss.item() for part in parts) / count)
        if parts[0].margins is not None:
            margins = torch.cat([part.margins for part in parts])
            history.margins.append(margins.mean().item())
            history.accuracies.append((margins > 0).float().mean().item())
        update(optimizer, parameters, number, len(batches), config)
    history.seconds = time.perf_counter() - started
    return history


def accumulate(
    step: Callable[[list[int]], Part], batch: list[int], parameters: list[nn.Parameter]
) -> list[Part]:
    """Gradients of the batch's mean loss, two halves side by side; their parts without graphs."""
    def half(rows: list[int]) -> tuple[Part, tuple[Tensor, ...]]:
        part = step(rows)
        return part._replace(loss=part.loss.detach()), torch.autograd.grad(part.loss, parameters)

    done = side_by_side(half, [rows for rows in (batch[::2], batch[1::2]) if rows])
    count = sum(part.count for part, _ in done)
    for parameter, *gradients in zip(parameters, *(found for _, found in done), strict=True):
        # in the weight's own layout: the fused optimiser reads memory, not strides
        parameter.grad = (sum(gradients) / count).contiguous()
    return [part for part, _ in done]


def update(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], number: int, steps: int,
    config: SFTConfig,
) -> None:
    """One clipped step of the gradients at the rate of step ``number`` of ``steps``."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(number, steps, config)
    nn.utils.clip_grad_norm_(parameters, config.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
