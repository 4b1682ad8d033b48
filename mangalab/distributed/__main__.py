"""``torchrun --nproc-per-node 2 -m mangalab.distributed``: are the averaged gradients the true one?

Each rank takes every n-th of a few messages; rank 0 prints the largest difference from the gradient
of one process, and whether all replicas are equal after three steps.
"""

import os

import numpy as np
import torch.distributed as dist

from ..data import intents
from ..models import load_encoder
from ..training.classify import tokenize
from .group import single_thread
from .replicas import Job, alone, same_everywhere, together


def main() -> None:
    """Entry point of every rank; torchrun has set RANK, WORLD_SIZE and the meeting place."""
    if "RANK" not in os.environ:
        raise SystemExit("start me with torchrun --nproc-per-node 2 -m mangalab.distributed")
    single_thread()
    dist.init_process_group(os.environ.get("MANGALAB_BACKEND", "gloo"))
    rank, world = dist.get_rank(), dist.get_world_size()
    rows = intents.load("train")[: 8 * world]
    _, tokenizer = load_encoder()
    shares = [list(range(r, len(rows), world)) for r in range(world)]
    job = Job(tokenize(tokenizer, [u.text for u in rows]),
              [intents.INTENTS.index(u.intents[0]) for u in rows], shares, steps=3)
    found = together(rank, world, job)
    equal = same_everywhere(found["weights"])
    if rank == 0:
        true = alone(job)
        gap = float(np.abs(found["gradient"] - true).max() / np.abs(true).max())
        print(f"{world} processes: gradient within {gap:.1e} of one process; replicas equal: {equal}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
