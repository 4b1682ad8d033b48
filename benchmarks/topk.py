"""Certified largest singular values of full updates against the usual ways, one thread.

python benchmarks/topk.py             # about four minutes; writes its section of benchmarks/README.md
python benchmarks/topk.py --no-write --only real

real       every matrix of a short full fine-tuning of the 135M model (16 steps, kept in artifacts/)
synthetic  the decay measured there, stretched to 1024 ... 4096 wide, and noise without any decay
memory     one matrix of two checkpoints on disk, held and streamed, with the memory that it took
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from spectrum import machine, write_section
from torch import Tensor

from mangalab.spectrum import topk
from mangalab.spectrum.topk import TopK, top_values

K = 16
KEPT = Path(__file__).parents[1] / "artifacts" / "bench-topk"
NOTES = """
Where it is not faster: sides up to 384 go to the exact engines, which are as fast there; matrices 576
wide gain little; noise, whose values do not separate, pays for the attempt and then takes the exact
road (Gram eigenvalues), which is what its ratio shows. Every true value was checked to lie in its
interval. The first product in float32 after the bfloat16 rounds and the pass in float64 are what the
accuracy rests on; bfloat16 alone decides how good the directions are."""
HEAD = ("| matrix | ours | certified width | true error | torch svdvals f32 (error) | f64 | "
        "ratio f32 / f64 |\n|---|---|---|---|---|---|---|")  # fmt: skip


def main() -> None:
    """Run the parts asked for, print the section, write it unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/README.md alone")
    parser.add_argument("--only", choices=PARTS, help="one part; never writes")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lines = [machine().replace("benchmarks/spectrum.py", "benchmarks/topk.py"), ""]
    for name, part in PARTS.items():
        if chosen.only in (None, name):
            for line in part():
                print(line, flush=True)
                lines.append(line)
    lines.append(NOTES)
    if not chosen.no_write and chosen.only is None:
        write_section("Largest values of full updates", "\n".join(lines))


def timed(work: Callable, *arguments: object, runs: int = 1) -> tuple:
    """What ``work`` gives, and the best wall time of ``runs`` calls in seconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        result = work(*arguments)
        times.append(time.perf_counter() - start)
    return result, min(times)


# ---------------------------------------------------------------------- real updates
def checkpoints() -> tuple[Path, Path]:
    """The linears of the 135M model before and after 16 steps of full fine-tuning (made once)."""
    paths = KEPT / "before.safetensors", KEPT / "after.safetensors"
    if not paths[1].is_file():
        from mangalab.data import persona
        from mangalab.models import load_causal_lm
        from mangalab.training import sft

        KEPT.mkdir(parents=True, exist_ok=True)
        model, tokenizer = load_causal_lm(torch.float32)
        linears = {k: v for k, v in model.state_dict().items() if "_proj" in k}
        save_file(linears, paths[0])
        lines = [sft.render(tokenizer, x.prompt, x.answer) for x in persona.load("train", 64)]
        sft.trainable_linears(model, range(len(model.model.layers)))
        sft.train(model, lines, sft.SFTConfig(lr=1e-4, epochs=1, batch_size=4, seed=100))
        save_file(linears, paths[1])  # the same tensors, changed in place
    return paths


def updates() -> dict[str, Tensor]:
    """The 210 differences, float32."""
    before, after = (load_file(path) for path in checkpoints())
    return {name: after[name] - before[name] for name in before}


def real() -> Iterator[str]:
    """The whole model, summed by shape: ours, dense float32 and float64, all in this run."""
    yield f"Real: full fine-tuning of SmolLM2-135M (16 AdamW steps), {K} largest values, tol 1e-6.\n"
    yield ("| matrices | ours | by | widest interval | true error | torch svdvals f32 (error) | f64 | "
           "ratio f32 / f64 |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    for delta in updates().values():
        groups.setdefault(tuple(delta.shape), []).append(delta)
    total = np.zeros(3)
    for shape, deltas in sorted(groups.items()):
        times, found, errors = _summed(deltas)
        total += times
        roads = ", ".join(sorted({one.method for one in found}))
        widest = max(one.width for one in found)
        name = f"{len(deltas)} of {shape[0]} x {shape[1]}"
        yield (f"| {name} | {_ms(times[0])} | {roads} | {widest:.0e} | "
               f"{errors[0]:.0e} | {_ms(times[1])} ({errors[1]:.0e}) | {_ms(times[2])} | "
               f"{times[1] / times[0]:.1f} / {times[2] / times[0]:.1f} |")  # fmt: skip
    yield (f"| **whole model** | {_ms(total[0])} | | | | {_ms(total[1])} | {_ms(total[2])} | "
           f"**{total[1] / total[0]:.1f} / {total[2] / total[0]:.1f}** |\n")  # fmt: skip


def _summed(deltas: list[Tensor]) -> tuple[np.ndarray, list[TopK], list[float]]:
    """Seconds of ours, float32 and float64 over ``deltas``; ours; largest relative errors."""
    times, found, errors = np.zeros(3), [], [0.0, 0.0]
    top_values(deltas[0], K)
    for delta in deltas:
        (ours, one), (single, two), (true, three) = _three(delta)
        times += (one, two, three)
        found.append(_checked(ours, true))
        errors = [max(e, _error(v, true)) for e, v in zip(errors, (ours.values, single), strict=True)]
    return times, found, errors


def _three(matrix: Tensor) -> list[tuple]:
    """(result, seconds) of ours, of dense float32 and float64."""
    wide, svdvals = matrix.double(), torch.linalg.svdvals
    return [timed(top_values, matrix, K), timed(svdvals, matrix), timed(svdvals, wide)]


def _checked(found: TopK, true: Tensor) -> TopK:
    slack = 1e-13 * float(true[0])  # what float64 dense values may be off themselves
    true = true[: len(found.low)]
    inside = (found.low - slack <= true) & (true <= found.high + slack)
    assert bool(inside.all()), "a true value lies outside of its certified interval"
    return found


def _error(values: Tensor, true: Tensor) -> float:
    """Largest error of the first K values as a share of the largest value."""
    count = min(K, len(true))
    return float((values[:count].double() - true[:count]).abs().max() / true[0])


def _ms(time_s: float) -> str:
    return f"{time_s:.1f} s" if time_s >= 10 else f"{1e3 * time_s:,.0f} ms"


# ---------------------------------------------------------------------- synthetic
def measured_decay(size: int) -> Tensor:
    """Singular values (size,): median over ten real updates (gate_proj), each divided by its largest.

    Beyond the 400th value the power law of values 100 to 400 goes on, so that a wider matrix has the
    same head and a longer tail.
    """
    some = [delta.double() for name, delta in updates().items() if "gate_proj" in name][::3]
    head = torch.stack([v / v[0] for v in map(torch.linalg.svdvals, some)]).median(0).values[:400]
    slope = math.log(head[399] / head[99]) / math.log(400 / 100)
    tail = head[399] * (torch.arange(400, size, dtype=torch.float64) / 399) ** slope
    return torch.cat([head, tail])[:size]


def with_values(values: Tensor, shape: tuple[int, int], seed: int = 0) -> Tensor:
    """Float32 matrix with these singular values: signs, cosine transforms and permutations, twice."""
    from scipy.fft import dct

    generator = np.random.default_rng(seed)
    matrix = np.zeros(shape)
    np.fill_diagonal(matrix, values.numpy())
    for _ in range(2):
        for axis in (0, 1):
            size = shape[axis]
            turned = np.moveaxis(matrix, axis, 0) * generator.choice([-1.0, 1.0], size)[:, None]
            mixed = dct(turned, axis=0, norm="ortho")[generator.permutation(size)]
            matrix = np.moveaxis(mixed, 0, axis)
    return torch.from_numpy(np.ascontiguousarray(matrix)).float()


def synthetic() -> Iterator[str]:
    """Wide matrices with the decay of the real updates, noise, and the named alternatives."""
    share = float(measured_decay(576)[K - 1])
    yield ("Synthetic: random singular vectors; values are the median decay of the real updates "
           f"(value {K} is {share:.2f} of the first), continued by its power law; *noise* has none "
           "(Gaussian entries). Ours is the best of three runs, dense one run.\n")  # fmt: skip
    yield HEAD
    for shape in ((1024, 1024), (2048, 2048), (8192, 2048), (4096, 4096)):
        yield _row(f"{shape[0]} x {shape[1]}", with_values(measured_decay(min(shape)), shape))
    noise = torch.Generator().manual_seed(0)
    for size in (1024, 2048, 4096):
        yield _row(f"{size} x {size} noise", torch.randn(size, size, generator=noise))
    yield "\n" + "\n".join(alternatives(with_values(measured_decay(2048), (2048, 2048))))


def _row(name: str, matrix: Tensor) -> str:
    (found, first), (single, two), (true, three) = _three(matrix)
    ours = first if first > 2 else timed(top_values, matrix, K, runs=3)[1]
    _checked(found, true)
    return (f"| {name} | {_ms(ours)} ({found.method}, {found.passes} passes) | {found.width:.0e} | "
            f"{_error(found.values, true):.0e} | {_ms(two)} ({_error(single, true):.0e}) | "
            f"{_ms(three)} | **{two / ours:.1f} / {three / ours:.1f}** |")  # fmt: skip


def alternatives(matrix: Tensor) -> Iterator[str]:
    """Other ways to the 16 largest values; none of them says how wrong it is."""
    from scipy.sparse.linalg import svds

    array, true = matrix.numpy(), torch.linalg.svdvals(matrix.double())

    def ours(tol: float) -> Tensor:
        return top_values(matrix, K, tol).values

    def single(tol: float) -> Tensor:
        with patch.object(topk, "lean_products", lambda: False):
            return ours(tol)

    def halko(rounds: int) -> Tensor:
        return torch.svd_lowrank(matrix, K + 8, rounds)[1]

    def lanczos(solver: str) -> Tensor:
        values = svds(array, K, solver=solver, return_singular_vectors=False, rng=0)
        return torch.from_numpy(np.sort(values)[::-1].copy())

    ways = [(f"ours, certified within {tol}", ours, tol) for tol in (1e-6, 1e-3)]
    ways += [("the same within 1e-06, all products in float32", single, 1e-6)]
    ways += [(f"torch.svd_lowrank, q = {K + 8}, niter = {n}", halko, n) for n in (2, 6, 12)]
    ways += [(f"scipy svds, {solver}, float32", lanczos, solver) for solver in ("arpack", "propack")]
    size = "{} x {}".format(*matrix.shape)
    yield f"| {size}, {K} values, by | time | true error |\n|---|---|---|"
    for name, way, option in ways:
        values, time_s = timed(way, option, runs=3)
        yield f"| {name} | {_ms(time_s)} | {_error(values, true):.0e} |"


# ---------------------------------------------------------------------- memory
CHILD = """
import sys, threading, time
import torch
from mangalab.spectrum.blocks import stream
from mangalab.spectrum.topk import top_values
torch.set_num_threads(1)
top_values(torch.randn(500, 500), 16)
def private():
    text = open("/proc/self/status").read()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024
start, peak, ended = private(), [0.0], []
def watch():
    while not ended:
        peak[0] = max(peak[0], private()); time.sleep(0.002)
thread = threading.Thread(target=watch); thread.start()
began = time.perf_counter()
found = top_values(stream(sys.argv[1], sys.argv[2], memory=float(sys.argv[3])).blocks("w"), 16)
took = time.perf_counter() - began
ended.append(1); thread.join()
print(f"{took:.2f} {peak[0] - start:.0f} {found.width:.0e} {found.passes}")
"""


def memory() -> Iterator[str]:
    """Peak private memory of one 32768 x 2048 matrix in bfloat16 (128 MB a file), held and streamed."""
    shape = (32768, 2048)
    yield (f"\nOne weight {shape[0]} x {shape[1]} in bfloat16, before and after on disk (128 MB each; "
           "held, the difference is 256 MB), one process each:\n")  # fmt: skip
    yield "| `--memory` | time | peak private memory over the start | certified width | passes |"
    yield "|---|---|---|---|---|"
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(shape, generator=generator).bfloat16()
    decay = torch.arange(1, shape[1] + 1) ** -0.75
    after = before.float() + torch.randn(shape, generator=generator) * decay
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("before.safetensors", "after.safetensors")]
        save_file({"w": before}, paths[0])
        save_file({"w": after.bfloat16()}, paths[1])
        del before, after
        for limit in (1024, 64, 16):
            command = [sys.executable, "-c", CHILD, *paths, str(limit)]
            told = subprocess.run(command, capture_output=True, text=True, check=True)
            time_s, peak, width, passes = told.stdout.split()
            held = "held" if limit * 2**20 >= 12 * math.prod(shape) else "streamed"
            yield f"| {limit} MB ({held}) | {time_s} s | {peak} MB | {width} | {passes} |"


PARTS = {"real": real, "synthetic": synthetic, "memory": memory}

if __name__ == "__main__":
    main()
