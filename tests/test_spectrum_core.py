"""Spectra of factored and dense updates against numpy's float64 SVD, and their invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mangalab import spectrum as sp

GRADED = torch.logspace(0, -8, 16, dtype=torch.float64)


def random_factors(d_out, d_in, rank, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    B = torch.randn(d_out, rank, generator=generator, dtype=torch.float64)
    A = torch.randn(rank, d_in, generator=generator, dtype=torch.float64)
    return B.to(dtype), A.to(dtype)


def orthonormal(d, k, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64)).Q


def with_values(values, d_out, d_in, seed=0):
    """Matrix (d_out, d_in) with these singular values."""
    k = len(values)
    return orthonormal(d_out, k, seed) * values @ orthonormal(d_in, k, seed + 1).mT


def numpy_values(matrix):
    return torch.from_numpy(np.linalg.svd(matrix.double().numpy(), compute_uv=False))


@pytest.mark.parametrize(("d_out", "d_in", "rank"), [(200, 300, 8), (300, 64, 16), (5, 40, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factored_values_equal_numpy(d_out, d_in, rank, dtype):
    B, A = random_factors(d_out, d_in, rank, dtype=dtype)
    update = sp.FactoredUpdate(B, A, scale=-0.37)
    dense = numpy_values(-0.37 * B.double() @ A.double())
    values = update.singular_values()
    assert len(values) == update.max_rank == min(rank, d_out, d_in)
    torch.testing.assert_close(values, dense[: len(values)], rtol=1e-12, atol=0)
    assert update.frobenius == pytest.approx(float(dense.norm()), rel=1e-12)
    assert update.spectral_norm == pytest.approx(float(dense[0]), rel=1e-12)


def test_graded_factored_values_keep_their_digits():
    # Grading split over both factors; the smallest of 16 values is 1e-8 of the largest.
    B = orthonormal(400, 16) * GRADED.sqrt()
    A = GRADED.sqrt()[:, None] * orthonormal(300, 16, seed=5).mT
    values = sp.FactoredUpdate(B, A).singular_values()
    torch.testing.assert_close(values, GRADED, rtol=1e-6, atol=0)
    # and float32 factors are read exactly: equal to the dense SVD of the same float32 numbers
    B, A = B.float(), A.float()
    dense = numpy_values(B.double() @ A.double())[:16]
    torch.testing.assert_close(sp.FactoredUpdate(B, A).singular_values(), dense, rtol=1e-5, atol=0)


def test_factored_error_bound_covers_graded_error():
    B = orthonormal(400, 16) * GRADED.sqrt()
    A = GRADED.sqrt()[:, None] * orthonormal(300, 16, seed=5).mT
    found = sp.FactoredUpdate(B, A).spectrum()
    assert (found.values - GRADED).abs().max() <= found.error_bound < 1e-10


def test_fresh_and_rank_deficient_adapters():
    B, A = random_factors(30, 20, 4)
    fresh = sp.FactoredUpdate(torch.zeros_like(B), A)
    assert fresh.singular_values().tolist() == [0.0] * 4
    assert fresh.frobenius == 0 and sp.effective_rank(fresh.singular_values()) == 0
    U, _, Vh = fresh.svd()
    torch.testing.assert_close(U.mT @ U, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(Vh @ Vh.mT, torch.eye(4, dtype=torch.float64))
    B[:, 1] = B[:, 0]
    values = sp.FactoredUpdate(B.double(), A.double()).singular_values()
    assert values[3] < 1e-14 * values[0] < values[2]


def test_svd_reconstructs_with_negative_scale():
    update = sp.FactoredUpdate(*random_factors(50, 40, 6), scale=-2.0)
    U, S, Vh = update.svd()
    torch.testing.assert_close(U * S @ Vh, update.matrix(torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(U.mT @ U, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-13)
    assert sp.top_svd(update.matrix(torch.float64), 3).U.shape == (50, 3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), rank=st.integers(1, 6))
def test_values_depend_on_the_product_only(seed, rank):
    B, A = random_factors(25, 18, rank, seed, torch.float64)
    M = random_factors(rank, rank, rank, seed + 1, torch.float64)[0]
    M = M + 3 * rank * torch.eye(rank, dtype=torch.float64)  # well conditioned
    values = sp.FactoredUpdate(B, A).singular_values()
    moved = sp.FactoredUpdate(B @ M, torch.linalg.solve(M, A)).singular_values()
    turned = sp.FactoredUpdate(orthonormal(25, 25, seed) @ B, A @ orthonormal(18, 18, seed))
    scale = values[0]
    torch.testing.assert_close(moved / scale, values / scale, rtol=0, atol=1e-12)
    torch.testing.assert_close(turned.singular_values() / scale, values / scale, rtol=0, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), weight=st.floats(-3, 3))
def test_combine_is_the_exact_sum(seed, weight):
    one = sp.FactoredUpdate(*random_factors(12, 9, 2, seed), scale=0.7)
    two = sp.FactoredUpdate(*random_factors(12, 9, 3, seed + 1), scale=-1.3)
    total = sp.combine([{"a": one, "b": one}, {"a": two}], [1.0, weight])
    expected = one.matrix(torch.float64) + weight * two.matrix(torch.float64)
    torch.testing.assert_close(total["a"].matrix(torch.float64), expected, rtol=0, atol=1e-12)
    assert total["a"].B.shape[1] == 5
    torch.testing.assert_close(total["b"].matrix(), one.matrix())


def test_difference_with_itself_vanishes():
    update = sp.FactoredUpdate(*random_factors(40, 30, 4), scale=2.0)
    assert (update - update).spectral_norm < 1e-13 * update.spectral_norm


def test_batched_spectra_equal_single_ones():
    updates = {
        f"m{i}": sp.FactoredUpdate(*random_factors(64 + 8 * (i % 2), 48, 4, i), scale=i - 2.5)
        for i in range(9)
    }
    updates["dense"] = sp.DenseUpdate(torch.randn(20, 30))
    found = sp.spectra(updates)
    assert list(found) == list(updates)
    for name, update in updates.items():
        torch.testing.assert_close(found[name].values, update.singular_values(), rtol=1e-12, atol=0)
        assert found[name].error_bound == pytest.approx(update.spectrum().error_bound)


@pytest.mark.parametrize("method", ["dense", "gram"])
@pytest.mark.parametrize("shape", [(120, 90), (90, 120)])
def test_exact_engines_equal_numpy(method, shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = sp.dense_spectrum(matrix, method=method)
    torch.testing.assert_close(found.values, numpy_values(matrix), rtol=1e-9, atol=1e-9)
    assert found.method == method and found.complete
    assert found.energy == pytest.approx(float(matrix.double().square().sum()), rel=1e-12)


@pytest.mark.parametrize("method", ["dense", "gram"])
def test_error_bounds_cover_graded_spectra(method):
    values = torch.logspace(0, -12, 40, dtype=torch.float64)
    found = sp.dense_spectrum(with_values(values, 80, 60), method=method)
    true = torch.cat([values, torch.zeros(20, dtype=torch.float64)])
    assert ((found.values - true).abs() <= found.errors).all()
    # The Gram road cannot see the small end, and its bound must say so.
    limit = 1e-11 if method == "dense" else 1e-5
    assert found.error_bound < limit
    if method == "gram":
        assert found.errors[-1] > 1e-8


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), decay=st.floats(0.0, 3.0))
def test_randomised_certificate_covers_the_true_error(seed, decay):
    true = torch.arange(1, 101, dtype=torch.float64) ** -decay
    found = sp.dense_spectrum(with_values(true, 150, 100, seed), 6, "randomised")
    error = (true[:6] - found.values).abs()
    assert len(found.values) == 6 and not found.complete
    assert (error <= found.errors).all()
    assert found.energy == pytest.approx(float(true.square().sum()), rel=1e-9)


def test_randomised_is_exact_when_the_rank_is_covered():
    true = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    found = sp.dense_spectrum(with_values(true, 300, 200), 5, "randomised")
    torch.testing.assert_close(found.values, true, rtol=1e-10, atol=0)
    assert found.error_bound < 1e-5


@pytest.mark.parametrize("method", ["dense", "gram", "randomised"])
@pytest.mark.parametrize("shape", [(90, 60), (60, 90)])
def test_top_svd_engines_agree(method, shape):
    true = 0.7 ** torch.arange(50, dtype=torch.float64)
    matrix = with_values(true, *shape)
    U, S, Vh = sp.top_svd(matrix, 4, method)
    assert U.shape == (shape[0], 4) and Vh.shape == (4, shape[1])
    torch.testing.assert_close(S, true[:4], rtol=1e-9, atol=0)
    torch.testing.assert_close(matrix @ Vh.mT, U * S, rtol=0, atol=1e-6)
    torch.testing.assert_close(U.mT @ U, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_engine_is_chosen_by_size_and_said():
    from mangalab.spectrum.engines import choose_method

    assert choose_method((300, 5000)) == "dense"
    assert choose_method((4096, 4096)) == choose_method((576, 1536), 16) == "gram"
    assert choose_method((4096, 4096), 16) == "randomised"
    assert choose_method((4096, 4096), 2000) == "gram"
    assert sp.DenseUpdate(torch.randn(520, 530)).spectrum().method == "gram"
    assert sp.DenseUpdate(torch.randn(20, 30), method="gram").spectrum().method == "gram"


@pytest.mark.parametrize("kind", ["factored", "dense"])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_truncation_is_the_best_of_its_rank(kind, k):
    factored = sp.FactoredUpdate(*random_factors(40, 30, 6), scale=0.5)
    update = factored if kind == "factored" else sp.DenseUpdate(factored.matrix(torch.float64))
    short = update.truncate(k)
    assert short.B.shape == (40, k) and short.A.shape == (k, 30)
    lost = float((update.matrix(torch.float64) - short.matrix(torch.float64)).norm())
    tail = float(factored.singular_values()[k:].norm())
    assert lost == pytest.approx(tail, rel=1e-9, abs=1e-11)  # Eckart-Young
    other = sp.FactoredUpdate(factored.B[:, :k], factored.A[:k], 0.5)
    worse = float((update.matrix(torch.float64) - other.matrix(torch.float64)).norm())
    assert lost <= worse + 1e-11


def test_difference_of_bf16_weights_is_formed_in_float32():
    before = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).bfloat16()
    after = before.clone()
    after[0, 0] = 1.0078125
    update = sp.DenseUpdate.between(before, after)
    assert update.delta.dtype == torch.float32 and float(update.delta[0, 0]) == 0.0078125
    assert update.base_norm == pytest.approx(30**0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sp.FactoredUpdate(torch.ones(3, 2), torch.ones(3, 4)), "A \\(3, 4\\)"),
        (lambda: sp.FactoredUpdate(torch.ones(3, 0), torch.ones(0, 4)), "at least one"),
        (
            lambda: sp.FactoredUpdate(torch.full((3, 1), torch.nan), torch.ones(1, 4)).svd(),
            "finite",
        ),
        (lambda: sp.DenseUpdate(torch.full((3, 3), torch.inf)).spectrum(), "finite"),
        (lambda: sp.DenseUpdate(torch.ones(3, 3, 3)).spectrum(), "matrix"),
        (lambda: sp.DenseUpdate.between(torch.ones(2, 2), torch.ones(3, 2)), "differ in shape"),
        (lambda: sp.dense_spectrum(torch.ones(3, 3), method="randomised"), "give k"),
        (lambda: sp.dense_spectrum(torch.ones(3, 3), method="magic"), "magic"),
        (lambda: sp.dense_spectrum(torch.ones(3, 3), k=0), "at least 1"),
        (lambda: sp.combine([{}], [1.0, 2.0]), "weights"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
