"""LoRA training speed against TRL and Trainer; writes its section of benchmarks/README.md.

Same model, examples, batch order, rank, optimiser; every trainer is timed in turn in one process,
round after round, on the same batches. Needs the packaged SmolLM2 and about 4 GB.

python benchmarks/sft.py --rounds 3        # about four minutes on two cores
python benchmarks/sft.py --no-write        # print only
"""

import argparse
import copy
import itertools
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import mangalab  # first: sets the OpenMP policy  # noqa: F401

# isort: split
import torch
from torch import nn

from mangalab.data import qa
from mangalab.models import load_causal_lm
from mangalab.training import sft
from mangalab.training.llama import LeanLlama

README = Path(__file__).with_name("README.md")
RANK, BATCH, STEPS, WARMUP, TITLES = 8, 16, 4, 1, 64
TOP = tuple(range(24, 30))  # the second table trains the last six layers only
OURS = "mangalab"


@dataclass
class Contender:
    """A way to train: ``run(rows)`` trains one batch after the other and calls ``tick`` after each;
    ``probe()`` gives loss and adapter gradients of one fixed batch."""

    name: str
    run: Callable[[Callable[[], None]], None]
    probe: Callable[[], tuple[float, torch.Tensor]]
    wall: list[list[float]] = field(default_factory=list)
    cpu: list[list[float]] = field(default_factory=list)


def main() -> None:
    """Run all measurements, print the section, write it unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds in which each runs once")
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/README.md alone")
    options = parser.parse_args()
    base, tokenizer = load_causal_lm(torch.float32)
    data = examples(tokenizer)
    everywhere = sft.LoRA(r=RANK, alpha=2 * RANK, targets=sft.ALL_LINEAR, init="random")
    contenders = [
        trl("TRL `SFTTrainer`, defaults", base, everywhere, data, tokenizer),
        trl("TRL `SFTTrainer`, bf16 weights, no checkpointing", base, everywhere, data, tokenizer,
            torch.bfloat16, gradient_checkpointing=False),
        trainer("`Trainer`, float32", base, everywhere, data, tokenizer),
        ours(OURS, base, everywhere, data),
    ]
    top = replace(everywhere, layers=TOP)
    pair = [ours(f"{OURS}, nothing cached", base, top, data),
            ours(f"{OURS}, cached bottom", base, top, data, cached=True)]
    del base
    checks = [check(group) for group in (contenders, pair)]
    for number in range(options.rounds):
        for contender in (*contenders, *pair):
            print(f"round {number + 1}/{options.rounds}: {contender.name}", file=sys.stderr)
            measure(contender)
    section = "\n".join([
        machine(options.rounds), "", *table(contenders, checks[0], data), "",
        "Where the time of a step goes (operators on the main thread, `torch.profiler`):", "",
        *shares(contenders[-1]), "",
        "**Another experiment**: adapters in the last six layers only, so less is trained than above. "
        "What the frozen 24 layers below give to the seventh-last is computed once and kept.", "",
        *table(pair, checks[1], data)])
    print(section)
    if not options.no_write:
        write_section("LoRA training", section)


def examples(tokenizer) -> list[sft.Example]:
    """The first batches of author and year questions, in the order that all trainers see."""
    rows = qa.load("train", ("author", "year"), titles=TITLES)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = [rows[i] for i in order[: STEPS * BATCH]]
    return [sft.render(tokenizer, row.question, row.answer) for row in chosen]


def adapted(base: nn.Module, lora: sft.LoRA, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of ``base`` in ``dtype`` with the same small random float32 adapters every time."""
    model = sft.attach(copy.deepcopy(base).to(dtype), lora, seed=1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.mul_(0.02)
    return model


# ---------------------------------------------------------------------------- contenders
def ours(name: str, base: nn.Module, lora: sft.LoRA, data: list, cached: bool = False) -> Contender:
    """This package's ``train``; ``cached`` keeps the hidden states below the first adapter."""
    model = adapted(base, lora, torch.bfloat16)
    config = sft.SFTConfig(lr=1e-5, epochs=1, batch_size=BATCH, schedule="constant", warmup=0)
    first = LeanLlama(model).first
    kept = sft.prepare(LeanLlama(model), data) if cached else sft.Prepared(data, first)

    def run(tick):
        with in_order():
            sft.train(model, kept, config, on_step=lambda *_: tick())

    def probe():
        engine = LeanLlama(model)
        batch, bottom = sft._collate(kept, range(BATCH), engine)
        return gradients(model, engine.loss(batch, bottom))

    return Contender(name, run, probe)


def trl(name, base, lora, data, tokenizer, dtype=torch.float32, **options) -> Contender:
    """TRL's trainer on the same token ids and labels."""
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(**arguments(), **options)
    model = adapted(base, lora, dtype)
    return hugging_face(name, SFTTrainer(model, args, train_dataset=dataset(data),
                                         processing_class=tokenizer))


def trainer(name, base, lora, data, tokenizer) -> Contender:
    """The plain trainer of transformers in float32, labels masked by hand."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model, args = adapted(base, lora), TrainingArguments(**arguments())
    collate = DataCollatorForSeq2Seq(tokenizer)
    return hugging_face(name, Trainer(model, args, data_collator=collate,
                                      train_dataset=dataset(data)))


def arguments() -> dict:
    """Settings that are the same everywhere; the rest is each library's default."""
    return {"output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": BATCH,
            "max_steps": STEPS, "use_cpu": True, "report_to": "none", "save_strategy": "no",
            "disable_tqdm": True, "learning_rate": 1e-5, "lr_scheduler_type": "constant",
            "train_sampling_strategy": "sequential", "dataloader_pin_memory": False}


def dataset(data: list[sft.Example]):
    """Token ids and labels as a Hugging Face dataset."""
    from datasets import Dataset

    labels = [[-100] * e.prompt + e.ids[e.prompt :] for e in data]
    return Dataset.from_dict({"input_ids": [e.ids for e in data], "labels": labels})


def hugging_face(name: str, made) -> Contender:
    """A contender around a ``Trainer`` or a subclass of it."""
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    made.remove_callback(PrinterCallback)

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            made.tick()

    made.add_callback(Clock())

    def run(tick):
        made.tick = tick
        made.train()

    def probe():
        inputs = made.data_collator([made.train_dataset[i] for i in range(BATCH)])
        labels = (inputs["labels"][:, 1:] != -100).sum()
        made.model.train()
        # during training accelerate wraps the forward pass in autocast like this
        with torch.autocast("cpu", torch.bfloat16, enabled=made.args.bf16):
            loss = made.compute_loss(made.model, dict(inputs), num_items_in_batch=labels)
        return gradients(made.model, loss)

    return Contender(name, run, probe)


@contextmanager
def in_order() -> Iterator[None]:
    """Let ``sft.train`` take the examples in the order given, as the other trainers do."""
    shuffled = torch.randperm
    torch.randperm = lambda n, **_: torch.arange(n)
    try:
        yield
    finally:
        torch.randperm = shuffled


# ---------------------------------------------------------------------------- measuring
def gradients(model: nn.Module, loss: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Loss and all adapter gradients in one vector."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    pieces = [p.grad.flatten().float() for p in model.parameters() if p.requires_grad]
    model.zero_grad(set_to_none=True)
    return loss.item(), torch.cat(pieces)


def check(group: list[Contender]) -> dict[str, tuple[float, float]]:
    """Loss and gradient cosine of each against float32 ``Trainer`` (or the uncached twin)."""
    probes = {c.name: c.probe() for c in group}
    loss, gradient = probes.get("`Trainer`, float32", probes[group[0].name])
    found = {}
    for name, (own, vector) in probes.items():
        found[name] = own, torch.cosine_similarity(vector.double(), gradient.double(), dim=0).item()
        exact = abs(own - loss) < 0.02 and found[name][1] > 0.998
        if name.startswith(OURS) and not exact:  # the others' rounding is shown, not judged
            raise SystemExit(f"{name}: loss {own:.4f} against {loss:.4f}, cosine {found[name][1]}")
    return found


def measure(contender: Contender) -> None:
    """Train the batches once; keep wall and process time of each step after the warm-up."""
    ticks: list[tuple[float, float]] = []
    contender.run(lambda: ticks.append((time.perf_counter(), time.process_time())))
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(ticks)]
    steps = steps[WARMUP - 1 :]
    contender.wall.append([wall for wall, _ in steps])
    contender.cpu.append([cpu for _, cpu in steps])


def table(group: list[Contender], checks: dict, data: list) -> list[str]:
    """Markdown rows: speed of each contender and the ratio of the last one to it."""
    timed = data[WARMUP * BATCH :]
    tokens = sum(len(e.ids) - e.prompt for e in timed)
    best = {c.name: best_of(c.wall) for c in group}
    rows = [
        f"| trainer | s / step, best | median | CPU s / step, best | completion tokens / s | "
        f"{group[-1].name} is faster by | loss | gradient cosine |", "|" + "---|" * 8]
    for c in group:
        steps = len(c.wall[0])
        ratio = best[c.name] / best[group[-1].name]
        loss, cosine = checks[c.name]
        median = statistics.median(t for run in c.wall for t in run)
        rows.append(
            f"| {c.name} | {best[c.name] / steps:.2f} | {median:.2f} | "
            f"{best_of(c.cpu) / steps:.2f} | {tokens / best[c.name]:.0f} | **{ratio:.2f} x** | "
            f"{loss:.4f} | {cosine:.5f} |")
    return rows


def best_of(rounds: list[list[float]]) -> float:
    """Sum over steps of the fastest round: what is left when the machine is not disturbed."""
    return sum(min(times) for times in zip(*rounds, strict=True))


KINDS = {
    "loss": ("log_softmax", "nll_loss", "CrossEntropy"),
    "products with weights": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::linear"),
    "attention products": ("aten::bmm", "aten::baddbmm"),
    "attention softmax, mask, grid": ("softmax", "masked_fill", "index_copy", "index_select",
                                      "aten::index", "triu", "_index_put_impl_"),
    "casts, copies, fills": ("copy_", "aten::cat", "fill_", "zero_"),
    "optimiser and clipping": ("adam", "norm_foreach", "foreach", "linalg_vector_norm"),
    "norms": ("rms_norm", "aten::pow", "aten::rsqrt", "aten::mean"),
    "other elementwise": ("aten::",),
}


def shares(contender: Contender) -> list[str]:
    """Markdown table of the shares of a step by kind of operator."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        contender.run(lambda: None)
    spent = dict.fromkeys((*KINDS, "Python and dispatch"), 0.0)
    for event in recorded.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)),
                    "Python and dispatch")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return ["| kind | share |", "|---|---|",
            *(f"| {kind} | {100 * s / total:.0f} % |" for kind, s in spent.items())]


# ---------------------------------------------------------------------------- writing
def machine(rounds: int) -> str:
    """One line that says where, how and with what the numbers were taken."""
    import peft
    import transformers
    import trl

    cpu, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        names = re.findall(r"model name\s*: (.+)", info.read_text(encoding="utf8"))
        cpu = names[0] if names else cpu
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"`python benchmarks/sft.py --rounds {rounds}`, {date.today()}: {cpu}, "
        f"{torch.get_num_threads()} threads{load}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, peft {peft.__version__}, trl {trl.__version__}. "
        f"SmolLM2-135M, LoRA r = {RANK} on all linears of all 30 layers, float32 adapters, batches "
        f"of {BATCH} author and year questions, whole optimiser steps; {WARMUP} warm-up step and "
        f"{STEPS - WARMUP} timed ones a round, everyone in turn. Loss and cosine are of one fixed "
        "batch, cosine against float32."
    )


def write_section(title: str, text: str) -> None:
    """Replace the section ``title`` of benchmarks/README.md, or append it."""
    old = README.read_text(encoding="utf8") if README.exists() else "# Benchmarks\n"
    new = f"## {title}\n\n{text}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = pattern.search(old)
    kept = old[: found.start()] + new + ("\n" if old[found.end() :] else "") + old[found.end() :] \
        if found else f"{old.rstrip()}\n\n{new}"
    README.write_text(kept, encoding="utf8")


if __name__ == "__main__":
    main()
