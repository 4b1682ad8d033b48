"""SetFit's package against this project's contrastive step on cached states, equal supports.

    pip install --no-deps --target /tmp/setfit setfit==1.2.0 evaluate==0.4.6
    PYTHONPATH=/tmp/setfit python benchmarks/setfit.py [--shots 10] [--steps 15] [--draws 3]

Same encoder, same support messages, as many steps; the package trains all six layers in float32
with dropout, ours the top layer below which states are cached. Each row prints seconds (the head's
fit and the score included) and accuracy on the four new intents of the validation messages. Run it on
a quiet machine.
"""

import argparse
import os
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from mangalab.data import newcomers
from mangalab.models import encoder_path, load_encoder
from mangalab.profiles import choose_dtype
from mangalab.training import fewshot as fs
from mangalab.training.classify import bottoms, tokenize
from mangalab.training.encoder import LeanEncoder


def package(texts, labels, held, steps: int, seed: int):
    """Predictions of the package's model for ``held``."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel(SentenceTransformer(encoder_path(), device="cpu"), LogisticRegression(C=1.0))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, batch_size=16, max_steps=steps, seed=seed, report_to="none",
            save_strategy="no", show_progress_bar=False,
        )  # fmt: skip
        data = Dataset.from_dict({"text": texts, "label": labels.tolist()})
        Trainer(model=model, args=arguments, train_dataset=data, metric=lambda p, y: {}).train()
    return np.asarray(model.predict(held))


def ours(bert, states, rows, labels, held, steps: int, seed: int):
    """Predictions after contrastive training of the top layer on cached states."""
    first = len(bert.encoder.layer) - 1
    model = fs.TopLayers(LeanEncoder(bert, first, choose_dtype("cpu")[0]), 4)
    fs.setfit(model, states, rows, labels, steps, 3e-4, seed)
    near, far = (F.normalize(states.map(model.features, part), dim=1) for part in (rows, held))
    return LogisticRegression(C=1.0).fit(near.numpy(), labels.numpy()).predict(far.numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--draws", type=int, default=3)
    given = parser.parse_args()
    bert, tokenizer = load_encoder()
    bert.requires_grad_(False)
    kept = {s: [m for m in newcomers.load(s) if not m.near] for s in ("pool", "validation")}
    texts = [m.text for found in kept.values() for m in found]
    y = torch.tensor([newcomers.NEWCOMERS.index(m.intent) for found in kept.values() for m in found])
    tokens, size = tokenize(tokenizer, texts), len(kept["pool"])
    encoder = LeanEncoder(bert, len(bert.encoder.layer) - 1, choose_dtype("cpu")[0])
    states, held = fs.States(tokens, bottoms(encoder, tokens)), torch.arange(size, len(tokens))
    for seed in range(given.draws):
        rows = fs.draw(y[:size], given.shots, seed)
        picked, labels = [texts[int(i)] for i in rows], y[rows]
        for name, run in {
            "package": lambda p=picked, t=labels, s=seed: package(p, t, texts[size:], given.steps, s),
            "ours": lambda r=rows, t=labels, s=seed: ours(bert, states, r, t, held, given.steps, s),
        }.items():
            start = time.perf_counter()
            right = (run() == y[size:].numpy()).mean()
            seconds = time.perf_counter() - start
            print(f"draw {seed}  {name:8} {seconds:6.1f} s  {right:.1%}", flush=True)


if __name__ == "__main__":
    main()
