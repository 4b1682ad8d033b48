"""Reading and patching the residual stream of a causal LM through TransformerLens.

Token ids, states and logits come and go on the CPU, wherever the model computes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def bridge(model, tokenizer):
    """A ``TransformerBridge`` on ``model``, which it rewires in place: give it a copy of its own."""
    from transformer_lens.model_bridge import TransformerBridge as Bridge

    where = str(next(model.parameters()).device)
    return Bridge.boot_transformers("local", hf_model=model, tokenizer=tokenizer, device=where)


@torch.inference_mode()
def streams(lens, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(residual stream before each layer and after the last (layers + 1, n, L, d), attention at the
    last position (layers, n, heads, L), logits at the last position (n, vocabulary))."""
    wanted = ("hook_resid_pre", "hook_resid_post", "hook_pattern")
    ids = ids.to(_device(lens))
    logits, cache = lens.run_with_cache(ids, names_filter=lambda name: name.endswith(wanted))
    layers = range(lens.cfg.n_layers)
    states = [cache[f"blocks.{i}.hook_resid_pre"] for i in layers]
    states.append(cache[f"blocks.{layers[-1]}.hook_resid_post"])
    looks = torch.stack([cache[f"blocks.{i}.attn.hook_pattern"][:, :, -1] for i in layers])
    return torch.stack(states).cpu(), looks.cpu(), logits[:, -1].cpu()


@torch.inference_mode()
def read_out(lens, states: Tensor) -> Tensor:
    """Logits (..., vocabulary) of residual states (..., d), as if the model ended there."""
    return lens.unembed(lens.ln_final(states.to(_device(lens)))).cpu()


@torch.inference_mode()
def patched(lens, ids: Tensor, donors: Tensor, layer: int, positions: Sequence[int]) -> Tensor:
    """Last logits (n, vocabulary) with the stream before ``layer`` replaced at ``positions``.

    ``donors`` (layers + 1, n, L, d) are :func:`streams` of other prompts or of another model, row by
    row (Meng et al. 2022 restore states in this way).
    """

    return _swapped(lens, ids, donors[layer], layer, [list(positions)] * len(ids))


@torch.inference_mode()
def patched_each(
    lens, ids: Tensor, donors: Tensor, layer: int, positions: Sequence[int]
) -> list[Tensor]:
    """:func:`patched` at each position alone, logits (n, vocabulary) each, in one pass."""
    places, n = [[p] for p in positions for _ in ids], len(positions)
    out = _swapped(lens, ids.repeat(n, 1), donors[layer].repeat(n, 1, 1), layer, places)
    return list(out.split(len(ids)))


def _swapped(lens, ids: Tensor, donors: Tensor, layer: int, places: Sequence[Sequence[int]]) -> Tensor:
    """Last logits with row r of ``donors`` (n, L, d) put in at ``places[r]`` before ``layer``."""
    chosen = torch.zeros(ids.shape, dtype=torch.bool)
    for row, some in zip(chosen, places, strict=True):
        row[list(some)] = True
    chosen, donors = chosen[..., None].to(_device(lens)), donors.to(_device(lens))
    hook = (f"blocks.{layer}.hook_resid_pre", lambda state, hook: torch.where(chosen, donors, state))
    return lens.run_with_hooks(ids.to(_device(lens)), fwd_hooks=[hook])[:, -1].cpu()


def _device(lens) -> torch.device:
    return next(lens.parameters()).device


def margin(logits: Tensor, right: Sequence[int], other: Sequence[int]) -> np.ndarray:
    """Logit of one token less that of another, by row (n,)."""
    rows = torch.arange(len(right))
    return (logits[rows, torch.tensor(right)] - logits[rows, torch.tensor(other)]).numpy()
