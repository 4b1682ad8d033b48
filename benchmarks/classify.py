"""Classifier training, timed in turn: this project's engine against the Trainer of transformers.

    python benchmarks/classify.py [--steps 20] [--batch 32]

Same encoder, same messages, same batches of full fine-tuning (embeddings frozen in the tuned rows
and in ours); every row prints messages a second and the ratio to the Trainer's defaults. The
sentence-transformers trainers are subclasses of this Trainer with the same step, so they are not a
row of their own. Run it on a quiet machine.
"""

import argparse
import os
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, set_seed
from transformers.utils import logging

from mangalab.data import intents
from mangalab.models import load_encoder
from mangalab.profiles import choose_dtype
from mangalab.training.classify import Classifier, ClassifyConfig, predict, tokenize, train
from mangalab.training.encoder import LINEARS, NORMS, LeanEncoder, Packed, pool

LR = 2e-4


class HFClassifier(nn.Module):
    """Mean pooling and a linear head on Hugging Face's BertModel."""

    def __init__(self, bert: nn.Module, classes: int):
        super().__init__()
        self.bert, self.head = bert, nn.Linear(bert.config.hidden_size, classes)

    def forward(self, input_ids, attention_mask, labels, token_type_ids=None):
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None]
        logits = self.head((hidden * mask).sum(1) / mask.sum(1))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def trainer_run(rows, tokenizer, tuned: bool, batch: int) -> tuple[float, Classifier]:
    """(seconds, model) of one pass; ``tuned`` = bf16, sorted lengths, no dropout, frozen tables."""
    set_seed(0)
    bert, _ = load_encoder()
    model = HFClassifier(bert.train(), len(intents.INTENTS))
    model.head = Classifier(LeanEncoder(bert), len(intents.INTENTS), seed=0).head  # equal start
    if tuned:
        bert.embeddings.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        bert.config.attention_probs_dropout_prob = 0.0
    extra = {"bf16": True, "train_sampling_strategy": "group_by_length"} if tuned else {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=batch, num_train_epochs=1, learning_rate=LR,
            use_cpu=True, report_to=[], save_strategy="no", logging_steps=5, disable_tqdm=True,
            optim="adamw_torch_fused" if tuned else "adamw_torch", **extra,
        )
        collate = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collate)
        started = time.perf_counter()
        trainer.train()
    seconds = time.perf_counter() - started
    trained = Classifier(LeanEncoder(model.bert), len(intents.INTENTS))
    trained.head = model.head
    return seconds, trained.eval()


def gradient_cosine(bert, tokenizer, messages, labels, dtype) -> tuple[float, float]:
    """(cosine, loss difference) of one batch: ours in ``dtype`` against Hugging Face in float32."""
    torch.manual_seed(0)
    head = nn.Linear(bert.config.hidden_size, len(intents.INTENTS))
    encoder, batch = LeanEncoder(bert, 0, dtype), Packed.of(messages)
    ours = F.cross_entropy(head(pool(encoder.hidden(batch), batch)), labels)
    ours.backward()
    reference = HFClassifier(bert.eval().requires_grad_(True), len(intents.INTENTS))
    reference.head = head
    padded = tokenizer.pad({"input_ids": messages}, return_tensors="pt")
    loss = reference(**padded, labels=labels)["loss"]
    loss.backward()
    mine, theirs = [], []
    for layer, block in zip(encoder.layers, bert.encoder.layer, strict=True):
        for name, sources in (LINEARS | {k: (v,) for k, v in NORMS.items()}).items():
            for kind in ("weight", "bias"):
                mine.append(getattr(layer, f"{name}_{kind}").grad.flatten())
                theirs += [getattr(block.get_submodule(s), kind).grad.flatten() for s in sources]
    a, b = torch.cat(mine).double(), torch.cat(theirs).double()
    return float(F.cosine_similarity(a, b, dim=0)), abs(float(ours.detach() - loss.detach()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    dtype, reason = choose_dtype("cpu")
    bert, tokenizer = load_encoder()
    data = intents.load("train")[: options.steps * options.batch]
    messages = tokenize(tokenizer, [u.text for u in data])
    labels = torch.tensor([intents.INTENTS.index(u.intents[0]) for u in data])
    rows = [{"input_ids": m, "attention_mask": [1] * len(m), "labels": int(y)}
            for m, y in zip(messages, labels, strict=True)]
    config = ClassifyConfig(
        lr=LR, head_lr=LR, epochs=1, batch_size=options.batch, warmup=0.0, weight_decay=0.0
    )
    train(bert, messages[:64], labels[:64], config, dtype=dtype)  # warm up
    found = {
        "Trainer, its defaults": trainer_run(rows, tokenizer, False, options.batch),
        "Trainer, tuned": trainer_run(rows, tokenizer, True, options.batch),
    }
    ours = train(bert, messages, labels, config, dtype=dtype)
    found["mangalab.training.classify"] = (ours.seconds, ours.model)
    cosine, gap = gradient_cosine(bert, tokenizer, messages[:32], labels[:32], dtype)
    print(f"{len(data)} messages, batch {options.batch}, {reason}")
    base = found["Trainer, its defaults"][0]
    held_out = intents.load("validation")
    unseen = tokenize(tokenizer, [u.text for u in held_out])
    truth = torch.tensor([intents.INTENTS.index(u.intents[0]) for u in held_out])
    for name, (seconds, model) in found.items():
        loss = F.cross_entropy(predict(model, unseen).logits, truth)
        print(f"{name:28s} {len(data) / seconds:6.0f} messages/s  x{base / seconds:4.1f}  "
              f"validation loss {loss:.3f}")
    print(f"one batch against float32: gradient cosine {cosine:.5f}, loss differs by {gap:.5f}")


if __name__ == "__main__":
    main()
