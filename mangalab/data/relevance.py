"""The rule that grades a title for a query, from a hand-written statement of what is wanted.

A query names concepts (`concepts.tsv`), and each title holds a concept centrally, nearly (a shopper
would accept it with a reservation), through a broader concept only, or not at all. `grade` turns
what is missing into a grade of 0 to 3; the rule is stated in words in the card `retrieval.md`.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue
from mangalab.data._files import read_rows
from mangalab.data.catalogue import Title

TOP = 3  # the highest grade
COSTS = {"central": 0, "near": 1, "broader": 2, "none": 3}  # of the first thing wanted
RELATIVES = 3  # titles with the most similar tags that count as related to a named one
SERIES = (("aqua", "aria"), ("battle-angel-alita", "battle-angel-alita-last-order"))
KINDS = {"g": "genres", "t": "themes", "o": "tone"}
HARD = ("finished", "ongoing", "stock", "volumes", "age", "demo", "year", "price", "total", "author")


@dataclass(frozen=True)
class Concept:
    """A need that shoppers name, with the ids of the titles that meet it."""

    name: str
    kind: str  # "topic" or "mood"
    broader: str  # the concept around it, "" at the top
    held_out: bool  # never used by a training query
    central: frozenset[str]
    near: frozenset[str]
    words: tuple[str, ...]  # how training queries say it; none where held out


@dataclass(frozen=True)
class Need:
    """What a query asks for; "a|b" in a field means that either concept will do.

    ``core`` is in order of weight: a title without the first is unrelated.
    """

    core: tuple[str, ...] = ()
    soft: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    hard: tuple[str, ...] = ()  # "finished", "volumes<=9", "demo=Shojo", "author=CLAMP", ...
    like: str = ""  # a title that the shopper knows already
    find: tuple[str, ...] = ()  # the title meant, or every title that a bare name may mean


@cache
def concepts() -> dict[str, Concept]:
    """Every concept by name; ValueError for a term that no title of the catalogue has."""
    return {row["concept"]: _concept(row) for row in read_rows("concepts.tsv")}


def grade(need: Need, title: Title) -> int:
    """Grade of a title for a need, 0 to 3, by the rule alone (before any reading by hand)."""
    if title.id in need.find:
        return TOP
    if title.id == need.like or not all(meets(title, condition) for condition in need.hard):
        return 0
    facets = _by_facets(need, title) if need.core or not need.find else 0
    if not need.find:
        return facets
    if len(need.find) == 1:  # somebody who means one title has little use for others
        return max(int(facets >= 2), _kinship(need, title))
    return max(min(facets, TOP - 1), _kinship(need, title))


def hold(wanted: str, title_id: str) -> str:
    """How well a title holds a concept, or the best of "a|b": a key of ``COSTS``."""
    return min((_hold(name, title_id) for name in wanted.split("|")), key=COSTS.__getitem__)


def meets(title: Title, condition: str) -> bool:
    """Whether a title satisfies one hard condition; ValueError for one that cannot be read."""
    if condition in ("finished", "ongoing"):
        return (title.end_year is not None) == (condition == "finished")
    if condition == "stock":
        return title.stock > 0
    for sign in ("<=", ">=", "="):
        name, found, value = condition.partition(sign)
        if found and name in HARD:
            return _compare(title, name, sign, value)
    raise ValueError(f"condition {condition!r}; write one of {', '.join(HARD)}, as in 'volumes<=9'")


@cache
def relatives(title_id: str) -> frozenset[str]:
    """The titles whose tags are most like this one's (cosine, rare tags weighing more)."""
    mine = _tags(title_id)
    scores = {t.id: _cosine(mine, _tags(t.id)) for t in catalogue.load() if t.id != title_id}
    return frozenset(sorted(scores, key=lambda name: (-scores[name], name))[:RELATIVES])


def _by_facets(need: Need, title: Title) -> int:
    """Grade from the concepts held: 3 less what is missing, 0 at the least."""
    cost = 0
    for position, wanted in enumerate(need.core):
        found = COSTS[hold(wanted, title.id)]
        if position == 0 and found == COSTS["none"]:
            return 0
        cost += min(found, 2)
    cost += sum(hold(wanted, title.id) in ("broader", "none") for wanted in need.soft)
    for unwanted in need.never:
        found = hold(unwanted, title.id)
        if found == "central":
            return 0
        cost += found == "near"
    return max(TOP - cost, 0)


def _kinship(need: Need, title: Title) -> int:
    """2 for another part of the named series, 1 for the same maker or the most similar tags."""
    if any({title.id, other} == set(pair) for other in need.find for pair in SERIES):
        return 2
    named = [catalogue.by_id(other) for other in need.find]
    made = any(set(title.authors) & set(other.authors) for other in named)
    return int(made or any(title.id in relatives(other) for other in need.find))


def _hold(name: str, title_id: str) -> str:
    concept = concepts().get(name)
    if concept is None:
        raise ValueError(f"no concept {name!r} in concepts.tsv")
    if title_id in concept.central:
        return "central"
    if title_id in concept.near:
        return "near"
    around = concepts()[concept.broader].central if concept.broader else ()
    return "broader" if title_id in around else "none"


def _compare(title: Title, name: str, sign: str, value: str) -> bool:
    if name == "author":
        return value in title.authors
    if name == "demo":
        return title.demographic == value
    if name == "age":
        mine, limit = (catalogue.AGE_RATINGS.index(x) for x in (title.age_rating, value))
    elif name == "total":  # the price of the whole series
        mine, limit = title.volumes and title.volumes * title.price_jpy, int(value)
    else:
        mine, limit = getattr(title, {"price": "price_jpy"}.get(name, name)), int(value)
    if mine is None:  # the volumes of an unfinished series
        return False
    return mine <= limit if sign == "<=" else mine >= limit if sign == ">=" else mine == limit


def _concept(row: dict[str, str]) -> Concept:
    central = _titles(row["central"])
    return Concept(
        row["concept"], row["kind"], row["broader"], row["use"] == "test", central,
        _titles(row["near"]) - central, tuple(filter(None, row["words"].split(";"))),
    )


def _titles(terms: str) -> frozenset[str]:
    """Ids meant by terms: "g:" a genre, "t:" a theme, "o:" a tone, "-" but not this, or an id."""
    found: set[str] = set()
    for term in filter(None, terms.split(";")):
        if term.startswith("-"):
            found.discard(catalogue.by_id(term[1:]).id)
            continue
        kind, colon, value = term.partition(":")
        if colon:
            held = {t.id for t in catalogue.load() if value in getattr(t, KINDS[kind])}
        else:
            held = {catalogue.by_id(term).id}
        if not held:
            raise ValueError(f"concepts.tsv: no title has {term!r}")
        found |= held
    return frozenset(found)


@cache
def _tags(title_id: str) -> dict[str, float]:
    title = catalogue.by_id(title_id)
    return {tag: _weight()[tag] for tag in {*title.genres, *title.themes, *title.tone}}


@cache
def _weight() -> dict[str, float]:
    """Inverse document frequency of every genre, theme and tone."""
    titles = catalogue.load()
    counts = Counter(tag for t in titles for tag in {*t.genres, *t.themes, *t.tone})
    return {tag: math.log(len(titles) / n) for tag, n in counts.items()}


def _cosine(a: dict[str, float], b: dict[str, float]) -> float:
    shared = sum(a[tag] ** 2 for tag in a.keys() & b.keys())
    return shared / math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
