"""Two-sided bounds on the k largest singular values, given any basis of directions.

Let A (m, n) be the update, H = A^T A, and X (b, n) orthonormal rows, turned so that
X H X^T = diag(t), t_1 >= ... >= t_b. With the other directions of the space, H is

    [ diag(t)  K^T ]      K: what H takes out of the span of X;  M = K^T K (b, b),
    [ K        C   ]      C: the remainder, with norm c = ||C||_2.

*Below*: t_i <= lambda_i(H) (Cauchy's interlacing theorem).
*Above*: for x > c, diag(t) - x + K^T (x - C)^-1 K has as many eigenvalues above zero as H has above x
(Schur complement and Sylvester's law of inertia), and (x - C)^-1 <= 1 / (x - c), so that

    lambda_i(diag(t) + M / (x - c)) <= x   implies   lambda_i(H) <= x.

These bounds are of the i-th value itself, not of *some* value near a Ritz value, and quadratic in the
residuals K where the value is above the remainder; below it they say no more than c.

Two bounds on c are used, the smaller counts:
1. the trace, c <= ||A||_F^2 - sum t: certain, and good when little energy is left;
2. Lanczos steps on C from random Gaussian starts (Kuczynski & Wozniakowski 1992; van Dorsselaer,
   Hochstenbach & van der Vorst 2000): if K_q(x) = sum_j p_j(x)^2 with the orthonormal Lanczos
   polynomials, then the share of the start w in the top eigenvector is at most 1 / K_q(c). That
   share is g^2 / ||w||^2 with g ~ N(0, 1), so c exceeds the x with K_q(x) = ||w||^2 / d^2 only if
   |g| <= d. For r independent starts and the largest of their x the probability is at most
   (d sqrt(2 / pi))^r, which is set to ``FAILURE``. (The same with powers in place of polynomials is
   Dixon 1983.) This assumes starts independent of X: they are drawn after X is known.

Nothing else is random. Rounding: X, K and t are found in float64, and (m + n) eps ||A||_F is added on
both sides; the Lanczos steps are float32 and 1e-4 c + 4e-6 sqrt(c) ||A||_F is added to their bound.
These allowances are the usual first-order ones, not interval arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mangalab.spectrum.blocks import Blocks, gram

EPS = torch.finfo(torch.float64).eps
FAILURE = 1e-9  # probability that the remainder of one matrix is larger than its bound, per round
STARTS = 8
STEPS = 16
SETTLED = 0.98  # a step that lowers the bound by less than this is the last
LEVELS = 8
TRIALS = 6
# |g| <= SMALL for all starts has the probability FAILURE
SMALL = FAILURE ** (1 / STARTS) / (2 / np.pi) ** 0.5


@dataclass(frozen=True, eq=False)
class Draft:
    """What a pass in float64 tells of ``basis`` (b, n), turned to its Ritz vectors.

    ``values`` (b,) = sqrt(t), descending; ``M`` (b, b) Gram matrix of the residuals K; ``energy`` is
    ||A||_F^2, and ``trace`` the certain bound on c that follows from it. All float64.
    """

    basis: Tensor
    values: Tensor
    M: Tensor
    energy: float
    rounding: float

    @property
    def trace(self) -> float:
        """Energy outside of the basis (sums are blocked: their rounding is far below m n eps)."""
        return max(self.energy - float(self.values.square().sum()), 0.0) + 64 * EPS * self.energy

    def bounds(self, k: int, c: float) -> tuple[Tensor, Tensor]:
        """Bounds (k,), (k,) on the ``k`` largest values if the remainder has at most the norm ``c``."""
        low = (self.values[:k] - self.rounding).clamp(min=0)
        high = upper(self.values.square(), self.M, c, k).sqrt() + self.rounding
        return low, torch.maximum(high, low)

    def width(self, k: int, c: float | None = None) -> float:
        """Widest of these intervals divided by the largest value; without ``c`` the best to hope for.

        The remainder can hardly be smaller than the least value of the basis.
        """
        low, high = self.bounds(k, float(self.values[-1]) ** 2 if c is None else c)
        return float((high - low).max()) / float(high[0]) if high[0] > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Certificate:
    """``low`` and ``high`` (k,) bound the k largest singular values of a matrix.

    ``remainder`` bounds sqrt(c); ``failure`` is the probability that it does not (0 if it came from
    the trace); ``passes`` counts those through the matrix that it took.
    """

    low: Tensor
    high: Tensor
    energy: float
    remainder: float
    failure: float
    passes: int

    @property
    def width(self) -> float:
        """The widest interval as a share of the largest value."""
        return float((self.high - self.low).max() / self.high[0]) if self.high[0] > 0 else 0.0


def certify(
    blocks: Blocks, draft: Draft, k: int, tol: float, generator: torch.Generator, search: bool = True
) -> Certificate:
    """Bounds on the ``k`` largest values, k <= b.

    Unless the trace bounds the remainder so well that every interval is within ``tol`` times the
    largest value, up to ``STEPS`` passes in float32 ``search`` for a smaller bound.
    """
    c, failure, used = draft.trace, 0.0, 0
    if search and draft.width(k, c) > tol:
        found, used = remainder(blocks, draft, generator, lambda c: draft.width(k, c) <= tol)
        c, failure = (found, FAILURE) if found < c else (c, failure)
    return Certificate(*draft.bounds(k, c), draft.energy, c**0.5, failure, used)


def project(blocks: Blocks, basis: Tensor) -> Draft:
    """One pass in float64 over the matrix with ``basis`` (b, n), whose rows need not be orthonormal."""
    basis = torch.linalg.qr(basis.double().mT).Q.mT
    images, energy, triangle = torch.zeros_like(basis), 0.0, basis.new_zeros(0, len(basis))
    for block in blocks:
        rows = block.double()
        flat = rows.flatten()
        energy += float(flat @ flat)
        part = basis @ rows.mT
        images.addmm_(part, rows)
        triangle = torch.linalg.qr(torch.cat([triangle, part.mT]), mode="r").R
    values, turn = torch.linalg.svd(triangle)[1:]  # those of A times the basis, never squared
    basis, images = turn @ basis, turn @ images
    K = images - values.square()[:, None] * basis
    K -= (K @ basis.mT) @ basis
    return Draft(basis, values, K @ K.mT, energy, sum(blocks.shape) * EPS * energy**0.5)


def upper(t: Tensor, M: Tensor, c: float, k: int) -> Tensor:
    """Upper bounds (k,) on the largest eigenvalues of [diag(t), K^T; K, C] with ||C|| <= c.

    For every x > c, max(x, lambda_i(diag(t) + M / (x - c))) is one; a few x are tried, of which up to
    ``LEVELS`` differ, since the x of a larger i serves a smaller one too.
    """
    size = float(torch.linalg.eigvalsh(M)[-1].clamp(min=0))
    half = (t[:k] - c) / 2
    best = c + half + (half.square() + size).sqrt()  # where (x - t_i)(x - c) = ||M||
    if size == 0:
        return torch.maximum(best, t[:k])
    levels = torch.arange(k) * min(LEVELS, k) // k
    tiny = EPS * float(t[0] + c)
    trial = best
    for _ in range(TRIALS):
        lowest = torch.stack([trial[levels == level].min() for level in range(int(levels[-1]) + 1)])
        x = lowest.clamp(min=c + tiny)
        shifted = torch.diag(t) + M / (x - c)[:, None, None]
        found = torch.linalg.eigvalsh(shifted).flip(-1)
        found = found + 4 * len(t) * EPS * found[:, :1]  # what the eigenvalues may be off
        values = found[levels, torch.arange(k)]
        best = torch.minimum(best, torch.maximum(x[levels], values))
        trial = torch.maximum(values, c + (best - c) / 64).minimum(best)
    return best


def remainder(
    blocks: Blocks, draft: Draft, generator: torch.Generator, enough: Callable[[float], bool]
) -> tuple[float, int]:
    """Bound on c = ||C||, the part of H outside of the draft's basis, and passes made.

    The Lanczos steps end when the bound is ``enough`` or barely moves. It is too small with
    probability ``FAILURE`` at most; never larger than the trace.
    """
    basis, ceiling, scale = draft.basis.float(), draft.trace, draft.energy**-0.5
    start = torch.randn(STARTS, blocks.short, generator=generator)
    start -= (start @ basis.mT) @ basis
    sizes = torch.linalg.vector_norm(start, dim=1, dtype=torch.float64)
    needed = (sizes.numpy() / SMALL) ** 2
    known = [start / sizes[:, None].float()]
    alphas, betas, bound = [], [], ceiling
    for step in range(1, STEPS + 1):
        image = gram(blocks, known[-1], scale)
        image -= (image @ basis.mT) @ basis
        alphas.append((image * known[-1]).sum(1, dtype=torch.float64).numpy())
        for vectors in (*known, *known):
            image -= (image * vectors).sum(1, keepdim=True) * vectors
        beta = torch.linalg.vector_norm(image, dim=1).clamp(min=1e-30)
        betas.append(beta.double().numpy())
        known.append(image / beta[:, None])
        if step < 4:
            continue
        found = float(_where(np.array(alphas), np.array(betas), needed, ceiling * scale**2).max())
        found = (found * (1 + 1e-4) + 4e-6 * found**0.5) * draft.energy
        settled = found > SETTLED * bound
        bound = min(bound, found)
        if settled or enough(bound):
            break
    return bound, step


def _where(alphas: np.ndarray, betas: np.ndarray, needed: np.ndarray, ceiling: float) -> np.ndarray:
    """For each start (r,) the x at which the sum of squared Lanczos polynomials reaches ``needed``.

    ``alphas`` and ``betas`` (q, r) are the Lanczos coefficients. The sum grows above the largest Ritz
    value; bisection from above, so that the result is on the safe side.
    """
    steps, starts = alphas.shape
    ritz = np.zeros((starts, steps, steps))
    ritz[:, range(steps), range(steps)] = alphas.T
    ritz[:, range(1, steps), range(steps - 1)] = betas[:-1].T  # numpy reads the lower triangle
    low = np.linalg.eigvalsh(ritz)[:, -1]
    high = np.maximum(low, ceiling)
    for _ in range(24):
        x = (low + high) / 2
        enough = _squares(alphas, betas, x) >= needed
        low, high = np.where(enough, low, x), np.where(enough, x, high)
    return high


def _squares(alphas: np.ndarray, betas: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sum over j = 0 ... q of p_j(x)^2 with the orthonormal Lanczos polynomials of each start (r,)."""
    before, now, beta = np.zeros_like(x), np.ones_like(x), np.zeros_like(x)
    total = now.copy()
    for a, b in zip(alphas, betas, strict=True):
        before, now = now, np.clip(((x - a) * now - beta * before) / b, -1e100, 1e100)
        total, beta = total + now * now, b
    return total
