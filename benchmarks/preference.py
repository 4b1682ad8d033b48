"""Time of a DPO step and of an online step beside TRL's; writes its section of benchmarks/README.md.

Same model, pairs and rank. Best of the steps after the first. Then what sharing a prompt and the
leaner sampling loop bring, each beside the way without it. Needs the packaged SmolLM2, about 4 GB.

python benchmarks/preference.py            # about two minutes on two cores
python benchmarks/preference.py --own      # without TRL, half a minute
python benchmarks/preference.py --no-write # print only
"""

import argparse
import copy
import itertools
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from unittest import mock

import mangalab  # first: sets the OpenMP policy  # noqa: F401

# isort: split
import torch
import torch.nn.functional as F
from sft import write_section

from mangalab.data import assistant
from mangalab.models import load_causal_lm
from mangalab.training import online, preference, sft
from mangalab.training.decoding import LeanSampler
from mangalab.training.llama import LeanLlama, pack
from mangalab.training.sampling import Sampler

PAIRS, BATCH, STEPS, SAMPLES, TOKENS = 16, 4, 4, 4, 24
EVERYWHERE = sft.LoRA(r=8, alpha=16, targets=sft.ALL_LINEAR)
TOP = sft.LoRA(r=8, alpha=16, targets=sft.ALL_LINEAR, layers=tuple(range(20, 30)))


def main() -> None:
    """Run all measurements, print the section, write it unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/README.md alone")
    parser.add_argument("--own", action="store_true", help="leave TRL out; writes nothing")
    options = parser.parse_args()
    base, tokenizer = load_causal_lm(torch.float32)
    requests, replies = assistant.load("train")[:PAIRS], assistant.logged()
    pairs = [preference.Pair(r.prompt(), replies[i], replies[i + 1]) for i, r in enumerate(requests)]
    rows = {} if options.own else against_trl(base, tokenizer, pairs)
    rows |= {
        "DPO, last ten layers": {
            "a row for each reply": separate_dpo(base, tokenizer, pairs),
            "a prompt once for its replies": ours_dpo(base, tokenizer, pairs, TOP)},
        f"{len(pairs)} x {SAMPLES} draws": {
            "`sampling.Sampler`, the library's step": sampling(Sampler, base, tokenizer, pairs),
            "`decoding.LeanSampler`": sampling(LeanSampler, base, tokenizer, pairs)}}
    text = section(rows)
    print(text)
    if not options.no_write and not options.own:
        write_section("Preference training", text)


def against_trl(base, tokenizer, pairs) -> dict[str, dict[str, float]]:
    """Seconds of TRL's steps and of ours."""
    return {
        "DPO": {
            "TRL `DPOTrainer`, bf16, no checkpointing, reference computed once":
                trl_dpo(base, tokenizer, pairs),
            "mangalab": ours_dpo(base, tokenizer, pairs, EVERYWHERE),
            "mangalab, last ten layers, bottom cached": ours_dpo(base, tokenizer, pairs, TOP)},
        "online": {
            "TRL `RLOOTrainer`": trl_rloo(base, tokenizer, pairs),
            "mangalab `rloo`": ours_rloo(base, tokenizer, pairs, EVERYWHERE),
            "mangalab `rloo`, last ten layers": ours_rloo(base, tokenizer, pairs, TOP)}}


def section(rows: dict[str, dict[str, float]]) -> str:
    """The section's text."""
    lines = [
        f"`python benchmarks/preference.py`, {date.today()}: {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}. LoRA r = 8 on all linears; a "
        f"DPO step is {BATCH} pairs, an online step {BATCH} prompts with {SAMPLES} replies of up to "
        f"{TOKENS} tokens. Best of {STEPS - 1} steps after the first, which pays for set-up.", "",
        "| step | what | s, best | against the first |", "|---|---|---|---|"]
    for kind, found in rows.items():
        first = next(iter(found.values()))
        lines += [f"| {kind} | {name} | {s:.2f} | {first / s:.1f} x |" for name, s in found.items()]
    return "\n".join(lines)


def ours_dpo(base, tokenizer, pairs, lora) -> float:
    """Seconds of this package's step, states and reference computed before."""
    model = sft.attach(copy.deepcopy(base), lora)
    data = preference.prepare_pairs(model, tokenizer, pairs)
    config = preference.PreferenceConfig(lr=1e-5, epochs=1, batch_size=BATCH)
    return best(lambda tick: timed(preference, "update", tick,
                                   lambda: preference.train_pairs(model, data, config)))


def ours_rloo(base, tokenizer, pairs, lora) -> float:
    """Seconds of this package's online step."""
    sampler = LeanSampler(base, tokenizer)
    model = sft.attach(copy.deepcopy(base), lora)
    config = online.RLOOConfig(
        lr=1e-5, steps=STEPS, batch_size=BATCH, samples=SAMPLES, max_new_tokens=TOKENS)
    lengths = lambda rows, replies, data: [float(len(r.ids)) for r in replies]  # noqa: E731
    prompts = [pair.prompt for pair in pairs]
    return best(lambda tick: timed(online, "update", tick,
                                   lambda: online.rloo(model, sampler, prompts, lengths, config)))


def separate_dpo(base, tokenizer, pairs) -> float:
    """Seconds of the step that gives each reply a row of its own and keeps its logits."""
    def rows_of_their_own(engine, data, rows):
        some = [data.examples[i] for i in rows]
        batch = pack([(e.ids, e.prompt) for e in some])
        logits = engine.logits(batch, torch.cat([data.bottoms[i] for i in rows]))
        losses = F.cross_entropy(logits, batch.targets, reduction="none")
        return -torch.stack([
            part.sum() for part in losses.split([len(e.ids) - e.prompt for e in some])])

    model = sft.attach(copy.deepcopy(base), TOP)
    data = preference.prepare_pairs(model, tokenizer, pairs)
    config = preference.PreferenceConfig(lr=1e-5, epochs=1, batch_size=BATCH)
    with mock.patch.multiple(preference, ForkedLlama=LeanLlama, sequence_logps=rows_of_their_own):
        return best(lambda tick: timed(preference, "update", tick,
                                       lambda: preference.train_pairs(model, data, config)))


def sampling(kind, base, tokenizer, pairs) -> float:
    """Seconds to draw replies to all prompts, the shorter of two times."""
    sampler, prompts = kind(base, tokenizer), [pair.prompt for pair in pairs]
    return best(lambda tick: [
        tick(), *(tick() for _ in range(2) if sampler.sample(prompts, 2 * TOKENS, each=SAMPLES))])


def timed(module, name: str, tick: Callable[[], None], run: Callable[[], object]) -> None:
    """Run with a tick after every call of ``module.name``."""
    real = getattr(module, name)

    def ticking(*given):
        found = real(*given)
        tick()
        return found

    setattr(module, name, ticking)
    try:
        run()
    finally:
        setattr(module, name, real)


def trl_dpo(base, tokenizer, pairs) -> float:
    """Seconds of TRL's DPO step in its fastest setting here."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list([vars(pair) for pair in pairs])
    args = DPOConfig(precompute_ref_log_probs=True, **settings(BATCH))
    return library(DPOTrainer(sft.attach(copy.deepcopy(base).bfloat16(), EVERYWHERE), args=args,
                              train_dataset=rows, processing_class=tokenizer))


def trl_rloo(base, tokenizer, pairs) -> float:
    """Seconds of TRL's RLOO step with the same number of replies."""
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    rows = Dataset.from_list([{"prompt": pair.prompt} for pair in pairs])
    args = RLOOConfig(num_generations=SAMPLES, max_completion_length=TOKENS, beta=0.05,
                      **settings(BATCH * SAMPLES))
    reward = lambda completions, **_: [float(len(c)) for c in completions]  # noqa: E731
    model = sft.attach(copy.deepcopy(base).bfloat16(), EVERYWHERE)
    return library(RLOOTrainer(model, reward_funcs=reward, args=args, train_dataset=rows,
                               processing_class=tokenizer))


def settings(batch: int) -> dict:
    """Settings that both trainers of the library share."""
    return {"output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": batch, "max_steps": STEPS,
            "use_cpu": True, "report_to": [], "save_strategy": "no", "disable_tqdm": True,
            "learning_rate": 1e-5, "gradient_checkpointing": False, "dataloader_pin_memory": False}


def library(trainer) -> float:
    """Best step of a trainer of the library."""
    from transformers import TrainerCallback

    def run(tick):
        class Clock(TrainerCallback):
            def on_step_end(self, *_, **__):
                tick()

        trainer.add_callback(Clock())
        trainer.train()

    return best(run)


def best(run: Callable[[Callable[[], None]], None]) -> float:
    """Shortest time between two ticks."""
    ticks: list[float] = []
    run(lambda: ticks.append(time.perf_counter()))
    return min(b - a for a, b in itertools.pairwise(ticks))


if __name__ == "__main__":
    main()
