"""Questions about the shop's titles with product sheets as context, for chapter 14.

A case is a question, the sheet that answers it (the oracle), sheets of similar titles that answer it
wrongly (distractors), and the right answer, which may be that the sheets do not settle it. Author,
year, magazine and volumes are facts of the catalogue. Price, stock and delivery are invented and
volatile: they have one value "then", when a model was trained, and another "now".
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue, qa
from mangalab.data._files import read_rows
from mangalab.data.catalogue import Title

LABELS = {
    "author": "Author", "year": "First year", "magazine": "Magazine", "volumes": "Volumes",
    "price": "Price", "stock": "Stock", "delivery": "Delivery",
}
NOUNS = LABELS | {"volumes": "number of volumes", "delivery": "delivery time"}
VOLATILE = ("price", "stock", "delivery")
STABLE = tuple(field for field in LABELS if field not in VOLATILE)
KINDS = ("answerable", "missing_fact", "missing_sheet", "contradiction")
SPLITS = ("train", "validation", "test")
VERSIONS = ("then", "now", "other")  # "other" is true at no time: the second side of a contradiction
ABSTAIN = "Cannot tell"
TASK = f"Answer from the sheets in a few words. If they do not settle it, say: {ABSTAIN}"
LINES = 3  # a sheet lists that many fields, more only if the question asks for more
POOL = 6  # distractors are drawn from that many hardest ones

# Training asks about these titles only. Several share an author or a series.
SHELF = tuple(
    """
    downfall solanin goodnight-punpun blame biomega battle-angel-alita
    battle-angel-alita-last-order emma a-brides-story uzumaki tomie aqua aria soul-eater fire-force
    silver-spoon cross-game spirit-circle wandering-son strobe-edge slam-dunk homunculus claymore
    hinamatsuri
    """.split()
)


@dataclass(frozen=True)
class Question:
    """What a shopper asks; ``kind`` says what the sheets lack, ``fields`` what is asked for."""

    id: str
    text: str
    title_id: str
    fields: tuple[str, ...]
    kind: str
    slices: tuple[str, ...]
    split: str

    @property
    def title(self) -> Title:
        """The title that is asked about."""
        return catalogue.by_id(self.title_id)

    @property
    def volatile(self) -> bool:
        """Whether anything asked for may change from day to day."""
        return any(field in VOLATILE for field in self.fields)

    @property
    def on_shelf(self) -> bool:
        """Whether training asks about this title."""
        return self.title_id in SHELF


@dataclass(frozen=True)
class Sheet:
    """What the shop says about one title: some of its fields with their values."""

    title: Title
    values: dict[str, str]

    @property
    def text(self) -> str:
        """One line: the title, then each field as "Label: value"."""
        return " | ".join([self.title.title, *(self.line(field) for field in self.values)])

    def line(self, field: str) -> str:
        """The words of one field, which an answer may quote."""
        return f"{LABELS[field]}: {self.values[field]}"

    def answer(self, fields: Sequence[str]) -> str:
        """What this sheet would answer for the fields, in their order."""
        return ", ".join(self.values[field] for field in fields)


@dataclass(frozen=True)
class Case:
    """A question with its sheets; ``oracle`` is the place of the right sheet, None without one."""

    question: Question
    kind: str
    sheets: tuple[Sheet, ...]
    oracle: int | None
    answer: str
    then: str  # the answer at training time
    now: str  # the answer today

    @property
    def prompt(self) -> str:
        """Task, sheets and question."""
        return "\n".join([TASK, *(sheet.text for sheet in self.sheets), self.question.text])

    @property
    def quoted(self) -> str:
        """The answer after the words of the oracle that it rests on; an abstention quotes nothing."""
        if self.kind != "answerable":
            return self.answer
        return f"{quote(self.sheets[self.oracle], self.question.fields)} {self.answer}"


def quote(sheet: Sheet, fields: Sequence[str]) -> str:
    """The title and, in quotation marks, the sheet's own words for each field."""
    return f"{sheet.title.title}, " + ", ".join(f'"{sheet.line(field)}"' for field in fields) + "."


def questions(split: str, n: int | None = None, seed: int = 0) -> tuple[Question, ...]:
    """Questions of a split: validation and test by hand, in file order; train by the grammar.

    ``n`` keeps the first; training gives ``n`` (default: one of each fact and pair that it asks for)
    in an order and wording that depend on ``seed``. Raises ValueError for another split or too many.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    found = _grammar(seed) if split == "train" else _by_hand(split)
    if n is not None and not 1 <= n <= len(found):
        raise ValueError(f"n={n}, but {split} has 1 to {len(found)} questions")
    return found[:n]


def value(title: Title, field: str, version: str) -> str:
    """What a sheet of that version says; ValueError where the title has no such field."""
    if version not in VERSIONS:
        raise ValueError(f"no version {version!r}; there are {', '.join(VERSIONS)}")
    if field not in VOLATILE and not getattr(title, field):
        raise ValueError(f"{title.id} has no {field}")
    if field in ("author", "magazine"):
        return getattr(title, field)
    steps = VERSIONS.index(version) if field in VOLATILE else 2 * (version == "other")
    number = _changed(title, field, steps)
    if field == "price":
        return f"{number} yen"
    if field == "stock":
        return f"{number} copies" if number > 1 else ["sold out", "1 copy"][number]
    return f"{number} days" if field == "delivery" else str(number)


def case(
    question: Question, version: str = "now", k: int = 2, kind: str | None = None,
    place: int | None = None,
) -> Case:
    """The question with ``k`` distractors and, unless ``kind`` says otherwise, its oracle.

    ``kind`` (default: the question's) may withhold the sheet (``k + 1`` distractors then) or the
    fact, or add a second sheet that disagrees in place of a distractor. ``place`` puts the oracle
    among the sheets, 0 to k; default: spread evenly by the question's id. Raises ValueError.
    """
    kind = kind or question.kind
    if kind not in KINDS or k < 0 or (kind == "contradiction" and k < 1):
        kinds = ", ".join(KINDS)
        raise ValueError(f"kind={kind!r}, k={k}: need one of {kinds} and k >= 0 (1 to contradict)")
    own = _own_sheets(question, version, kind)
    others = [sheet(t, question.fields, version) for t in distractors(question, k + 1 - len(own))]
    at = _digest(f"place:{question.id}") % (k + 1) if place is None else place
    if not 0 <= at <= k:
        raise ValueError(f"place={place}, but there are places 0 to {k}")
    sheets = _arranged(own, others, at)
    now, then = (_answer(question, name) for name in (version, "then"))
    settled = kind == "answerable"
    oracle = sheets.index(own[0]) if settled else None
    return Case(question, kind, tuple(sheets), oracle, now if settled else ABSTAIN, then, now)


def with_sheets(question: Question, titles: Sequence[Title], version: str = "now") -> Case:
    """The question with the sheets of ``titles``, as a retriever found them.

    It is answerable if its own title is among them; every sheet lists what is asked, where it can.
    """
    sheets = tuple(sheet(title, question.fields, version) for title in titles)
    names = [title.id for title in titles]
    oracle = names.index(question.title_id) if question.title_id in names else None
    kind = "missing_sheet" if oracle is None else "answerable"
    now, then = (_answer(question, name) for name in (version, "then"))
    return Case(question, kind, sheets, oracle, ABSTAIN if oracle is None else now, then, now)


def distractors(question: Question, k: int) -> tuple[Title, ...]:
    """``k`` of the titles most like the question's that answer it with other values."""
    pool = _alike(question.title_id, question.fields)[: max(POOL, k)]
    if len(pool) < k:
        raise ValueError(f"{question.id}: {len(pool)} distractors, not k={k}")
    return tuple(sorted(pool, key=lambda title: _digest(f"{question.id}:{title.id}"))[:k])


def sheet(
    title: Title, fields: Sequence[str], version: str, without: bool = False
) -> Sheet:
    """The sheet of a title with ``fields`` and others up to ``LINES``; ``without`` leaves them out."""
    have = [f for f in LABELS if f in VOLATILE or getattr(title, f)]
    fill = sorted((f for f in have if f not in fields), key=lambda f: _digest(f"{title.id}:{f}"))
    asked = [] if without else [f for f in fields if f in have]
    kept = {*asked, *fill[: max(LINES - len(asked), 1)]}
    return Sheet(title, {f: value(title, f, version) for f in LABELS if f in kept})


def _own_sheets(question: Question, version: str, kind: str) -> list[Sheet]:
    """The sheets of the question's own title: one, none, or two that disagree."""
    if kind == "missing_sheet":
        return []
    own = sheet(question.title, question.fields, version, without=kind == "missing_fact")
    if kind != "contradiction":
        return [own]
    second = {f: value(question.title, f, "other") for f in question.fields}
    return [own, Sheet(question.title, own.values | second)]


def _arranged(own: list[Sheet], others: list[Sheet], at: int) -> list[Sheet]:
    """The first own sheet at ``at``, a second one as far from it as it can be."""
    sheets = list(others)
    if own:
        sheets.insert(at, own[0])
    if len(own) == 2:
        sheets.insert(0 if at >= len(sheets) / 2 else len(sheets), own[1])
    return sheets


@cache
def _alike(title_id: str, fields: tuple[str, ...]) -> tuple[Title, ...]:
    """Titles that have the fields with values never right for the title, the most alike first."""
    own = catalogue.by_id(title_id)

    def competes(other: Title) -> bool:
        if other.id == own.id or not all(f in VOLATILE or getattr(other, f) for f in fields):
            return False
        own_values = {value(own, f, v) for f in fields for v in VERSIONS}
        return not own_values & {value(other, f, v) for f in fields for v in VERSIONS[:2]}

    def likeness(other: Title) -> float:
        series = bool(_words(own) & _words(other))
        author = bool(set(own.authors) & set(other.authors))
        return (3 * (series + author) + (own.magazine == other.magazine)
                + 0.5 * len(set(own.genres) & set(other.genres)) - abs(own.year - other.year) / 20)

    found = [title for title in catalogue.load() if competes(title)]
    return tuple(sorted(found, key=lambda other: (-likeness(other), other.id)))


def _words(title: Title) -> set[str]:
    return {word for word in title.id.split("-") if len(word) > 4}


def _answer(question: Question, version: str) -> str:
    return ", ".join(value(question.title, field, version) for field in question.fields)


def _changed(title: Title, field: str, steps: int) -> int:
    """The field's number after 0, 1 or 2 changes, no two of them equal."""
    if field == "delivery":
        return 2 + (_digest(f"delivery:{title.id}") % 13 + 4 * steps) % 13
    number = {"price": title.price_jpy, "stock": title.stock}.get(field)
    number = getattr(title, field) if number is None else number
    draw = _digest(f"change:{title.id}:{field}")
    if field == "stock":
        return (number + steps * (5 + draw % 19)) % 61
    if field == "price":
        return number + steps * (20 + draw % 90) * (1 if draw % 3 or number < 700 else -1)
    return number + steps * (1 + draw % 3)


@cache
def _grammar(seed: int) -> tuple[Question, ...]:
    """One training question for each fact of the shelf, and for each title three pairs of facts."""
    asked: list[tuple[str, tuple[str, ...]]] = []
    for name in SHELF:
        fields = [f for f in LABELS if f in VOLATILE or qa.askable(catalogue.by_id(name), f)]
        asked += [(name, (field,)) for field in fields]
        pairs = [(a, b) for a in fields for b in fields if a != b]
        pairs.sort(key=lambda pair: _digest(f"{seed}:{name}:{pair}"))
        asked += [(name, pair) for pair in pairs[:3]]
    asked.sort(key=lambda item: _digest(f"{seed}:{item}"))
    return tuple(
        Question(f"train-{name}-{'-'.join(fields)}", _wording(name, fields, seed), name, fields,
                 "answerable", (), "train")
        for name, fields in asked
    )


def _wording(name: str, fields: tuple[str, ...], seed: int) -> str:
    leads, draw = _templates("lead"), _digest(f"{seed}:wording:{name}:{fields}")
    forms = _templates(fields[0] if len(fields) == 1 else "both")
    nouns = dict(zip("ab", (NOUNS[field].lower() for field in fields), strict=False))
    text = forms[draw % len(forms)].format(title=catalogue.by_id(name).title, **nouns)
    return f"{leads[draw // 97 % len(leads)]} {text}".strip()


@cache
def _templates(part: str) -> tuple[str, ...]:
    return tuple(row["text"] for row in read_rows("raft_templates.tsv") if row["part"] == part)


@cache
def _by_hand(split: str) -> tuple[Question, ...]:
    found = []
    for number, row in enumerate(read_rows(f"raft_{split}.tsv"), start=1):
        fields, slices = (tuple(filter(None, row[name].split(","))) for name in ("fields", "slices"))
        if row["kind"] not in KINDS or set(fields) - set(LABELS):
            raise ValueError(f"raft_{split}.tsv, question {number}: {row['kind']!r}, {fields}")
        found.append(Question(f"{split}-{number:03}", row["question"], row["title_id"], fields,
                              row["kind"], slices, split))
    return tuple(found)


def _digest(text: str) -> int:
    return int(hashlib.sha256(text.encode("utf8")).hexdigest()[:16], 16)
