"""Judging grounded answers: which sheet an answer came from, what it left out, when it abstained.

An answer is described by a role. ``right`` and ``part`` come from the oracle, ``distractor`` from a
sheet of another title, ``side`` from one of two sheets that disagree, ``stale`` is the value at
training time, ``memory`` a stable fact that no sheet gave, ``invented`` none of these, ``abstain``
says that the sheets do not settle it. A role is right or wrong depending on the case.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mangalab.data import qa, raft
from mangalab.data.raft import ABSTAIN, Case

from .intervals import Interval, wilson

ROLES = ("right", "part", "abstain", "distractor", "side", "stale", "memory", "invented")
UNITS = {"yen": "price", "¥": "price", "copies": "stock", "copy": "stock", "days": "delivery",
         "day": "delivery", "volumes": "volumes", "volume": "volumes", "books": "volumes"}
NAMES = ("author", "magazine")
NUMBER = re.compile(  # not the 35 of a name like Harukawa35
    r"(¥)?\s?(?<!\w)(\d+)\s?(yen|¥|cop(?:y|ies)|days?|volumes?|books)?", re.IGNORECASE)
ABSTAINS = re.compile(
    r"\b(can ?not|can't|could not|couldn't) (tell|say|determine|answer|be (determined|found|answered))|"
    r"\bnot (stated|given|listed|mentioned|provided|specified|available on)\b|"
    r"\bno (information|sheet|data|mention)\b|\bdo(es)? ?n[o']t (say|state|settle|list|mention)|"
    r"\bdisagree\b|\bunknown\b|\bi do ?n[o']t know\b", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """A possible answer to a case, field by field, and the role that it would have."""

    values: tuple[tuple[str, str], ...]
    role: str

    @property
    def text(self) -> str:
        """The answer in the words of the sheets; an abstention has no values."""
        return ", ".join(value for _, value in self.values) or ABSTAIN


# ------------------------------------------------------------------ candidates
def candidates(case: Case) -> tuple[Candidate, ...]:
    """Answers that the case invites, each text once: the abstention, then the sheets', then others.

    A text with two roles keeps the first of right, side, part, distractor, stale, memory, invented.
    """
    question, fields, found = case.question, case.question.fields, [Candidate((), "abstain")]

    def add(values: Sequence[str], role: str, of: Sequence[str] = fields) -> None:
        found.append(Candidate(tuple(zip(of, values, strict=True)), role))

    giving = [s for s in case.sheets if all(field in s.values for field in fields)]
    own = [sheet for sheet in giving if sheet.title.id == question.title_id]
    for sheet in own:
        add([sheet.values[f] for f in fields], "right" if case.kind == "answerable" else "side")
    if case.kind == "answerable" and len(fields) > 1:
        for field in fields:
            add([own[0].values[field]], "part", [field])
    for sheet in giving:
        if sheet not in own:
            add([sheet.values[f] for f in fields], "distractor")
    version = {"stale": "then", "memory": "then", "invented": "other"}
    for role in ("stale" if question.volatile else "memory", "invented"):
        if role != "invented" or not set(fields) & set(NAMES):
            add([raft.value(question.title, f, version[role]) for f in fields], role)
    first = {candidate.text: candidate for candidate in reversed(found)}
    return tuple(first[text] for text in dict.fromkeys(candidate.text for candidate in found))


def is_right(case: Case, role: str) -> bool:
    """Whether an answer of this role is what the case asks for."""
    return role == ("right" if case.kind == "answerable" else "abstain")


# ------------------------------------------------------------------ free text
def says(text: str, fields: Sequence[str], values: Sequence[str]) -> bool:
    """Whether a free answer gives exactly these values.

    Names must occur, apart from case, accents and long vowels. Numbers must be those of the values
    and no others; a unit beside a number must be the field's. "Sold out" counts as no copies.
    """
    found, plain = _numbers(text), f" {qa.normalise(text)} "
    wanted = []
    for field, value in zip(fields, values, strict=True):
        if field not in NAMES:
            wanted.append((_numbers(value)[0][0], field))
        elif f" {qa.normalise(value)} " not in plain:
            return False
    with_unit = [pair for pair in found if pair[1]]
    rest = [pair for pair in wanted if pair not in with_unit]
    bare = [number for number, unit in found if not unit]
    return len(found) == len(wanted) and bare == [number for number, _ in rest]


def judge(text: str, case: Case) -> str:
    """The role of a free answer; what is neither an abstention nor a candidate is ``invented``."""
    body = re.sub(r'"[^"]*"', " ", text.replace(case.question.title.title, " "))
    if ABSTAINS.search(body):
        return "abstain"
    for candidate in candidates(case)[1:]:
        if says(body, *zip(*candidate.values, strict=True)):
            return candidate.role
    return "invented"


def quote_state(text: str, case: Case) -> str:
    """What an answer's words in double quotes are: ``none``, ``oracle`` (all stand on a sheet of the
    title that is asked about), ``elsewhere`` (all stand on some sheet) or ``altered``."""
    quotes = re.findall(r'"([^"]+)"', text)
    if not quotes:
        return "none"
    own = " || ".join(s.text for s in case.sheets if s.title.id == case.question.title_id)
    everything = " || ".join(sheet.text for sheet in case.sheets)
    if all(quote in own for quote in quotes):
        return "oracle"
    return "elsewhere" if all(quote in everything for quote in quotes) else "altered"


def _numbers(text: str) -> list[tuple[str, str | None]]:
    """Numbers of a text in order, each with the field that its unit names, if it has one."""
    text = re.sub(r"\b(sold out|out of stock)\b", "0 copies", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    found = []
    for match in NUMBER.finditer(text):
        unit = match.group(1) or (match.group(3) or "").lower()
        found.append((str(int(match.group(2))), UNITS.get(unit)))
    return found


# ------------------------------------------------------------------ metrics
@dataclass(frozen=True)
class Metric:
    """A share: of the cases that ``among`` keeps, those whose role ``counts``."""

    name: str
    among: Callable[[Case], bool]
    counts: Callable[[Case, str], bool]


def _invites(role: str) -> Callable[[Case], bool]:
    return lambda case: any(candidate.role == role for candidate in candidates(case))


def _answerable(case: Case) -> bool:
    return case.kind == "answerable"


METRICS = {metric.name: metric for metric in (
    Metric("right", lambda case: True, is_right),
    Metric("utilisation", _answerable, lambda case, role: role == "right"),
    Metric("distractor", _invites("distractor"), lambda case, role: role == "distractor"),
    Metric("stale", _invites("stale"), lambda case, role: role == "stale"),
    Metric("detail lost", lambda case: _answerable(case) and len(case.question.fields) > 1,
           lambda case, role: role == "part"),
    Metric("false abstention", _answerable, lambda case, role: role == "abstain"),
    Metric("unsupported", lambda case: not _answerable(case), lambda case, role: role != "abstain"),
)}


def share(metric: str, cases: Sequence[Case], roles: Sequence[str]) -> Interval:
    """A metric of ``METRICS`` with its Wilson interval; ``n`` is its own denominator."""
    marks = hits(metric, cases, roles)
    if not marks:
        raise ValueError(f"{metric}: none of the {len(cases)} cases counts for it")
    return wilson(sum(marks), len(marks))


def hits(metric: str, cases: Sequence[Case], roles: Sequence[str]) -> list[bool]:
    """For each case that the metric is about, in order, whether its role counts."""
    if len(cases) != len(roles):
        raise ValueError(f"{len(cases)} cases and {len(roles)} roles")
    if unknown := set(roles) - set(ROLES):
        raise ValueError(f"unknown roles {sorted(unknown)}; there are {', '.join(ROLES)}")
    found = METRICS[metric]
    return [found.counts(c, r) for c, r in zip(cases, roles, strict=True) if found.among(c)]


def role_counts(roles: Sequence[str]) -> Mapping[str, int]:
    """How often each role occurs, in the order of ``ROLES``."""
    return {role: list(roles).count(role) for role in ROLES}


# ------------------------------------------------------------------ answering or not
def best_cut(right: Sequence[bool], unanswerable: Sequence[bool], score: Sequence[float]) -> float:
    """The score from which to answer that gets most cases right on these, the lowest of equals.

    Below it the answer is an abstention, which is right exactly where nothing can be answered.
    """
    right, lack = np.asarray(right, bool), np.asarray(unanswerable, bool)
    score = np.asarray(score, float)
    if not len(right) == len(lack) == len(score) or not len(score) or (right & lack).any():
        raise ValueError("best_cut: need equal lengths, and no answer that is right without evidence")
    cuts = [-np.inf, *np.unique(score), np.inf]
    gained = [np.where(score >= cut, right, lack).sum() for cut in cuts]
    return float(cuts[int(np.argmax(gained))])
