"""Questions with contexts as a dataset others can read: SQuAD v2 and JSON Lines, with their schemas.

Rows come from the grounded questions of chapter 14 and from two-hop questions that are built from the
catalogue. A schema says what a file may look like; :func:`misplaced` checks what no schema can.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from . import catalogue, raft

KINDS = ("answerable", "unanswerable", "adversarial")
NO_ANSWER = "[No context]"
OF_RAFT = {"answerable": "answerable", "contradiction": "adversarial"}  # the others lack something


@dataclass(frozen=True)
class Row:
    """A question, what may be read, and its answer: words of the context, or None without one."""

    id: str
    title: str
    context: str
    question: str
    answer: str | None
    kind: str  # one of KINDS
    hops: int  # facts that must be joined
    parts: int = 1  # details asked for


def grounded(split: str) -> tuple[Row, ...]:
    """The hand-written questions of chapter 14 with the sheets that go with them, today's values."""
    found = []
    for question in raft.questions(split):
        case = raft.case(question)
        settled = case.kind == "answerable"
        found.append(Row(
            question.id, question.title.title, "\n".join(s.text for s in case.sheets), question.text,
            case.answer if settled else None, OF_RAFT.get(case.kind, "unanswerable"), 1,
            len(question.fields),
        ))  # fmt: skip
    return tuple(found)


def two_hop(n: int | None = None) -> tuple[Row, ...]:
    """Questions that need two sheets: the author from one, and the fact from the author's other sheet.

    Only authors with exactly two titles in the catalogue; a third sheet, by somebody else, is there
    to be wrong.
    """
    by_author: dict[str, list] = {}
    for title in catalogue.load():
        by_author.setdefault(title.author, []).append(title)
    pairs = [pair for pair in by_author.values() if len(pair) == 2]
    found = []
    turned_round = pairs[1:] + pairs[:1]
    for number, ((one, other), (stranger, _)) in enumerate(zip(pairs, turned_round, strict=True)):
        for asked, wanted in ((one, other), (other, one)):
            sheets = [_line(asked, "author")]
            sheets += [_line(title, "author", "year") for title in (stranger, wanted)]
            turned = sheets[number % 3 :] + sheets[: number % 3]
            text = f"In which year did the other series by the author of {asked.title} begin?"
            found.append(Row(f"hop-{asked.id}", asked.title, "\n".join(turned), text, str(wanted.year),
                             "answerable", 2))  # fmt: skip
    return tuple(found[:n])


def _line(title: catalogue.Title, *fields: str) -> str:
    return " | ".join([title.title, *(f"{raft.LABELS[f]}: {getattr(title, f)}" for f in fields)])


def enough(row: Row, sheets: Sequence[str]) -> bool:
    """Whether these sheets settle a two-hop question: an exhaustive reader of titles and authors."""
    read = []
    for title, *fields in (sheet.split(" | ") for sheet in sheets):
        read.append(dict(field.split(": ", 1) for field in fields) | {"title": title})
    authors = {r["Author"] for r in read if r["title"] == row.title}
    years = {r["First year"] for r in read
             if r["Author"] in authors and r["title"] != row.title and "First year" in r}  # fmt: skip
    return years == {row.answer}


def hops_needed(row: Row) -> int:
    """Fewest sheets of the context that settle a two-hop question."""
    sheets = row.context.split("\n")
    sizes = range(1, len(sheets) + 1)
    return next(k for k in sizes for some in combinations(sheets, k) if enough(row, some))


def spans_only(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows that SQuAD can hold: its answers are one run of words of the context."""
    return tuple(r for r in rows if r.answer is None or r.answer in r.context)


_TEXT = {"type": "string", "minLength": 1}
_ANSWER = {
    "type": "object", "required": ["text", "answer_start"], "additionalProperties": False,
    "properties": {"text": _TEXT, "answer_start": {"type": "integer", "minimum": 0}},
}  # fmt: skip
_QUESTION = {
    "type": "object", "required": ["id", "question", "answers", "is_impossible"],
    "additionalProperties": False,
    "properties": {
        "id": _TEXT, "question": _TEXT, "is_impossible": {"type": "boolean"},
        "answers": {"type": "array", "items": _ANSWER},
        "kind": {"enum": list(KINDS)}, "hops": {"type": "integer", "minimum": 1},
        "parts": {"type": "integer", "minimum": 1},
    },
    "if": {"properties": {"is_impossible": {"const": True}}},
    "then": {"properties": {"answers": {"maxItems": 0}}},
    "else": {"properties": {"answers": {"minItems": 1}}},
}  # fmt: skip


def _list_of(key: str, items: dict, *beside: str) -> dict:
    fields = {key: {"type": "array", "minItems": 1, "items": items}} | {name: _TEXT for name in beside}
    shape = {"type": "object", "required": list(fields), "additionalProperties": False}
    return shape | {"properties": fields}


_PARAGRAPH = _list_of("qas", _QUESTION, "context")
SQUAD = _list_of("data", _list_of("paragraphs", _PARAGRAPH, "title"), "version")
JSONL = {
    "type": "object", "required": ["id", "prompt", "completion"], "additionalProperties": False,
    "properties": {"id": _TEXT, "completion": _TEXT,
                   "prompt": {"type": "string", "pattern": "^Context: [\\s\\S]+\\nQuestion: [^\\n]+$"}},
}  # fmt: skip


def to_squad(rows: Iterable[Row]) -> dict:
    """Rows in the shape of SQuAD v2.0, a paragraph each. Raises ValueError where a span is missing."""
    data: dict[str, list] = {}
    for row in rows:
        at = row.context.find(row.answer) if row.answer is not None else 0
        if at < 0:
            raise ValueError(
                f"{row.id}: {row.answer!r} is no run of words of its context; use spans_only()")
        answers = [] if row.answer is None else [{"text": row.answer, "answer_start": at}]
        question = {"id": row.id, "question": row.question, "answers": answers,
                    "is_impossible": row.answer is None, "kind": row.kind, "hops": row.hops,
                    "parts": row.parts}  # fmt: skip
        data.setdefault(row.title, []).append({"context": row.context, "qas": [question]})
    return {"version": "v2.0", "data": [{"title": t, "paragraphs": p} for t, p in data.items()]}


def from_squad(squad: dict) -> tuple[Row, ...]:
    """Rows of a file of :func:`to_squad`, in its order."""
    return tuple(
        Row(q["id"], article["title"], paragraph["context"], q["question"],
            q["answers"][0]["text"] if q["answers"] else None, q["kind"], q["hops"], q["parts"])
        for article in squad["data"] for paragraph in article["paragraphs"] for q in paragraph["qas"]
    )  # fmt: skip


def misplaced(squad: dict) -> list[str]:
    """Ids of questions whose answer does not stand where the file says."""
    paragraphs = [paragraph for article in squad["data"] for paragraph in article["paragraphs"]]
    return [
        q["id"]
        for paragraph in paragraphs for q in paragraph["qas"] for a in q["answers"]
        if not paragraph["context"].startswith(a["text"], a["answer_start"])
    ]  # fmt: skip


def to_jsonl(rows: Iterable[Row]) -> str:
    """One JSON object a line with prompt and completion; the absent answer has its own words."""
    found = []
    for row in rows:
        prompt = f"Context: {row.context}\nQuestion: {row.question}"
        completion = NO_ANSWER if row.answer is None else row.answer
        line = {"id": row.id, "prompt": prompt, "completion": completion}
        found.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(found)


def from_jsonl(text: str) -> list[tuple[str, str, str, str | None]]:
    """(id, context, question, answer) of each line."""
    found = []
    for line in text.splitlines():
        row = json.loads(line)
        context, question = row["prompt"].removeprefix("Context: ").rsplit("\nQuestion: ", 1)
        answer = None if row["completion"] == NO_ANSWER else row["completion"]
        found.append((row["id"], context, question, answer))
    return found


def faults(document: object, schema: dict) -> list[str]:
    """What a schema has against a document, each with its place; empty if it is valid."""
    from jsonschema import Draft202012Validator

    found = Draft202012Validator(schema).iter_errors(document)
    return [f"{'/'.join(map(str, e.absolute_path)) or '.'}: {e.message}" for e in found]


def compose(rows: Sequence[Row], shares: dict[str, float], hop_share: float) -> tuple[Row, ...]:
    """The largest set, in the given order, with these shares of kinds and of two-hop questions.

    ``shares`` of :data:`KINDS` sum to 1; two-hop rows count among the answerable ones.
    """
    groups = {kind: [r for r in rows if r.kind == kind and r.hops == 1] for kind in KINDS}
    hops = [r for r in rows if r.hops > 1]
    plain = shares["answerable"] - hop_share
    have = [(len(groups["answerable"]), plain), (len(hops), hop_share)]
    have += [(len(groups[kind]), shares[kind]) for kind in KINDS[1:]]
    size = int(min(n / share for n, share in have if share > 0) + 1e-9)
    kept = set(groups["answerable"][: round(size * plain)]) | set(hops[: round(size * hop_share)])
    for kind in KINDS[1:]:
        kept |= set(groups[kind][: round(size * shares[kind])])
    return tuple(r for r in rows if r in kept)
