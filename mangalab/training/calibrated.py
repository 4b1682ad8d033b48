"""Compact references of three post-training methods that look at data: GPTQ, AWQ, SmoothQuant.

All take a weight (out, in) and inputs or their second moments, and return a weight of the same
shape that lies on (or folds into) the grid. ``tests/test_calibrated.py`` checks the compensation of
GPTQ by brute force (least squares) and the exactness of the two rescalings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .fakequant import Spec


def round_to_nearest(weight: Tensor, spec: Spec) -> Tensor:
    """Every weight to the nearest point of its grid."""
    return spec.fit(weight.float()).values(spec.cut(weight.float())).view_as(weight)


def output_error(weight: Tensor, rounded: Tensor, moments: Tensor) -> float:
    """Relative squared error of the outputs, tr(D M D^T) / tr(W M W^T), ``moments`` (in, in)."""
    gap, whole, m = (rounded - weight).float(), weight.float(), moments.float()
    return float(((gap @ m) * gap).sum() / ((whole @ m) * whole).sum())


def gptq(weight: Tensor, moments: Tensor, spec: Spec, damp: float = 0.01) -> Tensor:
    """GPTQ (Frantar et al. 2022, algorithm 1): round a column, let the later ones make up for it.

    ``moments`` (in, in) is the mean of x x^T over calibration tokens (H up to a factor); ``damp``
    times its mean diagonal is added. Grids are those of groups at the moment they are reached.
    """
    if spec.per != "group":
        raise ValueError(f"gptq: grids per group expected, got per {spec.per}")
    w, h = weight.float().clone(), moments.double().clone()
    h.diagonal().add_(damp * float(h.diagonal().mean()))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    upper = torch.linalg.cholesky(inverse, upper=True).float()
    for start in range(0, w.shape[1], spec.group):
        stop = start + spec.group
        block, inner = w[:, start:stop].contiguous(), upper[start:stop, start:stop]
        grid, errors = spec.fit(block), w.new_empty(len(w), spec.group)
        scale, zero = grid.scale[:, 0, 0], grid.zero_point[:, 0, 0]
        for j in range(spec.group):
            code = (block[:, j] / scale + zero).round().clamp(grid.low, grid.high)
            rounded = scale * (code - zero)
            errors[:, j] = (block[:, j] - rounded) / inner[j, j]
            block[:, j + 1 :] -= errors[:, j : j + 1] * inner[j, j + 1 :]
            block[:, j] = rounded
        w[:, start:stop] = block
        w[:, stop:] -= errors @ upper[start:stop, stop:]
    return w


def awq(
    weight: Tensor, moments: Tensor, sizes: Tensor, spec: Spec,
    alphas: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8),
) -> tuple[Tensor, float]:
    """AWQ (Lin et al. 2023, equation 4): scale up columns whose inputs are large, round, scale back.

    ``sizes`` (in,) are mean absolute inputs. The exponent with the least output error on ``moments``
    wins, judged by every fourth row; returns the weight as the product sees it, and that exponent.
    """

    def rounded(rows: Tensor, alpha: float) -> Tensor:
        s = sizes.clamp(min=1e-6) ** alpha
        s = s / (s.max() * s.min()).sqrt()
        return round_to_nearest(rows * s, spec) / s

    sample = weight.float()[::4]
    alpha = min(alphas, key=lambda a: output_error(sample, rounded(sample, a), moments))
    return rounded(weight.float(), alpha), alpha


def smooth_factors(weight: Tensor, peaks: Tensor, alpha: float = 0.5) -> Tensor:
    """SmoothQuant's factors (Xiao et al. 2023, equation 4), (in,): inputs are divided by them and
    columns multiplied. ``peaks`` (in,) are the largest absolute inputs over calibration tokens."""
    columns = weight.float().abs().amax(0).clamp(min=1e-5)
    return (peaks.clamp(min=1e-5) ** alpha / columns ** (1 - alpha)).clamp(min=1e-5)
