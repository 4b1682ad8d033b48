"""More checks for `book/claims.yml`: guides to fine-tuning, settled by the libraries and arithmetic.

As in `claims_checks`: each returns a number, a list of numbers, a truth value or a short text in the
unit of its claim, at once. Where a claim is about code, the code runs on a handful of numbers.
"""

import hashlib
import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import fields
from math import log, sqrt
from pathlib import Path

from . import estimate as e
from .claims_checks import BIG, accepts, half_width, lora

REFERENCES = Path(__file__).parents[1] / "references.bib"
# The overview's reading list: years as it states them, by key of references.bib (LambdaRank apart).
READING = """
2017 vaswani2017attention, micikevicius2017mixed, lin2017focal, kirkpatrick2016ewc, finn2017maml,
snell2017prototypical; 2018 devlin2018bert, howard2018ulmfit, kendall2017uncertainty,
chen2017gradnorm; 2019 sanh2019distilbert, sun2019finetune, reimers2019sbert, jiao2019tinybert,
rajbhandari2019zero; 2020 chen2020simclr, karpukhin2020dpr, khattab2020colbert, yu2020pcgrad,
guu2020realm; 2021 hu2021lora, li2021prefix, liu2021ptuning2, lester2021prompt, fedus2021switch,
northcutt2019confident; 2022 ouyang2022instructgpt, bai2022constitutional, frantar2022gptq,
xiao2022smoothquant, tunstall2022setfit, wang2022selfinstruct; 2023 dettmers2023qlora,
rafailov2023dpo, lee2023rlaif, lin2023awq, asai2023selfrag, taori2023alpaca; 2024 jiang2024mixtral,
zhang2024raft; 2016 bajaj2016msmarco, rusu2016progressive; 2015 hinton2015distilling
"""
STEPS = e.steps(3000, 16, 3)  # the scenario's job


def years_off() -> int:
    """Entries of the reading list whose year is neither that of the preprint nor of the venue."""
    text = REFERENCES.read_text(encoding="utf8")
    known = {
        key: set(re.findall(r"(?:year=\{|note=\{[^}]*?)(\d{4})", rest))
        for key, rest in re.findall(r"@\w+\{(\w+),(.*?)\n?(?=@|\Z)", text, re.S)
    }
    listed = (line.split(None, 1) for line in READING.replace("\n", " ").split(";"))
    return sum(year not in known[key.strip()] for year, keys in listed for key in keys.split(","))


def printed_calls() -> int:
    """How many of the guide's four printed calls exist in the installed libraries."""
    import optuna
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel

    return sum((
        "加载在4位" in inspect.signature(BitsAndBytesConfig).parameters,
        hasattr(torch.cuda, "has_bf16_support"),
        hasattr(PreTrainedModel, "quantize"),
        callable(optuna.study),
    ))  # fmt: skip


def adapter_bits() -> int:
    """Bits of an adapter's numbers where PEFT puts it on a 4-bit layer of bitsandbytes."""
    import bitsandbytes as bnb
    import torch
    from peft import LoraConfig, get_peft_model

    model = torch.nn.Sequential(bnb.nn.Linear4bit(64, 64, quant_type="nf4"))
    model.is_loaded_in_4bit = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["0"]))
    kinds = {p.dtype for name, p in wrapped.named_parameters() if "lora" in name}
    return max(8 * kind.itemsize for kind in kinds)


def start_is_random() -> bool:
    """Whether a fresh LoRA layer of PEFT changes the output of the layer below it."""
    import torch
    from peft import LoraConfig, get_peft_model

    base = torch.nn.Linear(8, 8)
    x = torch.ones(1, 8)
    before = base(x)
    model = get_peft_model(torch.nn.Sequential(base), LoraConfig(r=2, target_modules=["0"]))
    return not torch.equal(before, model(x))


def printed_layer_starts_as_base() -> bool:
    """Whether the product of two linear layers as PyTorch makes them is zero."""
    import torch

    torch.manual_seed(0)
    a, b = torch.nn.Linear(8, 2, bias=False), torch.nn.Linear(2, 8, bias=False)
    return bool((b.weight @ a.weight == 0).all())


def product_shape() -> list[int]:
    """Rows, columns and rank of A B^T with A of 12 x 3 and B of 8 x 3."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 3, generator=generator) for n in (12, 8))
    product = a @ b.T
    return [*product.shape, int(torch.linalg.matrix_rank(product))]


def tuners(name: str) -> int:
    """How many of PEFT's tuners have `name` in theirs."""
    from peft import PeftType

    return sum(name.upper() in tuner.value.upper() for tuner in PeftType)


def fisher_factor(p: float = 0.3, step: float = 1e-4) -> float:
    """KL between a coin of p and one of p + step, over Fisher information times step squared."""
    q = p + step
    kl = p * log(p / q) + (1 - p) * log((1 - p) / (1 - q))
    return kl * p * (1 - p) / step**2


def kept_weight(by: str) -> int:
    """Of two weights that gradient steps move, 2 -> 1 and 0.5 -> 0.9, the one that a score keeps."""
    weights, goals, scores = [2.0, 0.5], (1.0, 0.9), [0.0, 0.0]
    start = list(weights)
    for _ in range(200):
        for i, goal in enumerate(goals):
            gradient = weights[i] - goal
            scores[i] -= gradient * weights[i]
            weights[i] -= 0.05 * gradient
    if by == "distance":
        scores = [abs(w - s) for w, s in zip(weights, start, strict=True)]
    return scores.index(max(scores))


def decay_is_l2() -> bool:
    """Whether AdamW's weight decay makes the step that Adam makes with an L2 term."""
    import torch

    told = []
    for kind in (torch.optim.AdamW, torch.optim.Adam):
        weight = torch.nn.Parameter(torch.ones(1))
        weight.grad = torch.full((1,), 10.0)
        kind([weight], lr=0.1, weight_decay=0.1).step()
        told.append(float(weight.detach()))
    return abs(told[0] - told[1]) < 1e-6


def printed_dedup() -> list[int]:
    """Answers lost and repeats kept when three rows are made unique by the MD5 of their input."""
    rows = [("Refund?", "yes"), ("Refund?", "only within 30 days"), ("refund? ", "yes")]
    kept = {hashlib.md5(text.encode()).hexdigest(): (text, out) for text, out in reversed(rows)}
    meant = {(text.strip().lower(), out) for text, out in rows}
    left = [(text.strip().lower(), out) for text, out in kept.values()]
    return [len(meant - set(left)), len(left) - len(set(left))]


def prompt_in_loss() -> float:
    """Percent of a prompt's tokens that Transformers' causal collator makes targets of the loss."""
    from tokenizers import Tokenizer, models
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "q": 1, "a": 2}, unk_token="[PAD]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    labels = collate([{"input_ids": [1, 1, 1, 2], "attention_mask": [1] * 4}])["labels"][0, :3]
    return 100 * float((labels != -100).float().mean())


def dpo_start() -> float:
    """DPO's loss, in nats, while the policy still is the reference."""
    import torch

    from .training.preference import dpo_loss

    logps = torch.tensor([-3.0, -5.0, -8.0, -2.0])
    return float(dpo_loss(logps, logps, 0.1))


def operations(rank: int) -> float:
    """Operations a token of training q and v adapters of Llama-3-70B."""
    return 4 * BIG.linear_parameters + 6 * lora(rank)


def default_warmup() -> float:
    """Warm-up that `transformers.TrainingArguments` gives who asks for none."""
    from transformers import TrainingArguments

    return next(f.default for f in fields(TrainingArguments) if f.name == "warmup_steps")


CHECKS: dict[str, Callable[[], object]] = {
    "years_off": years_off,
    "rank_16_over_8": lambda: operations(16) / operations(8),
    "documents": lambda: 4 + 5 + 6 + 2 + 1,
    "dollars_a_point_month": lambda: 170_000 / 2.7 / 12,
    "printed_calls": printed_calls,
    "adapter_bits": adapter_bits,
    "start_is_random": start_is_random,
    "printed_layer_starts_as_base": printed_layer_starts_as_base,
    "product_shape": product_shape,
    "tuners_lyra": lambda: tuners("LyRA"),
    "rank_of_15_times": lambda: 4096 * 11008 / (15 * (4096 + 11008)),
    "fisher_factor": fisher_factor,
    "movement_keeps": lambda: kept_weight("movement"),
    "scaling_32_8": lambda: 32 / 8,
    "adapter_layer_ms": lambda: [(23.9 - 19.8) / 24, (25.8 - 19.8) / 24],
    "packing_arguments": lambda: [accepts("max_seq_length"), accepts("packing")],
    "old_arguments": lambda: [accepts("evaluation_strategy"), accepts("max_seq_length")],
    "decay_is_l2": decay_is_l2,
    "default_warmup": default_warmup,
    "warmup_50_500": lambda: [100 * n / STEPS for n in (50, 500)],
    "noise_of_equal_worth": lambda: 100 * (1 - sqrt(1_000 / 100_000)) / 2,
    "half_width_1000": lambda: half_width(0.92, 1000),
    "half_width_25": lambda: half_width(0.5, 25),
    "printed_dedup": printed_dedup,
    "prompt_in_loss": prompt_in_loss,
    "dpo_start": dpo_start,
}
