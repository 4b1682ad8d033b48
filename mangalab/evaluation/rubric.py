"""A judge of the assistant's replies made of rules, each measured against hand-made labels.

A check is a pure function of a reply and its request that returns the reason for an issue, or None.
What each finds and misses is measured by `measure` on `mangalab.data.assistant.labelled`.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from mangalab.data import catalogue
from mangalab.data.assistant import CHECKS, Labelled, Needs, Request
from mangalab.data.catalogue import Title
from mangalab.data.qa import normalise
from mangalab.evaluation import cues, facts
from mangalab.evaluation.intervals import Interval, wilson
from mangalab.evaluation.mentions import Mention, fold, titles, unknown_titles, without

Check = Callable[[str, Request], str | None]
Prefer = Callable[[str, str, Request], int]  # 1: the first reply is better, -1: the second, 0: tie
LATIN = r"[^\W_぀-ヿ一-鿿]+(?:['-][^\W_぀-ヿ一-鿿]+)*"
JAPANESE = r"[぀-ヿ一-鿿]"


@dataclass(frozen=True)
class Finding:
    """An issue of a reply: the check that found it and the reason in words."""

    check: str
    reason: str


def judge(reply: str, request: Request) -> tuple[Finding, ...]:
    """All issues of a reply, in the order of `CHECKS`."""
    found = ((name, check(reply, request)) for name, check in JUDGES.items())
    return tuple(Finding(name, reason) for name, reason in found if reason)


def title(reply: str, request: Request) -> str | None:
    """A manga is named that the catalogue lacks."""
    name = next(unknown_titles(reply, request.text), None)
    return f"{name!r} is not in the catalogue" if name else None


def fact(reply: str, request: Request) -> str | None:
    """Author, volumes, years or state of a title contradict the catalogue."""
    return facts.wrong(reply, request)


def constraint(reply: str, request: Request) -> str | None:
    """A title breaks what was asked for, or none is named although one was asked for.

    An answer about a title (``request.about``) has to name it, its authors or a number.
    """
    if request.kind == "info" and request.about:
        return None if _speaks_of(reply, request.about) else f"says nothing of {request.about.title}"
    if request.kind != "recommend":
        return None
    named = recommended(reply, request)
    breach = next(filter(None, (request.needs.breach(t) for t in named)), None)
    if breach or named or titles(reply) or title(reply, request):
        return breach
    silent = not cues.hands_over(reply) and not re.search(JAPANESE, reply) and possible(request.needs)
    return "no title is named" if silent else None


def _speaks_of(reply: str, title: Title) -> bool:
    said = normalise(reply)
    named = any(normalise(author).split()[-1] in said for author in title.authors)
    return named or any(m.title == title for m in titles(reply)) or bool(re.search(r"\d", reply))


def age(reply: str, request: Request) -> str | None:
    """A recommended title is rated above the age that was asked for."""
    old = next((t for t in recommended(reply, request) if request.needs.too_old(t)), None)
    return f"{old.title} is rated {old.age_rating}" if old else None


def spoiler(reply: str, request: Request) -> str | None:
    """An event of the plot is told that a pitch would keep back."""
    text = fold(reply)
    found = cues.told(without(text, titles(text)))
    return f"tells the plot: {found!r}" if found else None


def tone(reply: str, request: Request) -> str | None:
    """Slang, pressure, shouting, blame or mockery."""
    text = fold(reply)
    quoted = re.sub(r'"[^"]*"', lambda m: " " * len(m[0]), without(text, titles(text)))
    found = cues.off_brand(quoted)
    return f"off-brand: {found!r}" if found else None


def length(reply: str, request: Request) -> str | None:
    """More words than asked for (two Japanese signs count as a word), or nothing at all."""
    n, limit = words(reply), request.needs.max_words
    if n == 0:
        return "empty"
    return f"{n:g} words, at most {limit}" if n > limit else None


def escalation(reply: str, request: Request) -> str | None:
    """The customer needs a person and gets none, or gets one without need."""
    given = cues.hands_over(fold(reply))
    if given == request.needs.human:
        return None
    return "handed over without need" if given else "a person is needed and none is given"


JUDGES: dict[str, Check] = dict(
    zip(CHECKS, (title, fact, constraint, age, spoiler, tone, length, escalation), strict=True))


def words(reply: str) -> float:
    """Length in words."""
    text = fold(reply)
    return len(re.findall(LATIN, text)) + len(re.findall(JAPANESE, text)) / 2


@cache
def possible(needs: Needs) -> bool:
    """Whether any title of the catalogue is a right answer."""
    return any(needs.fits(t) for t in catalogue.load())


# before and after a title that the reply names without offering it
NOT_THIS = (
    r"\b(?:[Nn]ot|[Rr]ather than|[Ii]nstead of|[Ll]ike|[Aa]fter|[Ss]ince you own|[Ii]f|keep|leave) "
    r"(?:\w+ )?$"
)
PUT_ASIDE = (
    r"^[^.;]{0,40}?(?:\bso no\b|\bnot for\b|\bis out\b|\bnot (?:yet|that)\b|\bwould be too\b|"
    r"\btoo many\b|\bfor later\b|\bI'd (?:pick|take|wait)\b|\bis (?:already )?on your shelf\b|"
    r", (?:which|who) is older|\bis rated \d+ (?:here|with us)\b)"
)


def recommended(reply: str, request: Request) -> list[Title]:
    """Titles that the reply offers: those it puts aside or only refers to are left out.

    A title that the customer has is offered only where no other is.
    """
    text = fold(reply)
    found = titles(text)
    offered = [m.title for m in found if not _aside(text, m, found)]
    new = [t for t in offered if t.id not in request.needs.excluded]
    return new or offered


def _aside(text: str, mention: Mention, found: Sequence[Mention]) -> bool:
    before, after = text[: mention.start], without(text, found)[mention.end :]
    return bool(re.search(NOT_THIS, before) or re.search(PUT_ASIDE, after))


# ------------------------------------------------------------------ how good the judge is
@dataclass(frozen=True)
class Accuracy:
    """A check against the labels: precision and recall with 95 % Wilson intervals."""

    check: str
    precision: Interval | None
    recall: Interval
    true: int
    false: int
    missed: int


def measure(rows: Sequence[Labelled], check: str) -> Accuracy:
    """Precision and recall of a check, or of "any" issue; precision is None without a finding."""
    def said(row: Labelled) -> bool:
        if check == "any":
            return bool(judge(row.reply, row.request))
        return JUDGES[check](row.reply, row.request) is not None

    def is_so(row: Labelled) -> bool:
        return bool(row.issues) if check == "any" else check in row.issues

    pairs = [(said(row), is_so(row)) for row in rows]
    true, false = pairs.count((True, True)), pairs.count((True, False))
    missed = pairs.count((False, True))
    precision = wilson(true, true + false) if true + false else None
    return Accuracy(check, precision, wilson(true, true + missed), true, false, missed)


# ------------------------------------------------------------------ two replies
@dataclass(frozen=True)
class Duel:
    """Wins, ties and losses of policy a; ``outcomes`` holds 1, 0 or -1 for each request."""

    outcomes: tuple[int, ...]

    @property
    def rates(self) -> dict[str, Interval]:
        """Shares of wins, ties and losses."""
        names = {"win": 1, "tie": 0, "loss": -1}
        return {n: wilson(self.outcomes.count(v), len(self.outcomes)) for n, v in names.items()}

    @property
    def score(self) -> list[float]:
        """For each request 1 for a win, 1/2 for a tie, 0 for a loss."""
        return [(1 + outcome) / 2 for outcome in self.outcomes]


def fewer_issues(first: str, second: str, request: Request) -> int:
    """Prefers the reply in which fewer checks find something."""
    a, b = (len(judge(reply, request)) for reply in (first, second))
    return (b > a) - (a > b)


def duel(
    a: Sequence[str], b: Sequence[str], requests: Sequence[Request], seed: int = 0,
    prefer: Prefer = fewer_issues,
) -> Duel:
    """Compare two policies' replies; which one is shown first is drawn for each request."""
    if not len(a) == len(b) == len(requests):
        raise ValueError(f"duel: {len(a)}, {len(b)} replies to {len(requests)} requests")
    draw = random.Random(seed)
    outcomes = []
    for x, y, request in zip(a, b, requests, strict=True):
        swapped = draw.random() < 0.5
        result = prefer(y, x, request) if swapped else prefer(x, y, request)
        outcomes.append(-result if swapped else result)
    return Duel(tuple(outcomes))
