"""One causal LM in memory, any number of LoRA adapters beside it; a batch may mix them."""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..models import load_causal_lm
from ..training.sft import contiguous_head, render

BASE = "base"  # the model without any adapter


class AdapterError(ValueError):
    """An adapter folder that cannot be served."""


@dataclass(frozen=True)
class Request:
    """What a client asks for."""

    adapter: str
    prompt: str
    max_new_tokens: int


@dataclass(frozen=True)
class Answer:
    """What it gets: text, and tokens read and written (the end mark included)."""

    text: str
    prompt_tokens: int
    new_tokens: int


def check_adapter(folder: Path) -> Path:
    """A LoRA adapter folder as PEFT writes it, in safetensors; pickled weights are refused."""
    if not (folder / "adapter_config.json").is_file():
        raise AdapterError(f"{folder} has no adapter_config.json: give the folder that PEFT saved")
    if not (folder / "adapter_model.safetensors").is_file():
        raise AdapterError(
            f"{folder} has no adapter_model.safetensors; a pickled .bin is never loaded: save it again "
            "with safe_serialization"
        )
    kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf8")).get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{folder} is a {kind} adapter: only LORA can be mixed in a batch here")
    return folder


class AdapterEngine:
    """The base model with its adapters. Not for two threads at once: the server takes turns."""

    def __init__(self, adapters: Mapping[str, Path], dtype: torch.dtype | None = None):
        # bitsandbytes misses a kernel for 4-bit weights, of which there are none
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        from peft import PeftModel

        if not adapters or BASE in adapters:
            raise AdapterError(f"give one adapter or more, none of them named {BASE!r}")
        folders = {name: check_adapter(Path(folder)) for name, folder in adapters.items()}
        base, self.tokenizer = load_causal_lm(dtype)
        first, *rest = folders
        self.model = PeftModel.from_pretrained(base, folders[first], adapter_name=first)
        for name in rest:
            self.model.load_adapter(folders[name], adapter_name=name)
        self.model.eval()
        self.adapters = tuple(folders)

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may name."""
        return (BASE, *self.adapters)

    def tokens(self, prompt: str) -> int:
        """Tokens of a prompt with its chat marks."""
        return len(render(self.tokenizer, prompt).ids)

    def swap(self, name: str) -> None:
        """Make one adapter the active one for the whole model (what the HTTP server avoids)."""
        self.model.set_adapter(name)

    @torch.no_grad()
    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Greedy answers; requests for different adapters share every product with the base."""
        prompts = [render(self.tokenizer, r.prompt).ids for r in requests]
        longest, pad = max(map(len, prompts)), self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        names = ["__base__" if r.adapter == BASE else r.adapter for r in requests]
        device = self.model.device
        with contiguous_head(self.model):
            out = self.model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), adapter_names=names,
                do_sample=False, pad_token_id=pad, eos_token_id=self.tokenizer.eos_token_id,
                max_new_tokens=max(r.max_new_tokens for r in requests))
        rows = zip(requests, prompts, out[:, longest:].tolist(), strict=True)
        return [self._cut(request, len(prompt), new) for request, prompt, new in rows]

    def _cut(self, request: Request, read: int, new: list[int]) -> Answer:
        """A row of a batch up to its own end mark and its own limit."""
        new = new[: request.max_new_tokens]
        if self.tokenizer.eos_token_id in new:
            new = new[: new.index(self.tokenizer.eos_token_id) + 1]
        return Answer(self.tokenizer.decode(new, skip_special_tokens=True).strip(), read, len(new))
