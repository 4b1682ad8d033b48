"""Contrastive training of the encoder, timed in turn: this project's engine, sentence-transformers.

    python benchmarks/contrastive.py [--steps 12] [--batch 32] [--layers 6]

Same encoder, same pairs of query and title, the same loss (in-batch negatives, distinct titles in a
batch, temperature 0.05). Loss is measured on one fixed batch in float32 before and after. Run it on
a quiet machine.
"""

import argparse
import os
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import nn

from mangalab.data import catalogue, retrieval
from mangalab.models import encoder_path, load_encoder
from mangalab.profiles import choose_dtype
from mangalab.training.biencoder import vectors
from mangalab.training.classify import bottoms, tokenize
from mangalab.training.contrastive import info_nce
from mangalab.training.encoder import LeanEncoder, Packed

LR, TEMPERATURE = 5e-5, 0.05


def pairs(count: int, batch: int) -> list[tuple[str, str]]:
    """(query, title) texts in batches of distinct titles."""
    texts = {t.id: retrieval.document(t) for t in catalogue.load()}
    best: dict[str, list[str]] = {}
    for query, judged in zip(
        retrieval.queries("train"), retrieval.judgments("train").values(), strict=True
    ):
        best.setdefault(max(judged, key=judged.__getitem__), []).append(query.text)
    found = []
    while len(found) < count:
        ready = sorted(best, key=lambda name: -len(best[name]))[:batch]
        found += [(best[name].pop(), texts[name]) for name in ready if best[name]]
        best = {name: rest for name, rest in best.items() if rest}
    return found[:count]


def ours(rows, batch: int, layers: int, dtype: torch.dtype) -> tuple[float, LeanEncoder]:
    """(seconds, encoder) after one pass, bottoms of frozen layers included in the time."""
    bert, tokenizer = load_encoder()
    ids = [tokenize(tokenizer, side, 128) for side in zip(*rows, strict=True)]
    started = time.perf_counter()
    encoder = LeanEncoder(bert, 6 - layers, dtype)
    cached = [bottoms(encoder, side) if encoder.first else None for side in ids]
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], LR, fused=True)
    for start in range(0, len(rows), batch):
        found = []
        for side, below in zip(ids, cached, strict=True):
            x = torch.cat(below[start : start + batch]) if below else None
            found.append(encoder(Packed.of(side[start : start + batch]), x))
        info_nce(*found, torch.arange(len(found[0])), TEMPERATURE).backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - started, encoder


def library(rows, batch: int, layers: int, tuned: bool) -> tuple[float, LeanEncoder]:
    """(seconds, encoder) of the trainer; ``tuned`` is bf16 without dropout, lower layers frozen."""
    model = SentenceTransformer(encoder_path(), device="cpu")
    bert = model[0].auto_model
    if tuned:
        bert.embeddings.requires_grad_(False)
        bert.encoder.layer[: 6 - layers].requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        bert.config.attention_probs_dropout_prob = 0.0
    data = Dataset.from_dict(dict(zip(("query", "title"), zip(*rows, strict=True), strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder, per_device_train_batch_size=batch, num_train_epochs=1, learning_rate=LR, bf16=tuned,
            lr_scheduler_type="constant", use_cpu=True, report_to=[], save_strategy="no",
            disable_tqdm=True, logging_strategy="no")
        loss = MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
        trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss)
        started = time.perf_counter()
        trainer.train()
    return time.perf_counter() - started, LeanEncoder(bert)


def held_loss(encoder: LeanEncoder, rows, tokenizer) -> float:
    """InfoNCE of ``rows`` as one batch, products in float32."""
    encoder.dtype = torch.float32
    q, d = (vectors(encoder, tokenize(tokenizer, side, 128)) for side in zip(*rows, strict=True))
    return float(info_nce(q, d, torch.arange(len(q)), TEMPERATURE))


def main() -> None:
    """Print a table: seconds a step, speed against the library's defaults, loss before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("steps", 12), ("batch", 32), ("layers", 6)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    rows = pairs((a.steps + 1) * a.batch, a.batch)
    held, rows = rows[-a.batch :], rows[: -a.batch]
    bert, tokenizer = load_encoder()
    dtype = choose_dtype("cpu")[0]
    print(f"loss before: {held_loss(LeanEncoder(bert), held, tokenizer):.4f}", flush=True)
    runs = {
        "sentence-transformers, defaults": lambda: library(rows, a.batch, 6, False),
        f"the same, bf16, no dropout, {a.layers} layers": lambda: library(
            rows, a.batch, a.layers, True),
        f"this engine, {a.layers} layers, {str(dtype)[6:]}": lambda: ours(
            rows, a.batch, a.layers, dtype),
    }
    first = None
    for name, run in runs.items():
        seconds, encoder = run()
        first = first or seconds
        loss = held_loss(encoder, held, tokenizer)
        speed = f"{seconds / a.steps:7.3f} s/step {first / seconds:5.2f}x"
        print(f"{name:50s} {speed}  loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
