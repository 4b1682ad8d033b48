"""Put updates into the weights of a model, and take them out again without a trace."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mangalab.spectrum.updates import FactoredUpdate, Update


@contextmanager
def applied(
    model: nn.Module, updates: Mapping[str, Update], factor: float = 1.0
) -> Iterator[nn.Module]:
    """Add ``factor * update`` to the named weights inside the block; restore bit for bit after it.

    ``model`` is a plain model or a PEFT model whose adapters are switched off (``with
    model.disable_adapter(), applied(model, ...)``), else the update would count twice. The sum is
    formed in float32 and rounded once to the weight's precision. Raises ``ValueError``, and changes
    nothing, if a name or a shape does not fit.
    """
    targets = [(_checked_weight(model, name, update), update) for name, update in updates.items()]
    saved: dict[int, tuple[Tensor, Tensor]] = {}
    try:
        for weight, update in targets:
            # Tied weights appear once here, whatever the number of names they go by.
            if weight.data_ptr() not in saved:
                saved[weight.data_ptr()] = (weight, weight.detach().clone())
            _add(weight, update, factor)
        yield model
    finally:
        with torch.no_grad():
            for weight, before in saved.values():
                weight.copy_(before)


def find_weight(model: nn.Module, name: str) -> Tensor:
    """The weight that an update called ``name`` belongs to, also behind PEFT's wrappers."""
    owner = _find_owner(model, name)
    weight = getattr(getattr(owner, "base_layer", owner), "weight", owner)
    if not isinstance(weight, Tensor):
        raise ValueError(f"module {name!r} ({type(owner).__name__}) has no weight")
    return weight


def _find_owner(model: nn.Module, name: str) -> nn.Module | Tensor:
    """The module called ``name``, or the bare parameter of that name."""
    root = model.get_base_model() if hasattr(model, "peft_config") else model
    owner = dict(root.named_modules()).get(name, dict(root.named_parameters()).get(name))
    if owner is None:
        deepest = sorted((n for n, _ in root.named_modules()), key=lambda n: -n.count("."))
        raise ValueError(f"the model has no module {name!r}; its modules look like {deepest[:3]}")
    return owner


def _checked_weight(model: nn.Module, name: str, update: Update) -> Tensor:
    weight = find_weight(model, name)
    if not getattr(_find_owner(model, name), "disable_adapters", True):
        raise ValueError(
            f"an adapter of {name!r} is active and would count twice; "
            "use `with model.disable_adapter(), applied(...)`"
        )
    if not weight.is_floating_point():
        raise ValueError(
            f"the weight of {name!r} is stored as {weight.dtype}; load the model unquantized to "
            "apply an update"
        )
    if tuple(weight.shape) != tuple(update.shape):
        raise ValueError(f"{name!r}: weight {tuple(weight.shape)}, update {tuple(update.shape)}")
    return weight


@torch.no_grad()
def _add(weight: Tensor, update: Update, factor: float) -> None:
    dtype = torch.promote_types(weight.dtype, torch.float32)
    if isinstance(update, FactoredUpdate):
        B, A = update.B.to(weight.device, dtype), update.A.to(weight.device, dtype)
        weight.copy_(torch.addmm(weight.to(dtype), B, A, alpha=update.scale * factor))
    else:
        weight.copy_(weight.to(dtype) + factor * update.matrix(dtype).to(weight.device))
