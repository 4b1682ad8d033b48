"""Messages with the names and numbers in them marked, and whether they are dangerous to get wrong.

"validation" and "test" were written and marked by hand, `where is [Berserk](TITLE) vol [12](VOLUME)?`;
"train" is made from templates over half of the catalogue. `mangalab/data/cards/entities.md` holds both
guides: what each kind of span covers, and the five kinds of risk.
"""

import random
import re
from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue
from mangalab.data._files import read_rows

KINDS = ("TITLE", "AUTHOR", "VOLUME", "EDITION", "GENRE", "PRICE", "DATE", "ORDER")
RISKS = ("escalation", "checkout", "refund", "age", "policy")
SPLITS = ("train", "validation", "test")
SLICES = ("jp_mix", "typo", "slang", "jargon", "decoy", "no_entity", "plain")
MARKED = re.compile(r"\[([^\]]*)\]\(([A-Z]+)\)")
SLOT = re.compile(r"\{([a-z]+)2?\}")
EDITIONS = (
    "box set", "boxset", "omnibus", "deluxe edition", "deluxe", "hardcover", "paperback", "digital",
    "digital version", "collector's edition", "special edition", "limited edition", "kanzenban",
    "signed copy", "3-in-1", "first edition", "large print", "colour edition", "ebook",
)  # fmt: skip
GENRES = (
    "seinen", "shonen", "shojo", "josei", "isekai", "mecha", "yuri", "BL", "horror", "romance", "gag",
    "comedy", "fantasy", "sci-fi", "sports", "mystery", "slice of life", "thriller", "historical",
    "drama", "action", "cooking", "supernatural", "iyashikei", "ecchi", "crime",
)  # fmt: skip
DAYS = (
    "monday", "Tuesday", "Wednesday", "thursday", "Friday", "saturday", "Sunday", "today", "tomorrow",
    "yesterday", "last week", "next week", "this weekend", "last month", "next month", "two weeks ago",
    "ten days ago", "Christmas", "Easter", "this summer", "next spring",
)  # fmt: skip
MONTHS = (
    "January", "february", "March", "April", "may", "June", "July", "aug", "September", "Oct",
)  # fmt: skip


@dataclass(frozen=True)
class Span:
    """Characters ``start`` to ``end`` (not included) of a text, and their kind, one of `KINDS`."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Message:
    """A customer's message. ``risk`` is one of `RISKS`, or "" where a wrong answer does little harm."""

    id: str
    text: str
    spans: tuple[Span, ...]
    risk: str
    slices: tuple[str, ...]
    split: str


def parse(marked: str) -> tuple[str, tuple[Span, ...]]:
    """Text without its marks, and the spans that they named; ValueError for an unknown kind."""
    text, spans, at = "", [], 0
    for found in MARKED.finditer(marked):
        text += marked[at : found.start()]
        if found[2] not in KINDS or not found[1].strip():
            raise ValueError(f"{found[0]!r} in {marked!r}: a kind is one of {', '.join(KINDS)}")
        spans.append(Span(len(text), len(text) + len(found[1]), found[2]))
        text, at = text + found[1], found.end()
    return text + marked[at:], tuple(spans)


@cache
def load(split: str) -> tuple[Message, ...]:
    """Messages of "validation" or "test" in file order, or 1,200 made ones as "train"."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r} of entities; use one of {', '.join(SPLITS)}")
    if split == "train":
        return make(1200)
    return tuple(_message(row["id"], row["text"], row["risk"], row["slices"], split)
                 for row in read_rows(f"entities_{split}.tsv"))  # fmt: skip


@cache
def make(n: int, seed: int = 0) -> tuple[Message, ...]:
    """``n`` different training messages: round after round, every template is filled once."""
    rng, templates = random.Random(seed), read_rows("entities_templates.tsv")
    made: dict[str, Message] = {}
    for _ in range(100):
        rng.shuffle(templates)
        for row in templates:
            marked = _style(SLOT.sub(lambda slot: _fill(slot[1], rng), row["template"]), rng)
            message = _message(f"er-{len(made) + 1:04d}", marked, row["risk"], "plain", "train")
            made.setdefault(message.text.casefold(), message)
            if len(made) == n:
                return tuple(made.values())
    raise ValueError(f"the templates make {len(made)} different messages, not {n}")


@cache
def training_titles() -> tuple[catalogue.Title, ...]:
    """The half of the catalogue that templates draw from; the other half is new to a trained tagger."""
    return catalogue.load()[::2]


def _message(id: str, marked: str, risk: str, slices: str, split: str) -> Message:
    text, spans = parse(marked)
    if risk and risk not in RISKS:
        raise ValueError(f"{id} has the risk {risk!r}; use one of {', '.join(RISKS)} or none")
    return Message(id, text, spans, risk, tuple(slices.split(";")), split)


def _fill(slot: str, rng: random.Random) -> str:
    """A marked filler for one slot of a template."""
    kind = "title" if slot == "mature" else slot
    return f"[{_FILLERS[slot](rng)}]({kind.upper()})"


def _title(rng: random.Random, mature: bool = False) -> str:
    titles = [t for t in training_titles() if not mature or t.age_rating in ("16", "18")]
    title = rng.choice(titles)
    name = title.romaji if rng.random() < 0.2 else title.title
    name = name.split(":")[0] if rng.random() < 0.7 else name
    return name.casefold() if rng.random() < 0.4 else name


def _author(rng: random.Random) -> str:
    name = rng.choice(rng.choice(training_titles()).authors)
    name = name.split()[-1] if rng.random() < 0.3 else name
    return name.casefold() if rng.random() < 0.2 else name


def _volume(rng: random.Random) -> str:
    number = rng.randint(1, 45)
    later = number + rng.randint(1, 9)
    single = rng.choice((f"{number}", f"{number}", "first", "last", "two", "seventh"))
    return rng.choice((f"{number}", single, single, f"{number}-{later}", f"{number} to {later}"))


def _price(rng: random.Random) -> str:
    number = rng.randint(3, 160)
    sign = rng.choice(("$", "$", "€", "£"))
    word = rng.choice(("euros", "dollars", "bucks"))
    forms = (f"{sign}{number}", f"{sign}{number}.{rng.randint(10, 99)}", f"¥{number}0")
    return rng.choice((*forms, f"{number}00 yen", f"{number} {word}"))


def _date(rng: random.Random) -> str:
    day, month = rng.randint(1, 28), rng.choice(MONTHS)
    numbers = (f"{day} {month}", f"{month} {day}", f"{day}th", f"{rng.randint(1, 12)}/{day}")
    return rng.choice((rng.choice(DAYS), rng.choice(DAYS), month, *numbers))


def _order(rng: random.Random) -> str:
    number = rng.randint(1000, 99999)
    bare = (f"MB-{number}", f"#{number}", str(number), f"mb{number}")
    return rng.choice((*bare, f"JP{number}00{number}"))


_FILLERS = {
    "title": _title, "mature": lambda rng: _title(rng, mature=True), "author": _author,
    "volume": _volume, "price": _price, "date": _date, "order": _order,
    "genre": lambda rng: rng.choice(GENRES), "edition": lambda rng: rng.choice(EDITIONS),
}  # fmt: skip


def _style(marked: str, rng: random.Random) -> str:
    """Greeting, end mark or lower case of the words outside marks; kinds stay as they are."""
    if rng.random() < 0.3:
        marked = marked[0].lower() + marked[1:]
    marked = rng.choice(("", "", "", "", "Hello, ", "hey ", "sorry, ", "ok so ")) + marked
    return marked + rng.choice(("", "", ".", "?", "!", " thanks", " please"))
