"""Attention of rows that share their first tokens: ours against torch's fused kernel, one thread.

Shapes of chapter 14: 8 rows, 9 query heads on 3 key heads of 64, bfloat16, a mask. Prints medians of
forward plus backward and the ratio, both in this run, and writes its section of benchmarks/README.md:
python benchmarks/shared_attention.py
"""

import argparse
import statistics
import time

import torch
from spectrum import machine, write_section
from torch.nn.functional import scaled_dot_product_attention

from mangalab.training.trunk import Attention


def fused(q, k, v, mask):
    """torch's kernel; its keys are repeated for the query heads that share them."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, mask)


def seconds(attend, inputs, mask, out):
    """Seconds of one forward and backward pass."""
    started = time.perf_counter()
    torch.autograd.grad(attend(*inputs, mask), inputs, out)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="pairs of passes of each shape")
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/README.md alone")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    about = machine().replace("benchmarks/spectrum.py", "benchmarks/shared_attention.py")
    lines = [about.replace("best of several runs where a run is short",
                           f"medians of {chosen.rounds} pairs of passes in turns"), "",
             "| tokens of a row | shared | torch's fused kernel, ms | ours, ms | ratio |",
             "|---|---|---|---|---|"]
    for length, shared in ((24, 0), (60, 25), (110, 25), (180, 25), (400, 25)):
        keys = length + shared
        q, k, v, out = (torch.randn(8, heads, n, 64, generator=generator).bfloat16()
                        for heads, n in ((9, length), (3, keys), (3, keys), (9, length)))
        mask = torch.zeros(8, 1, length, keys, dtype=q.dtype)
        mask[:, :, ~torch.ones(length, keys, dtype=torch.bool).tril(shared)] = -torch.inf
        inputs = [x.requires_grad_() for x in (q, k, v)]
        times = {attend: [] for attend in (fused, Attention.apply)}
        for turn in range(chosen.rounds + 2):
            for attend, found in times.items():
                took = seconds(attend, inputs, mask, out)
                if turn > 1:
                    found.append(took)
        theirs, ours = (1e3 * statistics.median(found) for found in times.values())
        lines.append(f"| {length} | {shared} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.1f}x |")
        print(lines[-1], flush=True)
    if not chosen.no_write:
        write_section("Attention behind shared tokens", "\n".join(lines))


if __name__ == "__main__":
    main()
