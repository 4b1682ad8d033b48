"""General interview questions cover the source list, and figures in the answers come out again."""

import re
from math import comb, log, sqrt
from pathlib import Path
from statistics import NormalDist

import pytest
import yaml

from mangalab.book.interview import load_bank
from mangalab.estimate import DEVICES, GB, SHAPES, bits_per_parameter, lora_parameters, quantised_bytes

ROOT = Path(__file__).parents[1]
SEED = {f"001-Q10.{number}" for number in range(1, 7)}
BANKS = sorted((ROOT / "book" / "interview").glob("*.yml"))
L2_7B, L3_8B, L3_70B = (SHAPES[n] for n in ("Llama-2-7B", "Llama-3-8B", "Llama-3-70B"))


@pytest.fixture(scope="module")
def general():
    return {entry["id"]: entry for entry in load_bank(ROOT / "book" / "interview" / "general.yml")}


def test_every_question_of_the_source_list_is_covered():
    covered = {name for path in BANKS for entry in load_bank(path) for name in entry.get("covers", [])}
    assert covered == SEED


def test_quoted_chapters_exist(general):
    chapters = yaml.safe_load((ROOT / "chapters.yml").read_text(encoding="utf8"))
    quoted = re.findall(r"\{(\d\d-[a-z0-9-]+):\w+\}", str(general))
    assert quoted and set(quoted) <= set(chapters)


def half_width(p: float, n: int) -> float:
    """Half of the 95 % interval of a proportion, in points."""
    return 196 * sqrt(p * (1 - p) / n)


def expected_maximum(n: int, steps: int = 20_000) -> float:
    """Mean of the largest of n standard normal draws: quantiles averaged over its distribution."""
    normal = NormalDist()
    return sum(normal.inv_cdf(((i + 0.5) / steps) ** (1 / n)) for i in range(steps)) / steps


def train_seconds(operations: float, device: str) -> float:
    return operations / (DEVICES[device].flops * 0.4)


def figures() -> list[tuple[str, str]]:
    """(question, figure as its answer prints it), each computed here."""
    adapter_7b = lora_parameters(L2_7B, 16, "all-linear") * 16 / GB
    nf4_7b = quantised_bytes(L2_7B) / GB
    states_70b = L3_70B.parameters / GB
    rest_8b = L3_8B.parameters - L3_8B.linear_parameters
    int4_8b = L3_8B.linear_parameters * (4 + 20 / 128) / 8 / GB
    lora_8b = 4 * L3_8B.parameters * 20e6
    disagree = (20 / 200 - 0.04**2) / 200
    return [
        (
            "kinds-of-fine-tuning",
            f"{train_seconds(4 * L2_7B.parameters * 4.608e6, 'A100-80') / 60:.0f} minutes",
        ),
        ("kinds-of-fine-tuning", f"{3000 * 5 / 60:.0f} hours"),
        ("read-a-loss-curve", f"{log(L3_8B.vocab):.2f}"),
        ("sort-six-requests", f"${1500 * 1e5 / 1e6 * 0.5:.0f} a day"),
        ("memory-7b", f"{L2_7B.parameters * 16 / GB:.0f} GB"),
        ("memory-7b", f"{L2_7B.parameters * 2 / GB:.1f} + {adapter_7b:.1f} = 14.1 GB"),
        ("memory-7b", f"{nf4_7b:.1f} + {adapter_7b:.1f} = {nf4_7b + adapter_7b:.1f} GB"),
        ("memory-7b", f"{bits_per_parameter():.3f} bits"),
        ("batch-and-learning-rate", f"100 / 563 = {100 / 562.5:.0%}".replace("%", " %")),
        ("packing", f"512 / 180 = {512 / 180:.1f} times"),
        ("two-models-two-hundred-examples", f"{2 * sum(comb(20, k) for k in range(7)) / 2**20:.3f}"),
        ("two-models-two-hundred-examples", f"{196 * sqrt(disagree):.1f} points"),
        ("two-models-two-hundred-examples", f"{1.96**2 * disagree * 200 / 0.04**2:.0f}"),
        ("weight-formats", f"{int4_8b:.2f} GB"),
        ("weight-formats", f"together {int4_8b + rest_8b * 2 / GB:.2f} GB"),
        ("dpo-or-rlhf", f"{log(2):.3f}"),
        ("small-or-large", f"{L3_8B.parameters * 2 / DEVICES['H100'].bandwidth * 1e3:.1f} ms"),
        ("forgetting-remedies", f"{half_width(0.8, 200):.1f} points"),
        ("evaluation-plan", f"{half_width(0.5, 100):.1f} points"),
        ("shard-a-70b", f"{16 * states_70b:,.0f} GB"),
        ("shard-a-70b", f"{4 * states_70b + 12 * states_70b / 16:.0f} GB"),
        ("shard-a-70b", f"{2 * states_70b + 14 * states_70b / 16:.0f} GB"),
        ("shard-a-70b", f"{16 * states_70b / 16:.1f} GB"),
        ("shard-a-70b", f"{2 * states_70b + 14 * states_70b / 64:.0f} GB"),
        ("gradient-checkpointing", f"{34 * 2048 * 4096 * 32 / GB:.2f} GB"),
        ("many-adapters", f"{lora_parameters(L3_8B, 16, 'all-linear') * 2 / 1e6:.0f} MB"),
        ("many-adapters", f"{L3_8B.parameters * 200 / 1e12:.1f} TB"),
        ("preference-failures", f"{log(16) - 15 / 16:.2f} nats"),
        ("safety-regression", f"{100 * (1 - 0.05 ** (1 / 300)):.1f} %"),
        ("cost-of-a-run", f"{train_seconds(lora_8b, 'H100') / 60:.0f} min"),
        ("cost-of-a-run", f"{train_seconds(lora_8b, 'A100-80') / 60:.0f} min"),
        ("spend-twelve-runs", f"{expected_maximum(12):.2f}"),
        ("retraining-policy", f"{100 * (1 - 0.95**20):.0f} %"),
    ]


@pytest.mark.parametrize(("question", "figure"), figures())
def test_figure_comes_out_again(general, question, figure):
    entry = general[question]
    text = " ".join(f"{entry['answer']} {entry.get('napkin')}".split())
    assert figure in text, figure
