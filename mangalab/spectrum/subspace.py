"""How much the directions of two updates agree.

The measure of the LoRA paper (Hu et al. 2021, section 7.2): with U_i the first i singular vectors
of one update and V_j the first j of another,

    phi(i, j) = ||U_i^T V_j||_F^2 / min(i, j),    0 = orthogonal, 1 = one contains the other.

Two *random* subspaces of dimension i and j in d dimensions have E[phi] = max(i, j) / d: compare
with that before calling an overlap high. ``side="right"`` compares input directions (d_in),
``side="left"`` output directions (d_out).
"""

import torch
from torch import Tensor

from mangalab.spectrum.engines import EPS
from mangalab.spectrum.updates import Update


def overlap(
    first: Update, second: Update, i: int, j: int | None = None, side: str = "right"
) -> float:
    """phi(i, j) in [0, 1]; ``j`` defaults to ``i``."""
    return float(_cosines(first, second, i, j or i, side).square().sum() / min(i, j or i))


def overlap_grid(first: Update, second: Update, i: int, j: int, side: str = "right") -> Tensor:
    """phi for all pairs up to (i, j): the heat map of the paper's figure 3, (i, j)."""
    sums = _cosines(first, second, i, j, side).square().cumsum(0).cumsum(1)
    rows, columns = torch.arange(1, i + 1)[:, None], torch.arange(1, j + 1)[None, :]
    return sums / torch.minimum(rows, columns)


def principal_angles(
    first: Update, second: Update, i: int, j: int | None = None, side: str = "right"
) -> Tensor:
    """Angles in radians between the leading subspaces, ascending, (min(i, j),).

    Their squared cosines add up to phi * min(i, j). Accurate to about 1e-8 rad (arc cosine).
    """
    cosines = torch.linalg.svdvals(_cosines(first, second, i, j or i, side))
    return cosines.clamp(max=1.0).arccos()


def random_overlap(i: int, j: int, d: int) -> float:
    """Expected phi(i, j) of two random subspaces of a d-dimensional space: max(i, j) / d."""
    if not 1 <= max(i, j) <= d:
        raise ValueError(f"subspaces of dimension {i} and {j} do not fit into {d} dimensions")
    return max(i, j) / d


def _cosines(first: Update, second: Update, i: int, j: int, side: str) -> Tensor:
    one, other = _basis(first, i, side), _basis(second, j, side)
    if one.shape[0] != other.shape[0]:
        raise ValueError(
            f"{side} singular vectors have {one.shape[0]} and {other.shape[0]} entries: the "
            f"updates of shape {first.shape} and {second.shape} do not share that side"
        )
    return (one.mT @ other).cpu()


def _basis(update: Update, k: int, side: str) -> Tensor:
    """First ``k`` singular vectors as columns; refuses those that the update does not have."""
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")
    U, S, Vh = update.svd(k)
    rank = int(S.gt(sum(update.shape) * EPS * S[0]).sum())
    if rank < k:
        raise ValueError(
            f"asked for {k} directions, but this update of shape {update.shape} has rank {rank}; "
            f"directions beyond are arbitrary, so ask for at most {rank}"
        )
    return U if side == "left" else Vh.mT
