"""Shoppers' queries with graded titles, for the retriever of chapter 02 and the reranker of 03.

Grades run from 0 to 3 and cover every pair of query and title: what a judgments file leaves out is
a 0. Validation and test queries were written by hand, training queries by a grammar
(`tools/make_queries.py`); all grades come from one stated rule (`mangalab.data.relevance`), those of
validation and test with corrections by hand (`judgment_overrides.tsv`).
"""

from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue
from mangalab.data._files import read_rows
from mangalab.data.catalogue import Title
from mangalab.data.relevance import TOP, Need

SPLITS = ("train", "validation", "test")
LISTS = ("core", "soft", "never", "hard", "find")
SLICES = (
    "mood", "plot", "known_item", "like_but", "negation", "constraint", "volatile", "jp_mix", "typo",
    "slang", "short", "long", "topic", "head", "tail", "new_need", "new_title",
)


@dataclass(frozen=True)
class Query:
    """What a shopper typed, and what that was taken to mean."""

    id: str
    text: str
    slices: tuple[str, ...]
    need: Need
    split: str


@dataclass(frozen=True)
class Override:
    """A grade changed by hand after reading; ``rule`` is what the rule had said."""

    query_id: str
    title_id: str
    grade: int
    rule: int
    reason: str


def queries(split: str) -> tuple[Query, ...]:
    """The queries of "train", "validation" or "test", in file order; ValueError for another split."""
    if split not in SPLITS:
        raise ValueError(f"no retrieval split {split!r}; use one of {', '.join(SPLITS)}")
    return tuple(_query(row, split) for row in read_rows(f"queries_{split}.tsv"))


def judgments(split: str) -> dict[str, dict[str, int]]:
    """Grades above 0 by query id, then title id; a pair that is missing has grade 0.

    No title of `held_out` has a grade in "train". Raises ValueError for a grade outside 1 to 3.
    """
    found: dict[str, dict[str, int]] = {query.id: {} for query in queries(split)}
    for row in read_rows(f"judgments_{split}.tsv"):
        grade = int(row["grade"])
        if not 1 <= grade <= TOP:
            raise ValueError(f"{row['query_id']}, {row['title_id']}: grade {grade} is not 1 to {TOP}")
        found[row["query_id"]][row["title_id"]] = grade
    return found


def grades(split: str) -> list[list[int]]:
    """Grades as a table, one row a query of `queries(split)`, one column a title of the catalogue."""
    judged, names = judgments(split), [title.id for title in catalogue.load()]
    return [[judged[query.id].get(name, 0) for name in names] for query in queries(split)]


def overrides() -> tuple[Override, ...]:
    """The corrections by hand to the rule's grades."""
    return tuple(
        Override(r["query_id"], r["title_id"], int(r["grade"]), int(r["rule"]), r["reason"])
        for r in read_rows("judgment_overrides.tsv")
    )


@cache
def popularity() -> dict[str, int]:
    """Rank of each title by public popularity, 1 the most popular of the catalogue."""
    return {row["title_id"]: int(row["rank"]) for row in read_rows("retrieval_titles.tsv")}


@cache
def held_out() -> frozenset[str]:
    """Titles that no training judgment mentions, every fifth by popularity."""
    rows = read_rows("retrieval_titles.tsv")
    return frozenset(row["title_id"] for row in rows if row["use"] == "test")


def document(title: Title, volatile: bool = False) -> str:
    """The text of a title that is indexed: names, genres, themes, tone, pitch and lasting facts.

    Price and stock are left out unless ``volatile``: they change by the hour, and an index of them
    is wrong as soon as it is built. A query that constrains them needs a filter on the shop's table.
    """
    names = title.title if title.romaji == title.title else f"{title.title} ({title.romaji})"
    state = "still running" if title.end_year is None else f"finished in {_volumes(title)}"
    readers = f"{title.demographic} manga" if title.demographic else "Manga"
    age = "for all ages" if title.age_rating == "all" else f"from age {title.age_rating}"
    text = (
        f"{names} by {title.author}. {title.pitch} {', '.join(title.genres)}. "
        f"Themes: {', '.join(title.themes)}. Tone: {', '.join(title.tone)}. "
        f"{readers} from {title.year}, {state}, {age}."
    )
    if not volatile:
        return text
    stock = f"{title.stock} in stock" if title.stock else "out of stock"
    return f"{text} {title.price_jpy} yen a volume, {stock}."


def _volumes(title: Title) -> str:
    return "1 volume" if title.volumes == 1 else f"{title.volumes} volumes"


def _query(row: dict[str, str], split: str) -> Query:
    need = Need(like=row["like"], **{name: _split(row[name]) for name in LISTS})
    slices = _split(row["slices"])
    if unknown := set(slices) - set(SLICES):
        raise ValueError(f"{row['id']} of {split} has unknown slices {sorted(unknown)}")
    return Query(row["id"], row["query"], slices, need, split)


def _split(field: str) -> tuple[str, ...]:
    return tuple(filter(None, field.split(";")))
