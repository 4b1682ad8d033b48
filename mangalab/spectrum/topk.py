"""The k largest singular values of a full update, each in a certified interval, and their energy.

Directions come from block Krylov iteration on A^T A from random Gaussian rows (Golub, Luk & Overton
1981; Musco & Musco 2015; the randomised range finder of Halko, Martinsson & Tropp 2011 is its first
step), in bfloat16 where the processor multiplies it, else in float32; what they are worth is decided
by a pass in float64 (``certify``), so that their precision cannot make an answer wrong. Rounds are
repeated from the directions found, in float32, until the intervals are as narrow as asked. Values that
do not separate (noise) never get there cheaply: then the exact road is taken and named.

What is certain: ``energy``, and every ``low``. What holds with probability 1 - ``failure``: every
``high`` (0 where no random bound was needed). See ``certify`` for the proofs and for rounding.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mangalab.spectrum.blocks import Blocks, gram
from mangalab.spectrum.certify import Certificate, certify, project
from mangalab.spectrum.engines import EPS, Spectrum, dense_spectrum

SPARE = 8  # directions carried beyond the k asked for
SMALL = 384  # up to this shorter side the exact engines are as fast
DEPTH = 10  # most products with the matrix in a round
HOPELESS = 0.03  # a first round that leaves a third of this did not separate the values from noise
TOLERANCE = 1e-6  # what float32 svdvals reaches


@dataclass(frozen=True, eq=False)
class TopK:
    """The ``k`` largest singular values of a matrix of ``shape``, float64, descending.

    ``low`` <= true value <= ``high`` (k,) for each; ``energy`` is the squared Frobenius norm of the
    whole matrix; ``failure`` the probability that a ``high`` is too small. ``met`` says whether every
    interval is at most ``tol`` times the largest value wide; ``method`` is krylov, gram or dense;
    ``passes`` counts how often the matrix was gone through.
    """

    low: Tensor
    high: Tensor
    shape: tuple[int, int]
    energy: float
    method: str
    tol: float
    failure: float
    passes: int
    base_norm: float | None = None

    @property
    def values(self) -> Tensor:
        """The middle of each interval (k,)."""
        return (self.low + self.high) / 2

    @property
    def width(self) -> float:
        """The widest interval divided by the largest value."""
        top = float(self.high[0])
        return float((self.high - self.low).max()) / top if top > 0 else 0.0

    @property
    def met(self) -> bool:
        """Whether the accuracy that was asked for is certified."""
        return self.width <= self.tol

    def share(self, count: int | None = None) -> tuple[float, float]:
        """Bounds on the share of the energy that the first ``count`` values hold (default: all k)."""
        if self.energy == 0:
            return 0.0, 0.0
        low, high = (float(v[:count].square().sum()) / self.energy for v in (self.low, self.high))
        return min(low, 1.0), min(high, 1.0)


def top_values(
    update: Tensor | Blocks, k: int = 16, tol: float = TOLERANCE, seed: int = 0
) -> TopK:
    """The ``k`` largest singular values of ``update`` (m, n), intervals within ``tol`` * largest.

    Takes a matrix in memory, or :class:`Blocks` of one that is not. ValueError for what is no matrix
    of finite floats. Small matrices (or ``k`` no small part of the shorter side) and values that do
    not separate go to the exact engines, which take 16 bytes times the square of the shorter side;
    where that is more than ``Blocks.room``, the best intervals found are returned and ``met`` is false.
    """
    blocks = update if isinstance(update, Blocks) else Blocks.of(update)
    if k < 1 or not tol > 0:
        raise ValueError(f"k is {k} and tol {tol}: both must be positive")
    k, norm = min(k, blocks.short), rough_norm(blocks)
    if norm == 0:
        zero = torch.zeros(k, dtype=torch.float64)
        return TopK(zero, zero, blocks.shape, 0.0, "dense", tol, 0.0, 1, blocks.base_norm)
    if blocks.short <= SMALL or 8 * (k + SPARE) > blocks.short or not 1e-20 < norm < 1e20:
        return exact(blocks, k, tol, passes=1)
    fits = 16 * blocks.short**2 <= blocks.room
    found, passes, failure = iterate(blocks, k, tol, norm, seed, patient=not fits)
    if found.width > tol and fits:
        return exact(blocks, k, tol, passes)
    energy, base = found.energy, blocks.base_norm
    low, high = found.low, found.high
    return TopK(low, high, blocks.shape, energy, "krylov", tol, failure, passes, base)


def rough_norm(blocks: Blocks) -> float:
    """Frobenius norm in float32, in float64 where that is too coarse; ValueError unless finite."""
    for dtype in (torch.float32, torch.float64):
        norm = math.hypot(*(float(torch.linalg.vector_norm(block.to(dtype))) for block in blocks))
        if 1e-12 < norm < 1e15:
            return norm
    if not norm < math.inf:
        raise ValueError(
            f"a {blocks.shape} update has entries that are no finite floats; "
            "look for an overflow in training"
        )
    return norm


def iterate(
    blocks: Blocks, k: int, tol: float, norm: float, seed: int, patient: bool
) -> tuple[Certificate, int, float]:
    """Rounds of Krylov iteration and certificate: the last certificate, passes, failure probability.

    ``patient`` goes on while it helps; otherwise the rounds end where the exact road is cheaper
    (a round that narrows the intervals less than threefold is the last).
    """
    generator = torch.Generator().manual_seed(seed)
    keep = k + SPARE
    start = torch.randn(-(-keep // 16) * 16, blocks.short, generator=generator)
    lean = blocks.to(torch.bfloat16) if lean_products() else blocks
    limit = 12 if patient else 2 + blocks.short // 1024
    passes, failure, last = 1, 0.0, math.inf if patient else HOPELESS
    for turn in range(limit):
        first = turn == 0
        basis, used = krylov(lean if first else blocks, start, keep, k, norm, tol)
        if first and lean is not blocks:  # one product in float32 takes the rounding of bfloat16 out
            basis, used = gram(blocks, basis, 1 / norm), used + 1
        draft = project(blocks, basis)
        hope = draft.width(k)
        stalled = hope > last / 3 or turn == limit - 1
        found = certify(blocks, draft, k, tol, generator, hope <= tol or (stalled and patient))
        failure += found.failure
        passes += used + 1 + found.passes
        if found.width <= tol or stalled:
            break
        start, last = draft.basis.float(), hope
    return found, passes, failure


def krylov(
    blocks: Blocks, start: Tensor, keep: int, k: int, norm: float, tol: float
) -> tuple[Tensor, int]:
    """Block Krylov space of A^T A from ``start`` (p, n): the ``keep`` best directions, and passes.

    Ends after ``DEPTH`` products, or when the residuals of the first ``k`` say that ``tol`` is met.
    Both Q (rows orthonormal) and the small matrix Q A^T A Q^T are float32, normed by ||A||_F.
    """
    Q = new = torch.linalg.qr(start.mT).Q.mT
    small = torch.zeros(0, 0)
    for step in range(1, DEPTH + 1):
        image = gram(blocks, new, 1 / norm)
        inside = image @ Q.mT
        small = _bordered(small, inside)
        image = image - inside @ Q
        image -= (image @ Q.mT) @ Q
        new, R = _orthonormal(image, Q)
        theta, turn = torch.linalg.eigh(small.double())
        theta, turn = theta.flip(0), turn.flip(1)
        out = torch.linalg.vector_norm(R.double() @ turn[-len(new) :, :k], dim=0)
        done = step > 1 and _expected(theta, out, keep) < 4 * tol
        if done or step == DEPTH or len(Q) + 2 * len(new) > blocks.short:
            break
        Q = torch.cat([Q, new])
    return turn[:, :keep].mT.float() @ Q, step


def _bordered(small: Tensor, inside: Tensor) -> Tensor:
    """``small`` with the rows (p, b) of new directions added below and, by symmetry, at the right."""
    p, b = inside.shape
    grown = torch.empty(b, b)
    grown[: b - p, : b - p] = small
    grown[b - p :] = inside
    grown[:, b - p :] = inside.mT
    grown[b - p :, b - p :] = (inside[:, b - p :] + inside[:, b - p :].mT) / 2
    return grown


def _orthonormal(image: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
    """Rows orthonormal to each other and to ``Q`` that hold ``image``, and R with image = R^T rows."""
    new, R = torch.linalg.qr(image.mT)
    new = new.mT
    new = new - (new @ Q.mT) @ Q  # where image had no new direction, QR made one up
    return torch.linalg.qr(new.mT).Q.mT, R


def _expected(theta: Tensor, out: Tensor, keep: int) -> float:
    """Width that the certificate will probably have, from Ritz values and residuals (k,)."""
    k = len(out)
    edge = theta[keep] if keep < len(theta) else theta[-1]
    width = out.square() / (theta[:k] - edge).clamp(min=1e-12) / (2 * theta[:k] * theta[0]).sqrt()
    return float(width.max())


def exact(blocks: Blocks, k: int, tol: float, passes: int) -> TopK:
    """The exact engines: Gram eigenvalues in float64, or the dense SVD where these are too coarse."""
    if blocks.held is None:
        found = _streamed_gram(blocks)
    else:
        found = dense_spectrum(blocks.held)
        if found.method == "gram" and 2 * float(found.errors[:k].max()) > tol * float(found.values[0]):
            found = dense_spectrum(blocks.held, method="dense")
    values, errors = found.values[:k], found.errors[:k]
    low, high = (values - errors).clamp(min=0), values + errors
    energy, base = found.energy, blocks.base_norm
    return TopK(low, high, blocks.shape, energy, found.method, tol, 0.0, passes + 1, base)


def _streamed_gram(blocks: Blocks) -> Spectrum:
    """``engines``' Gram road for blocks: 16 bytes times the shorter side squared."""
    total = torch.zeros(blocks.short, blocks.short, dtype=torch.float64)
    for block in blocks:
        rows = block.double()
        total.addmm_(rows.mT, rows)
    energy = float(total.trace())
    values = torch.linalg.eigvalsh(total).flip(0).clamp(min=0).sqrt()
    delta = sum(blocks.shape) * EPS * energy
    errors = (delta / values.clamp(min=1e-300)).clamp(max=delta**0.5)
    return Spectrum(values, errors, blocks.shape, energy, "gram")


def lean_products() -> bool:
    """Whether this processor multiplies bfloat16 (otherwise it is slower than float32)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
