"""What the ranks of a group do: one gradient together, some steps, a model in shards.

Every function here runs in each process of :func:`mangalab.distributed.group.launch` (or of
``torchrun -m mangalab.distributed``) and returns plain numbers and arrays.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import load_encoder
from ..training.classify import Classifier
from ..training.encoder import LeanEncoder, Packed
from ..training.resumable import own

MODES = ("replicated", "zero1", "fsdp, kept", "fsdp, resharded")


@dataclass(frozen=True)
class Job:
    """Messages with labels and which of them each rank takes; ``weighted`` mends unequal shares."""

    messages: Sequence[Sequence[int]]
    labels: Sequence[int]
    shares: Sequence[Sequence[int]]
    layers: int = 2
    classes: int = 10
    weighted: bool = False
    steps: int = 0
    lr: float = 1e-3


def classifier(job: Job) -> Classifier:
    """The real encoder with its top layers trainable and a fresh head, the same in every process."""
    return Classifier(own(_encoder(job.layers)), job.classes)


@cache
def _encoder(layers: int) -> LeanEncoder:
    bert = load_encoder()[0].cpu()  # gloo, and an allocator that counts
    return LeanEncoder(bert, len(bert.encoder.layer) - layers)


def batch_loss(model: nn.Module, job: Job, rows: Sequence[int]) -> Tensor:
    """Mean cross-entropy over messages ``rows``."""
    logits = model(Packed.of([job.messages[i] for i in rows]))
    return F.cross_entropy(logits, torch.tensor([job.labels[i] for i in rows]))


def flat(parameters: Sequence[Tensor]) -> np.ndarray:
    """All numbers of ``parameters`` in one float32 vector."""
    return torch.cat([p.detach().float().flatten() for p in parameters]).numpy()


def learners(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that have gradients."""
    return [p for p in model.parameters() if p.requires_grad]


def alone(job: Job) -> np.ndarray:
    """Gradient of the mean loss over all rows in one process, as one vector."""
    model = classifier(job)
    batch_loss(model, job, [i for share in job.shares for i in share]).backward()
    return flat([p.grad for p in learners(model)])


def together(rank: int, world: int, job: Job) -> dict:
    """One averaged gradient and ``job.steps`` AdamW steps under DistributedDataParallel."""
    model = nn.parallel.DistributedDataParallel(classifier(job))
    rows, n = job.shares[rank], sum(len(share) for share in job.shares)
    factor = world * len(rows) / n if job.weighted else 1.0
    (factor * batch_loss(model, job, rows)).backward()
    gradient = flat([p.grad for p in learners(model)])
    optimizer = torch.optim.AdamW(learners(model), lr=job.lr)
    for _ in range(job.steps):
        optimizer.zero_grad()
        (factor * batch_loss(model, job, rows)).backward()
        optimizer.step()
    weights = hashlib.sha256(flat(learners(model)).tobytes()).hexdigest()
    return {"gradient": gradient if rank == 0 else None, "weights": weights}


def several(rank: int, world: int, jobs: dict[str, Job], modes: Sequence[str], rows: int) -> dict:
    """All jobs and all memory modes in one group: starting processes is the dear part."""
    return {
        "jobs": {name: together(rank, world, job) for name, job in jobs.items()},
        "memory": {mode: footprint(rank, world, mode, rows) for mode in modes},
    }


# ---------------------------------------------------------------------------- memory in shards
def footprint(rank: int, world: int, mode: str, rows: int = 8, length: int = 16) -> dict[str, float]:
    """Bytes that one rank holds after a step of full fine-tuning of the encoder in float32.

    ``mode`` is one of MODES: plain replicas; ZeRO-1 (a rank keeps its share's optimizer); fully
    sharded, gathered weights kept until the backward pass is over, or given back after each layer.
    ``peak`` is the most that torch's allocator had given out at any time of the second step:
    what was there before it, plus the running sum of what the step took and gave back.
    """
    torch.manual_seed(0)
    bert = load_encoder()[0].cpu()
    model, optimizer = _wrapped(bert.train().requires_grad_(True), mode)
    ids = torch.randint(1000, 20000, (rows, length), generator=torch.Generator().manual_seed(rank))
    _step(model, optimizer, ids)
    parts = {"weights": _held(model.parameters()), "gradients": 0.0,
             "optimizer": _held(t for s in _states(optimizer) for t in s.values())}
    before = sum(parts.values()) + _held(model.buffers())
    rise = allocated(lambda: _step(model, optimizer, ids, zero=False))
    parts["gradients"] = _held(p.grad for p in model.parameters())
    return parts | {"peak": before + rise}


def allocated(work: Callable[[], object]) -> float:
    """Most bytes that torch's CPU allocator held during ``work`` beyond what it held before."""
    from torch.profiler import ProfilerActivity, profile

    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    deltas = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return float(max(np.cumsum([0, *deltas])))


@contextmanager
def _silent():
    """Send what is written to file descriptor 2 to nowhere: the profiler announces itself there."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _wrapped(bert: nn.Module, mode: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    if mode.startswith("fsdp"):
        from torch.distributed.fsdp import fully_shard

        again = mode == "fsdp, resharded"
        for layer in bert.encoder.layer:
            fully_shard(layer, reshard_after_forward=again)
        fully_shard(bert, reshard_after_forward=again)
        return bert, torch.optim.AdamW(bert.parameters(), lr=1e-5)
    if mode == "zero1":
        from torch.distributed.optim import ZeroRedundancyOptimizer

        model = nn.parallel.DistributedDataParallel(bert)
        sharded = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-5)
        return model, sharded
    if mode != "replicated":
        raise ValueError(f"mode {mode!r}: choose one of {', '.join(MODES)}")
    return nn.parallel.DistributedDataParallel(bert), torch.optim.AdamW(bert.parameters(), lr=1e-5)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor, zero: bool = True) -> None:
    model(ids).pooler_output.square().mean().backward()
    optimizer.step()
    if zero:
        optimizer.zero_grad(set_to_none=True)


def _states(optimizer: torch.optim.Optimizer) -> list[dict]:
    inner = getattr(optimizer, "optim", optimizer)  # ZeroRedundancyOptimizer keeps its own share there
    return list(inner.state.values())


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _held(tensors) -> float:
    """Bytes of the storages that tensors (or local shards) really hold, each once."""
    storages = {}
    for tensor in tensors:
        if torch.is_tensor(tensor):
            storage = _local(tensor).detach().untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return float(sum(storages.values()))


def same_everywhere(word: str) -> bool:
    """Whether all ranks hold the same ``word`` (a hash of weights, say)."""
    found: list = [None] * dist.get_world_size()
    dist.all_gather_object(found, word)
    return len(set(found)) == 1
