"""Decisions as the rules resolved them from measured values, beside what the scenarios chose."""

from __future__ import annotations

from typing import Any

from ..pages import Runs
from . import parts
from .parts import Link


def html(runs: Runs, link: Link) -> str:
    """How many resolutions agree with the scenarios, then each decision with its options."""
    groups = [
        (source, [view(entry) for entry in source.record["decisions"]])
        for source in parts.sources(runs, link, "decisions")
    ]
    words = [entry["word"] for _, entries in groups for entry in entries]
    empty = "" if groups else parts.why_empty(runs, "decisions")
    return parts.render(
        "decisions.html", groups=groups, total=len(words), agree=words.count("agrees"), empty=empty
    )


def view(entry: dict[str, Any]) -> dict[str, Any]:
    """A decision with the columns of its options; agreement is computed, not read."""
    options = entry.get("options") or []
    columns = list(dict.fromkeys(key for option in options for key in option.get("metrics") or {}))
    agrees = entry.get("resolution") == entry.get("scenario")
    return {**entry, "options": options, "columns": columns, "word": "agrees" if agrees else "differs"}
