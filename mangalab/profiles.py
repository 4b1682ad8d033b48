"""What a chapter runs on: profile, device, precision, threads. Every choice comes with its reason."""

import os
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROFILES = ("smoke", "cpu", "gpu")


class ProfileError(ValueError):
    """A profile that does not exist or cannot run on this machine."""


@dataclass(frozen=True)
class Profile:
    """A named way to run the book; ``device`` and ``dtype`` are decided on first use."""

    name: str
    models: str = "default"

    @property
    def publishable(self) -> bool:
        """Smoke runs only prove that every cell runs; their numbers are never published."""
        return self.name != "smoke"

    @cached_property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``; never a silent fallback."""
        return choose_device(self.name)[0]

    @cached_property
    def dtype_and_reason(self) -> "tuple[torch.dtype, str]":
        """Precision of frozen weights and of matrix products, with the reason."""
        return choose_dtype(self.device)

    @property
    def dtype(self) -> "torch.dtype":
        """Precision of frozen weights and of matrix products."""
        return self.dtype_and_reason[0]

    @property
    def dtype_reason(self) -> str:
        """Why :attr:`dtype` was chosen."""
        return self.dtype_and_reason[1]


def from_environment() -> Profile:
    """The profile named by ``MANGALAB_PROFILE`` (default ``cpu``) and ``MANGALAB_MODELS``."""
    name = os.environ.get("MANGALAB_PROFILE", "cpu")
    if name not in PROFILES:
        raise ProfileError(f"profile {name!r} does not exist: choose one of {', '.join(PROFILES)}")
    models = os.environ.get("MANGALAB_MODELS", "default")
    if models not in ("default", "hub"):
        raise ProfileError(f"MANGALAB_MODELS={models!r}: choose 'default' or 'hub'")
    return Profile(name, models)


def choose_device(profile: str) -> tuple[str, str]:
    """Device of a profile as ``(device, reason)``; asking for a GPU that is absent is an error."""
    if profile != "gpu":
        return "cpu", f"profile {profile!r} runs on the CPU"
    import torch

    if not torch.cuda.is_available():
        raise ProfileError(
            "profile 'gpu' needs a CUDA device and torch sees none: run with PROFILE=cpu, or "
            "install a CUDA build of torch and check `nvidia-smi`"
        )
    return "cuda", f"profile 'gpu' on {torch.cuda.get_device_name(0)}"


@cache  # once: while it tries, products of other threads would be rounded too
def choose_products() -> str:
    """Set the fastest float32 products that are float32; ``medium`` or ``highest``.

    ``medium`` sends them through oneDNN: 2.2x faster than the default on an AMD EPYC, with a relative
    error of 4e-7. On an Intel Xeon with AMX the same word lets oneDNN round the factors to bfloat16,
    with an error of 1e-2. What this processor does is tried, not looked up.
    """
    import torch

    torch.set_float32_matmul_precision("medium")
    a = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    exact = a.double() @ a.double()
    if ((a @ a) - exact).norm() > 1e-5 * exact.norm():
        torch.set_float32_matmul_precision("highest")
    return torch.get_float32_matmul_precision()


def choose_dtype(device: str) -> "tuple[torch.dtype, str]":
    """Fastest safe precision as ``(dtype, reason)``: bf16 where the processor multiplies it."""
    import torch

    if device == "cuda":
        if torch.cuda.is_bf16_supported():
            return torch.bfloat16, "bfloat16: supported by this GPU"
        return torch.float32, "float32: this GPU has no bfloat16"
    choose_products()
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16, "bfloat16: this processor has AVX512-BF16 or AMX"
    return torch.float32, "float32: this processor emulates bfloat16; fp16 is slower still"
