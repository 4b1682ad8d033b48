"""Intruder dimensions (Shuttleworth et al. 2024, arXiv:2410.21228).

A leading singular vector of the tuned weight W + dW is an intruder when no singular vector of W
resembles it: max_j |cos(u_i, u_j(W))| < epsilon. LoRA makes them, full fine-tuning hardly does.

The definition asks for all vectors of W, but the answer mostly does not. For one candidate u, the
squared cosines with all vectors of W are the masses of the spectral measure of W W^T at u. A few
Lanczos steps started at u give a Gauss quadrature of that measure, and by the Chebyshev-Markov-
Stieltjes inequalities no single mass exceeds the sum of two neighbouring quadrature weights: an
upper bound on the best cosine. The leading vectors of W give a lower bound. Only where epsilon
lies between the two are all vectors of W computed. That happens for intruders of tall weights
(d_out > d_in), where what u has outside the range of W looks to Lanczos like one more direction.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mangalab.spectrum.engines import EXACT_LIMIT, top_svd
from mangalab.spectrum.updates import Update

LANCZOS_STEPS = 64


@dataclass(frozen=True, eq=False)
class Intruders:
    """Intruders among the ``k`` leading directions of a tuned weight.

    ``indices`` are 0-based positions in its spectrum; ``values`` (k,) its singular values; ``low``
    and ``high`` (k,) bounds on the best cosine of each with W (equal when ``method`` is ``exact``).
    """

    indices: tuple[int, ...]
    values: Tensor
    low: Tensor
    high: Tensor
    method: str


def intruders(
    weight: Tensor,
    update: Update,
    k: int = 10,
    epsilon: float = 0.5,
    vectors: Tensor | None = None,
) -> Intruders:
    """Intruders among the ``k`` leading left singular vectors of ``weight + update``.

    ``vectors`` (d_out, min(d_out, d_in)) from :func:`left_singular_vectors` makes it exact at once;
    keep them when several updates of one base are examined. Weights up to 2048 on their smaller
    side are exact anyway; above, the directions of ``weight + update`` come from subspace
    iteration, and those of nearly equal singular values are mixed among themselves.
    """
    if tuple(weight.shape) != update.shape:
        raise ValueError(f"weight {tuple(weight.shape)} and update {update.shape} differ in shape")
    if not 0 < epsilon <= 1:
        raise ValueError(f"epsilon is a cosine in (0, 1], got {epsilon}")
    weight = weight.detach().double()
    tuned = top_svd(weight + update.matrix(torch.float64), k)
    if vectors is None and min(weight.shape) > EXACT_LIMIT:
        low = _best_cosine(top_svd(weight, 4 * k).U, tuned.U)
        high = torch.maximum(low, cosine_bound(weight, tuned.U))
        if not ((low < epsilon) & (high >= epsilon)).any():
            return _result(tuned.S, low, high, epsilon, "bounded")
    if vectors is None:
        vectors = left_singular_vectors(weight)
    best = _best_cosine(vectors, tuned.U)
    return _result(tuned.S, best, best, epsilon, "exact")


def left_singular_vectors(weight: Tensor) -> Tensor:
    """All left singular vectors (d_out, min(d_out, d_in)), from the smaller Gram matrix."""
    weight = weight.detach().double()
    if weight.shape[0] <= weight.shape[1]:
        return torch.linalg.eigh(weight @ weight.mT).eigenvectors.flip(1)
    right = torch.linalg.eigh(weight.mT @ weight).eigenvectors.flip(1)
    return torch.linalg.qr(weight @ right).Q


def cosine_bound(weight: Tensor, directions: Tensor, steps: int | None = None) -> Tensor:
    """Upper bound (k,) on max_j |cos(u, u_j(W))| for unit ``directions`` u (d_out, k)."""
    steps = min(steps or LANCZOS_STEPS, weight.shape[0])
    diagonal, beside = _lanczos(weight, directions, steps)
    T = torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    weights = torch.linalg.eigh(T).eigenvectors[:, 0, :].square()  # (k, steps), nodes ascending
    neighbours = weights[:, :-1] + weights[:, 1:] if steps > 1 else weights
    return neighbours.amax(1).clamp(max=1.0).sqrt()


def _lanczos(weight: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Tridiagonals of W W^T from k start vectors at once: (k, steps) and (k, steps - 1)."""
    basis, diagonal, beside = [start], [], []
    for step in range(steps):
        z = weight @ (weight.mT @ basis[-1])
        diagonal.append((basis[-1] * z).sum(0))
        if step == steps - 1:
            break
        for _ in range(2):  # twice is enough to stay orthogonal (Parlett)
            for q in basis:
                z = z - q * (q * z).sum(0)
        beside.append(z.norm(dim=0))
        basis.append(z / beside[-1].clamp(min=1e-300))
    empty = start.new_zeros(0, start.shape[1])
    return torch.stack(diagonal).mT, (torch.stack(beside) if beside else empty).mT


def _best_cosine(vectors: Tensor, directions: Tensor) -> Tensor:
    return (vectors.mT.to(directions) @ directions).abs().amax(0).clamp(max=1.0)


def _result(values: Tensor, low: Tensor, high: Tensor, epsilon: float, method: str) -> Intruders:
    found = tuple((high < epsilon).nonzero().flatten().tolist())
    return Intruders(found, values.cpu(), low.cpu(), high.cpu(), method)
