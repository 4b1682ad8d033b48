"""x W^T with a frozen bfloat16 matrix: laid out once (``mangalab.training.frozen``) against torch's.

    python benchmarks/frozen_products.py [--threads 1]

Matrices are those of SmolLM2-135M, a different one at each call, as in a pass through its layers.
"""

import argparse
import time

import torch

from mangalab.training.frozen import Frozen, lay_out

SHAPES = {"q, k, v": (960, 576), "o": (576, 576), "gate and up": (3072, 576), "down": (576, 1536),
          "words": (49152, 576)}
ROWS = (8, 64, 128, 256, 512, 1024)


def seconds(compute, rounds: int = 7) -> float:
    """The best of several rounds."""
    best = []
    for _ in range(rounds):
        started = time.perf_counter()
        compute()
        best.append(time.perf_counter() - started)
    return min(best)


def ratio(shape: tuple[int, int], rows: int) -> float:
    """Seconds of the plain products over those of the ones laid out once."""
    count = 20 if shape[0] < 10_000 else 2
    held = [Frozen(torch.randn(shape).bfloat16()) for _ in range(count)]
    x = torch.randn(rows, shape[1]).bfloat16()
    plain = seconds(lambda: [x @ one.weight.T for one in held])
    return plain / seconds(lambda: [one.times(x) for one in held])


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="threads of a product [1]")
    torch.set_num_threads(parser.parse_args().threads)
    if lay_out(torch.zeros(64, 64).bfloat16()) is None:
        raise SystemExit("this processor or torch has no bfloat16 products to lay matrices out for")
    print("plain / laid out", *(f"{rows:>6}" for rows in ROWS), " rows")
    for name, shape in SHAPES.items():
        print(f"{name:<16}", *(f"{ratio(shape, rows):>5.2f}x" for rows in ROWS), flush=True)


if __name__ == "__main__":
    main()
