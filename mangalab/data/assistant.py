"""Requests to the shop's assistant, what a good reply to each needs, and replies judged by hand.

`load` gives requests of "train" (a grammar, `tools/make_assistant.py`), "validation" and "test"
(written by hand). `labelled` gives replies that test the rubric of `mangalab.evaluation.rubric`.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue
from mangalab.data._files import read_rows
from mangalab.data.catalogue import Title

SPLITS = ("train", "validation", "test")
PARTS = ("development", "held-out")
KINDS = ("recommend", "info", "spoiler", "support", "chat")
CHECKS = ("title", "fact", "constraint", "age", "spoiler", "tone", "length", "escalation")
MAX_WORDS = 60


@dataclass(frozen=True)
class Needs:
    """What a reply has to respect. Ages are those of the catalogue, 0 standing for "all"."""

    genre: str = ""
    finished: bool = False
    max_volumes: int | None = None
    max_age: int = 18
    author: str = ""
    before: int | None = None  # the year of the start lies before this one
    excluded: tuple[str, ...] = ()  # ids of titles that the customer has
    human: bool = False  # a person has to take over
    max_words: int = MAX_WORDS

    def breach(self, title: Title) -> str | None:
        """Why ``title`` is not what was asked for, the age rating left aside; None if it is."""
        if self.genre and self.genre not in title.genres:
            return f"{title.title} is no {self.genre}"
        if self.finished and title.volumes is None:
            return f"{title.title} is not finished"
        if self.max_volumes and (title.volumes or 999) > self.max_volumes:
            return f"{title.title} has more than {self.max_volumes} volumes"
        if self.author and self.author not in title.authors:
            return f"{title.title} is not by {self.author}"
        if self.before and title.year >= self.before:
            return f"{title.title} began in {title.year}"
        return f"the customer has {title.title}" if title.id in self.excluded else None

    def too_old(self, title: Title) -> bool:
        """Whether the title's age rating is above the one that was asked for."""
        return age(title) > self.max_age

    def fits(self, title: Title) -> bool:
        """Whether the title is a right answer to a request for a recommendation."""
        return self.breach(title) is None and not self.too_old(title)


@dataclass(frozen=True)
class Request:
    """A customer's message; ``kind`` is one of `KINDS`, ``shelf`` the titles a search has found."""

    id: str
    kind: str
    text: str
    needs: Needs
    about: Title | None = None
    shelf: tuple[Title, ...] = ()

    def prompt(self, grounded: bool = True) -> str:
        """What the model reads: the shelf, one title a line, then the customer's words."""
        lines = [shelf_line(title) for title in self.shelf] if grounded else []
        return "\n".join([*lines, f"Customer: {self.text}"])


@dataclass(frozen=True)
class Labelled:
    """A reply with the issues that a person found in it, in the order of `CHECKS`."""

    id: str
    request: Request
    reply: str
    issues: tuple[str, ...]
    slices: tuple[str, ...]


@cache
def labelled(part: str) -> tuple[Labelled, ...]:
    """Replies of one half: rules are written on "development" and measured on "held-out"."""
    if part not in PARTS:
        raise ValueError(f"no part {part!r} of the labelled replies; there are {', '.join(PARTS)}")
    return tuple(_labelled(row) for row in read_rows("rubric_replies.tsv") if row["part"] == part)


@cache
def audited() -> tuple[Labelled, ...]:
    """Replies that a fine-tuned model wrote to validation requests, labelled before the rubric read
    them; slices: "greedy" or "sampled", and "beside" for one that has no issue and answers nothing."""
    asked = {request.id: request for request in load("validation")}
    rows = read_rows("rubric_audit.tsv")
    return tuple(
        Labelled(row["id"], asked[row["request"]], row["reply"], _issues(row),
                 tuple(row["drawn"].split(";")))
        for row in rows)


@cache
def load(split: str) -> tuple[Request, ...]:
    """Requests of "train", "validation" or "test", in file order."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} of the requests; there are {', '.join(SPLITS)}")
    return tuple(request(row) for row in read_rows(f"assistant_{split}.tsv"))


@cache
def logged() -> tuple[str, ...]:
    """The imagined log's reply to each training request; some break the house rules on purpose."""
    return tuple(row["reply"] for row in read_rows("assistant_train.tsv"))


def request(row: dict[str, str]) -> Request:
    """A request from a row, with the shelf that a search would have brought up."""
    about = catalogue.by_id(row["about"]) if row["about"] else None
    needs = parse_needs(row["needs"])
    shelf = _shelf(row["text"], row["kind"], needs, about)
    return Request(row["id"], row["kind"], row["text"], needs, about, shelf)


def _shelf(text: str, kind: str, needs: Needs, about: Title | None) -> tuple[Title, ...]:
    """Two titles in an order that the text decides: one fits, the other nearly does.

    The title that is asked about is always there; support and chat get no shelf.
    """
    if kind in ("support", "chat"):
        return ()
    every = sorted(catalogue.load(), key=lambda t: _digest(f"{text}:{t.id}"))
    if about:
        found = [about, next(t for t in every if t != about)]
    else:
        right = [t for t in every if needs.fits(t)]
        near = [t for t in every if not needs.fits(t) and (not needs.genre or needs.genre in t.genres)]
        rest = [t for t in every if not needs.fits(t) and t not in near]
        found = [*right[:1], *(near + rest)[:1]]
    return tuple(sorted(found, key=lambda t: _digest(f"{text}:place:{t.id}")))


def shelf_line(title: Title) -> str:
    """One title as the model sees it: name, authors, genres, state, rating."""
    rating = "all ages" if title.age_rating == "all" else f"{title.age_rating}+"
    return f"{title.title} | {title.author} | {', '.join(title.genres)} | {state(title)} | {rating}"


def state(title: Title) -> str:
    """ "complete in 12 volumes" or "still running"."""
    if title.volumes is None:
        return "still running"
    return f"complete in {title.volumes} volume{'s' if title.volumes > 1 else ''}"


def _digest(text: str) -> int:
    return int(hashlib.sha256(text.encode("utf8")).hexdigest(), 16)


def age(title: Title) -> int:
    """The age rating as a number, 0 for "all"."""
    return 0 if title.age_rating == "all" else int(title.age_rating)


def parse_needs(text: str) -> Needs:
    """Needs from "genre=Horror;finished;max_age=13"; an unknown key is a ValueError."""
    found: dict[str, object] = {}
    for part in filter(None, text.split(";")):
        key, _, value = part.partition("=")
        if key not in Needs.__dataclass_fields__ and key != "not":
            raise ValueError(f"needs {text!r}: unknown key {key!r}")
        if key == "not":
            found["excluded"] = tuple(catalogue.by_id(name).id for name in value.split(","))
        elif key in ("genre", "author"):
            found[key] = value
        else:
            found[key] = int(value) if value else True
    return Needs(**found)


def _labelled(row: dict[str, str]) -> Labelled:
    request = Request(row["id"], row["kind"], row["request"], parse_needs(row["needs"]))
    if request.kind not in KINDS:
        raise ValueError(f"{row['id']}: kind {request.kind!r}; there are {', '.join(KINDS)}")
    return Labelled(row["id"], request, row["reply"], _issues(row), tuple(row["slices"].split(";")))


def _issues(row: dict[str, str]) -> tuple[str, ...]:
    found = set(filter(None, row["labels"].split(";")))
    if found - set(CHECKS):
        raise ValueError(f"{row['id']}: labels {sorted(found)}; there are {', '.join(CHECKS)}")
    return tuple(check for check in CHECKS if check in found)
