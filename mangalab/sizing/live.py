"""Bytes of tensors alive while code runs, on any device: what an allocator without slack holds.

Importing this module imports torch; the rest of the package does not.
"""

import weakref
from collections.abc import Iterable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts each storage once, from the operation that makes it until nothing refers to it.

    `now` and `peak` are bytes. Give it what exists already (`adopt`) before entering. Memory that
    kernels use inside an operation, and what Python or libraries hold, is not seen.
    """

    def __init__(self, existing: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()
        self.adopt(existing)

    def adopt(self, tensors: Iterable[object]) -> None:
        """Count the tensors among `tensors` that are not counted yet."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                self._add(tensor.untyped_storage())

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        self.adopt(tree_leaves(result))
        return result
