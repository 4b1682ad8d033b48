"""What each answer is asked: cases with known results, each with a hint for the plausible mistake."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Finding:
    """One case: what was asked, whether the answer holds, and what to think about if not."""

    ok: bool
    asked: str
    hint: str = ""


def _close(found: Any, wanted: float, tolerance: float = 1e-9) -> bool:
    try:
        return math.isclose(float(found), wanted, rel_tol=tolerance, abs_tol=tolerance)
    except (TypeError, ValueError):
        return False


def _raises(answer: Callable, *given: Any) -> bool:
    try:
        answer(*given)
    except ValueError:
        return True
    return False


def report(answer: Callable) -> Iterator[Finding]:
    """Exercise 1, against scikit-learn."""
    from sklearn.metrics import f1_score, recall_score

    rng = np.random.default_rng(0)
    classes = ["faq", "order", "return", "escalation"]
    cases = {
        "60 random messages": rng.choice(classes, (2, 60)).tolist(),
        "a class that is never predicted": [["faq", "order", "escalation"], ["faq", "order", "order"]],
        "a class that the test set does not contain": [["faq", "order"], ["faq", "faq"]],
    }
    for name, (truth, said) in cases.items():
        told = answer(list(truth), list(said), classes)
        options = {"labels": classes, "average": "macro", "zero_division": 0}
        wanted = {
            "accuracy": float(np.mean([t == s for t, s in zip(truth, said, strict=True)])),
            "macro_recall": recall_score(truth, said, **options),
            "macro_f1": f1_score(truth, said, **options),
        }
        for key, value in wanted.items():
            hint = (
                f"{key} should be {value:.4f}; is every class in the mean, also with nothing to divide?"
            )
            yield Finding(_close(told.get(key), value), f"{name}: {key}", hint)
    yield Finding(
        _raises(answer, ["faq"], [], classes), "lists of different length", "raise ValueError"
    )


def lora(answer: Callable) -> Iterator[Finding]:
    """Exercise 2, against PEFT's own merge."""
    import torch
    from peft import LoraConfig, get_peft_model

    for rank, alpha in ((4, 8), (8, 8), (2, 32)):
        torch.manual_seed(rank)
        base = torch.nn.Sequential(torch.nn.Linear(12, 7, bias=False))
        weight = base[0].weight.detach().numpy().copy()
        model = get_peft_model(base, LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0"]))
        layer = model.base_model.model[0]
        torch.nn.init.normal_(layer.lora_B["default"].weight)
        a, b = (getattr(layer, x)["default"].weight.detach().numpy() for x in ("lora_A", "lora_B"))
        given = weight.copy()
        told = answer(given, a, b, alpha)
        layer.merge()
        asked = f"rank {rank}, alpha {alpha}"
        same = np.shape(told.get("merged")) == weight.shape
        same = same and np.allclose(told["merged"], layer.weight.detach().numpy(), atol=1e-5)
        yield Finding(same, f"{asked}: merged", "the product of b and a is scaled by alpha / r")
        count = model.get_nb_trainable_parameters()[0]
        yield Finding(told.get("parameters") == count, f"{asked}: parameters", f"PEFT counts {count}")
        yield Finding(
            bool((given == weight).all()), f"{asked}: weight untouched", "copy before you add"
        )


def gigabytes(answer: Callable) -> Iterator[Finding]:
    """Exercise 3, by arithmetic."""
    for parameters, block, double, second in (
        (7_000_000_000, 64, True, 256),
        (7_000_000_000, 64, False, 256),
        (65_000_000_000, 128, True, 512),
    ):
        scale = 8 / block + 32 / (block * second) if double else 32 / block
        wanted = parameters * (4 + scale) / 8 / 1e9
        told = answer(parameters, block, double, second)
        asked = f"{parameters:,} weights, block {block}, double quantization {double}"
        half = parameters / 2 / 1e9
        hint = f"{wanted:.3f} GB; {half:.2f} GB would be the weights without their scales"
        yield Finding(_close(told, wanted, 1e-6), asked, hint)


def deduplicated(answer: Callable) -> Iterator[Finding]:
    """Exercise 4."""
    row = lambda a, b: {"input": a, "output": b}  # noqa: E731
    cases = [
        ("same twice", [row("a", "1"), row("a", "1")], [0], "the first stays"),
        ("case and white space", [row("Is  it in stock? ", "yes"), row("is it in stock?", "Yes")], [0],
         "normalise input and output before comparing"),
        ("full-width letters", [row("ＯＮＥ ＰＩＥＣＥ", "x"), row("one piece", "x")], [0],
         "NFKC turns full-width letters into plain ones"),
        ("one input, two outputs", [row("volumes?", "27"), row("volumes?", "28")], [0, 1],
         "these two disagree: a person must look, so both stay"),
        ("order and rows", [row("B", "1"), row("a", "2"), row("b", "1"), row("C ", "3")], [0, 1, 3],
         "keep the first, in order, exactly as it came"),
        ("parts that run together", [row("ab", "c"), row("a", "bc")], [0, 1],
         "input and output are compared apart, not glued together"),
    ]  # fmt: skip
    for name, rows, kept, hint in cases:
        told = answer([dict(r) for r in rows])
        yield Finding(list(told or []) == [rows[i] for i in kept], name, hint)


def choose(answer: Callable) -> Iterator[Finding]:
    """Exercise 5."""
    table = {  # setting: validation scores, test scores, seconds
        "steady": ([0.80, 0.81, 0.82], [0.70, 0.70, 0.70], 30),
        "lucky": ([0.90, 0.70, 0.70], [0.72, 0.72, 0.72], 20),
        "test star": ([0.75, 0.76, 0.74], [0.95, 0.95, 0.95], 40),
        "quick": ([0.60, 0.61, 0.62], [0.6, 0.6, 0.6], 5),
    }
    runs = [
        {"setting": name, "seed": i, "validation": v, "test": t, "seconds": seconds + i - 1}
        for name, (validation, tests, seconds) in table.items()
        for i, (v, t) in enumerate(zip(validation, tests, strict=True))
    ]
    told = answer(list(reversed(runs)))
    hint = "the mean over seeds on validation decides: not the best seed, not the test score"
    yield Finding(told.get("setting") == "steady", "setting", hint)
    yield Finding(_close(told.get("test"), 0.70), "test score of the chosen setting", "its mean, 0.70")
    yield Finding(
        list(told.get("front", [])) == ["quick", "lucky", "steady"],
        "front",
        "from fast to slow; `test star` is slower and worse on validation than `steady`",
    )
    twin = [{**r, "setting": "twin"} for r in runs if r["setting"] == "quick"]
    found = set(answer(runs + twin).get("front", []))
    yield Finding(
        {"quick", "twin"} <= found, "two equal settings", "neither beats the other: both stay"
    )


def dpo_loss(answer: Callable) -> Iterator[Finding]:
    """Exercise 6, against the loss that chapter 10 trains with."""
    import torch

    from ..training.preference import dpo_loss as ours

    rng = np.random.default_rng(0)
    zero = np.zeros(3)
    yield Finding(
        _close(answer(zero, zero, zero, zero, 0.1), math.log(2)),
        "policy = reference",
        "with a margin of zero the loss is ln 2",
    )
    for beta in (0.1, 0.5):
        pc, pr, rc, rr = rng.normal(-40, 8, (4, 32))
        policy, reference = (torch.tensor(np.concatenate(pair)) for pair in ((pc, pr), (rc, rr)))
        wanted = float(ours(policy, reference, beta))
        hint = f"{wanted:.4f}: -log sigmoid of beta times (policy's margin - reference's margin)"
        yield Finding(
            _close(answer(pc, pr, rc, rr, beta), wanted, 1e-6), f"32 pairs, beta {beta}", hint
        )
    far = np.array([5000.0])
    zero = np.zeros(1)
    yield Finding(_close(answer(far, zero, zero, zero, 1.0), 0.0), "margin + 5,000", "no overflow")
    yield Finding(
        _close(answer(zero, far, zero, zero, 1.0), 5000.0),
        "margin - 5,000",
        "log(1 + exp(x)) is x for large x: np.logaddexp(0, x)",
    )


def route(answer: Callable) -> Iterator[Finding]:
    """Exercise 7."""
    names = ["persona", "json", "facts"]
    ask = lambda request: answer(request, list(names), 20)  # noqa: E731
    status, message = ask({"adapter": "persona", "text": "hello"})
    yield Finding(
        status == 200 and "persona" in message, "a good request", "200 and the adapter's name"
    )
    status, message = ask({"adapter": "poetry", "text": "hello"})
    named = "poetry" in message and all(name in message for name in names)
    yield Finding(status == 404 and named, "an unknown adapter", "name it, and all that are there")
    status, message = ask({"adapter": "json", "text": "x" * 21})
    yield Finding(
        status == 413 and "21" in message and "20" in message, "a long text", "length and limit"
    )
    yield Finding(ask({"adapter": "json", "text": "x" * 20})[0] == 200, "exactly the limit", "may pass")
    for bad in ({"adapter": "json"}, {"adapter": "json", "text": ""}, {"adapter": "json", "text": 7},
                {"adapter": ["json"], "text": "x"}, ["json", "x"], None):  # fmt: skip
        yield Finding(
            ask(bad)[0] == 422, f"the request {bad!r}", "422, before anything else is looked up"
        )


def gate(answer: Callable) -> Iterator[Finding]:
    """Exercise 8."""
    rng = np.random.default_rng(1)
    good = (rng.random(4000) < 0.9).astype(int)
    small = good[:40].copy()
    worse = good.copy()
    worse[np.flatnonzero(good)[:120]] = 0
    noisy = small.copy()
    noisy[:4] = 1 - noisy[:4]
    low = (rng.random(4000) < 0.8).astype(int)
    cases = [
        (
            "the same model",
            good,
            good,
            0.85,
            0.01,
            True,
            "",
            "nothing changed, above the floor: it passes",
        ),
        (
            "three points worse",
            good,
            worse,
            0.5,
            0.01,
            False,
            "champion",
            "the interval lies below -margin",
        ),
        (
            "as good as a champion that crept down",
            low,
            low,
            0.85,
            0.01,
            False,
            "floor",
            "equal to its champion and below the floor: this is how a gate creeps",
        ),
        (
            "forty messages, four of them flipped",
            small,
            noisy,
            0.5,
            0.01,
            False,
            "champion",
            "too few messages to show that it is no worse: the lower end decides, not the difference",
        ),
        (
            "worse, within the margin",
            good,
            worse,
            0.5,
            0.05,
            True,
            "",
            "the lower end is above -margin",
        ),
    ]
    for name, champion, candidate, floor, margin, wanted, word, hint in cases:
        passes, reason = answer(champion.tolist(), candidate.tolist(), floor, margin)
        yield Finding(bool(passes) == wanted and word in str(reason), name, hint)
    yield Finding(
        _raises(answer, [1], [1, 0], 0.5, 0.1), "lists of different length", "raise ValueError"
    )


CHECKS: dict[int, Callable[[Callable], Iterator[Finding]]] = {
    1: report, 2: lora, 3: gigabytes, 4: deduplicated, 5: choose, 6: dpo_loss, 7: route, 8: gate,
}  # fmt: skip
