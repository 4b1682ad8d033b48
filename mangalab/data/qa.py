"""Closed-book questions over the catalogue's stable facts.

Train and validation questions come from two disjoint sets of templates; test questions were
written by hand. About 70 % of the titles are taught, the others are never asked in training.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue
from mangalab.data._files import read_rows
from mangalab.data.catalogue import Title

RELATIONS = ("author", "year", "magazine", "demographic", "volumes")
SPLITS = ("train", "validation", "test", "untaught")

# These series changed magazine (the catalogue has the last one), so the question has two answers.
MOVED = frozenset(
    """
    7-seeds a-brides-story barakamon battle-angel-alita-last-order biomega chainsaw-man
    claymore dorohedoro gintama hinamatsuri honey-and-clover ikigami-the-ultimate-limit
    kase-san-and laid-back-camp mob-psycho-100 mpd-psycho neon-genesis-evangelion orange
    phoenix pokemon-adventures ptsd-radio rainbow-nisha-rokubou-no-shichinin rozen-maiden
    sengoku-youko sing-yesterday-for-me the-ancient-magus-bride tomie vinland-saga
    we-were-there world-trigger xxxholic
    """.split()
)
# Tezuka began it several times.
NO_ONE_YEAR = frozenset({"phoenix"})


@dataclass(frozen=True)
class QA:
    """A question with one canonical answer; `accept` holds other answers that count as right."""

    id: str
    question: str
    answer: str
    relation: str  # one of RELATIONS
    title_id: str
    split: str  # one of SPLITS
    accept: tuple[str, ...] = ()


def load(
    split: str,
    relations: Sequence[str] | None = None,
    titles: int | None = None,
    per_fact: int = 1,
    seed: int = 0,
) -> tuple[QA, ...]:
    """Questions of one split, always the same for the same arguments.

    `relations` limits what is asked (default: all). `titles` keeps the first n taught titles in the
    order of `taught()`; with the same n, train, validation and test ask about the same titles.
    `per_fact` is the number of wordings of each fact in train and validation, chosen by `seed`.
    """
    _check(split, relations, titles)
    relations = tuple(relations or RELATIONS)
    if split in ("train", "validation"):
        return _from_templates(split, relations, taught()[:titles], per_fact, seed)
    known = untaught() if split == "untaught" else taught()[:titles]
    wanted = {title.id for title in known}
    return tuple(
        qa
        for qa in _by_hand()
        if qa.split == split and qa.title_id in wanted and qa.relation in relations
    )


@cache
def taught() -> tuple[Title, ...]:
    """Titles that training may ask about: 64 lesser-known ones first, then the rest."""
    core = [row["title_id"] for row in read_rows("qa_core.tsv")]
    rest = [t.id for t in catalogue.load() if _is_taught(t.id) and t.id not in core]
    order = sorted(core, key=_order) + sorted(rest, key=_order)
    return tuple(catalogue.by_id(title_id) for title_id in order)


@cache
def untaught() -> tuple[Title, ...]:
    """Titles that no training or validation question names."""
    return tuple(title for title in catalogue.load() if not _is_taught(title.id))


def askable(title: Title, relation: str) -> bool:
    """Whether the title has exactly one right answer for the relation."""
    if relation == "magazine":
        return bool(title.magazine) and title.id not in MOVED
    if relation == "year":
        return title.id not in NO_ONE_YEAR
    return bool(getattr(title, relation))


def answers(title: Title, relation: str) -> tuple[str, ...]:
    """The canonical answer, then the other ones that count as right."""
    if relation == "author":
        both_ways = [title.author, " and ".join(reversed(title.authors)), *title.authors]
        family_name_first = [" ".join(reversed(name.split())) for name in title.authors]
        return tuple(dict.fromkeys(both_ways + family_name_first))
    answer = str(getattr(title, relation))
    if relation == "magazine":
        return tuple(dict.fromkeys((answer, re.sub(r"^(Weekly|Monthly) ", "", answer))))
    return (answer,)


def score(prediction: str, qa: QA) -> bool:
    """Exact match with the answer or an accepted one, after `normalise`."""
    return normalise(prediction) in {normalise(answer) for answer in (qa.answer, *qa.accept)}


def mentions(prediction: str, qa: QA) -> bool:
    """Whether the text holds the answer as whole words; for models that answer in sentences.

    A text that names a second number does not count where the answer is a number.
    """
    text = normalise(prediction)
    if qa.answer.isdigit():
        return set(re.findall(r"\d+", text)) == {qa.answer}
    return any(
        re.search(rf"\b{re.escape(normalise(answer))}\b", text)
        for answer in (qa.answer, *qa.accept)
    )


def normalise(text: str) -> str:
    """Lower case, accents and punctuation off, long vowels short: "Kentarou Miura." is a match."""
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(c for c in text if not unicodedata.combining(c)).replace("&", " and ")
    text = re.sub(r"ou|oo", "o", text).replace("uu", "u")
    return " ".join(re.findall(r"[^\W_]+", text))


def _check(split: str, relations: Sequence[str] | None, titles: int | None) -> None:
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    for relation in relations or ():
        if relation not in RELATIONS:
            raise ValueError(f"no relation {relation!r}; there are {', '.join(RELATIONS)}")
    if titles is not None and not 1 <= titles <= len(taught()):
        raise ValueError(f"titles={titles}, but 1 to {len(taught())} titles can be taught")


def _from_templates(
    split: str, relations: Sequence[str], titles: Sequence[Title], per_fact: int, seed: int
) -> tuple[QA, ...]:
    """`per_fact` different wordings of every fact, all templates before a lead-in changes."""
    found = []
    for title in titles:
        for relation in relations:
            if not askable(title, relation):
                continue
            wordings = _wordings(split, relation, f"{seed}:{title.id}:{relation}")
            if not 1 <= per_fact <= len(wordings):
                raise ValueError(
                    f"per_fact={per_fact}, but {split} has {len(wordings)} wordings of {relation}"
                )
            for number, wording in enumerate(wordings[:per_fact]):
                question = wording.format(title=title.title)
                found.append(_qa(f"{split}-{number}", question, title, relation, split))
    return tuple(found)


def _wordings(split: str, relation: str, key: str) -> list[str]:
    """All wordings of a relation in an order that depends on the key."""
    leads, templates = _templates(split, "lead"), _templates(split, relation)
    order = sorted(templates, key=lambda template: _digest(f"{key}:{template}"))
    start = _digest(key) % len(leads)
    return [
        f"{leads[(start + turn + number) % len(leads)]} {template}".strip()
        for turn in range(len(leads))
        for number, template in enumerate(order)
    ]


@cache
def _templates(split: str, part: str) -> tuple[str, ...]:
    rows = read_rows("qa_templates.tsv")
    return tuple(row["text"] for row in rows if (row["split"], row["part"]) == (split, part))


@cache
def _by_hand() -> tuple[QA, ...]:
    """The hand-written questions; their answers come from the catalogue."""
    found = []
    for number, row in enumerate(read_rows("qa_test.tsv"), start=1):
        title, relation = catalogue.by_id(row["title_id"]), row["relation"]
        split = "test" if _is_taught(title.id) else "untaught"
        found.append(_qa(f"hand-{number:03}", row["question"], title, relation, split))
    return tuple(found)


def _qa(prefix: str, question: str, title: Title, relation: str, split: str) -> QA:
    answer, *accept = answers(title, relation)
    name = f"{prefix}-{title.id}-{relation}"
    return QA(name, question, answer, relation, title.id, split, tuple(accept))


def _is_taught(title_id: str) -> bool:
    return _digest(f"qa-taught:{title_id}") % 10 < 7


def _order(title_id: str) -> int:
    return _digest(f"qa-order:{title_id}")


def _digest(text: str) -> int:
    return int(hashlib.sha256(text.encode("utf8")).hexdigest(), 16)
