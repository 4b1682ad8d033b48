"""Full updates seen as blocks of rows, so that a matrix larger than the memory can be measured.

:class:`Blocks` is all that the top-k engine (``topk``) knows of a matrix: its shape, longer side
first, and how to read some of its rows as floats. A matrix in memory gives views; a pair of
checkpoints (:func:`stream`) gives differences, of which only one block is in memory at a time where
the matrix is large.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mangalab.spectrum.sources import CheckpointPair, _open

ROWS = 256  # rows of a matrix in memory that are worked on together: they stay in the cache
MEMORY = 512.0  # MB that one matrix may take before it is read in blocks
ROOM = 2.0**30  # bytes that an exact decomposition of one matrix may take
SHARE = 16  # a tensor made of one block takes at most this part of the memory


@dataclass(frozen=True, eq=False)
class Blocks:
    """A matrix as (long, short) with long >= short; ``read(a, b)`` gives its rows a to b.

    ``shape`` is that of the matrix as it was given, which may be wide: singular values do not
    change when it is transposed. ``held`` is the whole of it where it lies in memory.
    ``room`` is what an exact decomposition may take, in bytes.
    ``base_norms`` holds the norm of the weight before the update for each block that was read.
    """

    shape: tuple[int, int]
    read: Callable[[int, int], Tensor]
    step: int = ROWS
    held: Tensor | None = None
    base_norms: dict[int, float] = field(default_factory=dict)
    room: float = ROOM

    @property
    def long(self) -> int:
        """The longer side."""
        return max(self.shape)

    @property
    def short(self) -> int:
        """The shorter side: the length of the singular vectors that are worked with."""
        return min(self.shape)

    @property
    def base_norm(self) -> float | None:
        """Frobenius norm of the weight before the update; ``None`` without one. Read all first."""
        return math.hypot(*self.base_norms.values()) if self.base_norms else None

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, self.long, self.step):
            yield self.read(start, min(start + self.step, self.long))

    @classmethod
    def of(cls, matrix: Tensor) -> "Blocks":
        """Views of ``matrix`` (m, n), on the CPU; ValueError unless it is a matrix of floats."""
        if matrix.dim() != 2 or matrix.numel() == 0 or not matrix.is_floating_point():
            raise ValueError(
                "an update must be a non-empty matrix of floats, got "
                f"{tuple(matrix.shape)} {matrix.dtype}"
            )
        tall = matrix.detach().cpu()
        tall = tall if tall.shape[0] >= tall.shape[1] else tall.mT
        return cls(tuple(matrix.shape), *_held(tall))

    def to(self, dtype: torch.dtype) -> "Blocks":
        """The same with its rows in ``dtype``; a held matrix is copied once."""
        if self.held is not None:
            return Blocks(self.shape, *_held(self.held.to(dtype)))
        return Blocks(self.shape, lambda a, b: self.read(a, b).to(dtype), self.step)


def gram(blocks: Blocks, vectors: Tensor, scale: float) -> Tensor:
    """``vectors`` (p, short) times A^T A times ``scale``^2, in one pass; float32 in and out.

    Vectors are rows: products of a few rows with a large matrix are up to 9x faster on a CPU than
    the same with columns. Products are taken in the precision of the blocks.
    """
    out = torch.zeros_like(vectors)
    for block in blocks:
        rows = block.float() if block.dtype == torch.float64 else block
        part = (vectors.to(rows.dtype) @ rows.mT).mul_(scale)
        if rows.dtype == out.dtype:
            out.addmm_(part, rows)
        else:
            out += part @ rows
    return out.mul_(scale)


class StreamedPair(CheckpointPair):
    """A :class:`CheckpointPair` whose updates also come as :class:`Blocks` (see :func:`stream`)."""

    memory: float = MEMORY

    def blocks(self, name: str) -> Blocks:
        """The update of weight ``name``, held whole if it takes ``memory`` MB or less.

        Held: 12 bytes an entry for a moment (both weights and the difference). Otherwise the files
        are read again at every pass and no tensor of a block exceeds ``memory`` / 16.
        """
        before, after = self._before[name], self._after[name]
        shape, norms = tuple(before[2]), {}

        def read(start: int, stop: int) -> Tensor:
            one, two = (_rows(*source, start, stop) for source in (before, after))
            dtype = torch.promote_types(torch.promote_types(one.dtype, two.dtype), torch.float32)
            if start not in norms:
                norms[start] = float(torch.linalg.vector_norm(one, dtype=torch.float64))
            return two.to(dtype) - one.to(dtype)  # new memory: the files are mapped

        budget = self.memory * 2**20
        if math.prod(shape) * 12 <= budget:
            return Blocks(shape, *_held(read(0, max(shape))), norms, budget)
        step = max(1, int(budget / SHARE / (8 * min(shape))))
        return Blocks(shape, read, step, None, norms, budget)


def stream(
    before: str | Path, after: str | Path, strict: bool = True, memory: float = MEMORY
) -> StreamedPair:
    """Like ``updates_from_checkpoints``, for matrices of any size: ``memory`` in MB bounds one."""
    if not memory > 0:
        raise ValueError(f"memory is {memory} MB: give a positive number")
    pair = StreamedPair(Path(before), Path(after), strict)
    pair.memory = memory
    return pair


def _held(tall: Tensor) -> tuple[Callable[[int, int], Tensor], int, Tensor]:
    return lambda start, stop: tall[start:stop], ROWS, tall


def _rows(path: Path, key: str, shape: list[int], start: int, stop: int) -> Tensor:
    """Rows ``start`` to ``stop`` along the longer side, (stop - start, shorter side)."""
    with _open(path) as file:
        part = file.get_slice(key)
        return part[start:stop] if shape[0] >= shape[1] else part[:, start:stop].mT
