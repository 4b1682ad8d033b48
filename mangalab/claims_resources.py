"""More checks for `book/claims.yml`: memory, time and cost, settled by the estimator `mangalab.sizing`.

As in `claims_checks`: each returns a number, a list of numbers, a truth value or a short text in the
unit of its claim, at once. Plans hold one sequence of 512 tokens, checkpointed, unless said otherwise.
"""

from collections.abc import Callable
from dataclasses import replace

from . import estimate as e
from .estimate import GB
from .shapes import SHAPES, Shape
from .sizing import Plan, memory

SEVEN, THIRTEEN, SEVENTY = (SHAPES[n] for n in ("Llama-2-7B", "Llama-2-13B", "Llama-3-70B"))
THIRTY_THREE = Shape("LLaMA-1-33B", 60, 6656, 52, 52, 128, 17920, 32000)
SIXTY_FIVE = SHAPES["LLaMA-1-65B"]
A100 = e.DEVICES["A100-80"]
# The guide's table: parameters, A100s, and a million sequences of 2048 tokens at 40 % of the peak.
RUNS, TOKENS = ((7e9, 2), (13e9, 4), (70e9, 16)), 1e6 * 2048
STATED_HOURS, DOLLARS = (48, 72, 240), 3.67
# Chapter 09: an assumed price of a managed T4 hour, and the prices that its table implies.
T4_DOLLARS, T4_IMPLIED = 0.736, (8 / (52 / 12 * 0.5), 3 / 2, 2.5 / 1.5)


def gb(shape: Shape, method: str, **options: object) -> float:
    """GB at the peak of one device."""
    return memory(Plan(shape, method, **options)).total / GB


def states(shape: Shape, method: str, **options: object) -> float:
    """GB without a batch: weights, gradients and optimizer."""
    return gb(shape, method, batch=0, **options)


def most_sequences(shape: Shape, limit_gb: float, **options: object) -> int:
    """Sequences of 512 tokens that a step can hold in `limit_gb`."""
    one, two = (gb(shape, "full", batch=b, **options) for b in (1000, 2000))
    each = (two - one) / 1000
    return int((limit_gb - (one - 1000 * each)) / each)


def bytes_a_parameter(precision: str, optimizer: str = "adamw") -> float:
    """Bytes of the states for each trained parameter."""
    plan = Plan(SEVEN, "full", precision=precision, optimizer=optimizer, batch=0)
    return sum(memory(plan).phases["step"].values()) / SEVEN.parameters


def hours(parameters: float, devices: int) -> float:
    """Hours of the guide's run by its own rule, 6 FLOP a parameter and token."""
    return e.hours(6 * parameters * TOKENS, A100, mfu=0.4, devices=devices)


def checkpointing_percent() -> float:
    """Percent of the peak that checkpointing saves: LoRA on SmolLM2-135M, 4 sequences of 512 tokens."""
    plan = Plan(SHAPES["SmolLM2-135M"], "lora", batch=4, length=512)
    kept = memory(replace(plan, checkpointing=False)).total
    return 100 * (1 - memory(plan).total / kept)


def cyclic_lowest() -> float:
    """Lowest rate of two cycles of the guide's cyclical schedule."""
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-5)
    schedule = torch.optim.lr_scheduler.CyclicLR(optimizer, 3e-5, 1e-4, 10, cycle_momentum=False)
    found = []
    for _ in range(40):
        optimizer.step()
        schedule.step()
        found.append(schedule.get_last_lr()[0])
    return min(found)


def sharded(stage: str, devices: int = 64) -> float:
    """How many times smaller a stage makes weights, masters and optimizer states of a 7B model."""
    plan = Plan(SEVEN, "full", precision="mixed", batch=0, sharding=stage)
    one, many = (memory(replace(plan, devices=n)).phases["step"] for n in (1, devices))
    names = ("weights", "masters", "optimizer")
    return sum(one[name] for name in names) / sum(many[name] for name in names)


def least_bubble_chunks(stages: int = 4) -> int:
    """Chunks of 1 to 64 with the smallest idle share (p - 1) / (m + p - 1) of a pipeline."""
    return min(range(1, 65), key=lambda chunks: (stages - 1) / (chunks + stages - 1))


def largest_on(limit_gb: float) -> float:
    """Billions of parameters of the largest LLaMA that QLoRA fits into `limit_gb`."""
    sizes = (SEVEN, THIRTEEN, THIRTY_THREE, SIXTY_FIVE)
    return max(s.parameters / 1e9 for s in sizes if gb(s, "qlora") < limit_gb)


def growth(attention: str) -> float:
    """How many times more a layer of Llama-3-8B keeps at 8192 tokens than at 4096."""
    from .sizing import layer_activations

    plan = Plan(SHAPES["Llama-3-8B"], "lora", attention=attention, length=4096)
    return layer_activations(replace(plan, length=8192)) / layer_activations(plan)


CHECKS: dict[str, Callable[[], object]] = {
    "least_full_gb": lambda: [
        gb(s, "full", precision="bf16", optimizer="adamw-8bit") for s in (SEVEN, THIRTEEN, SEVENTY)
    ],
    "states_7b_gb": lambda: states(SEVEN, "full", precision="mixed"),
    "a100s_16_gb": lambda: 16 * A100.memory / GB,
    "hours_formula": lambda: 8 * 1e9 / 1e12 / 3600,
    "guide_hours": lambda: [hours(*run) for run in RUNS],
    "guide_dollars": lambda: [
        e.cost(h, DOLLARS, n) for h, (_, n) in zip(STATED_HOURS, RUNS, strict=True)
    ],
    "storage_tb": lambda: 7e9 * 2 * 10 / 1e12,
    "most_sequences_7b": lambda: most_sequences(SEVEN, 80, precision="bf16", optimizer="adamw-8bit"),
    "state_bytes": lambda: [
        bytes_a_parameter("fp32"), bytes_a_parameter("mixed"),
        bytes_a_parameter("bf16", "adamw-8bit"),
    ],
    "zero3_64": lambda: sharded("zero3"),
    "bubble_chunks": least_bubble_chunks,
    "qlora_7b_times": lambda: gb(SEVEN, "full", precision="mixed") / gb(SEVEN, "qlora"),
    "checkpointing_percent": checkpointing_percent,
    "adam8_times": lambda: bytes_a_parameter("mixed") / bytes_a_parameter("mixed", "adamw-8bit"),
    "grid_cells": lambda: 3 * 3,
    "largest_on_24_gb": lambda: largest_on(24),
    "a100_tflops": lambda: A100.flops / 1e12,
    "dictionary_gb": lambda: 7e9 * 200 * 4 / GB,
    "dollars_an_example": lambda: min(
        low / size
        for row in (((500, 1000), (1500, 3000)), ((5000, 15000), (12000, 25000)),
                    ((20000, 100000), (75000, 200000)))
        for size, low in zip(*row, strict=True)
    ),
    "peft_print_7b": lambda: [
        e.lora_parameters(SEVEN, 16, ("q_proj", "k_proj", "v_proj", "o_proj")),
        SEVEN.parameters + e.lora_parameters(SEVEN, 16, ("q_proj", "k_proj", "v_proj", "o_proj")),
    ],
    "qlora_65b_gb": lambda: gb(SIXTY_FIVE, "qlora"),
    "context_growth": lambda: growth("fused"),
    "qlora_7b_batch_gb": lambda: gb(SEVEN, "qlora", batch=4),
    "rare_rows": lambda: [5000 * share for share in (0.05, 0.04, 0.03)],
    "adapter_8b_mb": lambda: e.adapter_bytes(SHAPES["Llama-3-8B"], 16, e.ALL_LINEAR) / 1e6,
    # chapter 09's table of trainings
    "weekly_t4_dollars": lambda: 52 / 12 * 0.5 * T4_DOLLARS,
    "lora_70b_trained": lambda: e.lora_parameters(SEVENTY, 16),
    "adapter_in_table": lambda: 2 * 1024 * 512 + 512 + 1024,
    "lora_70b_hours": lambda: e.hours(6 * SEVENTY.parameters * 3000 * 512 * 3, A100, mfu=0.4),
    "t4_price_ratio": lambda: max(T4_IMPLIED) / min(T4_IMPLIED),
    "training_bill": lambda: 8 + 8 + 3 + 2.5 + 192,
    "cyclic_lowest": cyclic_lowest,
}  # fmt: skip
