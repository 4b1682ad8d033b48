"""Schema of the question banks, checked with pydantic before a page is made of them.

``interview.py`` does without it on purpose: a chapter's kernel imports that module, and every package
that a kernel imports becomes a part of the key of its run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .interview import LEVELS, PLACEHOLDER, BankError

GENERAL = "general"
# {04-lora-qlora:recall_r16}: how a bank that belongs to no chapter names a value
QUALIFIED = re.compile(r"\{(\d\d-[a-z0-9-]+):([A-Za-z][A-Za-z0-9_]*)\}")
# what stands in code or in a formula is shown as it is: a value in there would not be filled in
VERBATIM = re.compile(r"(`+)[^`]+\1|\$\$.+?\$\$|(?<!\\)\$[^\s$](?:[^$\n]|\n(?!\n))*\$", re.DOTALL)
ASKS_FOR_A_NUMBER = re.compile(r"\bhow (?:many|much memory)\b|\bnapkin\b", re.IGNORECASE)

Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """A part of a bank: no unknown fields, surrounding space dropped, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Mistake(Strict):
    """A mistake that candidates make, why it tempts, and what it costs."""

    what: Text
    tempting: Text
    cost: Text


class Question(Strict):
    """One question with its model answer. Texts are Markdown; placeholders are recorded values."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    level: Literal["Fresh", "Intermediate", "Advanced", "Expert"]
    minutes: Annotated[int, Field(ge=1, le=15)]
    question: Text
    answer: Text
    key_insight: Text
    mistake: Mistake
    napkin: Text | None = None
    follow_ups: tuple[Text, ...] = ()
    covers: tuple[Annotated[str, Field(pattern=r"^\d{3}-\S+$")], ...] = ()

    @field_validator("question")
    @classmethod
    def _one_line(cls, text: str) -> str:
        if "\n" in text:
            raise ValueError("must be one paragraph, because it is the title of a folded answer")
        return text

    @model_validator(mode="after")
    def _napkin(self) -> Question:
        if ASKS_FOR_A_NUMBER.search(self.question) and not self.napkin:
            raise ValueError("the question asks for a number, so it needs a field 'napkin'")
        return self

    def texts(self) -> Iterator[tuple[str, str]]:
        """(field, text) of everything that a reader sees."""
        yield from (("question", self.question), ("answer", self.answer))
        yield "key_insight", self.key_insight
        yield from ((f"mistake.{name}", text) for name, text in self.mistake)
        if self.napkin:
            yield "napkin", self.napkin
        yield from ((f"follow_ups.{i}", text) for i, text in enumerate(self.follow_ups))


def read_bank(path: Path) -> list[Question]:
    """Questions of a bank, ordered by level; all faults of the file in one :class:`BankError`."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BankError(f"{path.name} cannot be read: {error}") from None
    if not isinstance(raw, list) or not raw:
        raise BankError(f"{path.name} must be a list of questions, each of which starts with '- id:'")
    faults: list[str] = []
    bank = [q for i, entry in enumerate(raw, 1) if (q := _question(path, i, entry, faults))]
    seen: set[str] = set()
    for question in bank:
        if question.id in seen:
            faults.append(f"{path.name}, question {question.id!r}, field 'id': is there twice")
        seen.add(question.id)
        faults += [f"{path.name}, question {question.id!r}, {f}" for f in _misread(question, path.stem)]
    if faults:
        raise BankError("\n".join(faults))
    return sorted(bank, key=lambda question: LEVELS.index(question.level))


def read_banks(folder: Path) -> dict[str, list[Question]]:
    """Every bank of a folder by its name: the chapters in order, the general one first."""
    paths = sorted(folder.glob("*.yml"), key=lambda path: (path.stem != GENERAL, path.stem))
    return {path.stem: read_bank(path) for path in paths}


def _question(path: Path, position: int, entry: Any, faults: list[str]) -> Question | None:
    """The entry as a question; None, with lines added to ``faults``, when it is none."""
    name = entry.get("id") if isinstance(entry, dict) else None
    where = f"{path.name}, question {name!r}" if name else f"{path.name}, entry {position}"
    try:
        return Question.model_validate(entry)
    except ValidationError as error:
        for fault in error.errors():
            field = ".".join(map(str, fault["loc"]))
            what = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{where}, field {field!r}: {what}" if field else f"{where}: {what}")
        return None


def _misread(question: Question, bank: str) -> Iterator[str]:
    """Faults in a question's texts: prices that read as maths, placeholders that are not filled in."""
    wrong, right = (PLACEHOLDER, "{04-lora-qlora:key}") if bank == GENERAL else (QUALIFIED, "{key}")
    for field, text in question.texts():
        for match in wrong.finditer(VERBATIM.sub(" ", text)):
            yield f"field {field!r}: {match[0]} must be written like {right} in this bank"
        for verbatim in VERBATIM.finditer(text):
            prices = verbatim[0][-2] == " " or text[verbatim.end() :][:1].isdigit()
            if verbatim[0][0] == "$" and prices:  # "$1 at $3.67"
                yield f"field {field!r}: {verbatim[0]} reads as a formula: write prices with \\$"
            if QUALIFIED.search(verbatim[0]) or (bank != GENERAL and PLACEHOLDER.search(verbatim[0])):
                yield f"field {field!r}: the value in {verbatim[0]} must stand outside code and maths"


def quoted_values(question: Question, bank: str) -> set[tuple[str, str]]:
    """(chapter, key) of every value that a question quotes."""
    text = "\n".join(text for _, text in question.texts())
    if bank == GENERAL:
        return {(match[1], match[2]) for match in QUALIFIED.finditer(text)}
    return {(bank, match[1]) for match in PLACEHOLDER.finditer(text)}


def with_roles(text: str, bank: str) -> str:
    """``text`` with its placeholders as ``{measured}`` roles, which the builder fills in."""
    if bank == GENERAL:
        return QUALIFIED.sub(r"{measured}`\1:\2`", text)
    return PLACEHOLDER.sub(rf"{{measured}}`{bank}:\1`", text)


# ---------------------------------------------------------------------- values typed by hand
OURS = re.compile(
    r"\b(?:(?:this|the|our) (?:chapter|run|book)(?:['’]s)?|our (?:model|adapter|router)|we measured|"
    r"we (?:found|saw|got|reached)|measured here|here (?:recall|accuracy|the loss))\b",
    re.IGNORECASE,
)
RESULT = re.compile(r"(?<![\w.{])\d+(?:[.,]\d+)?\s?(?:%|percent\b|(?:percentage )?points?\b|nats\b)")
# arithmetic shows its steps, literature its source
ALLOWED = re.compile(r"[=×≈±]|sqrt|\b\d{4}\.\d{4,5}\b|\bpapers?\b|\bpublished\b|\bbenchmark\b|et al\.")
SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n{2,}")


def typed_results(question: Question) -> list[str]:
    """Sentences that state a result of ours as typed figures, where a placeholder belongs.

    A sentence counts when it speaks of this book's runs and has a percentage, points or nats, unless
    it shows arithmetic or names a publication.
    """
    return [
        f"field {field!r}: {' '.join(sentence.split())}"
        for field, text in question.texts()
        if field not in ("question", "napkin")
        for sentence in SENTENCE.split(text)
        if OURS.search(sentence) and RESULT.search(sentence) and not ALLOWED.search(sentence)
    ]
