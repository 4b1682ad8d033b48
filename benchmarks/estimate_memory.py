"""Peak memory of real training runs on this machine beside what `mangalab.sizing` says of them.

    python benchmarks/estimate_memory.py [--only lora-qv-4x512 ...]

Each case is a process of its own: it trains a toy model of the same method (what is resident then is
the framework: interpreter, torch, transformers, peft, kernels' buffers), loads the real model, resets
the peak of the resident set and takes two training steps on random tokens; a third step counts live
tensors. A second process does the same with an allocator that gives each freed tensor's memory back at
once (MAPPED): what it needs less is slack, freed memory that glibc keeps. Linux only. The result is
benchmarks/estimate_memory.json, which the page Estimator shows.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mangalab import sizing
from mangalab.sizing import Plan

RESULT = Path(__file__).with_suffix(".json")
MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc: larger blocks are mapped, and unmapped when freed
MINILM, SMOL = sizing.SHAPES["all-MiniLM-L6-v2"], sizing.SHAPES["SmolLM2-135M"]
CPU = {"mask_bytes": 4, "step": "loop"}
FULL = Plan(MINILM, "full", precision="fp32", checkpointing=False, padded=True, **CPU)
LORA = Plan(SMOL, "lora", rank=16, checkpointing=False, **CPU)
CASES = {
    "minilm-full-32x64": replace(FULL, batch=32, length=64),
    "minilm-full-dropout-32x64": replace(FULL, batch=32, length=64, dropout=True),
    "minilm-full-8x256": replace(FULL, batch=8, length=256),
    "lora-qv-2x256": replace(LORA, batch=2, length=256),
    "lora-qv-4x512": replace(LORA, batch=4, length=512),
    "lora-qv-4x512-checkpointed": replace(LORA, batch=4, length=512, checkpointing=True),
    "lora-all-2x256": replace(LORA, batch=2, length=256, targets="all-linear"),
    "qlora-qv-2x256": replace(LORA, method="qlora", batch=2, length=256),
    "full-fp32-2x128": replace(LORA, method="full", precision="fp32", batch=2, length=128),
    "full-autocast-2x256-checkpointed": replace(
        LORA, method="full", precision="autocast", batch=2, length=256, checkpointing=True),
}  # fmt: skip


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status: VmRSS (now) or VmHWM (peak)."""
    rows = Path("/proc/self/status").read_text(encoding="utf8").splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith(field))


def load(plan: Plan, toy: bool):
    """The model of a plan, ready to train; a toy has the same kind of layers and two of them."""
    import torch
    import transformers as t

    from mangalab import models

    dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
    encoder = plan.shape.family == "bert"
    if toy:
        small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 500,
                 "num_attention_heads": 4}  # fmt: skip
        model = (
            t.BertModel(t.BertConfig(**small))
            if encoder
            else t.LlamaForCausalLM(t.LlamaConfig(**small))
        )
        model = model.to(dtype)
    elif encoder:
        model = models.load_encoder(dtype)[0]
    else:
        model = models.load_causal_lm(dtype, four_bit=plan.method == "qlora")[0]
    return adapt(model, plan)


def adapt(model, plan: Plan):
    """Adapters, checkpointing and training mode as the plan says."""
    if plan.checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    if plan.adapted:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=plan.rank, target_modules=sorted(plan.adapted)))
    model.config.use_cache = False
    return model.train(plan.dropout or plan.shape.family == "llama")


def trainer(model, plan: Plan):
    """A function that takes one AdamW step on random tokens, and its optimizer."""
    import contextlib

    import torch

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    ids = torch.randint(0, 400, (plan.batch, plan.length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    if plan.padded:
        mask[0, plan.length // 2 :] = 0

    def loss():
        if plan.shape.family == "bert":
            return model(input_ids=ids, attention_mask=mask).last_hidden_state.square().mean()
        return model(input_ids=ids, labels=ids).loss

    def step() -> None:
        autocast = plan.precision == "autocast"
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, optimizer


def measure(name: str) -> dict[str, float]:
    """Bytes of one case: framework, peak of the resident set and, as a rule, peak of live tensors."""
    import gc
    import warnings

    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    plan = CASES[name]
    toy = replace(plan, batch=1, length=16)
    trainer(load(toy, toy=True), toy)[0]()
    gc.collect()
    framework = status("VmRSS")
    model = load(plan, toy=False)
    step, optimizer = trainer(model, plan)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf8")  # the peak starts anew
    for _ in range(2):
        step()
    found = {"framework": framework, "peak": status("VmHWM")}
    return (
        found
        if MAPPED.items() <= os.environ.items()
        else found | {"tensors": live(model, optimizer, step)}
    )


def live(model, optimizer, step) -> int:
    """Peak bytes of live tensors in one more step."""
    from mangalab.sizing.live import LiveBytes

    held = [v for state in optimizer.state.values() for v in state.values()]
    with LiveBytes([*model.parameters(), *model.buffers(), *held]) as counter:
        step()
    return counter.peak


def process(name: str, environment: dict[str, str]) -> dict[str, float]:
    """`measure` in a process of its own."""
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    command, around = (
        [sys.executable, __file__, "--measure", name],
        {**os.environ, **quiet, **environment},
    )
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=around)
    return json.loads(run.stdout.splitlines()[-1])


def case(name: str) -> dict[str, object]:
    """One case beside its estimate."""
    found = process(name, {})
    mapped = {f"mapped_{key}": size for key, size in process(name, MAPPED).items()}
    plan = CASES[name]
    estimated = sizing.memory(plan)
    return {
        "case": name, "model": plan.shape.name, "method": plan.method, "precision": plan.precision,
        "batch": plan.batch, "length": plan.length, "checkpointing": plan.checkpointing,
        "estimate": estimated.total, "phase": estimated.peak, **found, **mapped,
    }  # fmt: skip


def line(row: dict) -> str:
    """A case as printed: estimate and measured megabytes, ratios."""
    own, mb = row["peak"] - row["framework"], 1e6
    mapped = row["mapped_peak"] - row["mapped_framework"]
    return (
        f"{row['case']:<34} estimate {row['estimate'] / mb:7.0f}  tensors {row['tensors'] / mb:7.0f} "
        f"({row['estimate'] / row['tensors']:.3f})  resident {mapped / mb:7.0f} "
        f"({row['estimate'] / mapped:.3f})  with slack {own / mb:7.0f} ({row['estimate'] / own:.3f})  "
        f"framework {row['framework'] / mb:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--measure", choices=list(CASES))
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("the peak of the resident set can only be read on Linux (/proc/self/clear_refs)")
    import torch
    import transformers

    from mangalab.book.machine import machine

    old = json.loads(RESULT.read_text(encoding="utf8"))["cases"] if RESULT.exists() else []
    rows = {row["case"]: row for row in old if "mapped_peak" in row}
    for name in args.only:
        rows[name] = case(name)
        print(line(rows[name]), flush=True)
    told = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "threads": 1,
            "torch": torch.__version__, "transformers": transformers.__version__,
            "cases": [rows[name] for name in CASES if name in rows]}  # fmt: skip
    RESULT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
