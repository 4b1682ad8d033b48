"""The geometry of a set of vectors: how close pairs lie, how evenly all lie, how many directions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..spectrum import Spectrum, dense_spectrum


def alignment(x: Tensor, y: Tensor) -> float:
    """Mean squared distance of normalised pairs (n, d) (Wang & Isola 2020, eq. 3); 0 is perfect."""
    if x.shape != y.shape:
        raise ValueError(f"alignment: {tuple(x.shape)} and {tuple(y.shape)}; need pairs")
    return float((F.normalize(x.double()) - F.normalize(y.double())).square().sum(1).mean())


def uniformity(x: Tensor, t: float = 2.0) -> float:
    """log mean exp(-t |x_i - x_j|^2) over pairs (eq. 4); lower is more even, 0 is one point."""
    if len(x) < 2:
        raise ValueError(f"uniformity: {len(x)} vector(s); need at least 2")
    distances = torch.pdist(F.normalize(x.double())).square()
    return float((-t * distances).exp().mean().log())


def embedding_spectrum(x: Tensor) -> Spectrum:
    """Singular values of the normalised, centred vectors (n, d): how many directions they use."""
    unit = F.normalize(x.double())
    return dense_spectrum(unit - unit.mean(0))


def popularity_of_top(scores: Tensor, ranks: Tensor, k: int = 3) -> Tensor:
    """Mean popularity rank (1 the most popular) of the first ``k`` titles of each query, (queries,)."""
    return ranks[scores.topk(k, dim=1).indices].double().mean(1)
