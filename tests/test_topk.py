"""The certified top-k engine against float64 dense values: spectra of every kind, streams, refusals."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from mangalab.book.cli import app
from mangalab.book.project import BookError
from mangalab.spectrum import blocks, certify, topk
from mangalab.spectrum.blocks import Blocks, stream
from mangalab.spectrum.topk import top_values

K = 5


def made(values, rows, columns, seed=0):
    """Matrix (rows, columns) float32 with about these singular values."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda d: torch.randn(d, len(values), generator=generator, dtype=torch.float64)  # noqa: E731
    left, right = (torch.linalg.qr(draw(d)).Q for d in (rows, columns))
    return (left * values @ right.mT).float()


def kinds(rows, columns, seed):
    small = min(rows, columns)
    i = torch.arange(1, small + 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed + 99)
    noise = torch.randn(rows, columns, generator=generator)
    cluster = torch.cat([torch.ones(9, dtype=torch.float64), 0.3 * torch.ones(small - 9)])
    return {
        "decaying": made(i**-0.75, rows, columns, seed),
        "slow": made(i**-0.4, rows, columns, seed),
        "flat": noise,
        "low rank and noise": made(i[:4], rows, columns, seed) + 0.001 * noise,
        "low rank": made(i[:4], rows, columns, seed),
        "cluster": made(cluster, rows, columns, seed),
        "graded": made(torch.logspace(0, -8, 16, dtype=torch.float64), rows, columns, seed),
        "equal": torch.eye(rows, columns),
    }


def inside(found, matrix):
    true = torch.linalg.svdvals(matrix.double())[: len(found.low)]
    assert (found.low <= true).all() and (true <= found.high).all(), (found.low, true, found.high)
    assert found.energy == pytest.approx(float(matrix.double().square().sum()), rel=1e-12)


@pytest.fixture
def iterative(monkeypatch):
    """Small matrices take the iterative road too, and never the exact one."""
    monkeypatch.setattr(topk, "SMALL", 0)
    monkeypatch.setattr(blocks, "ROWS", 64)


NAMES = list(kinds(20, 20, 0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(300, 120), (120, 300), (130, 130)])
def test_true_values_lie_in_the_intervals_of_every_kind(name, shape, iterative):
    for seed in range(4):
        matrix = kinds(*shape, seed)[name]
        found = top_values(matrix, K, seed=seed)
        inside(found, matrix)
        assert found.met and found.width <= 1e-6, found
        if name in ("decaying", "low rank", "cluster", "graded"):
            assert found.method == "krylov" and found.passes < 40


@pytest.mark.parametrize("name", NAMES)
def test_without_the_exact_road_the_intervals_stay_honest(name, iterative, monkeypatch):
    monkeypatch.setattr(topk, "DEPTH", 3)  # too few for most
    for seed in range(4):
        matrix = kinds(250, 200, seed)[name]
        found = top_values(replace(Blocks.of(matrix), room=0), K, tol=1e-9, seed=seed)
        inside(found, matrix)
        assert found.method == "krylov" and found.met == (found.width <= 1e-9)
        if name == "equal":  # float32 steps cannot tell the remainder from the values
            assert not found.met and 1e-6 < found.width < 1e-3


def test_intervals_hold_for_any_directions_however_bad():
    """Random directions; and exact singular vectors that leave out the largest."""
    for seed in range(20):
        matrix = kinds(160, 120, seed)["slow"]
        generator = torch.Generator().manual_seed(seed)
        _, true, vectors = torch.linalg.svd(matrix.double())
        for basis in (torch.randn(12, 120, generator=generator), vectors[1:13]):
            draft = certify.project(Blocks.of(matrix), basis)
            found = certify.certify(Blocks.of(matrix), draft, K, 1e-6, generator)
            assert (found.low <= true[:K]).all() and (true[:K] <= found.high).all()
            assert found.width > 1e-3  # residuals of the second choice are zero: they prove nothing
            assert found.failure == certify.FAILURE
        assert found.remainder >= true[0]


def test_the_bound_on_the_remainder_is_sharp_and_never_too_small():
    for seed in range(12):
        matrix = kinds(300, 200, seed)["flat"]
        generator = torch.Generator().manual_seed(seed)
        _, true, vectors = torch.linalg.svd(matrix.double())
        draft = certify.project(Blocks.of(matrix), vectors[:8])
        found = certify.certify(Blocks.of(matrix), draft, K, 1e-12, generator)
        assert true[8] <= found.remainder < 1.1 * true[8]


def test_the_upper_bound_is_that_of_the_worst_remainder():
    """Brute force: the largest eigenvalues over random remainders of norm c never pass the bound."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    for _ in range(40):
        t, K_ = draw(6).abs().sort(descending=True).values, 0.3 * draw(9, 6)
        C = draw(9, 9)
        C = C @ C.mT
        c = float(torch.linalg.eigvalsh(C)[-1])
        true = torch.linalg.eigvalsh(torch.cat([
            torch.cat([torch.diag(t), K_.mT], 1), torch.cat([K_, C], 1)])).flip(0)  # fmt: skip
        for k in (1, 4, 6):
            assert (certify.upper(t, K_.mT @ K_, c, k) >= true[:k] - 1e-12).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 700), (700, 40)])
def test_thin_matrices_and_k_beyond_the_rank(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = top_values(matrix, 16)
    assert len(found.low) == min(16, *shape) and found.shape == shape and found.met
    inside(found, matrix)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-6, 1e8, 1e25])
def test_the_scale_of_the_weights_does_not_matter(scale, iterative):
    matrix = kinds(150, 130, 0)["decaying"].double() * scale
    found = top_values(matrix, K)
    inside(found, matrix)
    assert found.met


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_float_type_is_taken_as_it_is(dtype, iterative):
    matrix = kinds(150, 130, 0)["decaying"].to(dtype)
    inside(top_values(matrix, K), matrix)


def test_without_bfloat16_the_answer_is_the_same(iterative, monkeypatch):
    matrix = kinds(150, 130, 0)["decaying"]
    monkeypatch.setattr(topk, "lean_products", lambda: False)
    found = top_values(matrix, K)
    inside(found, matrix)
    assert found.met and found.method == "krylov"


def test_a_zero_update():
    found = top_values(torch.zeros(500, 400), 3)
    assert found.low.tolist() == found.high.tolist() == [0, 0, 0] and found.met
    assert found.energy == found.width == 0 and found.share() == (0, 0)


def test_the_share_of_energy_is_bounded_on_both_sides(iterative):
    matrix = kinds(200, 150, 0)["slow"]
    energies = torch.linalg.svdvals(matrix.double()).square()
    low, high = top_values(matrix, K, tol=1e-3).share(3)
    assert low <= energies[:3].sum() / energies.sum() <= high < low + 1e-2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(bad):
    matrix = torch.randn(450, 400)
    matrix[449, 7] = bad
    with pytest.raises(ValueError, match=r"\(450, 400\) update has entries that are no finite"):
        top_values(matrix)


def test_what_is_no_matrix_or_no_question_is_refused():
    for update in (torch.ones(3), torch.ones(0, 3), torch.ones(3, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="non-empty matrix of floats"):
            top_values(update)
    for options in ({"k": 0}, {"tol": 0.0}, {"tol": float("nan")}):
        with pytest.raises(ValueError, match="must be positive"):
            top_values(torch.ones(3, 3), **options)


# ------------------------------------------------------------------ streams
class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation makes; views (of a mapped file) are none."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = zip(out if isinstance(out, (tuple, list)) else [out], func._schema.returns, strict=False)
        for tensor, how in made:
            if isinstance(tensor, torch.Tensor) and how.alias_info is None:
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return out


@pytest.fixture
def checkpoints(tmp_path):
    """A tall, a wide and a small weight, before and after a decaying update."""
    shapes = {"tall": (2000, 400), "wide": (400, 2000), "small": (30, 20)}
    before = {f"{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    i = torch.arange(1, 51, dtype=torch.float64)
    after = {key: weight + made((0.8**i)[: min(weight.shape)], *weight.shape)
             for key, weight in before.items()}  # fmt: skip
    for name, tensors in (("before", before), ("after", after)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return tmp_path / "before.safetensors", tmp_path / "after.safetensors", before, after


@pytest.mark.parametrize("name", ["tall", "wide"])
def test_a_matrix_larger_than_the_memory_is_streamed(checkpoints, name):
    before, after = checkpoints[2][f"{name}.weight"], checkpoints[3][f"{name}.weight"]
    peaks = {}
    for memory in (4.0, 512.0):
        with Largest() as largest:
            part = stream(*checkpoints[:2], memory=memory).blocks(name)
            found = top_values(part, K)
        assert found.method == "krylov" and found.met and found.shape == before.shape
        inside(found, after - before)
        assert found.base_norm == pytest.approx(float(before.norm()), rel=1e-6)
        peaks[memory] = largest.bytes
    assert peaks[512.0] >= before.numel() * 4  # held, so that the measure can see it
    assert peaks[4.0] < 4 * 2**20 / 8 < before.numel() * 4 / 6


def test_streamed_and_exact(checkpoints):
    part = stream(*checkpoints[:2], memory=0.005).blocks("small")
    assert part.held is None and part.step < 30
    found = top_values(part, 4)
    assert found.method == "gram"
    inside(found, checkpoints[3]["small.weight"] - checkpoints[2]["small.weight"])
    with pytest.raises(ValueError, match="memory is 0 MB"):
        stream(*checkpoints[:2], memory=0)


# ------------------------------------------------------------------ command line
def call(*arguments):
    return CliRunner().invoke(app, ["spectrum", *map(str, arguments)], catch_exceptions=False)


def test_the_command_shows_certified_values(checkpoints):
    before, after, *_ = checkpoints
    told = json.loads(call(after, "--base", before, "--top", 4, "--rank", 2, "--json").stdout)
    rows = {row["name"]: row for row in told["modules"]}
    assert set(rows) == {"tall", "wide", "small"} and told["top"] == 4
    for name, row in rows.items():
        difference = checkpoints[3][f"{name}.weight"] - checkpoints[2][f"{name}.weight"]
        true = torch.linalg.svdvals(difference.double())[:4].tolist()
        assert all(a <= b <= c for a, b, c in zip(row["low"], true, row["high"], strict=True))
        assert row["certified"] and row["failure"] < 1e-8 and not row["complete"]
        assert row["energy"] == [pytest.approx(sum(x * x for x in true[:2]) / row["frobenius"] ** 2)]
    assert told["summary"]["failure"] == sum(row["failure"] for row in rows.values())
    text = call(after, "--base", before, "--top", 4, "--memory", 4).output
    assert "krylov" in text and "dense" in text and "certified as asked: 3 of 3" in text


def test_the_command_refuses_what_it_cannot_do(checkpoints):
    before, after, *_ = checkpoints
    for options, words in (
        (("--base", before, "--tol", "1e-3"), "--top"),
        (("--base", before, "--top", 4, "--tol", "0"), "tol"),
        (("--base", before, "--top", 4, "--memory", "0"), "memory"),
    ):
        with pytest.raises(BookError, match=words):
            call(after, *options)
