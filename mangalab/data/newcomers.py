"""Messages of four intents that the router of chapter 01 does not know, and their look-alikes.

Validation and test were written by hand. The pool from which few-shot supports are drawn comes
from hand-written lines with alternatives and fillers, four messages a line.
"""

import random
import re
from dataclasses import dataclass
from functools import cache

from mangalab.data._files import read_rows
from mangalab.data.intents import INTENTS

NEWCOMERS = ("preorder", "gift_bundle", "product_recall", "japanese_query")
DESCRIPTIONS = {
    "preorder": "The customer wants to reserve or buy a book before it is released.",
    "gift_bundle": "The customer wants several items packed together as a present for somebody.",
    "product_recall": "The customer asks whether a product was recalled as unsafe or defective.",
    "japanese_query": "The customer writes in Japanese: 日本語のメッセージです。",
}
SPLITS = ("pool", "validation", "test")
VARIANTS = 4  # messages made from each line of the pool


@dataclass(frozen=True)
class Newcomer:
    """One message. `near` names the new intent that a look-alike resembles; else it is empty."""

    id: str
    text: str
    intent: str
    near: str
    slices: tuple[str, ...]
    split: str


def load(split: str) -> tuple[Newcomer, ...]:
    """Messages of one split in file order: new intents first, then look-alikes of old ones.

    Raises ValueError for an unknown split or intent.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} of newcomers; use one of {', '.join(SPLITS)}")
    if split == "pool":
        return tuple(found for row in read_rows("newcomers_lines.tsv") for found in _made(row))
    rows = read_rows(f"newcomers_{split}.tsv")
    return tuple(_newcomer(row, row["text"], row["slices"].split(";"), split) for row in rows)


def _newcomer(row: dict[str, str], text: str, slices, split: str, mark: str = "") -> Newcomer:
    known = NEWCOMERS if not row["near"] else INTENTS
    if row["intent"] not in known or row["near"] not in ("", *NEWCOMERS):
        raise ValueError(f"{row['id']} of {split}: intent {row['intent']!r}, near {row['near']!r}")
    return Newcomer(row["id"] + mark, text, row["intent"], row["near"], tuple(slices), split)


def _made(row: dict[str, str]) -> list[Newcomer]:
    """Up to `VARIANTS` different messages of one line; the line's id is the seed."""
    rng = random.Random(row["id"])
    texts = list(dict.fromkeys(_filled(row["text"], rng) for _ in range(20 * VARIANTS)))[:VARIANTS]
    return [_newcomer(row, text, ("made",), "pool", f"-{k}") for k, text in enumerate(texts)]


def _filled(line: str, rng: random.Random) -> str:
    """One message: each [a|b] takes an alternative, each {slot} a filler; {t2} differs from {t}."""
    text = re.sub(r"\[([^][]*)\]", lambda m: rng.choice(m[1].split("|")), line)
    for slot in re.findall(r"\{(\w+)\}", text):
        fillers = [f for f in _slots()[slot.rstrip("2")] if f not in text]
        text = text.replace(f"{{{slot}}}", rng.choice(fillers), 1)
    return re.sub(r"\s+", " ", text).strip()


@cache
def _slots() -> dict[str, list[str]]:
    return {row["slot"]: row["fillers"].split("|") for row in read_rows("newcomers_slots.tsv")}
