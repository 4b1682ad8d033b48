"""Seeds of a fine-tuning run, timed in turn: one after the other on all cores, or side by side.

    python benchmarks/side_by_side.py [--rounds 3]

The same encoder runs with the same seeds; every row prints seconds and the ratio to one after the
other with all threads in each product, which is what torch does when it is not told otherwise.
Run it on a quiet machine.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers.utils import logging

from mangalab.data import intents
from mangalab.evaluation.latency import threads
from mangalab.models import load_encoder
from mangalab.profiles import choose_dtype
from mangalab.training.classify import ClassifyConfig, bottoms, tokenize, train
from mangalab.training.encoder import LeanEncoder
from mangalab.training.parallel import side_by_side

SEEDS = (0, 1, 2, 3)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.disable_progress_bar()
    cores = min(2, os.cpu_count() or 1)
    torch.set_num_threads(cores)
    dtype, reason = choose_dtype("cpu")
    bert, tokenizer = load_encoder()
    data = intents.load("train")[:640]
    messages = tokenize(tokenizer, [u.text for u in data])
    labels = torch.tensor([intents.INTENTS.index(u.intents[0]) for u in data])
    print(f"{len(data)} messages, 2 epochs, {len(SEEDS)} seeds, {cores} threads, {reason}")
    for layers, batch in ((6, 32), (3, 32), (2, 16)):
        encoder = LeanEncoder(bert, len(bert.encoder.layer) - layers, dtype)
        cache = bottoms(encoder, messages) if encoder.first else None

        def fit(seed, layers=layers, batch=batch, cache=cache):
            config = ClassifyConfig(epochs=2, batch_size=batch, layers=layers, seed=seed)
            return train(bert, messages, labels, config, dtype=dtype, cache=cache).losses[-1]

        ways = {"one after the other": lambda fit=fit: [fit(s) for s in SEEDS],
                "side by side": lambda fit=fit: side_by_side(fit, SEEDS)}
        found = {name: [] for name in ways} | {"one thread": []}
        for _ in range(options.rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                losses = way()
                found[name].append(time.perf_counter() - started)
        with threads(1):
            started = time.perf_counter()
            alone = [fit(s) for s in SEEDS]
            found["one thread"].append(time.perf_counter() - started)
        base = min(found["one after the other"])
        for name, seconds in found.items():
            best = min(seconds)
            print(f"{layers} layers, batch {batch}: {name:20s} {best:6.2f} s  x{base / best:4.2f}")
        print(f"  side by side equals one thread to the last bit: {losses == alone}")


if __name__ == "__main__":
    main()
