"""Times and accuracy of the spectrum toolkit; writes its section of benchmarks/README.md.

python benchmarks/spectrum.py            # about one minute on one core
python benchmarks/spectrum.py --no-write # print only
"""

import argparse
import os
import platform
import re
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from mangalab import spectrum as sp

README = Path(__file__).with_name("README.md")
LAYERS, WIDTH, KV_WIDTH, RANK = 80, 8192, 1024, 16  # Llama 3 70B, q and v


def main() -> None:
    """Run all measurements, print the section, write it unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/README.md alone")
    write = not parser.parse_args().no_write
    torch.set_num_threads(1)
    rows = [
        *large_adapter(),
        *against_dense(4096),
        *agreement(2048),
        *graded(1024),
        *dense_engines((1536, 576)),
        *dense_engines((2048, 2048)),
    ]
    section = "\n".join([machine(), "", "| what | measured |", "|---|---|", *rows])
    print(section)
    if write:
        write_section("Spectrum", section)


def machine() -> str:
    """One line that says where and with what the numbers were taken."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = re.findall(r"model name\s*: (.+)", info.read_text(encoding="utf8"))
        cpu = names[0] if names else cpu
    return (
        f"`python benchmarks/spectrum.py`, {date.today()}: {cpu}, {os.cpu_count()} cores, one "
        f"thread used, Python {platform.python_version()}, torch {torch.__version__}. Wall times, "
        "best of several runs where a run is short."
    )


def seconds(work: Callable[[], object], runs: int = 1) -> float:
    """Best wall time of ``runs`` calls."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def factored(d_out: int, d_in: int, seed: int = 0) -> sp.FactoredUpdate:
    """A rank-16 update of float32 factors."""
    generator = torch.Generator().manual_seed(seed)
    B = 0.01 * torch.randn(d_out, RANK, generator=generator)
    return sp.FactoredUpdate(B, torch.randn(RANK, d_in, generator=generator), scale=2.0)


def large_adapter() -> list[str]:
    """All spectra of an adapter of Llama 3 70B shape."""
    updates = {}
    for i in range(LAYERS):
        updates[f"model.layers.{i}.self_attn.q_proj"] = factored(WIDTH, WIDTH, 2 * i)
        updates[f"model.layers.{i}.self_attn.v_proj"] = factored(KV_WIDTH, WIDTH, 2 * i + 1)
    first = seconds(lambda: sp.spectra(updates))
    best = seconds(lambda: sp.spectra(updates), runs=5)
    rows = seconds(lambda: sp.summary(updates), runs=3)
    what = f"adapter of Llama-3-70B shape, {len(updates)} modules ({WIDTH} wide, r = {RANK})"
    return [
        f"| {what}: all spectra, exact | **{best:.2f} s** (best of 5; first call {first:.2f} s) |",
        f"| the same with every measure (`summary`) | {rows:.2f} s |",
    ]


def against_dense(size: int) -> list[str]:
    """One module: the factored road against forming the product and decomposing it."""
    update = factored(size, size)
    values = seconds(update.singular_values, runs=20)
    cut = seconds(lambda: update.truncate(8), runs=5)
    form = seconds(update.matrix, runs=5)
    product = update.matrix()
    dense = seconds(lambda: torch.linalg.svdvals(product))
    peft = seconds(lambda: peft_truncate(product, 8))
    shape = f"{size} x {size}, r = {RANK}"
    return [
        f"| one module {shape}: factored singular values | {values * 1e3:.2f} ms |",
        f"| forming its product (float32) | {form * 1e3:.0f} ms = {form / values:,.0f} x |",
        f"| `torch.linalg.svdvals` of the product | {dense:.1f} s = **{dense / values:,.0f} x** |",
        f"| `truncate(8)` | {cut * 1e3:.2f} ms |",
        f"| what PEFT's `convert_to_lora` computes instead | {peft:.1f} s = {peft / cut:,.0f} x |",
    ]


def peft_truncate(delta: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What ``peft.tuners.lora.conversion._convert_module_to_lora`` does with a delta weight."""
    U, S, Vh = torch.linalg.svd(delta, full_matrices=False)
    return U[:, :rank] * S[:rank], Vh[:rank]


def agreement(size: int) -> list[str]:
    """Largest relative difference from the dense SVD in float64."""
    update = factored(size, size)
    dense = torch.linalg.svdvals(update.matrix(torch.float64))[:RANK]
    error = float((update.singular_values() / dense - 1).abs().max())
    return [f"| largest relative difference from dense float64, {size} x {size} | {error:.0e} |"]


def graded(size: int) -> list[str]:
    """Relative error of the smallest of 16 values graded from 1 to 1e-8, by every road."""
    true = torch.logspace(0, -8, RANK, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(size, 2 * RANK, dtype=torch.float64)).Q
    B = (basis[:, :RANK] * true.sqrt()).float()
    A = (true.sqrt()[:, None] * basis[:, RANK:].mT).float()
    update = sp.FactoredUpdate(B, A)
    product = update.matrix(torch.float64)
    dense = torch.linalg.svdvals(product)[:RANK]
    roads = {
        "factored (float64 QR)": update.singular_values(),
        "the same in float32": float32_core(B, A),
        "float32 dense SVD of the product": torch.linalg.svdvals(update.matrix())[:RANK],
        "float64 Gram of the product": sp.dense_spectrum(product, method="gram").values[:RANK],
    }
    return [
        f"| graded spectrum 1 ... 1e-8, {size} x {size}, largest relative error: {name} | "
        f"{float((values.double() / dense - 1).abs().max()):.0e} |"
        for name, values in roads.items()
    ]


def float32_core(B: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """The factored road without float64."""
    return torch.linalg.svdvals(torch.linalg.qr(B).R @ torch.linalg.qr(A.mT).R.mT)


def dense_engines(shape: tuple[int, int]) -> list[str]:
    """The three engines for full updates, all values or the 16 largest."""
    generator = torch.Generator().manual_seed(0)
    decay = torch.arange(1, shape[1] + 1) ** -0.7  # slow, as in the updates of full fine-tuning
    matrix = torch.randn(shape, generator=generator) * decay
    true = torch.linalg.svdvals(matrix.double())
    rows = []
    for method, k in (("dense", None), ("gram", None), ("randomised", 16)):
        taken = seconds(lambda m=method, k=k: sp.dense_spectrum(matrix, k, m), runs=2)
        found = sp.dense_spectrum(matrix, k, method)
        error = float((found.values - true[: len(found.values)]).abs().max() / true[0])
        bound = found.error_bound / float(true[0])
        count = f"{k} values" if k else "all values"
        rows.append(
            f"| full update {shape[0]} x {shape[1]}, {method}, {count} | {taken * 1e3:,.0f} ms, "
            f"error / largest value {error:.0e}, certified {bound:.0e} |"
        )
    return rows


def write_section(title: str, body: str) -> None:
    """Replace section ``title`` of the README, or append it."""
    text = README.read_text(encoding="utf8") if README.is_file() else "# Benchmarks\n"
    section = f"## {title}\n\n{body}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if pattern.search(text):
        text = pattern.sub(lambda _: section + "\n", text).rstrip() + "\n"
    else:
        text = text.rstrip() + "\n\n" + section
    README.write_text(text, encoding="utf8")


if __name__ == "__main__":
    main()
