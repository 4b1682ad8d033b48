"""The right values of the claims in `book/claims.yml` that arithmetic or a table can settle.

Each check returns a number, a list of numbers, a truth value or a short text, in the unit of its
claim. None trains or measures anything; the slowest needs about a second.
"""

from collections.abc import Callable
from functools import cache
from math import sqrt
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

from . import estimate as e
from .estimate import GB, SHAPES

if TYPE_CHECKING:
    from .data.catalogue import Title

BIG = SHAPES["Llama-3-70B"]
SEVEN = SHAPES["Llama-2-7B"]
Q, QV = ("q_proj",), ("q_proj", "v_proj")
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
QV_FFN = (*QV, "gate_proj", "up_proj", "down_proj")
# The scenario's job: 3,000 examples padded to 512 tokens, three epochs.
TOKENS = 3000 * 512 * 3
# Widths of 95 % intervals: z for the normal approximation of a share.
Z = NormalDist().inv_cdf(0.975)
# Leading singular values that the scenario draws for a full fine-tuning update.
SIGMA = (12.4, 8.7, 5.2, 3.1)
# Scores that the scenario gives for the two tasks: one adapter, the other, in turn, TIES.
MERGES = ((79.4, 68.2), (62.1, 91.5), (76.2, 85.3), (77.8, 88.1))


def evaluate(name: str) -> object:
    """Value of the check `name`; raises KeyError with the known names if there is none."""
    if name not in CHECKS:
        raise KeyError(f"no check {name!r}: add it to CHECKS ({len(CHECKS)} are there)")
    return CHECKS[name]()


def half_width(share: float, n: int) -> float:
    """Half of the 95 % interval of a share in 0..1 measured on n rows, in points."""
    return 100 * Z * sqrt(share * (1 - share) / n)


def lora(r: int, targets: object = QV) -> int:
    """LoRA parameters on Llama-3-70B."""
    return e.lora_parameters(BIG, r, targets)


def savings(targets: tuple[str, ...]) -> float:
    """Weights of `targets` of Llama-3-70B over their rank-16 LoRA parameters."""
    return sum(a * b for a, b in BIG.select(targets).values()) * BIG.layers / lora(16, targets)


def base_gb(double: bool) -> float:
    """GB of Llama-3-70B with all weights in NF4, constants included."""
    return BIG.parameters * e.bits_per_parameter(double=double) / 8 / GB


def full_to_lora(module: str) -> list[float]:
    """Full parameters, rank-16 LoRA parameters and their ratio for one module of one layer."""
    n_in, n_out = BIG.linears[module]
    small = 16 * (n_in + n_out)
    return [n_in * n_out, small, n_in * n_out / small]


def drawn_spectrum() -> list[float]:
    """The scenario's singular values, interpolated linearly inside the ranges that it gives."""
    line = lambda first, last, n: [first + (last - first) * i / (n - 1) for i in range(n)]  # noqa: E731
    return [*SIGMA, *line(2.8, 0.4, 12), *line(0.3, 0.01, 48)]


def drawn_energy(rank: int) -> float:
    """Percent of the squared singular values of `drawn_spectrum` in the first `rank`."""
    squares = [s * s for s in drawn_spectrum()]
    return 100 * sum(squares[:rank]) / sum(squares)


def job_hours(passes: int, device: str = "A100-80", devices: int = 1) -> float:
    """Hours of the scenario's job at 40 % of the data-sheet rate; `passes` FLOP a weight and token:
    4 for a frozen base, 6 to train it all, 2 more with checkpointing."""
    flops = passes * BIG.parameters * TOKENS
    return e.hours(flops, e.DEVICES[device], mfu=0.4, devices=devices)


def tokens_in(seconds: float, weight_bytes: float, device: str, devices: int) -> float:
    """Most tokens that reading the weights once a token allows in `seconds`."""
    return seconds / e.decode_seconds_per_token(weight_bytes, e.DEVICES[device], devices)


def nf4(level: int) -> float:
    """One level of the NF4 table."""
    from .training.quantize import nf4_levels

    return float(nf4_levels()[level])


@cache
def gaussian_codes(fmt: str) -> tuple[list[float], float, float]:
    """Level usage in percent, entropy in bits and MSE of 2**20 Gaussian weights, blocks of 64."""
    import torch

    from .training import quantize as q

    weight = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    coded = q.quantize(weight, fmt, 64)
    error = q.mean_squared_error(weight, q.dequantize(coded))
    return (100 * q.level_usage(coded)).tolist(), q.usage_entropy(coded), error


def outer_usage(fmt: str) -> float:
    """Percent of Gaussian weights on the two lowest and two highest levels."""
    usage = gaussian_codes(fmt)[0]
    return sum(usage[:2]) + sum(usage[-2:])


def scales_per_superscale() -> int:
    """How many first-level scales share one float32 scale in bitsandbytes."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    state = quantize_4bit(torch.ones(64, 64), compress_statistics=True, quant_type="nf4")[1]
    return state.state2.blocksize


def second_wrap_prefixes() -> int:
    """How often PEFT's prefix stands in the parameter names of a model that is wrapped twice."""
    import warnings

    import torch
    from peft import LoraConfig, get_peft_model

    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for r in (2, 1):
            model = get_peft_model(model, LoraConfig(r=r, target_modules=["0"]))
    return max(name.count("base_model.model") for name, _ in model.named_parameters())


def accepts(argument: str) -> bool:
    """Whether the installed `transformers.TrainingArguments` has this argument."""
    from dataclasses import fields

    from transformers import TrainingArguments

    return argument in {field.name for field in fields(TrainingArguments)}


def title(slug: str) -> "Title":
    """A title of the catalogue."""
    from .data import catalogue

    return catalogue.by_id(slug)


def memory(method: str, **options: object) -> float:
    """GB of the training states of Llama-3-70B, before activations."""
    return e.memory(BIG, method, batch=0, **options).total / GB


def checkpointed_gb() -> float:
    """GB of checkpointed activations and logits of Llama-3-70B at batch 4 and length 512."""
    kept = e.activation_bytes(BIG, 4, 512, checkpointing=True)
    return (kept + e.logits_bytes(BIG, 4, 512)) / GB


CHECKS: dict[str, Callable[[], object]] = {
    # shapes and counts
    "lora_70b_q": lambda: lora(16, Q),
    "lora_70b_qv": lambda: lora(16),
    "lora_70b_qkvo": lambda: lora(16, QKVO),
    "lora_70b_qv_ffn": lambda: lora(16, QV_FFN),
    "lora_70b_all": lambda: lora(16, e.ALL_LINEAR),
    "lora_70b_ranks": lambda: [lora(r) for r in (4, 8, 32, 64)],
    "lora_70b_share": lambda: 100 * e.lora_share(BIG, 16),
    "lora_7b_share": lambda: 100 * e.lora_share(SEVEN, 16),
    "peft_all_params_70b": lambda: BIG.parameters + lora(16),
    "adapter_mb_70b": lambda: e.adapter_bytes(BIG, 16) / 1e6,
    "adapter_mb_70b_ranks": lambda: [e.adapter_bytes(BIG, r) / 1e6 for r in (4, 8, 32, 64)],
    "adapter_mb_70b_all": lambda: e.adapter_bytes(BIG, 16, e.ALL_LINEAR) / 1e6,
    "w_q_savings": lambda: full_to_lora("q_proj"),
    "w_kv_savings": lambda: full_to_lora("v_proj"),
    "w_o_savings": lambda: full_to_lora("o_proj"),
    "attention_savings_70b": lambda: savings(QKVO),
    "ffn_width_70b": lambda: BIG.intermediate,
    "lora_v_shapes": lambda: [16, BIG.linears["v_proj"][0], BIG.linears["v_proj"][1], 16],
    "minilm_l6": lambda: SHAPES["all-MiniLM-L6-v2"].parameters,
    "minilm_l6_mb": lambda: SHAPES["all-MiniLM-L6-v2"].parameters * 4 / 1e6,
    "distilbert": lambda: SHAPES["distilbert-base-uncased"].parameters,
    "distilbert_multilingual": lambda: SHAPES["distilbert-base-multilingual-cased"].parameters,
    # memory
    "full_gb_70b": lambda: memory("full"),
    "qlora_gb_70b": lambda: memory("qlora"),
    "bf16_gb_70b": lambda: 2 * BIG.parameters / GB,
    "nf4_gb_70b": lambda: [base_gb(double=False), base_gb(double=True)],
    "double_quantisation_gb": lambda: base_gb(double=False) - base_gb(double=True),
    "absmax_gb": lambda: 70e9 / 64 * 4 / GB,
    "constant_bits": lambda: [e.bits_per_parameter(0, double=d) for d in (False, True)],
    "adapter_states_mb": lambda: [lora(16) * b / 1e6 for b in (2, 8, 2)],
    "adam8_mb": lambda: lora(16) * e.SCHEMES["bf16+adam8"].optimizer / 1e6,
    "frozen_saving_gb": lambda: BIG.parameters * (e.SCHEMES["mixed"].total - 2) / GB,
    "activations_gb": lambda: e.activation_bytes(BIG, 4, 512) / GB,
    "checkpointed_gb": checkpointed_gb,
    "layout_sum_gb": lambda: 33 + 0.168 + 0.672 + 0.168 + 20 + 26,
    "nf4_ratio": lambda: 16 / e.bits_per_parameter(),
    "qlora_total_gb": lambda: e.memory(BIG, "qlora", batch=4, length=512).total / GB,
    "s3_dollars": lambda: e.storage_cost(100 * e.adapter_bytes(BIG, 16), 0.023),
    "saved_mb": lambda: [lora(16) * 2 / 1e6, BIG.parameters * 2 / 1e6],
    "p4d_gb": lambda: 8 * e.DEVICES["A100-40"].memory / GB,
    "full_gb_7b": lambda: e.memory(SEVEN, "full", batch=0).total / GB,
    "lora_gb_7b": lambda: e.memory(SEVEN, "lora").total / GB,
    "qlora_gb_7b": lambda: e.memory(SEVEN, "qlora").total / GB,
    # four bits
    "mid_quantiles": lambda: [NormalDist().inv_cdf((i + 0.5) / 16) for i in (0, 4, 7, 8, 11, 15)],
    "nf4_level_0": lambda: nf4(0),
    "nf4_level_4": lambda: nf4(4),
    "nf4_level_7": lambda: nf4(7),
    "nf4_level_8": lambda: nf4(8),
    "nf4_level_11": lambda: nf4(11),
    "nf4_level_15": lambda: nf4(15),
    "nf4_is_symmetric": lambda: all(abs(nf4(i) + nf4(15 - i)) < 1e-6 for i in range(8)),
    "nf4_is_mid_quantiles": lambda: all(
        abs(nf4(i) - NormalDist().inv_cdf((i + 0.5) / 16)) < 0.01 for i in range(16)
    ),
    "nf4_centre_is_denser": lambda: nf4(8) - nf4(7) < nf4(15) - nf4(14),
    "nf4_entropy": lambda: gaussian_codes("nf4")[1],
    "int4_outer_usage": lambda: outer_usage("int4-asymmetric"),
    "scales_per_superscale": scales_per_superscale,
    # scaling, rank and spectrum
    "alpha_over_r": lambda: [8 / 8, 16 / 16, 32 / 16, 8 / 16],
    "drawn_energy": lambda: [drawn_energy(r) for r in (4, 16, 64)],
    "norm_to_energy": lambda: 100 * 0.93**2,
    "half_width_500": lambda: half_width(0.8, 500),
    "search_cells": lambda: 5 * 3 * 2 * 2,
    "readme_adapter_mb": lambda: [e.adapter_bytes(BIG, r) / 1e6 for r in (8, 16)],
    "readme_dollars_per_point": lambda: (480 - 240) / (92.5 - 91.8),
    # time and money
    "full_hours": lambda: job_hours(8, devices=8),
    "lora_hours": lambda: job_hours(6),
    "a10g_hours": lambda: job_hours(4, "A10G"),
    "full_dollars": lambda: e.cost(72, 3.67, devices=8),
    "flops_ratio": lambda: e.flops_per_token(1) / e.flops_per_token(1, frozen=True),
    "qlora_dollars": lambda: [8 / 6, 36 / 6],
    "p4d_month": lambda: 110 * 730,
    "tokens_in_800ms": lambda: tokens_in(0.8, 2 * BIG.parameters, "A100-40", 8),
    "ffn_dollars_per_point": lambda: (18 - 4) * 4 / (80.8 - 79.4),
    "rank_gains": lambda: [79.4 - 75.8, 80.1 - 79.4, 68.5 - 64.2],
    "ties_means": lambda: [fmean(pair) for pair in MERGES],
    "ties_kept": lambda: [100 * 77.8 / 79.4, 100 * 88.1 / 91.5],
    "lora_steps": lambda: e.steps(3000, 16, 3),
    "warmup_share": lambda: 100 * 100 / e.steps(3000, 16, 3),
    "dequantisation_slowdown": lambda: 100 * (6 / 4 - 1),
    "evaluation_strategy": lambda: accepts("evaluation_strategy"),
    "second_wrap_prefixes": second_wrap_prefixes,
    "group_by_length": lambda: accepts("group_by_length"),
    # titles
    "berserk_end": lambda: title("berserk").end_year or "running",
    "my_hero_academia_end": lambda: title("my-hero-academia").end_year,
    "volumes": lambda: [title("naruto").volumes, title("fairy-tail").volumes],
    # sampling error
    "half_width_200": lambda: half_width(0.8, 200),
    "half_width_readme": lambda: half_width(0.92, 500),
    "half_width_100": lambda: half_width(0.5, 100),
    "router_gate_noise": lambda: 100 * Z * sqrt(0.04 / 5500),
    "escalation_gate_noise": lambda: half_width(0.9, round(0.03 * 5500)),
    "single_label_ceiling": lambda: 100 - 18,
    "intent_steps": lambda: e.steps(44_000, 32, 3),
    "adapter_1024": lambda: 2 * 1024 * 512 + 512 + 1024,
    "adapter_steps": lambda: e.steps(27_000, 128, 4),
    "adapter_pairs": lambda: 18_000 + 4_000 + 2_000 + 3_000,
    "recall_gate_noise": lambda: half_width(0.82, 500),
    "escalation_needless": lambda: 100 * 0.97 * 0.08 / (0.97 * 0.08 + 0.03 * 0.92),
    "overall_of_five": lambda: fmean([88.1, 86.2, 94.2, 82.4, 91.5]),
    "golden_gate_size": lambda: (Z / 0.003) ** 2 * 0.04,
    "traffic_sum": lambda: 22 + 18 + 15 + 12 + 8 + 7 + 6 + 5 + 4 + 3,
}
