"""Requests for a catalogue record as one line of JSON: title, author, year.

A "recall" request names only the title, so that the facts must come from the model; an "extract"
request holds them in its text, so that only the form and the reading are tested.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue, qa
from mangalab.data._files import read_rows
from mangalab.data.catalogue import Title

SPLITS = ("train", "validation", "test")
KINDS = ("recall", "extract")
FIELDS = {"title": str, "author": str, "year": int}


@dataclass(frozen=True)
class Request:
    """A prompt and the record that it asks for."""

    id: str
    prompt: str
    expected: dict[str, str | int]  # keys and types of FIELDS
    title_id: str
    split: str  # one of SPLITS
    kind: str  # one of KINDS


@dataclass(frozen=True)
class StructuredScore:
    """How good an answer is; each part from 0 to 1, so that means over requests are rates."""

    parses: float  # 1 if the answer is one JSON object and nothing else
    schema: float  # 1 if besides its keys are exactly those of FIELDS, with values of their types
    fields: float  # share of right values in the first JSON object, wherever it stands


def load(
    split: str,
    kinds: Sequence[str] = KINDS,
    titles: int | None = None,
    per_title: int = 1,
    seed: int = 0,
) -> tuple[Request, ...]:
    """Requests of one split, always the same for the same arguments.

    Train and validation ask about the first `titles` titles of `qa.taught()` (default: all), each
    in `per_title` wordings of each kind. In the hand-written test, recall asks about taught titles
    (kept to the same `titles`), extract about titles that are taught nowhere.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"no kind {sorted(unknown)}; there are {', '.join(KINDS)}")
    known = qa.taught()[:titles]
    if split == "test":
        wanted = {title.id for title in known + qa.untaught()}
        return tuple(r for r in _by_hand() if r.title_id in wanted and r.kind in kinds)
    return tuple(
        _request(f"{split}-{kind}-{number}", wording.format(**record(title)), title, split, kind)
        for title in known
        for kind in kinds
        for number, wording in enumerate(_wordings(split, kind, title.id, per_title, seed))
    )


def record(title: Title) -> dict[str, str | int]:
    """The expected record of a title."""
    return {"title": title.title, "author": title.author, "year": title.year}


def render(expected: dict[str, str | int]) -> str:
    """The record as compact JSON in one line, keys in the order of FIELDS."""
    ordered = {name: expected[name] for name in FIELDS}
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def score(text: str, request: Request) -> StructuredScore:
    """Judge an answer: strict on the form; values are compared after `qa.normalise`."""
    found, alone = _first_object(text)
    if found is None:
        return StructuredScore(0.0, 0.0, 0.0)
    right = sum(_same(name, found.get(name), request) for name in FIELDS)
    return StructuredScore(
        parses=float(alone),
        schema=float(alone and _fits(found)),
        fields=right / len(FIELDS),
    )


def _first_object(text: str) -> tuple[dict | None, bool]:
    """The first JSON object in the text, and whether the text is nothing but that object."""
    decoder = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_unique)
    start = text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
            return found, not text[:start].strip() and not text[end:].strip()
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
    return None, False


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A dict of the pairs; ValueError where a key comes twice."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _fits(found: dict) -> bool:
    """Whether keys and types are exactly those of FIELDS (True and False are no integers)."""
    return {name: type(value) for name, value in found.items()} == FIELDS


def _same(name: str, value: object, request: Request) -> bool:
    """Whether a value is right; both authors are needed where there are two, in any order."""
    if isinstance(value, dict | list | bool | None):
        return False
    accepted = [str(request.expected[name])]
    if name == "author":
        authors = catalogue.by_id(request.title_id).authors
        accepted.append(" and ".join(reversed(authors)))
    return qa.normalise(str(value)) in map(qa.normalise, accepted)


def _wordings(split: str, kind: str, title_id: str, count: int, seed: int) -> list[str]:
    """`count` different templates in an order that depends on title and seed."""
    templates = _templates(split, kind)
    if not 1 <= count <= len(templates):
        raise ValueError(f"per_title={count}, but {split} has {len(templates)} wordings of {kind}")
    key = f"{seed}:{title_id}:"
    order = sorted(templates, key=lambda t: hashlib.sha256((key + t).encode("utf8")).digest())
    return order[:count]


@cache
def _templates(split: str, kind: str) -> tuple[str, ...]:
    rows = read_rows("structured_templates.tsv")
    return tuple(row["text"] for row in rows if (row["split"], row["kind"]) == (split, kind))


@cache
def _by_hand() -> tuple[Request, ...]:
    found = []
    for number, row in enumerate(read_rows("structured_test.tsv"), start=1):
        title = catalogue.by_id(row["title_id"])
        found.append(_request(f"hand-{number:03}", row["prompt"], title, "test", row["kind"]))
    return tuple(found)


def _request(prefix: str, prompt: str, title: Title, split: str, kind: str) -> Request:
    return Request(f"{prefix}-{title.id}", prompt, record(title), title.id, split, kind)
