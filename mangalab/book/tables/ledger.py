"""The claims ledger: every checked statement, its derivation, and what this machine measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..pages import Runs, number
from ..project import Project, read_yaml
from . import parts
from .parts import Link


@dataclass(frozen=True)
class Judged:
    """What one run says about a claim."""

    source: parts.Source
    verdict: str
    text: str
    entry: dict[str, Any]


def load_claims(project: Project) -> list[dict]:
    """Entries of ``book/claims.yml``; none where there is no such file."""
    path = project.root / "book" / "claims.yml"
    return (read_yaml(path) if path.exists() else None) or []


def judgements(runs: Runs, link: Link) -> dict[str, list[Judged]]:
    """What complete runs say about each claim; smoke runs say nothing."""
    found: dict[str, list[Judged]] = {}
    for source in parts.sources(runs, link, "claims"):
        for entry in source.record["claims"]:
            judged = Judged(source, entry["verdict"], measured_text(entry), entry)
            found.setdefault(str(entry["id"]), []).append(judged)
    return found


def claims(runs: Runs, link: Link) -> list[dict]:
    """Rows of the ledger: an entry of the claims file with this profile's judgements.

    An entry with `as` has those of the claim that it names.
    """
    found = judgements(runs, link)
    names = "seed text verdict kind derivation check chapter unit".split()
    return [
        {
            **{name: str(entry.get(name) or "") for name in names},
            "id": str(entry["id"]),
            "correct": value_of(entry.get("correct"), entry.get("unit")),
            "url": link(str(entry.get("chapter"))),
            "judged": found.get(str(entry["id"])) or found.get(str(entry.get("as")), []),
        }
        for entry in load_claims(runs.project)
    ]


def html(runs: Runs, link: Link) -> str:
    """Counts that link to filtered views, the filter, and one row a claim."""
    rows = claims(runs, link)
    desk = Counter(row["verdict"] for row in rows)
    here = Counter(judged.verdict for row in rows for judged in row["judged"])
    choices = {
        "seed": ("Source", sorted({row["seed"] for row in rows})),
        "verdict": ("On the desk", [word for word, _ in desk.most_common()]),
        "chapter": ("Chapter", sorted({row["chapter"] for row in rows if row["chapter"]})),
        "measured": ("Measured here", [*(word for word, _ in here.most_common()), "not measured"]),
    }
    empty = "" if here else parts.why_empty(runs, "verdicts")
    return parts.render(
        "claims.html", rows=rows, desk=desk, here=here, choices=choices, empty=empty
    )


def value_of(value: object, unit: object) -> str:
    """A value with its unit; an empty string where there is none."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(number(one) for one in value) + (f" {unit}" if unit else "")
    text = number(value)
    return f"{text} {unit}" if unit and isinstance(value, int | float) else text


def measured_text(judgement: dict) -> str:
    """The measured value with its interval and n, where recorded."""
    measured = judgement.get("measured")
    text = "" if measured is None else number(measured)
    low, high = judgement.get("low"), judgement.get("high")
    if low is not None and high is not None and low != high:
        text += f" [{number(low)}, {number(high)}]"
    return text + (f", n = {number(judgement['n'])}" if judgement.get("n") else "")
