"""Updates from where they live: a PEFT model in memory, an adapter folder, two checkpoints.

Keys are module paths of the *base* model without ``.weight`` (``model.layers.0.self_attn.q_proj``),
the same from every source. Only safetensors files are read; nothing is unpickled. Note that some
initialisations (PiSSA, OLoRA, LoftQ) also change the base weight; ``B @ A`` is then the
adapter's product, not the distance from the original weights.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mangalab.spectrum.updates import DenseUpdate, FactoredUpdate

KEY = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_(embedding_)?([AB])(?:\.weight)?$")
# Options under which the update is not scale * B @ A.
VARIANTS = ("use_dora", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config")
VARIANTS += ("kasa_config", "monteclora_config", "target_parameters", "megatron_config")
FLOATS = {"F16", "BF16", "F32", "F64"}
SHOWN = 5


class AdapterError(ValueError):
    """An adapter or checkpoint whose updates cannot be read as matrices."""


def updates_from_peft(model: nn.Module, adapter: str = "default") -> dict[str, FactoredUpdate]:
    """LoRA updates of a live PEFT ``model``, copied, with the scaling that PEFT applies.

    rsLoRA, ``rank_pattern`` and ``alpha_pattern`` are in that scaling; embeddings are included.
    """
    from peft.tuners.lora import LoraLayer

    known = list(getattr(model, "peft_config", {}))
    if adapter not in known:
        raise AdapterError(f"the model has no adapter {adapter!r}; it has {known or 'none'}")
    updates = {}
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer) or adapter not in module.scaling:
            continue
        name = name.removeprefix("base_model.model.")
        if adapter in module.lora_variant or hasattr(module, "parameter_name"):
            raise AdapterError(f"{name}: this LoRA variant is not of the form scale * B @ A")
        embedding = adapter in module.lora_embedding_A
        A = module.lora_embedding_A[adapter] if embedding else module.lora_A[adapter].weight
        B = module.lora_embedding_B[adapter] if embedding else module.lora_B[adapter].weight
        swap = embedding or getattr(module, "fan_in_fan_out", False)
        updates[name] = _factored(name, B, A, module.scaling[adapter], swap)
    if not updates:
        raise AdapterError(f"adapter {adapter!r} has no LoRA layers")
    return updates


def updates_from_adapter(folder: str | Path) -> dict[str, FactoredUpdate]:
    """LoRA updates of a folder with ``adapter_config.json`` and ``adapter_model.safetensors``."""
    folder = Path(folder)
    config = _adapter_config(folder)
    factors: dict[tuple[str, bool], dict[str, Tensor]] = {}
    others = []
    with _open(folder / "adapter_model.safetensors") as file:
        for key in file.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
            match = KEY.match(key)
            if match is None:
                others.append(key)
                continue
            name, embedding, side = match.groups()
            factors.setdefault((name, bool(embedding)), {})[side] = file.get_tensor(key)
    _check_keys(folder, factors, others)
    return {
        name: _factored(
            name,
            pair["B"],
            pair["A"],
            _scaling(config, name, pair["A"].shape[0]),
            embedding or config.get("fan_in_fan_out", False),
        )
        for (name, embedding), pair in factors.items()
    }


def updates_from_checkpoints(
    before: str | Path, after: str | Path, strict: bool = True
) -> "CheckpointPair":
    """Full updates between two checkpoints, each a safetensors file or a (sharded) folder.

    Returns a mapping that reads and subtracts one weight at a time on access. Every 2-D float
    weight must be in both with the same shape; with ``strict=False`` the others are listed in
    ``skipped`` instead of raising.
    """
    return CheckpointPair(Path(before), Path(after), strict)


class CheckpointPair(Mapping[str, DenseUpdate]):
    """Lazy mapping name -> :class:`DenseUpdate`; ``skipped`` says what was left out and why."""

    def __init__(self, before: Path, after: Path, strict: bool = True) -> None:
        self._before, self._after = _weights(before), _weights(after)
        self.skipped = _mismatches(self._before, self._after)
        if self.skipped and strict:
            listed = [f"{name} ({why})" for name, why in list(self.skipped.items())[:SHOWN]]
            raise AdapterError(
                f"{len(self.skipped)} weights of {before} and {after} do not match: "
                f"{'; '.join(listed)}. Use strict=False to leave them out"
            )
        self._names = [n for n in self._before if n not in self.skipped]
        if not self._names:
            raise AdapterError(f"{before} and {after} share no 2-D float weight")

    def __getitem__(self, name: str) -> DenseUpdate:
        pair = []
        for weights in (self._before, self._after):
            path, key, _ = weights[name]
            with _open(path) as file:
                pair.append(file.get_tensor(key))
        return DenseUpdate.between(*pair)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _factored(name: str, B: Tensor, A: Tensor, scale: float, swap: bool) -> FactoredUpdate:
    """``swap`` where PEFT stores the weight transposed: then dW = scale * A^T B^T."""
    if A.dim() != 2 or B.dim() != 2:
        shapes = f"A {tuple(A.shape)}, B {tuple(B.shape)}"
        raise AdapterError(f"{name}: only adapters of matrices are supported, got {shapes}")
    A, B = A.detach().clone(), B.detach().clone()
    return FactoredUpdate(A.mT, B.mT, float(scale)) if swap else FactoredUpdate(B, A, float(scale))


def _adapter_config(folder: Path) -> dict:
    path = folder / "adapter_config.json"
    if not path.is_file():
        there = sorted(p.name for p in folder.iterdir())[:SHOWN] if folder.is_dir() else "no folder"
        raise AdapterError(f"{folder} holds no adapter_config.json (found: {there})")
    try:
        config = json.loads(path.read_text(encoding="utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AdapterError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise AdapterError(f"{path}: peft_type is {kind!r}, only 'LORA' has B @ A updates")
    used = [name for name in VARIANTS if config.get(name)]
    if used:
        raise AdapterError(f"{path}: with {', '.join(used)} the update is not scale * B @ A")
    return config


def _check_keys(folder: Path, factors: dict, others: list[str]) -> None:
    if any("lora_magnitude_vector" in key for key in others):
        raise AdapterError(f"{folder} is a DoRA adapter: its update is not scale * B @ A")
    half = [
        f"{name} has only {''.join(pair)}" for (name, _), pair in factors.items() if len(pair) < 2
    ]
    if half or not factors:
        found = "; ".join(half[:SHOWN]) or f"no LoRA keys, found {others[:SHOWN]}"
        raise AdapterError(f"{folder} is incomplete: {found}")
    if others:
        warnings.warn(
            f"{folder}: {len(others)} tensors are no LoRA factors and are left out of the "
            f"updates: {others[:SHOWN]}",
            stacklevel=3,
        )


def _scaling(config: dict, name: str, rank: int) -> float:
    """PEFT's scaling: alpha / r, or alpha / sqrt(r) with rsLoRA, with per-module patterns."""
    expected = _pattern(config.get("rank_pattern"), name, config["r"])
    if rank != expected:
        raise AdapterError(f"{name}: factors of rank {rank}, but the configuration says {expected}")
    alpha = _pattern(config.get("alpha_pattern"), name, config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pattern(pattern: dict | None, name: str, default: float) -> float:
    """First pattern that matches the end of ``name``, as PEFT's ``get_pattern_key`` does."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default


def _open(path: Path) -> safe_open:
    if not path.is_file():
        hint = " (a .bin file is a pickle: save it again as safetensors)"
        pickled = path.parent.is_dir() and any(path.parent.glob("*.bin"))
        raise AdapterError(f"{path} does not exist{hint if pickled else ''}")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise AdapterError(f"{path} is not a readable safetensors file: {error}") from None


def _weights(source: Path) -> dict[str, tuple[Path, str, list[int]]]:
    """2-D float weights by module name: file, key and shape, from headers only."""
    found = {}
    for path in _shards(source):
        with _open(path) as file:
            for key in file.keys():  # noqa: SIM118
                part = file.get_slice(key)
                if len(part.get_shape()) == 2 and part.get_dtype() in FLOATS:
                    found[key.removesuffix(".weight")] = (path, key, part.get_shape())
    return found


def _shards(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    index = source / "model.safetensors.index.json"
    if not index.is_file():
        return [source / "model.safetensors"]
    names = sorted(set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise AdapterError(f"{index} points outside its folder: {outside[:SHOWN]}")
    return [source / name for name in names]


def _mismatches(before: dict, after: dict) -> dict[str, str]:
    reasons = {name: "only before" for name in before if name not in after}
    reasons |= {name: "only after" for name in after if name not in before}
    for name in before.keys() & after.keys():
        if before[name][2] != after[name][2]:
            reasons[name] = f"{before[name][2]} before, {after[name][2]} after"
    return dict(sorted(reasons.items()))
