"""Independent parts of one computation side by side, one thread of arithmetic each.

Small products share badly: two threads in one product of 800 rows meet again after every operation,
two products of 400 rows in a thread each meet once a step. What a part computes does not depend on
how many run at once, so results are the same on one core. ``benchmarks/side_by_side.py`` has the
ratio to one part after the other.
"""

import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from torch import nn

Part, Result = TypeVar("Part"), TypeVar("Result")
_here = threading.local()


def side_by_side(compute: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """``compute`` of each part, in order; each part on one thread, whatever the number of cores.

    Give it many parts (arms times seeds, the longest first): three equal parts on two cores leave
    one core idle for a third of the time. A single part gets all threads, and parts of a part run
    one after the other. Gradients are on in a part: ``compute`` switches them off itself where it
    needs to. Parts share no generator: a part draws from generators of its own, with its own seed.
    Raises RuntimeError where a part seeds a generator that all parts share (``torch.manual_seed``,
    ``random``, ``numpy.random``), since its draws would depend on what runs beside it.
    """
    parts = list(parts)
    if len(parts) == 1 or getattr(_here, "inside", False):
        return [compute(part) for part in parts]
    before = _shared()
    done = list(_pool().map(compute, parts))
    for (name, was), now in zip(before.items(), _shared().values(), strict=True):
        if was != now:
            raise RuntimeError(
                f"a part changed {name}, which all parts share: its result depends on what ran "
                "beside it; draw from a generator made in the part from its own seed")
    return done


def twin(model: nn.Module) -> nn.Module:
    """A copy of a bare model on the same weights: its adapters are its own, the rest costs nothing.

    For models whose own weights stay frozen: a weight that trains would train in all twins.
    """
    return deepcopy(model, {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]})


def _shared() -> dict[str, object]:
    """Seeds and states that belong to the whole process.

    Torch's state is not among them: every ``nn.Linear`` draws its first values from it, also where
    they are overwritten at once.
    """
    return {"torch's seed": torch.initial_seed(), "the state of random": random.getstate(),
            "numpy's state": np.random.get_state()[1].tobytes()}


def _enter() -> None:
    torch.set_num_threads(1)
    _here.inside = True


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(torch.get_num_threads(), "part", _enter)
