"""Every rung of the PEFT ladder on one frozen causal LM: soft prompts, prefixes, IA3, BitFit,
Houlsby adapters, LoRA, full.

PEFT builds the adapters that it has; BitFit and Houlsby adapters are a few lines here. Each rung is
an ordinary module that generates and saves as usual. Training and scoring go through the lean
engine, which reads the rung's parameters in place and computes the same loss and gradients
(``tests/test_peft_ladder.py`` holds it against PEFT and Hugging Face).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sft import (
    ALL_LINEAR,
    Example,
    History,
    LoRA,
    SFTConfig,
    attach,
    contiguous_head,
    learning_rate,
    trainable_linears,
)
from .soft_prompt import Change, EditedLlama, context
from .trunk import TrunkBatch, TrunkLlama, pack, plain

KINDS = ("prompt", "p-tuning", "prefix", "ia3", "bitfit", "houlsby", "lora", "full")
IA3_TARGETS = ("k_proj", "v_proj", "down_proj")


@dataclass(frozen=True)
class Rung:
    """A method and its size: ``tokens`` virtual tokens, LoRA rank ``r``, bottleneck ``width``.

    ``start`` holds token ids: a soft prompt starts at their embeddings, a prefix at their keys and
    values. Without it both start at random, as PEFT does by default.
    """

    kind: str
    tokens: int = 20
    r: int = 8
    width: int = 16
    start: tuple[int, ...] = ()

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r}: choose from {', '.join(KINDS)}")
        if self.start and len(self.start) != self.tokens:
            raise ValueError(f"start has {len(self.start)} ids for {self.tokens} virtual tokens")


# ---------------------------------------------------------------------------- by hand
class Bottleneck(nn.Module):
    """h + W_up gelu(W_down h) after a sublayer (Houlsby et al. 2019); the identity at the start."""

    def __init__(self, d: int, width: int):
        super().__init__()
        self.down, self.up = nn.Linear(d, width), nn.Linear(width, d)
        nn.init.normal_(self.down.weight, std=d**-0.5)
        for parameter in (self.up.weight, self.up.bias, self.down.bias):
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.up(F.gelu(self.down(h.to(self.up.weight.dtype)))).to(h.dtype)


def _hosts(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """(block, name) of the linears of all layers, in the order of the engine's products."""
    names = {"self_attn": ALL_LINEAR[:4], "mlp": ALL_LINEAR[4:]}
    return [(getattr(layer, block), name) for layer in model.model.layers
            for block in names for name in names[block]]


def _add_biases(model: nn.Module) -> Change:
    hosts = _hosts(model)
    for block, name in hosts:
        linear = getattr(block, name)
        linear.bias = nn.Parameter(torch.zeros(linear.out_features, device=linear.weight.device))
    b = [getattr(block, name).bias for block, name in hosts]
    add = lambda *at: lambda i, x: x + torch.cat([b[7 * i + j] for j in at]).to(x.dtype)  # noqa: E731
    return Change(edits={"qkv": add(0, 1, 2), "o": add(3), "up": add(4, 5), "down": add(6)})


def _add_bottlenecks(model: nn.Module, width: int) -> Change:
    made: dict[str, list[Bottleneck]] = {"o_proj": [], "down_proj": []}
    for block, name in _hosts(model):
        if name in made:
            linear = getattr(block, name)
            made[name].append(Bottleneck(linear.out_features, width).to(linear.weight.device))
            setattr(block, name, nn.Sequential(linear, made[name][-1]))
    return Change(edits={"o": lambda i, x: made["o_proj"][i](x),
                         "down": lambda i, x: made["down_proj"][i](x)})


# ---------------------------------------------------------------------------- from PEFT
def _config(rung: Rung):
    import peft

    common = {"task_type": "CAUSAL_LM"}
    if rung.kind == "prompt":
        return peft.PromptTuningConfig(num_virtual_tokens=rung.tokens, **common)
    if rung.kind == "p-tuning":
        return peft.PromptEncoderConfig(
            num_virtual_tokens=rung.tokens, encoder_hidden_size=128, **common)
    if rung.kind == "prefix":
        return peft.PrefixTuningConfig(num_virtual_tokens=rung.tokens, **common)
    return peft.IA3Config(
        target_modules=list(IA3_TARGETS), feedforward_modules=["down_proj"], **common)


def _soft(peft_model: nn.Module, tokens: int) -> Change:
    encoder = peft_model.prompt_encoder["default"]
    ids = peft_model.prompt_tokens["default"][:tokens]
    return Change(tokens, soft=lambda: encoder(ids.unsqueeze(0).to(encoder.embedding.weight.device))[0])


def _prefix(peft_model: nn.Module, tokens: int) -> Change:
    config = peft_model.active_peft_config
    shape = (tokens, config.num_layers, 2, config.num_attention_heads, -1)
    table = peft_model.prompt_encoder["default"].embedding

    def pairs() -> list[tuple[Tensor, Tensor]]:
        return [tuple(pair) for pair in table.weight.view(shape).permute(1, 2, 3, 0, 4)]

    return Change(tokens, prefix=pairs)


def _ia3(model: nn.Module) -> Change:
    layers, c = model.model.layers, model.config
    scale = lambda module: module.ia3_l["default"].flatten()  # noqa: E731

    def keys_and_values(i: int, x: Tensor) -> Tensor:
        a = layers[i].self_attn
        ones = x.new_ones(c.num_attention_heads * c.head_dim, dtype=torch.float32)
        return x * torch.cat([ones, scale(a.k_proj), scale(a.v_proj)]).to(x.dtype)

    return Change(edits={
        "qkv": keys_and_values, "mid": lambda i, x: x * scale(layers[i].mlp.down_proj).to(x.dtype)})


# ---------------------------------------------------------------------------- one interface
class Tuned:
    """``base`` with a rung on it, until :meth:`close` gives the base back as it was.

    ``model`` is the ordinary module (PEFT's, or the base itself), ``engine`` the lean one.
    """

    def __init__(self, base: nn.Module, frozen: EditedLlama, rung: Rung, seed: int = 0):
        torch.manual_seed(seed)
        base.requires_grad_(False)
        self.base, self.rung, self.model = base, rung, base
        self._before: dict[str, Tensor] = {}
        if rung.kind in ("lora", "full"):
            self._all_linears(seed)
            same = frozen if rung.kind == "lora" else None
            self.engine = TrunkLlama(self.model, frozen.dtype, base=same)
        else:
            self.engine = frozen.under(self._change())
        self.trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def _all_linears(self, seed: int) -> None:
        if self.rung.kind == "lora":
            self.model = attach(self.base, LoRA(self.rung.r, 2 * self.rung.r, ALL_LINEAR), seed)
            return
        trainable_linears(self.base, range(self.base.config.num_hidden_layers))
        moving = ((n, p) for n, p in self.base.named_parameters() if p.requires_grad)
        self._before = {n: p.detach().clone() for n, p in moving}

    def _change(self) -> Change:
        from peft import get_peft_model

        kind, base = self.rung.kind, self.base
        if kind == "bitfit":
            return _add_biases(base)
        if kind == "houlsby":
            return _add_bottlenecks(base, self.rung.width)
        start = context(base, self.rung.start) if kind == "prefix" and self.rung.start else None
        self.model = get_peft_model(base, _config(self.rung))
        if kind == "ia3":
            return _ia3(base)
        if kind == "prefix":
            return self._started(_prefix(self.model, self.rung.tokens), start)
        if self.rung.start and kind == "prompt":
            ids = torch.tensor(self.rung.start, device=base.device)
            weight = self.model.prompt_encoder["default"].embedding.weight
            weight.data.copy_(base.get_input_embeddings().weight[ids])
        return _soft(self.model, self.rung.tokens)

    @staticmethod
    @torch.no_grad()
    def _started(change: Change, start: Change | None) -> Change:
        for mine, given in zip(change.prefix(), start.prefix() if start else (), strict=False):
            for a, b in zip(mine, given, strict=True):
                a.copy_(b)
        return change

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.trained.values())

    def save(self, folder: Path) -> int:
        """Write what a server needs into ``folder``; bytes of the weight files."""
        from safetensors.torch import save_file

        if self.model is not self.base:
            self.model.save_pretrained(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({n: p.detach().contiguous() for n, p in self.trained.items()},
                      folder / "model.safetensors")
        return sum(path.stat().st_size for path in folder.glob("*.safetensors"))

    def close(self) -> None:
        """Take the rung off: the base has its own modules and weights again."""
        if self.rung.kind in ("lora", "ia3"):
            self.model.unload()
        for block, name in _hosts(self.base):
            module = getattr(block, name)
            if isinstance(module, nn.Sequential):
                setattr(block, name, module[0])
            elif self.rung.kind == "bitfit":
                module.bias = None
        for name, value in self._before.items():
            self.base.get_parameter(name).data.copy_(value)
        self.base.requires_grad_(False)


def _batch(engine: TrunkLlama, examples: Sequence[Example]) -> TrunkBatch:
    if isinstance(engine, EditedLlama):
        return engine.pack(examples)
    return pack([plain(e) for e in examples], engine.dtype, engine.head.device)


def fit(tuned: Tuned, examples: Sequence[Example], config: SFTConfig) -> History:
    """Minimise the mean NLL of the labels; the order of examples depends on ``config.seed`` alone."""
    parameters = list(tuned.trained.values())
    optimizer = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    generator = torch.Generator().manual_seed(config.seed)
    order = [i for _ in range(config.epochs)
             for i in torch.randperm(len(examples), generator=generator).tolist()]
    batches = [order[at : at + config.batch_size] for at in range(0, len(order), config.batch_size)]
    history, started = History(), time.perf_counter()
    for step, rows in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(batches), config)
        batch = _batch(tuned.engine, [examples[i] for i in rows])
        loss = tuned.engine.loss(batch)
        loss.backward()
        history.grad_norms.append(nn.utils.clip_grad_norm_(parameters, config.clip).item())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        history.losses.append(loss.item())
        history.tokens += len(batch.targets)
    history.seconds = time.perf_counter() - started
    return history


@torch.no_grad()
def score(engine: TrunkLlama, examples: Sequence[Example], chunk: int = 16) -> list[float]:
    """Mean NLL of the labels of every example, in nats a token."""
    found = [0.0] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    for at in range(0, len(order), chunk):
        rows = order[at : at + chunk]
        batch = _batch(engine, [examples[i] for i in rows])
        losses = engine.label_nll(batch)
        sizes = [len(examples[i].ids) - examples[i].prompt for i in rows]
        for i, piece in zip(rows, losses.split(sizes), strict=True):
            found[i] = piece.mean().item()
    return found


@torch.no_grad()
def speak(model: nn.Module, tokenizer, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[str]:
    """Greedy answers to prompts of token ids; prompts of one length share a batch, so that nothing
    is padded and every rung sees the positions that it was trained with."""
    answers, device = [""] * len(prompts), next(model.parameters()).device
    for length in sorted({len(p) for p in prompts}):
        rows = [i for i, p in enumerate(prompts) if len(p) == length]
        ids = torch.tensor([list(prompts[i]) for i in rows], device=device)
        with contiguous_head(model):
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens,
                do_sample=False, pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id)
        out = out[:, length:] if out[:, :length].equal(ids) else out
        for i, text in zip(rows, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True):
            answers[i] = text.strip()
    return answers
