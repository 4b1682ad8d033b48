"""Supervised fine-tuning of the causal LM: LoRA, QLoRA and full, completion tokens only.

The loop is ours because it was measured to be faster than TRL and ``Trainer`` on the same data at
the same loss (``benchmarks/sft.py``); adapters, saving and merging are PEFT's.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from .llama import Batch, LeanLlama, pack

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
ALL_LINEAR = ATTENTION + MLP


@dataclass(frozen=True)
class SFTConfig:
    """How to train. ``lr`` is the peak; ``warmup`` a share of all steps; ``clip`` a gradient norm."""

    lr: float = 2e-4
    epochs: int = 3
    batch_size: int = 16
    warmup: float = 0.1
    schedule: str = "cosine"
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ValueError(f"schedule {self.schedule!r}: choose cosine, linear or constant")
        if not 0 <= self.warmup < 1 or self.lr <= 0 or self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"{self}: need 0 <= warmup < 1, lr > 0, epochs >= 1, batch_size >= 1")


@dataclass(frozen=True)
class LoRA:
    """An adapter (Hu et al. 2021): rank, scaling alpha / r (or alpha / sqrt(r)), where it sits."""

    r: int = 16
    alpha: float = 32
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    layers: tuple[int, ...] | None = None
    rslora: bool = False
    init: str = "zero"

    def __post_init__(self):
        unknown = sorted(set(self.targets) - set(ALL_LINEAR))
        if unknown or not self.targets:
            raise ValueError(f"targets {unknown or 'none'}: choose from {', '.join(ALL_LINEAR)}")
        if self.r < 1 or self.init not in ("zero", "random"):
            raise ValueError(f"r={self.r}, init={self.init!r}: need r >= 1 and init zero or random")


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and completion; labels are the tokens from ``prompt`` on."""

    ids: list[int]
    prompt: int


@dataclass
class Prepared:
    """Examples with their cached hidden states (t, d) below layer ``first``."""

    examples: list[Example]
    first: int
    bottoms: list[Tensor] | None = None


@dataclass(frozen=True)
class Scores:
    """Teacher-forced result per example: mean NLL of its labels (nats), and whether every label is
    the arg-max, which is the same as exact match under greedy decoding."""

    nll: list[float]
    exact: list[bool]

    @property
    def recall(self) -> float:
        """Share of examples answered exactly."""
        return sum(self.exact) / len(self.exact)

    @property
    def mean_nll(self) -> float:
        """Mean over examples of the NLL per label token, in nats."""
        return sum(self.nll) / len(self.nll)


@dataclass
class History:
    """What a training run did: loss per step, seconds, and completion tokens a second."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Completion (label) tokens a second."""
        return self.tokens / self.seconds if self.seconds else math.nan


# ---------------------------------------------------------------------------- examples
def render(tokenizer, prompt: str, completion: str | None = None) -> Example:
    """ChatML of one turn as ids. The same segments serve training and generation.

    Labels follow from the segments, never from a search in the text, and the end-of-turn token is
    one of them although it is also the padding token of this tokenizer.
    """
    head = tokenizer(f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n").input_ids
    if completion is None:
        return Example(head, len(head))
    return Example(head + tokenizer(f"{completion}<|im_end|>").input_ids, len(head))


def render_text(tokenizer, text: str) -> Example:
    """Plain text as an example: every token after the first is a label."""
    return Example(tokenizer(text).input_ids, 1)


# ---------------------------------------------------------------------------- adapters
def attach(
    model: nn.Module, lora: LoRA, seed: int = 0, name: str = "default", start: Mapping | None = None
) -> nn.Module:
    """Wrap ``model`` with a PEFT adapter whose initial values depend on ``seed`` alone.

    A model that has adapters gets one more and activates it. ``start`` maps module names to
    updates (with factors ``A`` and ``B``) of an earlier run: the adapter then starts from those.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0,
        layers_to_transform=list(lora.layers) if lora.layers else None,
        layers_pattern="layers" if lora.layers else None, use_rslora=lora.rslora,
        task_type="CAUSAL_LM")
    if hasattr(model, "peft_config"):
        model.add_adapter(name, config)
        model.set_adapter(name)
    else:
        model = get_peft_model(model, config, adapter_name=name)
    _initialise(model, name, lora.init, seed)
    if start is not None:
        _restore(model, name, start)
    return model


def _restore(model: nn.Module, name: str, start: Mapping) -> None:
    modules = dict(model.get_base_model().named_modules())
    adapted = {key for key, module in modules.items() if hasattr(module, "lora_A")}
    if adapted != set(start):
        raise ValueError(
            f"start has updates for {len(start)} modules, the adapter sits in {len(adapted)}: "
            "continue with the targets and layers of the run that they come from"
        )
    for key, update in start.items():
        modules[key].lora_A[name].weight.data.copy_(update.A)
        modules[key].lora_B[name].weight.data.copy_(update.B)


def _initialise(model: nn.Module, name: str, init: str, seed: int) -> None:
    """A uniform in +-1/sqrt(d_in) (PEFT's Kaiming choice), B zero, or both random."""
    generator = torch.Generator().manual_seed(seed)
    for key, weight in model.named_parameters():
        if f"lora_A.{name}." in key or (f"lora_B.{name}." in key and init == "random"):
            bound = weight.shape[1] ** -0.5
            draw = torch.rand(weight.shape, generator=generator) * 2 - 1
            weight.data.copy_(draw * bound)


def trainable_linears(model: nn.Module, layers: Sequence[int]) -> nn.Module:
    """Set up full fine-tuning: exactly the linear weights of ``layers`` are trainable (float32)."""
    model.requires_grad_(False)
    for i in layers:
        for module in model.model.layers[i].modules():
            if isinstance(module, nn.Linear):
                if module.weight.dtype != torch.float32:
                    raise ValueError(
                        f"layer {i} is {module.weight.dtype}: full fine-tuning needs float32 master "
                        "weights, bfloat16 rounds small updates away; load with dtype=torch.float32"
                    )
                module.weight.requires_grad_(True)
    return model


# ---------------------------------------------------------------------------- training
def prepare(engine: LeanLlama, examples: Sequence[Example], chunk: int = 64) -> Prepared:
    """Run the frozen bottom once over ``examples`` and keep its output (2 d bytes a token)."""
    done = Prepared(list(examples), engine.first)
    if engine.first == 0:
        return done
    done.bottoms = [None] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    for rows in _chunks(order, chunk):
        states = engine.bottom(_pack([examples[i] for i in rows], engine))
        pieces = states.split([len(examples[i].ids) for i in rows])
        for i, piece in zip(rows, pieces, strict=True):
            done.bottoms[i] = piece.clone()
    return done


def train(
    model: nn.Module,
    data: Sequence[Example] | Prepared,
    config: SFTConfig,
    dtype: torch.dtype = torch.bfloat16,
    on_step: Callable[[int, float], None] | None = None,
) -> History:
    """Minimise the mean NLL of completion tokens over ``data``; trains what requires gradients.

    Pass :class:`Prepared` data to share cached bottoms between runs. The order of examples depends
    on ``config.seed`` alone.
    """
    engine = LeanLlama(model, dtype)
    data = _prepared(engine, data)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    history, started = History(), time.perf_counter()
    batches = list(_epochs(data, config))
    for step, rows in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(batches), config)
        batch, bottom = _collate(data, rows, engine)
        loss = engine.loss(batch, bottom)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        history.losses.append(loss.item())
        history.grad_norms.append(norm.item())
        history.tokens += len(batch.targets)
        if on_step:
            on_step(step, history.losses[-1])
    history.seconds = time.perf_counter() - started
    return history


def learning_rate(step: int, steps: int, config: SFTConfig) -> float:
    """Linear warm-up over ``warmup * steps``, then cosine, linear or no decay to zero."""
    warm = max(1, round(config.warmup * steps)) if config.warmup else 0
    if step < warm:
        return config.lr * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * share)), "linear": 1 - share, "constant": 1.0}
    return config.lr * shape[config.schedule]


@torch.no_grad()
def score(
    model: nn.Module,
    data: Sequence[Example] | Prepared,
    dtype: torch.dtype = torch.bfloat16,
    chunk: int = 32,
) -> Scores:
    """Teacher-forced NLL and exact match of every example."""
    engine = LeanLlama(model, dtype, training=False)
    data = _prepared(engine, data, cache=False)
    n = len(data.examples)
    nll, exact = [0.0] * n, [False] * n
    for rows in _chunks(sorted(range(n), key=lambda i: len(data.examples[i].ids)), chunk):
        batch, bottom = _collate(data, rows, engine)
        losses, right = engine.label_scores(batch, bottom)
        lengths = [len(data.examples[i].ids) - data.examples[i].prompt for i in rows]
        for i, a, b in zip(rows, losses.split(lengths), right.split(lengths), strict=True):
            nll[i], exact[i] = a.mean().item(), bool(b.all())
    return Scores(nll, exact)


@torch.no_grad()
def generate(model: nn.Module, tokenizer, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Greedy answers to ``prompts``, batched with left padding; stops at the end-of-turn token."""
    examples = [render(tokenizer, prompt) for prompt in prompts]
    length, pad = max(len(e.ids) for e in examples), tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (length - len(e.ids)) + e.ids for e in examples])
    mask = torch.tensor([[0] * (length - len(e.ids)) + [1] * len(e.ids) for e in examples])
    device = next(model.parameters()).device
    with contiguous_head(model):
        out = model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=max_new_tokens,
            do_sample=False, pad_token_id=pad, eos_token_id=tokenizer.eos_token_id)
    return [text.strip() for text in tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)]


@contextmanager
def contiguous_head(model: nn.Module) -> Iterator[None]:
    """While it lasts, what enters the vocabulary's matrix lies in one piece.

    ``generate`` cuts the prompts' last states out of (rows, L, d). From such a slice torch makes a
    batched product and copies the whole matrix once a row: seconds and gigabytes for 32 prompts.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    try:
        yield
    finally:
        hook.remove()


def _prepared(engine: LeanLlama, data: Sequence[Example] | Prepared, cache: bool = True) -> Prepared:
    if not isinstance(data, Prepared):
        return prepare(engine, data) if cache else Prepared(list(data), engine.first)
    if data.bottoms is not None and data.first != engine.first:
        if engine.first < data.first:
            raise ValueError(
                f"data were prepared below layer {data.first}, but layer {engine.first} trains: call "
                "prepare() again with this model"
            )
        # nothing above data.first trains either (a bare or merged-away model): start there anyway
        engine.first = data.first
    return data


def _collate(data: Prepared, rows: Sequence[int], engine: LeanLlama) -> tuple[Batch, Tensor | None]:
    batch = _pack([data.examples[i] for i in rows], engine)
    bottom = torch.cat([data.bottoms[i] for i in rows]) if data.bottoms else None
    return batch, bottom


def _pack(examples: Sequence[Example], engine: LeanLlama) -> Batch:
    return pack([(e.ids, e.prompt) for e in examples], device=engine.head.device)


def _epochs(data: Prepared, config: SFTConfig) -> Iterator[list[int]]:
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        order = torch.randperm(len(data.examples), generator=generator).tolist()
        yield from _chunks(order, config.batch_size)


def _chunks(items: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def with_seed(config: SFTConfig, seed: int) -> SFTConfig:
    """``config`` with another order of examples."""
    return replace(config, seed=seed)
