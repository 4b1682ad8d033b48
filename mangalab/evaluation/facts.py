"""Statements about catalogue titles in a reply, compared with the catalogue."""

import re
from collections.abc import Iterator, Sequence

from mangalab.data.assistant import Request
from mangalab.data.catalogue import Title
from mangalab.data.qa import normalise
from mangalab.evaluation.mentions import (
    NAME,
    Mention,
    fold,
    number,
    subject,
    titles,
    unknown_titles,
    without,
)

COUNT = (
    r"\b(?P<n>\d+|(?:twenty|thirty|forty|fifty)(?:-\w+)?|[a-z]+)(?:[ -](?:large|calm|single|short))?"
    r"[ -](?:volumes?|books)\b"
)
BY = rf"\b(?:by|from the (?:pen|hand) of)(?: the same \w+,)? (?P<who>{NAME}(?:,? and {NAME})?)"
MADE = rf"(?P<who>{NAME}) (?:wrote|drew|made|created) (?:it|this)\b"
WAS = rf"\b[Tt]hat was (?P<who>{NAME})"
BESIDE = r"\b(?:also|known for|artist of|author of)\b[^.:;]*$"  # titles only referred to
AUTHORED = (
    r"(?:written|drawn|made|created|illustrated|is|was|volumes?|books?|series|manga|story|\)|[\"!?]),?"
    r" ?$"
)
RUNS = (
    r"\b(?:still (?:running|going|being)|it still runs|ongoing|not finished|unfinished|new volumes)\b"
)
DONE = r"\b(?:complete|completed|finished|has ended|ended|concluded|all published|closed)\b"
NOT = r"(?:\b(?:not|never|nobody|no)|n't)\s+(?:\w+\s+)?$"
BEGAN = (
    r"\b(?:began|started|start(?:ing)? in|from|since|ran from)\b[^.;]{0,24}?"
    r"\b(?P<year>19\d\d|20\d\d)\b"
)
NO_COUNT = r"\b(?:under|limit|than|only|first)\s*$"  # "fewer than ten volumes" counts no title
ENDED = r"\b(?:ended|finished|closed|concluded|done|to)\b(?: \w+)? ?(?P<year>19\d\d|20\d\d)\b"


def wrong(reply: str, request: Request) -> str | None:
    """The first statement that contradicts the catalogue, in words, or None."""
    text = fold(reply)
    found = [m for m in titles(text) if not re.search(BESIDE, text[: m.start])]
    if not found and next(unknown_titles(reply, request.text), None) is None:
        asked = [request.about] if request.about else [m.title for m in titles(request.text)]
        found = [Mention(title, 0, 0) for title in asked]
    checks = (_authors, _volumes, _status, _years)
    return next((why for check in checks for why in check(text, found)), None)


def _authors(text: str, found: Sequence[Mention]) -> Iterator[str]:
    for pattern in (BY, MADE, WAS):
        for hit in re.finditer(pattern, text):
            title = subject(found, hit.start())
            if title and (pattern != BY or _claims(text, hit, found)):
                yield from _strangers(hit["who"], title)
    for mention in found:
        owner = re.search(rf"({NAME})'s? $", text[: mention.start])
        if owner:
            yield from _strangers(owner[1], mention.title)


def _claims(text: str, hit: re.Match, found: Sequence[Mention]) -> bool:
    """Whether "by X" says who made a title: not "tortured by X", not "by the same artist"."""
    here = hit.start()
    gaps = (text[m.end : here] for m in found if m.end <= here)
    follows = any(re.fullmatch(r"[\s,!.?]*", gap) for gap in gaps)
    makes = follows or re.search(AUTHORED, text[:here])
    return bool(makes) and "same" not in text[here : hit.start("who")]


def _strangers(who: str, title: Title) -> Iterator[str]:
    """Names that are not among the authors; family names alone and both orders are right."""
    right = {normalise(name) for name in title.authors}
    right |= {" ".join(reversed(name.split())) for name in right}
    right |= {part for name in right for part in name.split()}
    whole = normalise(who.removesuffix("'s"))
    for name in [whole] if whole in right else re.split(r",? and ", who):
        if normalise(name) not in right and not titles(name):
            yield f"{title.title} is by {title.author}, not by {name}"


def _volumes(text: str, found: Sequence[Mention]) -> Iterator[str]:
    for hit in re.finditer(COUNT, without(text, found)):
        n, title = number(hit["n"]), subject(found, hit.start())
        if n is None or title is None or re.search(NO_COUNT, text[: hit.start()]):
            continue
        complete = re.search(DONE, text[max(0, hit.start() - 30) : hit.end() + 20])
        if title.volumes is None and complete:
            yield f"{title.title} is not finished"
        elif title.volumes is not None and n != title.volumes:
            yield f"{title.title} has {title.volumes} volumes, not {n}"


def _status(text: str, found: Sequence[Mention]) -> Iterator[str]:
    text = without(text, found)  # "Case Closed" says nothing about an end
    for pattern, runs in ((RUNS, True), (DONE, False)):
        for hit in re.finditer(pattern, text, re.IGNORECASE):
            denied = bool(re.search(NOT, text[: hit.start()]))
            title = subject(found, hit.start())
            if title and not (denied and runs) and (title.volumes is None) != (runs != denied):
                yield f"{title.title} is {'finished' if title.volumes else 'not finished'}"


def _years(text: str, found: Sequence[Mention]) -> Iterator[str]:
    for pattern, field in ((BEGAN, "year"), (ENDED, "end_year")):
        for hit in re.finditer(pattern, text):
            title = subject(found, hit.start())
            right = title and getattr(title, field)
            if right and int(hit["year"]) != right:
                yield f"{title.title}: {right}, not {hit['year']}"
