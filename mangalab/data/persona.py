"""A persona for style tuning: the shop's old shelf answers customers in a fixed house style.

Training dialogues come from a small grammar (`persona_templates.tsv`); validation and test dialogues,
prompt and answer, were written by hand and name titles that training never names.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue
from mangalab.data._files import read_rows

SPLITS = ("train", "validation", "test")
OPENING, CLOSING = "Ah, reader,", "Mind the spine."
MAX_WORDS = 20  # between opening and closing
FIRST_PERSON = frozenset(
    "i i'm i'll i've i'd me my mine myself we we're we'll we've us our ours".split())
# what a prompt would say; soft prompts and prefixes may start from it
INSTRUCTION = "You are an old shelf. Begin with Ah, reader, and end with Mind the spine.\n"


@dataclass(frozen=True)
class Line:
    """One exchange; `answer` is in the house style."""

    prompt: str
    answer: str
    topic: str
    split: str  # one of SPLITS


def load(split: str, n: int | None = None, seed: int = 0) -> tuple[Line, ...]:
    """Dialogues of a split; `n` keeps the first n (train: draws n different ones, by `seed`).

    Raises ValueError for an unknown split, or for more than the split or its grammar holds.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    found = _drawn(n or 96, seed) if split == "train" else _by_hand(split)[:n]
    if n is not None and len(found) < n:
        raise ValueError(f"{split} has {len(found)} dialogues, asked for {n}")
    return found


def rules(answer: str) -> dict[str, bool]:
    """Which rules of the house style an answer keeps; objective, no judge."""
    text = " ".join(answer.split())
    opens, closes = text.startswith(OPENING), text.endswith(CLOSING)
    middle = text[len(OPENING) if opens else 0 : -len(CLOSING) if closes else None].strip()
    words = re.findall(r"[\w'’-]+", text.casefold().replace("’", "'"))
    return {
        "opening": opens,
        "closing": closes,
        "no first person": bool(words) and not FIRST_PERSON & set(words),
        "one short sentence": _is_one_sentence(middle),
        "calm": bool(words) and "!" not in text,
    }


def train_titles() -> tuple[str, ...]:
    """Short, plainly spelled titles that no hand-written dialogue names."""
    written = " ".join(f"{d.prompt} {d.answer}" for s in SPLITS[1:] for d in _by_hand(s)).casefold()
    return tuple(
        t.title for t in catalogue.load()
        if re.fullmatch(r"[A-Za-z0-9 ]{1,14}", t.title) and t.title.casefold() not in written
        and not FIRST_PERSON & set(t.title.casefold().split()))


def _is_one_sentence(middle: str) -> bool:
    ends = len(re.findall(r"[.?!]+(?=\s|$)", middle))
    return ends == 1 and middle[-1:] in ".?!" and 1 <= len(middle.split()) <= MAX_WORDS


def _drawn(n: int, seed: int) -> tuple[Line, ...]:
    """`n` different dialogues, topics in turn."""
    rng, titles, parts = random.Random(seed), train_titles(), _grammar()
    topics = sorted({topic for topic, _ in parts})
    found: dict[tuple[str, str], Line] = {}
    for turn in range(50 * n):
        topic = topics[turn % len(topics)]
        prompt, answer = (_pick(rng, parts[topic, part]) for part in ("prompt", "answer"))
        title = _pick(rng, titles)
        answer = f"{OPENING} {answer.format(t=title)} {CLOSING}"
        line = Line(prompt.format(t=title), answer, topic, "train")
        found.setdefault((line.prompt, line.answer), line)
        if len(found) == n:
            break
    return tuple(found.values())


def _pick(rng: random.Random, items: Sequence[str]) -> str:
    return items[int(rng.random() * len(items))]


@cache
def _grammar() -> dict[tuple[str, str], tuple[str, ...]]:
    parts: dict[tuple[str, str], tuple[str, ...]] = {}
    for row in read_rows("persona_templates.tsv"):
        key = (row["topic"], row["part"])
        parts[key] = (*parts.get(key, ()), row["text"])
    return parts


@cache
def _by_hand(split: str) -> tuple[Line, ...]:
    rows = read_rows(f"persona_{split}.tsv")
    return tuple(Line(r["prompt"], r["answer"], r["topic"], split) for r in rows)
