"""Sampling many short replies from a causal LM on a CPU.

The loop is ours because ``generate`` keeps finished rows in the batch and works on the training
weights: this one drops a row when it ends and reads a copy in the fast precision, into which the
policy's adapters are merged.
"""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .sft import Example, render

KEPT = 16  # groups of prompts whose lower states stay in memory, about 3 MB a prompt


@dataclass(frozen=True)
class Reply:
    """A sampled reply: its token ids with the end-of-turn token if it came, and its text."""

    ids: list[int]
    text: str
    ended: bool


class Sampler:
    """A copy of ``model`` in ``dtype`` that replies; :meth:`follow` takes over a policy's weights.

    Where all policies leave the layers below ``shared`` alone, these read each group of prompts
    once: several policies that answer the same prompts share that half of the work.
    """

    def __init__(
        self, model: nn.Module, tokenizer, dtype: torch.dtype = torch.bfloat16, shared: int = 0
    ):
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        if any(hasattr(module, "lora_A") for module in causal.modules()):
            raise ValueError("a sampler copies a bare model: unload its adapters, then follow() them")
        self.model, self.tokenizer = deepcopy(causal).to(dtype).eval().requires_grad_(False), tokenizer
        self.shared, self._kept = shared, {}

    @torch.no_grad()
    def follow(self, policy: nn.Module) -> "Sampler":
        """Take over the adapted linears of ``policy`` (a PEFT model), adapters merged in float32."""
        target = dict(self.model.named_modules())
        for name, module in policy.get_base_model().named_modules():
            if hasattr(module, "lora_A"):
                if int(re.search(r"layers\.(\d+)", name)[1]) < self.shared:
                    raise ValueError(
                        f"{name} has an adapter, but layers below {self.shared} are shared")
                key = module.active_adapters[0]
                merged = module.base_layer.weight.float() + module.get_delta_weight(key).float()
                target[name].weight.copy_(merged)
        return self

    def sample(
        self, prompts: Sequence[str], max_new_tokens: int, temperature: float = 1.0, seed: int = 0,
        batch: int = 64, each: int = 1,
    ) -> list[Reply]:
        """``each`` replies to each prompt, side by side; temperature 0 takes the likeliest token.

        A prompt is read once for all its replies; ``batch`` counts replies.
        """
        heads = [render(self.tokenizer, prompt).ids for prompt in prompts]
        order = sorted(range(len(heads)), key=lambda i: len(heads[i]))
        generator = torch.Generator().manual_seed(seed)
        replies: list[list[Reply]] = [[] for _ in heads]
        size = max(1, batch // each)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            found = self._sample([heads[i] for i in rows], max_new_tokens, temperature, generator, each)
            for number, ids in enumerate(found):
                replies[rows[number // each]].append(self._reply(ids))
        return [reply for group in replies for reply in group]

    def example(self, prompt: str, reply: Reply) -> Example:
        """Prompt and reply as an example; an unfinished reply has no end-of-turn label."""
        head = render(self.tokenizer, prompt).ids
        return Example(head + reply.ids, len(head))

    def _reply(self, ids: list[int]) -> Reply:
        ended = bool(ids) and ids[-1] == self.tokenizer.eos_token_id
        return Reply(ids, self.tokenizer.decode(ids, skip_special_tokens=True).strip(), ended)

    @torch.no_grad()
    def _sample(
        self, heads: list[list[int]], steps: int, temperature: float, generator: torch.Generator,
        each: int,
    ) -> list[list[int]]:
        from transformers import DynamicCache

        end, width = self.tokenizer.eos_token_id, max(map(len, heads))
        at = self.model.device
        ids = torch.tensor([[end] * (width - len(head)) + head for head in heads], device=at)
        mask = torch.tensor([[0] * (width - len(head)) + [1] * len(head) for head in heads], device=at)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        found: list[list[int]] = [[] for _ in range(len(heads) * each)]
        alive, cache = torch.arange(len(found), device=at), DynamicCache()
        for step in range(steps):
            if step == 0:
                logits = self._read(tuple(map(tuple, heads)), ids, mask, positions, cache)
            else:
                logits = self.model(
                    input_ids=ids, attention_mask=mask, position_ids=positions,
                    past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            logits = logits[:, -1].float()
            if step == 0 and each > 1:
                cache.batch_repeat_interleave(each)
                logits, mask, positions = (
                    t.repeat_interleave(each, 0) for t in (logits, mask, positions))
            tokens = _draw(logits, temperature, generator)
            for row, token in zip(alive.tolist(), tokens.tolist(), strict=True):
                found[row].append(token)
            going = (tokens != end).nonzero().squeeze(1)
            if not len(going):
                break
            if len(going) < len(alive):
                cache.batch_select_indices(going)
            alive, mask, ids = alive[going], mask[going], tokens[going, None]
            positions = positions[going][:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(going), 1)], 1)
        return found


    def _read(self, key: tuple, ids: Tensor, mask: Tensor, positions: Tensor, cache) -> Tensor:
        """Logits (n, 1, vocabulary) after the prompts; fills ``cache``."""
        from transformers.masking_utils import create_causal_mask

        core, config = self.model.model, self.model.config
        if key not in self._kept:
            x = core.embed_tokens(ids)
            states = {
                "attention_mask": create_causal_mask(
                    config=config, inputs_embeds=x, attention_mask=mask, past_key_values=cache,
                    position_ids=positions),
                "position_embeddings": core.rotary_emb(x, position_ids=positions),
                "position_ids": positions}
            for layer in core.layers[: self.shared]:
                x = layer(x, past_key_values=cache, use_cache=True, **states)
            below = [(part.keys, part.values) for part in cache.layers[: self.shared]]
            if self.shared and len(self._kept) < KEPT:
                self._kept[key] = x, states, below
        else:
            x, states, below = self._kept[key]
            for i, (keys, values) in enumerate(below):
                cache.update(keys, values, i)
        for layer in core.layers[self.shared :]:
            x = layer(x, past_key_values=cache, use_cache=True, **states)
        return self.model.lm_head(core.norm(x[:, -1:]))


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    weights = (logits / temperature).softmax(-1).to(generator.device)
    return torch.multinomial(weights, 1, generator=generator).squeeze(1).to(logits.device)
