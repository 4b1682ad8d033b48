"""Which singular values stand out of noise.

A matrix (m, n) of independent entries with standard deviation sigma has, for large sizes, no
singular value above the Marchenko-Pastur edge sigma * (sqrt(m) + sqrt(n)). With sigma unknown, the
*median* singular value gives it: a few strong directions hardly move a median (Gavish & Donoho
2014). Two warnings:

* The edge needs the whole spectrum. An update of rank r < min(m, n) / 2 has median zero, and the
  median of its r non-zero values says nothing about any noise: for LoRA factors there is no edge
  unless sigma comes from elsewhere, and :func:`noise_edge` refuses.
* Noise in a trained update need not be independent. :func:`flip_null` asks the same question
  without that assumption: random signs keep the size of every entry and destroy what they share.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mangalab.spectrum.engines import EPS, dense_spectrum

# 99 % quantile of the Tracy-Widom law (real case): how far the largest noise value strays.
TRACY_WIDOM_99 = 2.0234
GRID = 20_000


@dataclass(frozen=True)
class NoiseEdge:
    """Noise of one matrix: ``sigma`` per entry, ``edge`` sigma * (sqrt(m) + sqrt(n)).

    ``limit`` is a little higher: the 99 % quantile of the largest noise value. With estimated
    sigma, 1 to 3 % of simulated noise matrices (40 to 576 wide) cross it, and 13 to 27 % cross
    the edge. ``above`` counts the singular values over ``limit``.
    """

    sigma: float
    edge: float
    limit: float
    above: int


def noise_edge(values: Tensor, shape: tuple[int, int], sigma: float | None = None) -> NoiseEdge:
    """Marchenko-Pastur edge for singular ``values`` of an (m, n) matrix.

    ``sigma`` is estimated from the median unless given. Raises ``ValueError`` when it is not given
    and the spectrum is not complete or is of low rank, because then no noise can be seen.
    """
    m, n = shape
    if sigma is None:
        sigma = noise_sigma(values, shape)
    edge = sigma * (math.sqrt(m) + math.sqrt(n))
    limit = sigma * _largest_noise_value(m, n)
    return NoiseEdge(sigma, edge, limit, int((values > limit).sum()))


def noise_sigma(values: Tensor, shape: tuple[int, int]) -> float:
    """Standard deviation of the noise entries from the median of *all* min(m, n) values."""
    small, large = min(shape), max(shape)
    if len(values) < small:
        raise ValueError(
            f"{len(values)} singular values of a {shape[0]} x {shape[1]} matrix: a noise edge "
            f"needs all {small}. The values of a rank-r factored update say nothing about noise; "
            "give sigma, or use a full update"
        )
    median = float(values.quantile(0.5))  # torch.median takes the lower of two, a bias
    if median <= sum(shape) * EPS * float(values.max()):
        raise ValueError(
            f"the median singular value of this {shape[0]} x {shape[1]} matrix is zero: it is of "
            "low rank and holds no noise to measure; give sigma"
        )
    return median / math.sqrt(large * _median_eigenvalue(small / large))


def noise_energy(k: int, shape: tuple[int, int]) -> float:
    """Expected share of energy in the ``k`` largest values of pure noise (m, n).

    The baseline under every "rank k captures x %": noise alone captures this much.
    """
    small, large = min(shape), max(shape)
    if not 1 <= k <= small:
        raise ValueError(f"k must be in 1..{small} for shape {shape}, got {k}")
    x, mass = _marchenko_pastur(small / large)
    energy = (x * mass).flip(0).cumsum(0)
    share = torch.searchsorted(mass.flip(0).cumsum(0), k / small).clamp(max=len(x) - 1)
    return float(energy[share] / energy[-1])


def flip_null(matrix: Tensor, draws: int = 20, kind: str = "signs", seed: int = 0) -> Tensor:
    """Largest singular value of ``draws`` randomised copies of ``matrix``: (draws,), ascending.

    ``signs`` multiplies every entry by a random sign (keeps loud rows and columns loud);
    ``permute`` shuffles all entries. A value of the matrix above all of 99 draws is significant at
    1 %; 20 draws stand for 5 %.
    """
    if kind not in ("signs", "permute"):
        raise ValueError(f"kind must be 'signs' or 'permute', got {kind!r}")
    generator = torch.Generator().manual_seed(seed)
    matrix = matrix.double()
    tops = []
    for _ in range(draws):
        if kind == "signs":
            signs = torch.randint(0, 2, matrix.shape, generator=generator) * 2 - 1
            copy = matrix * signs.to(matrix.device)
        else:
            order = torch.randperm(matrix.numel(), generator=generator).to(matrix.device)
            copy = matrix.flatten()[order].view_as(matrix)
        tops.append(dense_spectrum(copy, method="gram").values[0])
    return torch.stack(tops).sort().values


def _largest_noise_value(m: int, n: int) -> float:
    """99 % quantile of the largest singular value at sigma = 1 (Johnstone 2001; Ma 2012)."""
    a, b = math.sqrt(m - 0.5), math.sqrt(n - 0.5)
    spread = (a + b) * (1 / a + 1 / b) ** (1 / 3)
    return math.sqrt((a + b) ** 2 + TRACY_WIDOM_99 * spread)


def _median_eigenvalue(beta: float) -> float:
    x, mass = _marchenko_pastur(beta)
    cumulative = mass.cumsum(0)
    return float(x[torch.searchsorted(cumulative, float(cumulative[-1]) / 2)])


def _marchenko_pastur(beta: float) -> tuple[Tensor, Tensor]:
    """Points and masses of the law of eigenvalues of X X^T / n, ``beta`` = m / n <= 1.

    Points are spaced like a cosine, which tames the square-root ends of the density.
    """
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    angle = math.pi * (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    x = low + (high - low) * (1 - angle.cos()) / 2
    mass = angle.sin().square() / x
    return x, mass / mass.sum()
