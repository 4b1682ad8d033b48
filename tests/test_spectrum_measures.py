"""Measures, noise edges, overlaps and intruders on cases with a known answer."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mangalab import spectrum as sp
from mangalab.spectrum.intrusion import cosine_bound


def noise(m, n, seed=0, sigma=1.0):
    generator = torch.Generator().manual_seed(seed)
    return sigma * torch.randn(m, n, generator=generator, dtype=torch.float64)


def test_measures_by_hand():
    values = torch.tensor([2.0, 1.0, 1.0])  # energies 4, 1, 1 of 6
    assert sp.energy_curve(values).tolist() == pytest.approx([4 / 6, 5 / 6, 1.0])
    assert [sp.rank_for_energy(values, s) for s in (0.5, 4 / 6, 0.7, 1.0)] == [1, 1, 2, 3]
    assert sp.stable_rank(values) == pytest.approx(1.5)
    assert sp.participation_ratio(values) == pytest.approx(36 / 18)
    entropy = -(4 / 6 * math.log(4 / 6) + 2 / 6 * math.log(1 / 6))
    assert sp.effective_rank(values) == pytest.approx(math.exp(entropy))
    entropy = -(2 / 4 * math.log(2 / 4) + 2 / 4 * math.log(1 / 4))
    assert sp.effective_rank(values, p=1) == pytest.approx(math.exp(entropy))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.just(0.0) | st.floats(1e-9, 1e3), min_size=1, max_size=20),
    st.floats(1e-250, 1e3),  # squares of the small ones underflow
)
def test_measures_are_ordered_and_scale_free(raw, factor):
    values = torch.tensor(sorted(raw, reverse=True), dtype=torch.float64)
    rank = int((values > 0).sum())
    one, two = sp.effective_rank(values, p=1), sp.effective_rank(values)
    slack = 1 + 1e-9
    assert sp.stable_rank(values) <= rank * slack
    # Renyi entropies fall with their order: participation (2) <= entropy (1) <= rank (0)
    assert sp.participation_ratio(values) <= two * slack <= rank * slack**2
    assert two <= one * slack <= rank * slack**2
    assert sp.effective_rank(values * factor) == pytest.approx(two, rel=1e-6)


def test_flat_spectrum_has_full_rank_by_every_measure():
    values = torch.full((7,), 3.0)
    for measure in (sp.stable_rank, sp.effective_rank, sp.participation_ratio):
        assert measure(values) == pytest.approx(7.0)
    assert sp.rank_for_energy(values, 1.0) == 7


def test_zero_and_incomplete_spectra():
    zero = torch.zeros(4)
    assert sp.rank_for_energy(zero, 0.9) == 0 and sp.stable_rank(zero) == 0
    assert sp.energy_curve(zero).tolist() == [0, 0, 0, 0]
    values = torch.tensor([2.0, 1.0])
    assert sp.energy_curve(values, total=10.0).tolist() == pytest.approx([0.4, 0.5])
    assert sp.rank_for_energy(values, 0.9, total=10.0) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: sp.rank_for_energy(v, 1.5), "1.5"),
        (lambda v: sp.effective_rank(v, p=3), "p must be 1"),
        (lambda v: sp.energy_curve(v.flip(0)), "descending"),
        (lambda v: sp.stable_rank(v[None]), "vector"),
    ],
)
def test_measures_refuse_nonsense(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.tensor([2.0, 1.0]))


@pytest.mark.parametrize("shape", [(256, 256), (128, 512), (512, 128)])
def test_noise_has_nothing_above_its_edge(shape):
    found = [
        sp.noise_edge(sp.dense_spectrum(noise(*shape, seed, 0.02)).values, shape)
        for seed in range(10)
    ]
    assert [edge.sigma for edge in found] == pytest.approx([0.02] * 10, rel=0.02)
    assert sum(edge.above for edge in found) <= 1  # 1 % of matrices cross by design
    assert found[0].edge == pytest.approx(0.02 * (shape[0] ** 0.5 + shape[1] ** 0.5), rel=0.02)


@pytest.mark.parametrize("shape", [(256, 256), (128, 512)])
def test_planted_rank_is_counted_exactly(shape):
    U = torch.linalg.qr(noise(shape[0], 8, 100)).Q
    V = torch.linalg.qr(noise(shape[1], 8, 101)).Q
    edge = shape[0] ** 0.5 + shape[1] ** 0.5
    planted = noise(*shape) + 1.5 * edge * U @ V.mT
    values = sp.dense_spectrum(planted).values
    assert sp.noise_edge(values, shape).above == 8
    assert int((values > sp.flip_null(planted, draws=5)[-1]).sum()) == 8


@pytest.mark.parametrize("kind", ["signs", "permute"])
def test_flip_null_matches_the_edge_on_noise(kind):
    shape = (150, 100)
    null = sp.flip_null(noise(*shape), draws=10, kind=kind)
    assert (null[1:] >= null[:-1]).all()
    assert float(null.median()) == pytest.approx(150**0.5 + 100**0.5, rel=0.04)


def test_sign_flips_keep_loud_rows_that_permutation_spreads():
    loud = noise(150, 100)
    loud[:5] *= 20
    assert sp.flip_null(loud, 3)[-1] > 1.3 * sp.flip_null(loud, 3, kind="permute")[-1]


def test_factored_update_has_no_edge_of_its_own():
    update = sp.FactoredUpdate(noise(64, 8), noise(8, 48))
    values = update.singular_values()
    with pytest.raises(ValueError, match="give sigma"):
        sp.noise_edge(values, update.shape)
    dense = sp.dense_spectrum(update.matrix(torch.float64)).values
    with pytest.raises(ValueError, match="low rank"):
        sp.noise_edge(dense, update.shape)
    assert sp.noise_edge(values, update.shape, sigma=1e-3).above == 8


@pytest.mark.parametrize("shape", [(200, 200), (100, 400)])
@pytest.mark.parametrize("k", [1, 16, 100])
def test_noise_energy_is_what_noise_captures(shape, k):
    curves = [sp.energy_curve(sp.dense_spectrum(noise(*shape, s)).values)[k - 1] for s in range(4)]
    assert sp.noise_energy(k, shape) == pytest.approx(float(torch.stack(curves).mean()), rel=0.06)
    assert sp.noise_energy(min(shape), shape) == pytest.approx(1.0)


def test_overlap_of_identical_orthogonal_and_nested_updates():
    eye = torch.eye(12, dtype=torch.float64)
    first = sp.FactoredUpdate(eye[:, :3] * torch.tensor([3.0, 2.0, 1.0]), eye[:3])
    other = sp.FactoredUpdate(eye[:, 3:5] * torch.tensor([2.0, 1.0]), eye[3:5])
    assert sp.overlap(first, first, 3) == pytest.approx(1.0)
    assert sp.overlap(first, first, 1, 3) == pytest.approx(1.0)  # the smaller lies in the larger
    assert sp.overlap(first, other, 2) == pytest.approx(0.0)
    assert sp.principal_angles(first, other, 2).tolist() == pytest.approx([math.pi / 2] * 2)
    assert float(sp.principal_angles(first, first, 3).max()) < 1e-7


@pytest.mark.parametrize("side", ["left", "right"])
def test_random_overlap_is_r_over_d(side):
    i, j, d = 4, 8, 64
    found = [
        sp.overlap(
            sp.FactoredUpdate(noise(d, 8, s), noise(8, d, s + 500)),
            sp.FactoredUpdate(noise(d, 8, s + 1000), noise(8, d, s + 1500)),
            i,
            j,
            side,
        )
        for s in range(60)
    ]
    assert sum(found) / len(found) == pytest.approx(sp.random_overlap(i, j, d), rel=0.1)
    assert sp.random_overlap(i, j, d) == j / d


def test_overlap_grid_angles_and_overlap_agree():
    one = sp.FactoredUpdate(noise(30, 4), noise(4, 20, 1))
    two = sp.DenseUpdate(noise(30, 20, 2))
    grid = sp.overlap_grid(one, two, 3, 4, "left")
    assert float(grid[1, 3]) == pytest.approx(sp.overlap(one, two, 2, 4, "left"))
    angles = sp.principal_angles(one, two, 3, 4, "left")
    assert float(angles.cos().square().sum() / 3) == pytest.approx(float(grid[2, 3]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u, v: sp.overlap(u, u, 4), "rank 2"),
        (lambda u, v: sp.overlap(u, v, 1, side="right"), "do not share"),
        (lambda u, v: sp.overlap(u, u, 1, side="top"), "side must be"),
        (lambda u, v: sp.random_overlap(3, 9, 8), "do not fit"),
    ],
)
def test_overlap_refuses_nonsense(call, message):
    u = sp.FactoredUpdate(noise(10, 2).repeat(1, 2), noise(4, 8))
    with pytest.raises(ValueError, match=message):
        call(u, sp.FactoredUpdate(noise(10, 2), noise(2, 9)))


def planted_intruder(m, n, size):
    """Weight with a decaying spectrum, and a rank-1 update in a direction of its own."""
    values = 0.97 ** torch.arange(min(m, n), dtype=torch.float64)
    U, V = torch.linalg.qr(noise(m, min(m, n))).Q, torch.linalg.qr(noise(n, min(m, n), 1)).Q
    u, v = noise(m, 1, 2), noise(1, n, 3)
    return U * values @ V.mT, sp.FactoredUpdate(size * u / u.norm(), v / v.norm())


@pytest.mark.parametrize("shape", [(120, 80), (80, 120)])
def test_intruder_is_found_and_a_scaled_weight_has_none(shape):
    weight, update = planted_intruder(*shape, size=0.9)
    found = sp.intruders(weight, update, k=10)
    assert len(found.indices) == 1 and found.method == "exact"
    direct = torch.linalg.svd(weight + update.matrix(torch.float64)).U[:, :10]
    base = torch.linalg.svd(weight, full_matrices=False).U
    torch.testing.assert_close(found.low, (base.mT @ direct).abs().amax(0), rtol=0, atol=1e-7)
    assert sp.intruders(weight, sp.DenseUpdate(0.5 * weight), k=10).indices == ()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 30))
def test_lanczos_bound_is_never_below_the_best_cosine(seed, steps):
    weight = noise(40, 30, seed)
    directions = torch.linalg.qr(noise(40, 3, seed + 1)).Q
    directions[:, 0] = torch.linalg.svd(weight).U[:, seed % 30]  # one that W really has
    best = (torch.linalg.svd(weight, full_matrices=False).U.mT @ directions).abs().amax(0)
    assert (cosine_bound(weight, directions, steps) >= best - 1e-9).all()


def test_bounded_intruders_agree_with_exact_ones(monkeypatch):
    from mangalab.spectrum import engines, intrusion

    # Like a trained weight: a bulk of noise, and a few directions far above it.
    weight = noise(260, 300, sigma=0.02) + planted_intruder(260, 300, 1.0)[0]
    update = planted_intruder(260, 300, size=1.5)[1]
    exact = sp.intruders(weight, update, k=4)
    monkeypatch.setattr(intrusion, "EXACT_LIMIT", 100)
    monkeypatch.setattr(engines, "EXACT_LIMIT", 100)
    monkeypatch.setattr(intrusion, "left_singular_vectors", None)  # must not be needed
    bounded = sp.intruders(weight, update, k=4)
    assert bounded.method == "bounded" and bounded.indices == exact.indices != ()
    assert (bounded.low <= exact.low + 1e-6).all() and (exact.low <= bounded.high + 1e-6).all()


def test_undecided_intruders_fall_back_to_all_vectors(monkeypatch):
    from mangalab.spectrum import engines, intrusion

    # 260 values down to 4e-4: to Lanczos the small ones look like one, the bound stays high.
    weight, update = planted_intruder(300, 260, size=1.5)
    exact = sp.intruders(weight, update, k=4)
    monkeypatch.setattr(intrusion, "EXACT_LIMIT", 100)
    monkeypatch.setattr(engines, "EXACT_LIMIT", 100)
    monkeypatch.setattr(intrusion, "LANCZOS_STEPS", 4)
    fallen = sp.intruders(weight, update, k=4)
    assert fallen.method == "exact" and fallen.indices == exact.indices != ()


def test_kept_vectors_give_the_same_intruders():
    weight, update = planted_intruder(90, 70, size=0.9)
    kept = sp.left_singular_vectors(weight)
    torch.testing.assert_close(kept.mT @ kept, torch.eye(70, dtype=torch.float64))
    with_kept = sp.intruders(weight, update, vectors=kept)
    assert with_kept.indices == sp.intruders(weight, update).indices
    with pytest.raises(ValueError, match="differ in shape"):
        sp.intruders(weight.mT, update)
