"""The two kinds of weight update, with one interface.

A LoRA update of a (d_out, d_in) weight is ``scale * B @ A`` with B (d_out, r) and A (r, d_in). Its
singular values need no product: with thin factorisations B = Q_B R_B and A^T = Q_A R_A,

    scale * B A = Q_B (scale * R_B R_A^T) Q_A^T,

and orthonormal Q change no singular value, so those of the r x r core are the answer:
O((d_out + d_in) r^2) instead of O(d_out d_in^2).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mangalab.spectrum.engines import EPS, SVD, Spectrum, dense_spectrum, top_svd

# Float64 elements factorised in one call. On a CPU, LAPACK loops over a batch anyway, and a group
# that stays in the cache is 3x faster than one big stack; a GPU wants the big stack.
CPU_GROUP = 2**18
GPU_GROUP = 2**26


class Update:
    """What a factored and a dense update have in common. ``shape`` is (d_out, d_in)."""

    shape: tuple[int, int]
    base_norm: float | None

    @property
    def max_rank(self) -> int:
        """Largest rank that the update can have."""
        raise NotImplementedError

    def spectrum(self, k: int | None = None) -> Spectrum:
        """Singular values with method and error bound: all that can be non-zero, or k."""
        raise NotImplementedError

    def svd(self, k: int | None = None) -> SVD:
        """The ``k`` leading singular triplets (all if ``None``)."""
        raise NotImplementedError

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The update multiplied out, (d_out, d_in)."""
        raise NotImplementedError

    def singular_values(self, k: int | None = None) -> Tensor:
        """Singular values (k,), descending, float64."""
        return self.spectrum(k).values

    @property
    def frobenius(self) -> float:
        """Frobenius norm."""
        return self._spectrum.energy**0.5

    @property
    def spectral_norm(self) -> float:
        """Largest singular value."""
        return float(self._spectrum.values[0])

    @cached_property
    def _spectrum(self) -> Spectrum:
        return self.spectrum()

    def truncate(self, k: int) -> "FactoredUpdate":
        """Best rank-``k`` approximation (Eckart & Young 1936), as factors of equal norm."""
        U, S, Vh = self.svd(k)
        root = S.sqrt()
        return FactoredUpdate(U * root, root[:, None] * Vh, base_norm=self.base_norm)


@dataclass(frozen=True, eq=False)
class FactoredUpdate(Update):
    """``scale * B @ A``: B (d_out, r), A (r, d_in); ``base_norm`` is the norm of W if known."""

    B: Tensor
    A: Tensor
    scale: float = 1.0
    base_norm: float | None = None

    def __post_init__(self) -> None:
        shapes = f"B {tuple(self.B.shape)} and A {tuple(self.A.shape)}"
        if self.B.dim() != 2 or self.A.dim() != 2 or self.B.shape[1] != self.A.shape[0]:
            raise ValueError(f"B must be (d_out, r) and A (r, d_in), got {shapes}")
        if 0 in (*self.B.shape, *self.A.shape):
            raise ValueError(f"an update needs at least one row, column and rank, got {shapes}")

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.B.shape[0], self.A.shape[1]

    @property
    def max_rank(self) -> int:
        """min(r, d_out, d_in)."""
        return min(self.B.shape[1], *self.shape)

    def spectrum(self, k: int | None = None) -> Spectrum:
        """Exact values that can be non-zero; the other min(d_out, d_in) - r are exactly zero."""
        full = _factored_spectra([self])[0]
        if k is None or k >= self.max_rank:
            return full
        return Spectrum(
            full.values[:k], full.errors[:k], self.shape, full.energy, full.method, False
        )

    def svd(self, k: int | None = None) -> SVD:
        """Leading triplets; orthonormal even where the singular value is zero."""
        Q_B, R_B = torch.linalg.qr(self.B.double())
        Q_A, R_A = torch.linalg.qr(self.A.double().mT)
        U, S, Vh = torch.linalg.svd(_finite(self.scale * R_B @ R_A.mT), full_matrices=False)
        k = len(S) if k is None else k
        return SVD(Q_B @ U[:, :k], S[:k], Vh[:k] @ Q_A.mT)

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """``scale * B @ A`` formed in ``dtype``, (d_out, d_in)."""
        return self.scale * (self.B.to(dtype) @ self.A.to(dtype))

    def scaled(self, factor: float) -> "FactoredUpdate":
        """The update times ``factor``."""
        return FactoredUpdate(self.B, self.A, self.scale * factor, self.base_norm)

    def __add__(self, other: "FactoredUpdate") -> "FactoredUpdate":
        """Exact sum by concatenated factors [s1 B1, s2 B2] [A1; A2], rank at most r1 + r2."""
        if self.shape != other.shape:
            raise ValueError(f"cannot add updates of shape {self.shape} and {other.shape}")
        B = torch.cat([self.scale * self.B.double(), other.scale * other.B.double()], dim=1)
        return FactoredUpdate(B, torch.cat([self.A.double(), other.A.double()]))

    def __sub__(self, other: "FactoredUpdate") -> "FactoredUpdate":
        """Exact difference, as factors."""
        return self + other.scaled(-1.0)


@dataclass(frozen=True, eq=False)
class DenseUpdate(Update):
    """A full update ``delta`` (d_out, d_in); ``method`` forces an engine (default: by size)."""

    delta: Tensor
    base_norm: float | None = None
    method: str = "auto"

    @classmethod
    def between(cls, before: Tensor, after: Tensor) -> "DenseUpdate":
        """``after - before``, subtracted in float32 at least (bf16 would round most of it away)."""
        if before.shape != after.shape:
            raise ValueError(
                f"weights differ in shape: {tuple(before.shape)} before, {tuple(after.shape)} after"
            )
        dtype = torch.promote_types(torch.promote_types(before.dtype, after.dtype), torch.float32)
        norm = float(torch.linalg.vector_norm(before, dtype=torch.float64))
        return cls(after.detach().to(dtype) - before.detach().to(dtype), norm)

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return tuple(self.delta.shape)

    @property
    def max_rank(self) -> int:
        """min(d_out, d_in)."""
        return min(self.shape)

    def spectrum(self, k: int | None = None) -> Spectrum:
        """Singular values by the engine that suits the size (see ``engines``)."""
        return dense_spectrum(self.delta, k, self.method)

    def svd(self, k: int | None = None) -> SVD:
        """Leading triplets; randomised where k is small against the matrix."""
        return top_svd(self.delta, k)

    def matrix(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The update itself."""
        return self.delta.to(dtype)


def combine(
    parts: Sequence[Mapping[str, FactoredUpdate]], weights: Sequence[float]
) -> dict[str, FactoredUpdate]:
    """Weighted sum of adapters, exact: per module the factors are concatenated.

    A module that only some adapters have keeps the share of those. This is PEFT's ``cat``; its
    ``linear`` adds A and B apart and does not give this sum.
    """
    if len(parts) != len(weights):
        raise ValueError(f"{len(parts)} adapters need as many weights, got {len(weights)}")
    total: dict[str, FactoredUpdate] = {}
    for part, weight in zip(parts, weights, strict=True):
        for name, update in part.items():
            share = update.scaled(weight)
            total[name] = total[name] + share if name in total else share
    return total


def spectra(updates: Mapping[str, Update], k: int | None = None) -> dict[str, Spectrum]:
    """Spectra of all ``updates`` by name; factored ones of equal shape are handled together.

    Dense updates are taken one at a time: a mapping that loads on access stays small in memory.
    """
    found: dict[str, Spectrum] = {}
    groups: dict[tuple, list[tuple[str, FactoredUpdate]]] = {}
    for name, update in updates.items():
        if isinstance(update, FactoredUpdate) and k is None:
            key = (update.B.shape, update.A.shape, update.B.device)
            groups.setdefault(key, []).append((name, update))
        else:
            found[name] = update.spectrum(k)
    for members in groups.values():
        results = _factored_spectra([update for _, update in members])
        found.update(zip((name for name, _ in members), results, strict=True))
    return {name: found[name] for name in updates}


def _factored_spectra(updates: Sequence[FactoredUpdate]) -> list[Spectrum]:
    """Spectra of updates of equal shape and device."""
    first = updates[0]
    size = max(first.B.numel(), first.A.numel())
    step = max(1, (GPU_GROUP if first.B.is_cuda else CPU_GROUP) // size)
    values, errors = [], []
    for start in range(0, len(updates), step):
        group = updates[start : start + step]
        R_B = _triangles(update.B for update in group)
        R_A = _triangles(update.A.mT for update in group)
        scale = torch.tensor([update.scale for update in group], dtype=torch.float64)
        core = scale.to(R_B.device)[:, None, None] * (R_B @ R_A.mT)
        values.append(torch.linalg.svdvals(_finite(core)).cpu())
        # Backward error of both Householder factorisations (Higham 2002, theorem 19.4).
        size = torch.linalg.matrix_norm(R_B) * torch.linalg.matrix_norm(R_A)
        rank = first.B.shape[1]
        errors.append(sum(first.shape) * rank * EPS * scale.abs() * size.cpu())
    return [
        Spectrum(v, torch.full_like(v, float(e)), first.shape, float(v.square().sum()), "factored")
        for v, e in zip(torch.cat(values), torch.cat(errors), strict=True)
    ]


def _triangles(factors: Iterable[Tensor]) -> Tensor:
    """R of the thin QR factorisation of each (d, r) factor, stacked, in float64."""
    stacked = torch.stack([factor.detach().double() for factor in factors])
    return torch.linalg.qr(stacked, mode="r").R


def _finite(core: Tensor) -> Tensor:
    if not torch.isfinite(core).all():
        raise ValueError(
            "a factored update has entries that are not finite; look for an overflow in training"
        )
    return core
