"""Titles, names and numbers in a reply: what it speaks of, and what it says about it."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from mangalab.data import catalogue
from mangalab.data.catalogue import Title
from mangalab.data.qa import normalise

WORD = r"[A-ZÀ-Þ][\w'’*&-]*"
NAME = rf"(?:{WORD}|[A-Z]\.)(?: {WORD}){{0,3}}"
SMALL = r"(?:of|the|in|and|a|an|to|on|for|no|de|at|with)"
PHRASE = rf"{WORD}(?:(?: {SMALL}){{0,2}} (?:{WORD}|\d+)|:? {WORD})*"
ADVISED = (
    r"(?:try|reads?|suggest|recommend|take|pick|choose|like|have|start with|go for|is|with|and|or|"
    r"wrote|want|need|called|love|then|called|best|enjoy|hand you|give)"
)
# what is said of a thing on sale and of hardly anything else
SOLD = (
    rf"(?: by {WORD}|,? (?:is |are |has |in )?(?:complete|finished|ongoing)\b"
    r"|,? (?:has |in |is )?(?:complete in )?(?:\w+|\d+)[ -]volumes?\b"
    r"| is (?:what you|the obvious|a gentle))"
)
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
INSIDE = r"[A-Z]\w+ (?:of|in|to)(?: the)? $"  # "Iron Petals of Mars" does not name Mars
PLAIN = frozenset(
    "all any both each every he i it many no nothing one our she some that the these they this those "
    "two we what yes you your".split()
)
NUMBERS = {word: n for n, word in enumerate(UNITS)} | {"thirty": 30, "forty": 40, "fifty": 50}
ENGLISH = frozenset(  # titles that are ordinary words: only with a capital, never alone at the start
    """
    Life Real Another Given Opus Emma Mars Sunny Innocent Orange Erased Phoenix Sanctuary Downfall
    Classmates Kingdom Again Basara Loveless Rookies Look Pluto Beck Basic Rave Ran
    """.split()
)


@dataclass(frozen=True)
class Mention:
    """A catalogue title at ``text[start:end]``."""

    title: Title
    start: int
    end: int


def fold(text: str) -> str:
    """The text with accents off and plain quotes, of the same length."""
    text = text.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    return "".join(unicodedata.normalize("NFD", c)[0] for c in text)


@lru_cache(maxsize=4096)
def titles(text: str) -> tuple[Mention, ...]:
    """Catalogue titles in the order in which they occur; the longest name wins at each place."""
    text = fold(text)
    names, pattern = _names()
    found = []
    for hit in pattern.finditer(text):
        word = hit[0] in ENGLISH and not _named(text, hit.start(), hit.end())
        person = normalise(hit[0]) in _words(_people()) and _in_a_name(text, hit)
        if not word and not person and not re.search(INSIDE, text[: hit.start()]):
            found.append(Mention(names[hit[0]], hit.start(), hit.end()))
    return tuple(found)


def _named(text: str, start: int, end: int) -> bool:
    """Whether an ordinary word stands where a title would: not just a capital at the start."""
    after = re.match(r'\s*(?:by\b|,|:|\(|\.|;|is\b|has\b|and\b|"|\'|ends\b|for\b|from\b|!)', text[end:])
    return bool(after) or not re.search(r"(?:^|[.!?:]\s)$", text[:start])


def _in_a_name(text: str, hit: re.Match) -> bool:
    """Whether the hit is part of an author's name: Akira in "Akira Toriyama"."""
    after = re.match(r"\S+ \S+", text[hit.start() :].replace(",", " ").replace(".", " "))
    before = re.search(r"\S+ \S+$", text[: hit.end()])
    return any(pair and normalise(pair[0]) in _people() for pair in (after, before))


@cache
def _names() -> tuple[dict[str, Title], re.Pattern]:
    """Every way to write a title, and a pattern of all; a short form must belong to one title."""
    found: dict[str, Title] = {}
    short: dict[str, set[Title]] = {}
    for title in catalogue.load():
        for name in (title.title, title.romaji):
            found[fold(name)] = title
            found.setdefault(fold(name).rstrip(".!?"), title)
            if ":" in name:
                short.setdefault(fold(name).split(":")[0], set()).add(title)
    for name, owners in short.items():
        if len(owners) == 1:
            found.setdefault(name, *owners)
    for alias, title_id in ALIASES.items():
        found.setdefault(alias, catalogue.by_id(title_id))
    found |= {name.upper(): title for name, title in found.items() if name not in ENGLISH}
    longest_first = sorted(found, key=len, reverse=True)
    return found, re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


ALIASES = {"Iruma-kun": "welcome-to-demon-school-iruma-kun"}


def unknown_titles(text: str, spoken: str = "") -> Iterator[str]:
    """Names that stand where a title would and that the catalogue lacks; ``spoken`` is not new.

    Quoted names, names that are said to be by somebody or to have volumes, and names after a word
    of advice count; people, and names in a sentence that denies having them, do not.
    """
    plain = fold(text)
    known, people = titles(text), _people()
    plain_names = {w for name in people for w in name.split()} | {"and"}
    for start, end, certain in _candidates(plain):
        name = plain[start:end]
        inside = any(m.start < end and start < m.end for m in known)
        person = normalise(name) in people or (not certain and normalise(name) in _words(people))
        person |= " and " in name and set(normalise(name).split()) <= plain_names
        heard = not certain and normalise(name) in normalise(spoken)
        common = name.lower() in PLAIN or number(name) is not None or plain[:start].endswith("Oh! ")
        common |= name.lower() in _genres()
        if not (inside or person or heard or common or _denied(plain, start, end)):
            yield name


def _candidates(text: str) -> Iterator[tuple[int, int, bool]]:
    for hit in re.finditer(rf'"({PHRASE})[.,!?]?"', text):
        yield hit.start(1), hit.end(1), False
    for hit in re.finditer(rf"(?<![\w']){PHRASE}(?={SOLD})", text):
        lead = re.match(r"(?:Try |Take |Read |Not |Yes |Then |Start with )?", hit[0])
        yield hit.start() + lead.end(), hit.end(), True
    for hit in re.finditer(rf"(?:^|[.!?] )({PHRASE})[!?]*(?=,? (?:is|has|tells|follows|and)\b)", text):
        if " " in hit[1]:
            yield hit.start(1), hit.end(1), False
    for hit in re.finditer(rf"\b{ADVISED} ((?:The |A |My )?{PHRASE})", text, re.IGNORECASE):
        phrase = re.match(PHRASE, hit[1])
        if phrase and " " in phrase[0]:
            yield hit.start(1), hit.start(1) + len(phrase[0]), False


def _denied(text: str, start: int, end: int) -> bool:
    sentence = text[text.rfind(".", 0, start) + 1 : (text + ".").find(".", end)]
    sold = r"catalogue|have|carry|find|stock"
    denial = r"\b(?:not|nothing|no such|couldn't|could not|don't|do not|isn't|never)\b"
    return bool(re.search(denial, sentence)) and bool(re.search(sold, sentence))


@cache
def _people() -> frozenset[str]:
    """Authors in both orders of their names, normalised."""
    names = {name for title in catalogue.load() for name in title.authors}
    return frozenset(normalise(n) for name in names for n in (name, " ".join(reversed(name.split()))))


@cache
def _genres() -> frozenset[str]:
    """Genres and their words, lower case: "Sci-Fi" is no title."""
    return frozenset(genre.lower() for title in catalogue.load() for genre in title.genres)


@cache
def _words(people: frozenset[str]) -> frozenset[str]:
    return frozenset(word for name in people for word in name.split() if len(word) > 3)


def subject(mentions: Sequence[Mention], position: int) -> Title | None:
    """The title that a remark at ``position`` is about: the last one before it, else the next."""
    before = [m for m in mentions if m.start <= position]
    after = [m for m in mentions if m.start > position]
    chosen = before[-1:] or after[:1]
    return chosen[0].title if chosen else None


def number(word: str) -> int | None:
    """The number that a word or digits stand for, "twenty-one" included."""
    if word.isdigit():
        return int(word)
    tens, _, unit = word.lower().partition("-")
    if tens not in NUMBERS or (unit and unit not in NUMBERS):
        return None
    return NUMBERS[tens] + (NUMBERS[unit] if unit else 0)


def without(text: str, mentions: Sequence[Mention]) -> str:
    """The text with the titles blanked out, positions kept."""
    for m in mentions:
        text = text[: m.start] + " " * (m.end - m.start) + text[m.end :]
    return text
