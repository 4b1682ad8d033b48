"""Personal data in customers' messages: marked by hand, found by stated rules, replaced by its type.

The rules were written against the validation messages and not changed after they had read the test.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ._files import read_rows

TYPES = ("EMAIL", "PHONE", "CARD", "IBAN", "ADDRESS", "BIRTHDATE", "NAME", "ID")
SPLITS = ("validation", "test")
MARK = re.compile(r"\{([A-Z]+):([^{}]*)\}")


@dataclass(frozen=True)
class Span:
    """Characters ``start`` to ``end`` (excluded) of a text and the type of what stands there."""

    start: int
    end: int
    type: str

    def overlaps(self, other: "Span") -> bool:
        """Whether the two share a character."""
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Message:
    """A message with its personal data marked."""

    id: str
    text: str
    spans: tuple[Span, ...]


def load(split: str) -> tuple[Message, ...]:
    """Messages of "validation" or "test", in file order. Raises ValueError."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    return tuple(parse(row["id"], row["marked"]) for row in read_rows(f"pii_{split}.tsv"))


def parse(id: str, marked: str) -> Message:
    """Take the marks ``{TYPE:text}`` out of a line. Raises ValueError for an unknown type."""
    text, spans, at = "", [], 0
    for mark in MARK.finditer(marked):
        if mark[1] not in TYPES:
            raise ValueError(f"{id}: no type {mark[1]!r}; there are {', '.join(TYPES)}")
        text += marked[at : mark.start()]
        spans.append(Span(len(text), len(text) + len(mark[2]), mark[1]))
        text, at = text + mark[2], mark.end()
    return Message(id, text + marked[at:], tuple(spans))


def luhn(digits: str) -> bool:
    """Whether a card number's check digit is right."""
    values = [int(d) for d in reversed(digits)]
    doubled = [d if i % 2 == 0 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(values)]
    return sum(doubled) % 10 == 0


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


CAP = r"[A-ZÀ-ÞŠŽ][\w'’\-]+"
NAME = rf"{CAP}(?: (?:de |van |von |el |al )?{CAP}){{0,2}}"
STREET = r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Close|Drive|Way|Court|Square|Place)"
Check = Callable[[str], bool]

def _is_card(text: str) -> bool:
    digits = _digits(text)
    return 13 <= len(digits) <= 16 and luhn(digits) and not digits.startswith("978")  # 978: a book


def _is_phone(text: str) -> bool:
    return 9 <= len(_digits(text)) <= 14


def _rule(kind: str, *parts: str, check: Check = lambda _: True) -> tuple[str, re.Pattern, Check]:
    return kind, re.compile("".join(parts)), check


def _after(*cues: str) -> str:
    """A look-behind for any of these words."""
    return "(?:" + "|".join(f"(?<={cue})" for cue in cues) + ")"


KANA = "\u3040-\u30ff\u4e00-\u9fff"  # and kanji
DAY = r"\d{1,2} \w+ \d{4}"
DATE = r"\d{1,4}[./\-]\d{1,2}[./\-]\d{1,4}"
# type, pattern, what else must hold of the found text; earlier rules win where two overlap
RULES = (
    _rule("EMAIL", r"[\w.+\-]+@[\w\-]+(?:\.[\w\-]+)+"),
    _rule("IBAN", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"),
    _rule("CARD", r"\b\d(?:[ \-]?\d){12,18}\b", check=_is_card),
    _rule("BIRTHDATE", rf"(?<=born )(?:on )?{DAY}"),
    _rule("BIRTHDATE", _after("birthday ", "birth ", "birth: ", "DOB "), rf"(?:is )?(?:{DAY}|{DATE})"),
    _rule("ADDRESS", r"〒?\d{3}-\d{4} ?", rf"[{KANA}][{KANA}\d\-]*"),
    _rule("ADDRESS", r"(?:(?:Flat|Unit|Apt) \w+, )?", rf"\b\d{{1,5}} (?:{CAP} )+{STREET}\b",
          r"(?:, (?:Apt )?[\w ]+)*"),
    _rule("ADDRESS", r"\b[A-Z]\w*(?:straße|strasse|gracht) \d+, ", rf"\d{{4,5}}(?: [A-Z]{{2}})? {CAP}"),
    _rule("PHONE", r"(?<![\w#\-])(?:\+|\(|0)[\d()][\d ()\-/]{6,18}\d(?![\w\-])", check=_is_phone),
    _rule("ID", r"(?<=passport number )[A-Z0-9]{6,10}\b"),
    _rule("NAME", _after("[Mm]y name is ", "[Nn]ame is ", "I'm ", "[Tt]his is "), NAME),
    _rule("NAME", _after("friend ", "parcel: "), NAME),
    _rule("NAME", rf"(?:Mr|Mrs|Ms|Dr|Miss)\.? {NAME}"),
    _rule("NAME", _after("regards, ", "best, ", "sincerely, ", "[Tt]hanks, "), rf"{NAME}$"),
    _rule("NAME", _after("[Tt]ell ", "[Ww]rite to ", "account name is "), NAME),
)  # fmt: skip


def find(text: str) -> tuple[Span, ...]:
    """What the rules take for personal data, in order, without overlaps."""
    found: list[Span] = []
    for kind, pattern, check in RULES:
        for hit in pattern.finditer(text):
            span = Span(hit.start(), hit.end(), kind)
            if check(hit[0]) and not any(span.overlaps(other) for other in found):
                found.append(span)
    return tuple(sorted(found, key=lambda span: span.start))


def redact(text: str, spans: tuple[Span, ...] | None = None) -> str:
    """The text with every span (default: those found) replaced by its type in brackets."""
    for span in sorted(find(text) if spans is None else spans, key=lambda s: -s.start):
        text = f"{text[: span.start]}[{span.type}]{text[span.end :]}"
    return text


def leaked(message: Message, spans: tuple[Span, ...]) -> list[Span]:
    """Marked spans of which a letter or digit stays readable after redacting ``spans``."""
    hidden = {i for span in spans for i in range(span.start, span.end)}
    return [
        span for span in message.spans
        if any(message.text[i].isalnum() and i not in hidden for i in range(span.start, span.end))
    ]  # fmt: skip
