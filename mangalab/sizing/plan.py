"""A fine-tuning run as it is asked about: every choice that changes its memory or its compute."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..shapes import Shape

METHODS = ("full", "lora", "qlora", "prompt", "prefix", "inference", "inference-4bit")
OPTIMIZERS = ("adamw", "adamw-8bit", "adafactor", "sgd", "sgd-momentum")
SHARDINGS = ("none", "zero1", "zero2", "zero3")
ATTENTIONS = ("fused", "eager")
STEPS = ("fused", "foreach", "loop")


class PlanError(ValueError):
    """A plan that cannot be computed; the message names the value, the limit and the way out."""


@dataclass(frozen=True)
class Precision:
    """Bytes a number of what is trained: as stored, as computed with, and as AdamW keeps it."""

    weight: int
    gradient: int
    master: int
    moment: int
    compute: int
    says: str


# mixed: ZeRO (1910.02054, section 3.1), 16 bytes a parameter with AdamW. autocast: torch.autocast,
# which casts the weights of every linear once a step and keeps the casts for the backward pass.
PRECISIONS: Mapping[str, Precision] = {
    "fp32": Precision(4, 4, 0, 4, 4, "everything in 32 bits"),
    "bf16": Precision(2, 2, 0, 2, 2, "everything in 16 bits, also AdamW's moments"),
    "mixed": Precision(2, 2, 4, 4, 2, "16-bit weights and gradients, 32-bit masters and moments"),
    "autocast": Precision(4, 4, 0, 4, 2, "32-bit weights, computed with in 16 bits"),
}
# PEFT keeps adapters in 32 bits on a 16-bit or 4-bit base (`autocast_adapter_dtype`).
ADAPTER = Precision(4, 4, 0, 4, 4, "adapters in 32 bits")


@dataclass(frozen=True)
class Plan:
    """One training run on one device of `devices`.

    `batch` sequences of `length` tokens a device and step; `rank` and `targets` are LoRA's;
    `virtual_tokens` are those of prompt and prefix tuning. `precision` is that of the base (a key of
    PRECISIONS); `checkpointing` keeps only the layers' inputs and computes each layer twice.
    `padded`: an attention mask is passed. `dropout`: the model's own; `adapter_dropout`: LoRA's.
    `loss_tokens` is the number of tokens whose logits exist at once (0: all; chunked losses and losses
    without the prompt's rows have fewer). `step` is how the optimizer walks: fused, foreach
    (temporaries for all tensors), loop (for one tensor; the default on a CPU). `mask_bytes` is an
    element of a dropout mask (1 on GPUs; on CPUs PyTorch keeps it in the activations' precision).
    Generation (method inference or inference-4bit) continues each sequence by `new_tokens`.
    """

    shape: Shape
    method: str = "lora"
    rank: int = 16
    targets: str | tuple[str, ...] = ("q_proj", "v_proj")
    virtual_tokens: int = 20
    precision: str = "bf16"
    optimizer: str = "adamw"
    batch: int = 1
    length: int = 512
    checkpointing: bool = True
    attention: str = "fused"
    padded: bool = False
    dropout: bool = False
    adapter_dropout: bool = False
    mask_bytes: int = 1
    loss_tokens: int = 0
    step: str = "fused"
    sharding: str = "none"
    devices: int = 1
    double: bool = True
    block: int = 64
    overhead_bytes: float = 0
    new_tokens: int = 0

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("precision", tuple(PRECISIONS)),
                            ("optimizer", OPTIMIZERS), ("sharding", SHARDINGS),
                            ("attention", ATTENTIONS), ("step", STEPS)):  # fmt: skip
            value = getattr(self, name)
            if value not in known:
                raise PlanError(f"{name} {value!r} is unknown: use one of {', '.join(known)}")
        for name, least in (("rank", 1), ("virtual_tokens", 1), ("batch", 0), ("length", 1),
                            ("devices", 1), ("loss_tokens", 0), ("block", 1), ("overhead_bytes", 0),
                            ("new_tokens", 0)):  # fmt: skip
            value = getattr(self, name)
            if value < least:
                raise PlanError(f"{name}={value} is below {least}: pass {least} or more")
        if self.method != "full" and self.precision not in ("fp32", "bf16"):
            raise PlanError(
                f"precision {self.precision!r} is for full fine-tuning; with method {self.method} the "
                "base is frozen in fp32 or bf16 and what is trained stays in 32 bits"
            )
        if self.method in ("prompt", "prefix") and self.shape.family != "llama":
            raise PlanError(f"method {self.method!r} has no rule for an encoder ({self.shape.name}): "
                            "use full or lora, or a causal model")  # fmt: skip

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.method == "full"

    @property
    def generates(self) -> bool:
        """Whether nothing is trained."""
        return self.method.startswith("inference")

    @property
    def quantised(self) -> bool:
        """Whether the layers' linears are in 4 bits."""
        return self.method in ("qlora", "inference-4bit")

    @property
    def adapted(self) -> dict[str, tuple[int, int]]:
        """Linears of a layer that carry a LoRA pair: name -> (n_in, n_out)."""
        if self.method not in ("lora", "qlora"):
            return {}
        try:
            return self.shape.select(self.targets)
        except ValueError as error:
            raise PlanError(str(error)) from None

    @property
    def kept(self) -> Precision:
        """How what is trained is kept."""
        return PRECISIONS[self.precision] if self.full else ADAPTER

    @property
    def compute_bytes(self) -> int:
        """Bytes of an activation."""
        return PRECISIONS[self.precision].compute

    @property
    def tokens(self) -> int:
        """Positions of one step on one device, virtual tokens of prompt tuning included."""
        return self.batch * self.positions

    @property
    def positions(self) -> int:
        """Positions of one sequence."""
        return self.length + (self.virtual_tokens if self.method == "prompt" else 0)
