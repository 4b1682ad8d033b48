"""A training loop whose whole state can be written down: stop it anywhere, go on elsewhere.

It trains a :class:`~mangalab.training.classify.Classifier` on cached bottoms. What makes a run is all
in :class:`Run`: weights, the optimizer's moments, the position in the data, the state of the random
numbers, the step. A checkpoint holds each of them, as safetensors and JSON, never as a pickle.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from .classify import Classifier
from .encoder import LeanEncoder, Packed

PARTS = ("weights", "optimizer", "order", "noise", "step")


class CheckpointError(RuntimeError):
    """A checkpoint that is torn, altered, or of another run."""


@dataclass(frozen=True)
class Recipe:
    """How to train: ``accumulate`` micro-batches make a step; ``dropout`` acts on the pooled vector.

    ``scale`` multiplies the loss before the backward pass (0: none; below 0: adapted step by step by
    torch's GradScaler from that size). The rate warms up over ``warm`` steps, then falls to zero.
    """

    steps: int
    batch_size: int = 24
    accumulate: int = 1
    lr: float = 5e-4
    head_lr: float = 3e-3
    warm: int = 4
    dropout: float = 0.0
    scale: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if min(self.steps, self.batch_size, self.accumulate) < 1 or self.batch_size % self.accumulate:
            raise ValueError(f"{self}: accumulate must divide batch_size, all of them at least 1")


@dataclass(frozen=True)
class Data:
    """Token ids, their states below the first trained layer, and labels (n,)."""

    messages: Sequence[Sequence[int]]
    states: Sequence[Tensor]
    targets: Tensor

    @property
    def digest(self) -> str:
        """Short hash of messages and labels: a checkpoint must not meet other data."""
        contents = json.dumps([[list(m) for m in self.messages], self.targets.tolist()])
        return hashlib.sha256(contents.encode()).hexdigest()[:16]


def own(encoder: LeanEncoder) -> LeanEncoder:
    """A copy whose trained layers are its own; embeddings and frozen layers stay shared."""
    shared = [encoder.embeddings, *encoder.layers[: encoder.first]]
    return copy.deepcopy(encoder, {id(module): module for module in shared})


class Run:
    """One training run, from the start or from a checkpoint; ``encoder`` itself is never changed."""

    def __init__(self, encoder: LeanEncoder, data: Data, recipe: Recipe, classes: int = 0,
                 dtype: torch.dtype | None = None):
        self.data, self.recipe = data, recipe
        classes = classes or int(data.targets.max()) + 1
        self.model = Classifier(own(encoder), classes, recipe.seed)
        self.model.encoder.dtype = dtype or encoder.dtype
        self.order = torch.Generator().manual_seed(1000 + recipe.seed)
        self.noise = torch.Generator().manual_seed(2000 + recipe.seed)
        head, body = list(self.model.head.parameters()), [
            p for p in self.model.encoder.layers.parameters() if p.requires_grad]
        groups = [{"params": head, "lr": recipe.head_lr}, {"params": body, "lr": recipe.lr}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
        self.peak = [group["lr"] for group in groups]
        self.device = self.model.head.weight.device
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=abs(recipe.scale) or 1.0, enabled=recipe.scale < 0,
            growth_interval=10)
        self.step, self.losses, self.skipped = 0, [], 0

    # ------------------------------------------------------------------ training
    def trained(self) -> dict[str, Tensor]:
        """Parameters that learn, by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def loss(self, rows: Sequence[int]) -> Tensor:
        """Mean cross-entropy of messages ``rows``, with dropout on the pooled vectors."""
        batch = Packed.of([self.data.messages[i] for i in rows], self.device.type)
        x = torch.cat([self.data.states[i] for i in rows]).to(self.device, self.model.encoder.dtype)
        features, p = self.model.encoder(batch, x), self.recipe.dropout
        if p:
            kept = (torch.rand(features.shape, generator=self.noise) >= p).to(self.device)
            features = features * kept / (1 - p)
        targets = self.data.targets[list(rows)].to(self.device)
        return F.cross_entropy(self.model.head(features), targets)

    def advance(self, until: int | None = None, on_step: Callable[[int], None] | None = None) -> "Run":
        """Train until step ``until`` (default: the end); ``on_step`` is told each finished step."""
        for _ in range(self.step, self.recipe.steps if until is None else until):
            self.one_step(self._shape())
            if on_step:
                on_step(self.step)
        return self

    def one_step(self, factor: float) -> float:
        """One optimizer step at ``factor`` times the peak rates; returns the loss."""
        for group, peak in zip(self.optimizer.param_groups, self.peak, strict=True):
            group["lr"] = factor * peak
        n = len(self.data.messages)
        rows = torch.randint(n, (self.recipe.batch_size,), generator=self.order).tolist()
        value = self.backward(rows)
        self._update()
        self.losses.append(value)
        self.step += 1
        return value

    def backward(self, rows: Sequence[int]) -> float:
        """Add the gradient of the mean loss over ``rows``, in equal micro-batches; returns the loss."""
        k, fixed = self.recipe.accumulate, max(self.recipe.scale, 0.0) or 1.0
        size, total = len(rows) // k, 0.0
        for i in range(k):
            loss = self.loss(rows[i * size : (i + 1) * size]) / k
            self.scaler.scale(loss * fixed).backward()
            total += float(loss.detach())
        if fixed != 1.0:
            for p in self.trained().values():
                p.grad.div_(fixed)
        return total

    def _update(self) -> None:
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.skipped += self.scaler.get_scale() < before
        self.optimizer.zero_grad(set_to_none=True)

    def _shape(self) -> float:
        """Share of the peak rate at the next step."""
        warm, steps = self.recipe.warm, self.recipe.steps
        return min((self.step + 1) / max(1, warm), (steps - self.step) / max(1, steps - warm))

    # ------------------------------------------------------------------ checkpoints
    def save(self, folder: Path) -> Path:
        """Write a checkpoint atomically: a reader sees the old one or the new one, never half."""
        tensors = {f"weights.{n}": p.detach() for n, p in self.trained().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        tensors |= {"order": self.order.get_state(), "noise": self.noise.get_state()}
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / "state.tmp"
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, scratch)
        digest = hashlib.sha256(scratch.read_bytes()).hexdigest()
        name = f"state-{self.step:06d}.safetensors"
        scratch.replace(folder / name)
        told = {"file": name, "sha256": digest, "step": self.step, "losses": self.losses,
                "recipe": asdict(self.recipe), "data": self.data.digest}  # fmt: skip
        (folder / "latest.tmp").write_text(json.dumps(told), encoding="utf8")
        (folder / "latest.tmp").replace(folder / "latest.json")
        return folder / name

    def restore(self, folder: Path, parts: Collection[str] = PARTS) -> "Run":
        """Go on from the latest checkpoint; ``parts`` can leave something out, to see what it does."""
        told = json.loads((folder / "latest.json").read_text(encoding="utf8"))
        path = folder / told["file"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != told["sha256"]:
            raise CheckpointError(f"{path.name} is not the file that was written: take an older one")
        if told["recipe"] != asdict(self.recipe) or told["data"] != self.data.digest:
            raise CheckpointError(f"{path.name} belongs to another recipe or other data: start anew")
        tensors = load_file(path)
        if "weights" in parts:
            for name, p in self.trained().items():
                p.data.copy_(tensors[f"weights.{name}"])
        if "optimizer" in parts:
            self._restore_optimizer(tensors)
        for part in {"order", "noise"} & set(parts):
            getattr(self, part).set_state(tensors[part])
        if "step" in parts:
            self.step, self.losses = told["step"], told["losses"]
        return self

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def digest(self) -> str:
        """Hash of all trained weights: equal means equal to the last bit."""
        found = hashlib.sha256()
        for name, p in sorted(self.trained().items()):
            found.update(name.encode() + p.detach().cpu().numpy().tobytes())
        return found.hexdigest()[:16]
