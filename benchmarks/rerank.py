"""Training of a cross-encoder, timed in turn: sentence-transformers' trainer, this project's engine.

    python benchmarks/rerank.py [--lists 48] [--per-list 8]

Same encoder, same lists, RankNet, one epoch. The library runs as it comes, then in bfloat16 without
dropout and with the same frozen layers; ours runs with all layers and with the top one. Pair
accuracy on the training lists afterwards says that both learn. Run it on a quiet machine.
"""

import argparse
import os
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import RankNetLoss
from torch import nn

from mangalab.data import catalogue, retrieval
from mangalab.models import encoder_path, load_encoder
from mangalab.profiles import choose_dtype
from mangalab.training import ranking, rerank
from mangalab.training.classify import tokenize

STEP = 4  # lists a step


def lists(count: int, size: int):
    """(query texts, lists of title texts, grades (count, size)), titles drawn evenly by grade."""
    texts = [retrieval.document(t) for t in catalogue.load()]
    asked = retrieval.queries("train")[:count]
    grades = torch.tensor(retrieval.grades("train")[:count])
    columns = grades.argsort(dim=1, descending=True, stable=True)[:, :: max(1, 64 // size)][:, :size]
    titles = [[texts[c] for c in row] for row in columns.tolist()]
    return [q.text for q in asked], titles, grades.gather(1, columns)


def library(data, tuned: bool, layers: int) -> tuple[float, torch.Tensor]:
    """(seconds, scores of the training lists) of the library's trainer."""
    queries, titles, grades = data
    model = CrossEncoder(encoder_path(), num_labels=1, device="cpu")
    bert = next(m for m in model.modules() if hasattr(m, "encoder") and hasattr(m, "embeddings"))
    if tuned:
        bert.embeddings.requires_grad_(False)
        bert.encoder.layer[: 6 - layers].requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        bert.config.attention_probs_dropout_prob = 0.0
    rows = Dataset.from_dict({"query": queries, "docs": titles, "labels": grades.float().tolist()})
    with tempfile.TemporaryDirectory() as folder:
        arguments = CrossEncoderTrainingArguments(
            folder, per_device_train_batch_size=STEP, num_train_epochs=1, learning_rate=2e-4,
            bf16=tuned, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
            logging_strategy="no")
        loss = RankNetLoss(model, mini_batch_size=-1)
        trainer = CrossEncoderTrainer(model, arguments, train_dataset=rows, loss=loss)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    pairs = [(q, t) for q, row in zip(queries, titles, strict=True) for t in row]
    scores = model.predict(pairs, show_progress_bar=False, convert_to_tensor=True)
    return seconds, scores.float().view(grades.shape)


def ours(data, layers: int, dtype: torch.dtype) -> tuple[float, torch.Tensor]:
    """(seconds, scores) of this engine, lower states of the pairs included in the time."""
    queries, titles, grades = data
    bert, tokenizer = load_encoder()
    asked = tokenize(tokenizer, queries)
    pairs = [rerank.pair(q, t) for q, row in zip(asked, titles, strict=True)
             for t in tokenize(tokenizer, row, 128)]
    config = rerank.RerankConfig(head="pooled", head_lr=1e-3, layers=layers, lists=STEP)
    started = time.perf_counter()
    run = rerank.train(bert, pairs, grades, config, dtype)
    seconds = time.perf_counter() - started
    return seconds, rerank.score(run.model, pairs).view(grades.shape)


def main() -> None:
    """Print a table: seconds a step, speed against the library's defaults, pairs in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("lists", 48), ("per-list", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    data, dtype = lists(a.lists, a.per_list), choose_dtype("cpu")[0]
    runs = {
        "sentence-transformers, defaults": lambda: library(data, False, 6),
        "the same, bf16, no dropout, top layer": lambda: library(data, True, 1),
        "this engine, six layers": lambda: ours(data, 6, dtype),
        "this engine, top layer": lambda: ours(data, 1, dtype),
    }
    first = None
    for name, run in runs.items():
        seconds, scores = run()
        first = first or seconds
        right, pairs = map(sum, zip(*ranking.pair_accuracy(scores, data[2]).values(), strict=True))
        step = seconds / (a.lists / STEP)
        speed = f"{step:6.2f} s/step {first / seconds:5.2f}x"
        print(f"{name:42s} {speed}  pairs in order {right / pairs:.1%}", flush=True)


if __name__ == "__main__":
    main()
