"""Reading and patching the residual stream of a causal LM through TransformerLens."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def bridge(model, tokenizer):
    """A ``TransformerBridge`` on ``model``, which it rewires in place: give it a copy of its own."""
    from transformer_lens.model_bridge import TransformerBridge as Bridge

    return Bridge.boot_transformers("local", hf_model=model, tokenizer=tokenizer, device="cpu")


@torch.inference_mode()
def streams(lens, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(residual stream before each layer and after the last (layers + 1, n, L, d), attention at the
    last position (layers, n, heads, L), logits at the last position (n, vocabulary))."""
    wanted = ("hook_resid_pre", "hook_resid_post", "hook_pattern")
    logits, cache = lens.run_with_cache(ids, names_filter=lambda name: name.endswith(wanted))
    layers = range(lens.cfg.n_layers)
    states = [cache[f"blocks.{i}.hook_resid_pre"] for i in layers]
    states.append(cache[f"blocks.{layers[-1]}.hook_resid_post"])
    looks = torch.stack([cache[f"blocks.{i}.attn.hook_pattern"][:, :, -1] for i in layers])
    return torch.stack(states), looks, logits[:, -1]


@torch.inference_mode()
def patched(lens, ids: Tensor, donors: Tensor, layer: int, positions: Sequence[int]) -> Tensor:
    """Last logits (n, vocabulary) with the stream before ``layer`` replaced at ``positions``.

    ``donors`` (layers + 1, n, L, d) are :func:`streams` of other prompts or of another model, row by
    row (Meng et al. 2022 restore states in this way).
    """

    def swap(state, hook):
        state = state.clone()
        state[:, list(positions)] = donors[layer][:, list(positions)]
        return state

    return lens.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", swap)])[:, -1]


def margin(logits: Tensor, right: Sequence[int], other: Sequence[int]) -> np.ndarray:
    """Logit of one token less that of another, by row (n,)."""
    rows = torch.arange(len(right))
    return (logits[rows, torch.tensor(right)] - logits[rows, torch.tensor(other)]).numpy()
