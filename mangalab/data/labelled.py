"""Short texts of the shop with what they are and which genre they speak of, for chapter 15.

Nothing is written anew: descriptions come from the catalogue, questions from ``qa``, searches from
``retrieval``, messages from ``intents``. Genre words are not part of a description's text.
"""

import random
from collections import Counter
from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue, intents, qa, retrieval
from mangalab.data.catalogue import Title

KINDS = ("description", "question", "search", "message")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Text:
    """One text; ``genre`` is empty where no single title is meant."""

    text: str
    kind: str
    genre: str


@cache
def genres(n: int = 8) -> tuple[str, ...]:
    """The ``n`` most frequent genres of the catalogue, most frequent first."""
    counted = Counter(g for t in catalogue.load() for g in t.genres)
    return tuple(name for name, _ in counted.most_common(n))


def genre(title: Title) -> str:
    """The rarest of a title's genres among ``genres()``: "Sports" says more than "Drama"."""
    known = [g for g in genres() if g in title.genres]
    return known[-1] if known else ""


def load(split: str, n: int, seed: int = 0) -> tuple[Text, ...]:
    """At most ``n`` texts of each kind, drawn by ``seed``; no title is described in two splits.

    Raises ValueError for a split other than train, validation and test.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; use one of {', '.join(SPLITS)}")
    found = []
    for kind, source in zip(KINDS, (_described, _asked, _searched, _said), strict=True):
        texts = [pair for pair in source(split) if len(pair[0].split()) > 2]  # one token tells nothing
        drawn = random.Random(f"{seed}:{split}:{kind}").sample(texts, min(n, len(texts)))
        found += [Text(text, kind, label) for text, label in drawn]
    return tuple(found)


def _described(split: str) -> list[tuple[str, str]]:
    held = retrieval.held_out()
    wanted = {
        "train": lambda i, t: t.id not in held and i % 8,
        "test": lambda i, t: t.id in held,
        "validation": lambda i, t: t.id not in held and not i % 8,
    }[split]
    titles = [t for i, t in enumerate(catalogue.load()) if wanted(i, t)]
    return [(f"{t.title}. {t.pitch} Themes: {', '.join(t.themes)}. Tone: {', '.join(t.tone)}.",
             genre(t)) for t in titles]


def _asked(split: str) -> list[tuple[str, str]]:
    return [(f"{q.question} {q.answer}.", genre(catalogue.by_id(q.title_id))) for q in qa.load(split)]


def _searched(split: str) -> list[tuple[str, str]]:
    found = []
    for query in retrieval.queries(split):
        meant = query.need.find or tuple(filter(None, [query.need.like]))
        found.append((query.text, genre(catalogue.by_id(meant[0])) if len(meant) == 1 else ""))
    return found


def _said(split: str) -> list[tuple[str, str]]:
    return [(message.text, "") for message in intents.load(split)]
