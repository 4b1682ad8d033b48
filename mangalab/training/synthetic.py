"""Messages and questions written by the local language model, and the filters that they must pass.

The model continues a list: six real messages of an intent, then its own. A chat prompt was tried first;
a model of this size then talks *about* messages instead of writing them.
"""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from ..data import catalogue, qa, raft
from ..data._files import read_rows
from ..data.intents import INTENTS

TOPICS = {
    "product_discovery": "which titles there are by genre, format or price",
    "recommendation": "what to read next, by taste and mood",
    "product_question": "one given title or edition",
    "order_tracking": "where a parcel is",
    "faq": "the general rules of the shop",
    "return_request": "sending one item back or getting the money back",
    "chitchat": "small talk, thanks and greetings",
    "promotion": "discounts, coupons, sales and points",
    "checkout_help": "trouble with the basket, the payment or the order form",
    "escalation": "demanding a human agent or a manager",
}
HEAD = "Messages of customers to the support of an online manga shop"
SHOTS = 6
FACT_SHOTS = (
    ("Title: Berserk. Author: Kentaro Miura.", "author", "Who is the writer behind Berserk?"),
    ("Title: Nana. First year: 2000.", "first year", "In what year did Nana begin to run?"),
    ("Title: One Piece. Magazine: Weekly Shonen Jump.", "magazine",
     "Which magazine does One Piece run in?"),
)  # fmt: skip
WORDS = (3, 30)  # a message of fewer or more words is dropped


def by_hand(split: str = "train") -> dict[str, list[str]]:
    """The lines that were written one by one for ``split``, by intent, in file order."""
    rows = [row for row in read_rows("intents_seeds.tsv") if row["split"] == split]
    return {name: [row["text"] for row in rows if row["intent"] == name] for name in INTENTS}


def prompts(each: int, seed: int = 0) -> list[tuple[str, str]]:
    """``each`` (intent, prompt) pairs an intent, with examples from the *first half* of its lines.

    The second half stays unseen by the model, so that real rows can compete with its rows.
    """
    rng, found = random.Random(seed), []
    for name, lines in by_hand().items():
        for _ in range(each):
            shown = "\n".join(f"- {line}" for line in rng.sample(lines[: len(lines) // 2], SHOTS))
            found.append((name, f"{HEAD}, all about {TOPICS[name]}:\n\n{shown}\n-"))
    return found


def fact_prompts(n: int, seed: int = 0) -> list[tuple[qa.QA, str]]:
    """``n`` facts of the catalogue, each with a prompt that asks for a question about it."""
    facts = list(qa.load("train", relations=("author", "year", "magazine")))
    shown = "\n\n".join(f"{fact}\nQuestion about the {what}: {text}" for fact, what, text in FACT_SHOTS)
    found = []
    for fact in random.Random(seed).sample(facts, n):
        title = catalogue.by_id(fact.title_id).title
        label = raft.LABELS[fact.relation]
        ask = f"Title: {title}. {label}: {fact.answer}.\nQuestion about the {label.lower()}:"
        found.append((fact, f"{shown}\n\n{ask}"))
    return found


def write(
    folder: Path, prompts_each: int, replies: int, tokens: int, facts: int, temperature: float,
    seed: int,
) -> dict:
    """Generate and store; for :func:`mangalab.artifacts.cached`. Returns counts as ``meta``."""
    import torch

    from ..models import load_causal_lm

    model, tokenizer = load_causal_lm()
    model = model.to("cpu")  # the drafts that were read (``reviewed``) were drawn on a CPU
    asked, about = prompts(prompts_each, seed), fact_prompts(facts, seed)
    generator = torch.Generator().manual_seed(seed)
    heads = [prompt for _, prompt in asked]
    texts, n = _continue(model, tokenizer, heads, replies, tokens, temperature, generator)
    messages = [
        {"intent": asked[i // replies][0], "text": line}
        for i, text in enumerate(texts)
        for line in lines(text)
    ]
    answers, m = _continue(model, tokenizer, [p for _, p in about], 1, tokens, temperature, generator)
    questions = [
        {"fact": fact.id, "title_id": fact.title_id, "relation": fact.relation, "answer": fact.answer,
         "text": text.split("\n")[0].strip()}
        for (fact, _), text in zip(about, answers, strict=True)
    ]  # fmt: skip
    content = json.dumps({"messages": messages, "questions": questions}, ensure_ascii=False, indent=1)
    (Path(folder) / "generated.json").write_text(content, encoding="utf8")
    return {"messages": len(messages), "questions": len(questions), "tokens": n + m}


def reviewed() -> dict[tuple[str, str], bool]:
    """Whether a person kept a generated message, by (intent, text); see the card of the file."""
    rows = read_rows("synthetic_reviewed.tsv")
    return {(row["intent"], row["text"]): row["keep"] == "1" for row in rows}


def lines(text: str) -> list[str]:
    """The finished lines of a continued list, without bullets; the last one was cut off."""
    cleaned = (re.sub(r"^\s*([-*•]|\d+[.)])\s+", "", line).strip() for line in text.split("\n")[:-1])
    return [line for line in cleaned if len(line) > 1]


def length_ok(text: str) -> bool:
    """Whether a message has between 3 and 30 words and does not loop."""
    words = text.casefold().split()
    return WORDS[0] <= len(words) <= WORDS[1] and len(set(words)) > 0.6 * len(words)


def leaks_answer(question: str, answer: str) -> bool:
    """Whether a question gives its answer away."""
    return qa.normalise(answer) in qa.normalise(question)


def _continue(
    model, tokenizer, heads: Sequence[str], each: int, tokens: int, temperature: float, generator
) -> tuple[list[str], int]:
    """``each`` continuations of every prompt and the number of new tokens; prompts are read once."""
    from .sampling import Sampler

    sampler = Sampler(model, tokenizer, next(model.parameters()).dtype)
    ids = [tokenizer(head)["input_ids"] for head in heads]
    found = sampler._sample(ids, tokens, temperature, generator, each)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in found], sum(map(len, found))
