"""Numbers that describe a spectrum: pure functions of its singular values.

Convention: the *energy* of direction i is sigma_i^2, so that energies add up to the squared
Frobenius norm. Shares of sigma instead of sigma^2 look flatter; comparing figures from two tools
means asking first which of the two they add. A zero update (a fresh adapter) has rank 0 by every
measure here.
"""

import torch
from torch import Tensor


def energy_curve(values: Tensor, total: float | None = None) -> Tensor:
    """Share of energy in the first 1..k values: (k,), rising to 1.

    ``total`` is the squared Frobenius norm; give it when ``values`` are only the largest ones.
    """
    energies = _check(values).square()
    total = float(energies.sum()) if total is None else total
    # No clamp beyond 1: a curve above 1 by more than rounding means a wrong total.
    return energies.cumsum(0) / total if total > 0 else torch.zeros_like(energies)


def rank_for_energy(values: Tensor, share: float, total: float | None = None) -> int | None:
    """Smallest k whose leading values hold at least ``share`` of the energy.

    ``None`` when ``values`` are incomplete (``total`` given) and do not reach the share.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    curve = energy_curve(values, total)
    if not curve.numel() or float(curve[-1]) == 0.0:
        return 0
    # Cumulative sums of float64 may end a few ulps below 1.
    reached = (curve >= share - 1e-12).nonzero()
    return int(reached[0]) + 1 if len(reached) else None


def effective_rank(values: Tensor, p: int = 2) -> float:
    """Exponential of the entropy of the shares sigma_i^p / sum sigma^p; between 1 and the rank.

    ``p=2`` takes energies (the convention of this package); ``p=1`` is the definition of Roy &
    Vetterli (2007), which takes sigma itself and gives larger numbers. Needs *all* values.
    """
    if p not in (1, 2):
        raise ValueError(f"p must be 1 (shares of sigma) or 2 (shares of energy), got {p}")
    weights = _normalised(values).pow(p)
    if not float(weights.sum()) > 0:
        return 0.0
    shares = weights / weights.sum()
    return float(torch.special.entr(shares).sum().exp())


def stable_rank(values: Tensor, total: float | None = None) -> float:
    """Energy in units of the largest: ||X||_F^2 / ||X||_2^2 (Rudelson & Vershynin 2007)."""
    energies = _check(values).square()
    if not energies.numel() or float(energies[0]) == 0.0:
        return 0.0
    return (float(energies.sum()) if total is None else total) / float(energies[0])


def participation_ratio(values: Tensor) -> float:
    """(sum sigma^2)^2 / sum sigma^4: the number of directions that share the energy."""
    energies = _normalised(values).square()
    fourth = float(energies.square().sum())
    return float(energies.sum()) ** 2 / fourth if fourth > 0 else 0.0


def _normalised(values: Tensor) -> Tensor:
    """Values in units of the largest, so that no power of a tiny update underflows."""
    values = _check(values)
    return values / values[0] if values.numel() and float(values[0]) > 0 else values


def _check(values: Tensor) -> Tensor:
    values = torch.as_tensor(values, dtype=torch.float64)
    if values.dim() != 1:
        raise ValueError(f"singular values must be a vector, got shape {tuple(values.shape)}")
    if (values[1:] > values[:-1]).any() or (values < 0).any():
        raise ValueError("singular values must be non-negative and in descending order")
    return values
