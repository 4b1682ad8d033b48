"""Learning online: RLOO on the policy's own samples, with a price on leaving the reference."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .forked import ForkedLlama, prepare
from .preference import all_logps, sequence_logps, trainable, update
from .sampling import Reply, Sampler
from .sft import Prepared, SFTConfig


@dataclass(frozen=True)
class RLOOConfig(SFTConfig):
    """``steps`` updates of ``batch_size`` prompts with ``samples`` replies each; ``beta`` prices KL."""

    steps: int = 20
    samples: int = 4
    beta: float = 0.05
    max_new_tokens: int = 48
    temperature: float = 1.0


@dataclass
class RLOOHistory:
    """For each step: mean reward, mean KL from the reference (nats a reply), mean tokens."""

    rewards: list[float] = field(default_factory=list)
    kls: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    seconds: float = 0.0


def advantages(rewards: Tensor) -> Tensor:
    """Reward minus the mean of the other samples of the same prompt, (prompts, k): Ahmadian 2024."""
    k = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdim=True)) * (k / (k - 1))


def rloo(
    model: nn.Module, sampler: Sampler, prompts: Sequence[str],
    reward: Callable[[list[int], list[Reply], Prepared], Sequence[float]], config: RLOOConfig,
    dtype: torch.dtype = torch.bfloat16,
) -> RLOOHistory:
    """REINFORCE with a leave-one-out baseline on ``reward(rows, replies, examples) - beta KL``.

    ``reward`` gets the rows of ``prompts``, the replies to them, and both as prepared examples.
    """
    parameters, history, engine = trainable(model), RLOOHistory(), ForkedLlama(model, dtype)
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    generator, started = torch.Generator().manual_seed(config.seed), time.perf_counter()
    for number in range(config.steps):
        drawn = torch.randperm(len(prompts), generator=generator)[: config.batch_size].tolist()
        asked = [prompts[i] for i in drawn]
        replies = sampler.follow(model).sample(
            asked, config.max_new_tokens, config.temperature, seed=1000 * config.seed + number,
            each=config.samples)
        rows = [i for i in drawn for _ in range(config.samples)]
        data = prepare(
            engine, [sampler.example(prompts[i], r) for i, r in zip(rows, replies, strict=True)])
        given = reward(rows, replies, data)
        rewards = torch.tensor(given, dtype=torch.float32, device=engine.head.device)
        policy = sequence_logps(engine, data, range(len(rows)))
        kl = policy.detach() - all_logps(engine.without_adapters(), data)
        total = advantages((rewards - config.beta * kl).view(-1, config.samples)).flatten()
        (-(total * policy).mean()).backward()
        update(optimizer, parameters, number, config.steps, config)
        history.rewards.append(rewards.mean().item())
        history.kls.append(kl.mean().item())
        history.lengths.append(sum(len(reply.ids) for reply in replies) / len(replies))
    history.seconds = time.perf_counter() - started
    return history


@torch.no_grad()
def kl_from_reference(
    model: nn.Module, sampler: Sampler, prompts: Sequence[str], replies: Sequence[Reply],
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """log pi - log pi_ref of each reply, (n,); its mean over the policy's own samples estimates KL."""
    engine = ForkedLlama(model, dtype)
    data = prepare(
        engine, [sampler.example(p, r) for p, r in zip(prompts, replies, strict=True)])
    return all_logps(engine, data) - all_logps(engine.without_adapters(), data)
