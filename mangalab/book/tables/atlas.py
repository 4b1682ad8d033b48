"""The spectral atlas: every recorded weight update by layer and module."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from markupsafe import Markup

from ..history import is_number
from ..pages import Runs
from . import draw, parts
from .parts import Link, Source

MAPS = {
    "rank_90": "Rank for 90 % of the energy",
    "effective_rank": "Effective rank",
    "relative": "Size of the update against W, %",
}


@dataclass(frozen=True)
class Heat:
    """One measure by layer (rows) and module (columns): text and shade from 0 to 1, or None."""

    title: str
    modules: list[str]
    rows: list[tuple[object, list[tuple[str, float] | None]]]


@dataclass(frozen=True)
class Update:
    """One recorded update: a name, its matrices, medians and pictures."""

    source: Source
    name: str
    rows: list[dict[str, Any]]
    medians: dict[str, float | None]
    curve: Markup | None
    heats: list[Heat]

    @property
    def anchor(self) -> str:
        """Where the page shows it."""
        return f"{self.source.chapter}-{self.name}"


def html(runs: Runs, link: Link) -> str:
    """A summary of all updates, then curve, maps and a folded table of each."""
    updates = [
        update(source, str(spectrum.get("id")), spectrum.get("rows") or [])
        for source in parts.sources(runs, link, "spectra")
        for spectrum in source.record["spectra"]
    ]
    updates = [one for one in updates if one.rows]
    empty = "" if updates else parts.why_empty(runs, "spectra")
    return parts.render("atlas.html", updates=updates, empty=empty)


def update(source: Source, name: str, rows: list[dict[str, Any]]) -> Update:
    """Everything that the page shows of one update."""
    names = ("rank_90", "rank_99", "effective_rank", "stable_rank", "relative", "max_rank")
    medians = {key: middle([row.get(key) for row in rows]) for key in names}
    medians["energy_16"] = middle([energy_at(row, 16) for row in rows])
    heats = [heat(rows, key, title) for key, title in MAPS.items() if medians[key] is not None]
    return Update(source, name, rows, medians, curve(rows), heats)


def middle(values: list[Any]) -> float | None:
    """Median of the numbers among some values; None where there is none."""
    numbers = [value for value in values if is_number(value)]
    return median(numbers) if numbers else None


def energy_at(row: dict[str, Any], rank: int) -> float | None:
    """Share of energy in the first ``rank`` directions, where the row has it."""
    shares = dict(zip(row.get("ranks") or [], row.get("energy") or [], strict=False))
    return shares.get(rank)


def curve(rows: list[dict[str, Any]]) -> Markup | None:
    """Energy by rank over all matrices; None without a rank that all of them share."""
    ranks = [rank for rank in rows[0].get("ranks") or []] if rows else []
    table = [[energy_at(row, rank) for row in rows] for rank in ranks]
    kept = [(r, s) for r, s in zip(ranks, table, strict=True) if all(is_number(v) for v in s)]
    if len(kept) < 2:
        return None
    bands = [(min(shares), median(shares), max(shares)) for _, shares in kept]
    said = "; ".join(
        f"rank {rank}: {mid:.0%} ({low:.0%} to {high:.0%})"
        for (rank, _), (low, mid, high) in zip(kept, bands, strict=True)
    )
    label = f"Share of energy by rank, median and range over {len(rows)} matrices. {said}."
    return draw.energy([rank for rank, _ in kept], bands, label)


def heat(rows: list[dict[str, Any]], key: str, title: str) -> Heat:
    """A measure by layer and module; the shade is relative to the largest value of this update."""
    modules = list(dict.fromkeys(str(row.get("module")) for row in rows))
    layers = list(dict.fromkeys(row.get("layer") for row in rows))
    values = {(r.get("layer"), str(r.get("module"))): r.get(key) for r in rows}
    top = max((value for value in values.values() if is_number(value)), default=0) or 1
    cells = {
        place: (brief(100 * value if key == "relative" else value), value / top)
        for place, value in values.items()
        if is_number(value)
    }
    lines = [(layer, [cells.get((layer, module)) for module in modules]) for layer in layers]
    return Heat(title, modules, lines)


def brief(value: float) -> str:
    """A number that fits a map's cell."""
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
