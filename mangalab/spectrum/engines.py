"""Three ways to the singular values of a dense matrix, each with a bound on its own error.

dense       LAPACK's SVD in float64. Cost about (8/3) m n^2. Absolute error near eps * sigma_1.
gram        eigenvalues of X X^T in float64, one product and one symmetric eigenproblem, several
            times faster. Squaring costs precision at the small end: values below
            about 1e-7 * sigma_1 are not resolved, and the bound says so.
randomised  only the k largest values (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1).

Certificate of the randomised engine. With Q of orthonormal columns and Y = Q^T X,
X^T X = Y^T Y + E^T E where E = X - Q Y, so by Weyl's inequality

    sigma_i(Y)^2 <= sigma_i(X)^2 <= sigma_i(Y)^2 + ||E||_F^2,

and ||E||_F^2 = ||X||_F^2 - ||Y||_F^2 costs nothing. The bound holds whatever the random numbers
were.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
METHODS = ("dense", "gram", "randomised")
# Below this smaller side the dense SVD takes milliseconds, so its accuracy is free.
DENSE_LIMIT = 512
# Up to this smaller side the exact Gram road costs a second or two even for a few values.
EXACT_LIMIT = 2048
OVERSAMPLING = 16
POWER = 4
GRAM_BLOCK = 4096


class SVD(NamedTuple):
    """Thin factorisation ``U @ diag(S) @ Vh``: U (m, k), S (k,), Vh (k, n), float64."""

    U: Tensor
    S: Tensor
    Vh: Tensor


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of one update and how they were found.

    ``values`` (k,) float64, descending; ``errors`` (k,) absolute bound on the error of each value;
    ``energy`` the squared Frobenius norm of the *whole* matrix; ``complete`` is false when only the
    k largest values are there (values left out are then not zero).
    """

    values: Tensor
    errors: Tensor
    shape: tuple[int, int]
    energy: float
    method: str
    complete: bool = True

    @property
    def error_bound(self) -> float:
        """Largest absolute error that any of the values can have."""
        return float(self.errors.max()) if self.errors.numel() else 0.0


def choose_method(shape: tuple[int, int], k: int | None = None) -> str:
    """Cheapest engine that is accurate enough for ``k`` values (all of them if ``None``)."""
    small = min(shape)
    if small <= DENSE_LIMIT:
        return "dense"
    if k is not None and small > EXACT_LIMIT and 4 * (k + OVERSAMPLING) <= small:
        return "randomised"
    return "gram"


def dense_spectrum(matrix: Tensor, k: int | None = None, method: str = "auto") -> Spectrum:
    """Singular values of ``matrix`` (m, n): all, or the ``k`` largest.

    ``method`` is one of ``dense``, ``gram``, ``randomised`` or ``auto`` (chosen by size, and named
    in the result). ``randomised`` needs ``k``.
    """
    shape = _check_matrix(matrix)
    k = _check_k(k, min(shape))
    if method == "auto":
        method = choose_method(shape, k)
    if method == "dense":
        values, errors, energy = _dense(matrix)
    elif method == "gram":
        values, errors, energy = _gram(matrix)
    elif method == "randomised" and k is not None:
        values, errors, energy = _randomised(matrix, k)
    elif method == "randomised":
        raise ValueError("method 'randomised' finds the k largest values: give k")
    else:
        raise ValueError(f"method {method!r} is not known; choose one of {('auto', *METHODS)}")
    count = len(values) if k is None else k
    return Spectrum(
        values[:count].cpu(), errors[:count].cpu(), shape, energy, method, count == min(shape)
    )


def top_svd(matrix: Tensor, k: int | None = None, method: str = "auto", seed: int = 0) -> SVD:
    """The ``k`` leading singular triplets (all if ``None``) of ``matrix`` (m, n), in float64.

    ``dense`` is LAPACK's SVD; ``gram`` and ``randomised`` find a basis of the leading directions
    (eigenvectors of the Gram matrix, or subspace iterations) and factorise the matrix within it.
    """
    k = _check_k(k, min(_check_matrix(matrix)))
    matrix = matrix.double()
    if method == "auto":
        method = "dense" if k is None else choose_method(tuple(matrix.shape), k)
    if method == "dense":
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        return SVD(U[:, :k], S[:k], Vh[:k])
    if k is None or method not in METHODS:
        raise ValueError(
            f"top_svd needs method 'dense', or one of {METHODS} with k; got {method!r}"
        )
    if method == "gram" and matrix.shape[0] > matrix.shape[1]:
        right = top_svd(matrix.mT, k, method)
        return SVD(right.Vh.mT, right.S, right.U.mT)
    if method == "gram":
        Q = torch.linalg.eigh(matrix @ matrix.mT).eigenvectors[:, -k:]
        Y = Q.mT @ matrix
    else:
        Q, Y = _range(matrix, k, POWER, seed)
    U, S, Vh = torch.linalg.svd(Y, full_matrices=False)
    return SVD((Q @ U)[:, :k], S[:k], Vh[:k])


def _check_matrix(matrix: Tensor) -> tuple[int, int]:
    if matrix.dim() != 2 or matrix.numel() == 0:
        raise ValueError(f"an update must be a non-empty matrix, got {tuple(matrix.shape)}")
    if not matrix.is_floating_point() or not torch.isfinite(matrix).all():
        raise ValueError(
            f"a {tuple(matrix.shape)} {matrix.dtype} update has entries that are no finite floats; "
            "look for an overflow in training"
        )
    return matrix.shape[0], matrix.shape[1]


def _check_k(k: int | None, limit: int) -> int | None:
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return None if k is None else min(k, limit)


def _dense(matrix: Tensor) -> tuple[Tensor, Tensor, float]:
    values = torch.linalg.svdvals(matrix.double())
    errors = torch.full_like(values, sum(matrix.shape) * EPS * float(values[0]))
    return values, errors, float(values.square().sum())


def _gram(matrix: Tensor) -> tuple[Tensor, Tensor, float]:
    """Eigenvalues of the smaller Gram matrix, summed over blocks: no float64 copy."""
    long = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
    gram = torch.zeros(long.shape[1], long.shape[1], dtype=torch.float64, device=matrix.device)
    for block in long.split(GRAM_BLOCK):
        rows = block.double()
        gram.addmm_(rows.mT, rows)
    energy = float(gram.trace())
    values = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()
    # An eigenvalue is off by at most delta, hence its root by min(sqrt(delta), delta / sigma).
    delta = sum(matrix.shape) * EPS * energy
    errors = (delta / values.clamp(min=1e-300)).clamp(max=delta**0.5)
    return values, errors, energy


def _randomised(matrix: Tensor, k: int) -> tuple[Tensor, Tensor, float]:
    matrix = matrix.double()
    values = torch.linalg.svdvals(_range(matrix, k, POWER, seed=0)[1])
    energy = float(matrix.square().sum())
    rounding = sum(matrix.shape) * EPS * energy
    residual = max(energy - float(values.square().sum()), 0.0) + rounding
    values = values[:k]
    return values, (values.square() + residual).sqrt() - values, energy


def _range(matrix: Tensor, k: int, power: int, seed: int) -> tuple[Tensor, Tensor]:
    """Orthonormal Q (m, k + oversampling) that spans the leading directions, and Q^T X."""
    m, n = matrix.shape
    generator = torch.Generator().manual_seed(seed)
    columns = min(k + OVERSAMPLING, m, n)
    probe = torch.randn(n, columns, generator=generator, dtype=torch.float64).to(matrix.device)
    Q = torch.linalg.qr(matrix @ probe).Q
    for _ in range(power):
        # Orthonormalising after every product keeps small directions from drowning in rounding.
        Q = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.mT @ Q).Q).Q
    return Q, Q.mT @ matrix
