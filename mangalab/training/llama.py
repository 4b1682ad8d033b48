"""A lean Llama forward pass for fine-tuning short examples on a CPU.

It reads the weights and adapters of a Hugging Face or PEFT model in place, computes the same
function, and leaves out what a generic forward pass cannot:

* padding never enters a linear layer: tokens lie packed, (tokens, d); only attention sees a grid;
* q, k, v share one product with the frozen weights, and so do gate and up;
* a group of LoRA linears, a norm, attention are one autograd function each (``llama_ops``);
* logits exist only where a label is;
* layers below the first trained one can run once, their output kept (:meth:`LeanLlama.bottom`).

Right padding and the causal mask make a padding mask unnecessary: no real query sees a pad key.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .frozen import CHUNK, Frozen, LabelNLL, Unpacked
from .llama_ops import Attention, FrozenProduct, Grid, LoRAProduct, RMSNorm, SwiGLU

GROUPS = {"qkv": ("self_attn", ("q_proj", "k_proj", "v_proj")), "o": ("self_attn", ("o_proj",)),
          "up": ("mlp", ("gate_proj", "up_proj")), "down": ("mlp", ("down_proj",))}


@dataclass(frozen=True)
class Batch:
    """T tokens of n examples, the longest of length L.

    ``ids`` (T,) tokens one after the other; ``slots`` (T,) their places in the flattened (n, L)
    grid; ``sources`` (C,) packed places that predict the labels ``targets`` (C,).
    """

    ids: Tensor
    slots: Tensor
    shape: tuple[int, int]
    sources: Tensor
    targets: Tensor


def pack(examples: Sequence[tuple[Sequence[int], int]], device: str = "cpu") -> Batch:
    """Pack ``(ids, prompt_length)`` examples; every token after the prompt is a label."""
    length = max(len(ids) for ids, _ in examples)
    ids, slots, sources, targets = [], [], [], []
    for row, (tokens, prompt) in enumerate(examples):
        if not 0 < prompt < len(tokens):
            raise ValueError(
                f"example {row}: a prompt of {prompt} in {len(tokens)} tokens leaves no label to "
                "train on; give it a prompt and a completion"
            )
        sources += range(len(ids) + prompt - 1, len(ids) + len(tokens) - 1)
        targets += tokens[prompt:]
        slots += range(row * length, row * length + len(tokens))
        ids += tokens
    tensor = lambda values: torch.tensor(values, device=device)  # noqa: E731
    shape = (len(examples), length)
    return Batch(tensor(ids), tensor(slots), shape, tensor(sources), tensor(targets))


class Product:
    """Linears of one layer that share their input, as one call on packed tokens."""

    def __init__(self, members: Sequence[nn.Module], dtype: torch.dtype, training: bool,
                 like: "Product | None" = None):
        self.members, self.dtype = members, dtype
        bases = [getattr(member, "base_layer", member) for member in members]
        self.weights = [base.weight for base in bases]
        self.trained = training and any(weight.requires_grad for weight in self.weights)
        self.lora = [_adapter(member) for member in members]
        if self.trained and any(self.lora):
            raise ValueError("a linear has a trainable weight and an adapter: freeze or merge one")
        if like and any(a is not b for a, b in zip(self.weights, like.weights, strict=True)):
            raise ValueError("another model's weights: share products between twins only")
        self.frozen = None if self.trained else like.frozen if like else _frozen(bases, dtype)
        self.parts = self._layout(bases)

    def _layout(self, bases: Sequence[nn.Module]) -> list[tuple[slice, slice, float]]:
        parts, out, rank = [], 0, 0
        for base, lora in zip(bases, self.lora, strict=True):
            if lora:
                r = lora[0].shape[0]
                parts.append((slice(out, out + base.out_features), slice(rank, rank + r), lora[2]))
                rank += r
            out += base.out_features
        return parts

    def __call__(self, x: Tensor) -> Tensor:
        if self.trained:  # full fine-tuning: fp32 masters, cast once per step
            return F.linear(x, torch.cat([w.to(self.dtype) for w in self.weights]))
        adapted = [lora for lora in self.lora if lora]
        if not adapted:
            return FrozenProduct.apply(x, self.frozen)
        A = torch.cat([a for a, _, _ in adapted])
        return LoRAProduct.apply(x, self.frozen, self.parts, A, *(b for _, b, _ in adapted))


def _moves(module: nn.Module, training: bool) -> bool:
    """Does this module differ from the frozen base, now or after a training step?"""
    if hasattr(module, "lora_A"):
        return _adapter(module) is not None
    return training and isinstance(module, nn.Linear) and module.weight.requires_grad


def _obstacle(causal: nn.Module, training: bool) -> str | None:
    """Why this engine cannot compute or train ``causal``, or None."""
    kind, act = causal.config.model_type, getattr(causal.config, "hidden_act", None)
    if (kind, act) != ("llama", "silu"):
        return f"{kind!r} model with {act!r}: this engine computes Llama with SiLU only"
    linears = {member for _, members in GROUPS.values() for member in members}
    for name, parameter in causal.named_parameters():
        if name.endswith("bias"):
            return f"{name}: this engine computes no biases; use the Hugging Face forward pass"
        owner = re.sub(r"\.(base_layer|lora_|weight).*", "", name).split(".")[-1]
        if owner not in linears and ((training and parameter.requires_grad) or "lora_" in name):
            return (
                f"{name} is trainable, but this engine trains adapters and weights of the layers' "
                "linears only: attach an adapter there, or freeze the rest with trainable_linears()"
            )
    return None


def _adapter(member: nn.Module) -> tuple[Tensor, Tensor, float] | None:
    """(A, B, scaling) of a PEFT LoRA linear's active adapter, or None."""
    if not hasattr(member, "lora_A") or getattr(member, "disable_adapters", False):
        return None
    active = [name for name in member.active_adapters if name in member.lora_A]
    if len(active) > 1:
        raise ValueError(f"adapters {active} are active together; merge them or activate one")
    if not active:
        return None
    name = active[0]
    if member.use_dora.get(name) or getattr(member.lora_dropout[name], "p", 0):
        raise ValueError(f"adapter {name!r} uses DoRA or dropout, which this engine lacks")
    return member.lora_A[name].weight, member.lora_B[name].weight, member.scaling[name]


def _frozen(bases: Sequence[nn.Module], dtype: torch.dtype) -> Frozen | Unpacked:
    """The group's frozen weights as one matrix; 4-bit members are unpacked at every call."""
    if any(hasattr(base.weight, "quant_state") for base in bases):
        from bitsandbytes.functional import dequantize_4bit

        def unpack() -> Tensor:
            return torch.cat([
                dequantize_4bit(b.weight.data, b.weight.quant_state).to(dtype) for b in bases])

        return Unpacked(unpack)
    return Frozen(torch.cat([base.weight.detach().to(dtype) for base in bases]))


class LeanLlama:
    """The engine over ``model``, a LlamaForCausalLM or a PEFT model around one.

    ``first`` is the lowest layer that trains (``training``) or carries an adapter. Build the engine
    anew after adapters are added, activated or merged; optimiser steps need no rebuild. ``base``, an
    engine over a twin of the model, lends the frozen matrices that it has made.
    Raises ValueError where it would compute something else than the model.
    """

    def __init__(
        self, model: nn.Module, dtype: torch.dtype = torch.bfloat16, training: bool = True,
        base: "LeanLlama | None" = None,
    ):
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        if obstacle := _obstacle(causal, training):
            raise ValueError(obstacle)
        self.config, self.core, self.head = causal.config, causal.model, causal.lm_head.weight
        self.dtype, self.training, self.layers = dtype, training, self.core.layers
        moved = [any(_moves(m, training) for m in layer.modules()) for layer in self.layers]
        self.first = moved.index(True) if any(moved) else len(self.layers)
        self.products: dict[int, dict[str, Product]] = {}
        self.lent = base.products if base else {}
        self.head = self.head.detach().to(dtype)

    @cached_property
    def words(self) -> Frozen:
        """The matrix that turns states into logits, which never trains."""
        return Frozen(self.head)

    def _products(self, i: int) -> dict[str, Product]:
        """Products of layer ``i``, built on first use: cached bottoms never need the lower ones."""
        if i not in self.products:
            layer, lent = self.layers[i], self.lent.get(i, {})
            self.products[i] = {
                name: Product([getattr(getattr(layer, block), m) for m in members], self.dtype,
                              self.training, lent.get(name))
                for name, (block, members) in GROUPS.items()}
        return self.products[i]

    def bottom(self, batch: Batch) -> Tensor:
        """Hidden states (T, d) that enter layer ``first``; constant while no layer below trains."""
        with torch.no_grad():
            x = F.embedding(batch.ids, self.core.embed_tokens.weight).to(self.dtype)
            return self._run(x, batch, range(self.first))

    def hidden(self, batch: Batch, bottom: Tensor | None = None) -> Tensor:
        """Final normalised hidden states (T, d)."""
        x = self.bottom(batch) if bottom is None else bottom.to(self.dtype)
        x = self._run(x, batch, range(self.first, len(self.layers)))
        return self._norm(x, self.core.norm)

    def logits(self, batch: Batch, bottom: Tensor | None = None) -> Tensor:
        """Logits (C, vocabulary) at the places that predict labels, float32."""
        states = self.hidden(batch, bottom).index_select(0, batch.sources)
        return FrozenProduct.apply(states, self.words).float()

    def label_nll(self, batch: Batch, bottom: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of each label, float32 (C,)."""
        states = self.hidden(batch, bottom).index_select(0, batch.sources)
        return LabelNLL.apply(states, self.words, batch.targets)

    def loss(self, batch: Batch, bottom: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood of the batch's labels."""
        return self.label_nll(batch, bottom).mean()

    @torch.no_grad()
    def label_scores(self, batch: Batch, bottom: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """NLL of each label, and whether it is the likeliest token; both (C,)."""
        states, found = self.hidden(batch, bottom).index_select(0, batch.sources), []
        for h, targets in zip(states.split(CHUNK), batch.targets.split(CHUNK), strict=True):
            logits = self.words.times(h)
            nll = F.nll_loss(logits.log_softmax(-1, dtype=torch.float32), targets, reduction="none")
            found.append((nll, logits.argmax(-1) == targets))
        losses, right = zip(*found, strict=True)
        return torch.cat(losses), torch.cat(right)

    def _run(self, x: Tensor, batch: Batch, layers: range) -> Tensor:
        grid = self._grid(batch)
        for i in layers:
            layer, product = self.layers[i], self._products(i)
            qkv = product["qkv"](self._norm(x, layer.input_layernorm))
            x = x + product["o"](Attention.apply(qkv, grid))
            h = product["up"](self._norm(x, layer.post_attention_layernorm))
            x = x + product["down"](SwiGLU.apply(h))
        return x

    def _norm(self, x: Tensor, norm: nn.Module) -> Tensor:
        return RMSNorm.apply(x, norm.weight, norm.variance_epsilon)

    def _grid(self, batch: Batch) -> Grid:
        c, length = self.config, batch.shape[1]
        positions = (batch.slots % length).unsqueeze(0)
        cos, sin = self.core.rotary_emb(self.head[:1], positions)
        cos, sin = (t[0, :, None, : t.shape[-1] // 2].to(self.dtype) for t in (cos, sin))
        future = torch.full((length, length), -torch.inf, dtype=self.dtype, device=cos.device).triu(1)
        heads = (c.num_attention_heads, c.num_key_value_heads, c.head_dim)
        return Grid(batch.slots, batch.shape, future, cos, sin, heads)
