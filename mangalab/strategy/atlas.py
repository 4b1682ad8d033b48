"""One row for every matrix whose update the book has measured, and one for every update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Row = dict[str, Any]


def matrices(records: Mapping[str, Mapping]) -> list[Row]:
    """Rows of all recorded spectra that hold a whole matrix, with ``chapter`` and ``update`` added.

    Left out are rows whose shape or rank is not recorded and updates of zero, which have no shape.
    """
    rows = []
    for chapter, record in records.items():
        for spectrum in record["spectra"]:
            for row in spectrum["rows"]:
                if row.get("rank_90") and row.get("max_rank", 0) > 1:
                    rows.append({**row, "chapter": chapter, "update": spectrum["id"]})
    return rows


def updates(rows: Iterable[Row]) -> list[Row]:
    """One row per update: medians over its matrices, entries touched, numbers needed for 90 %.

    ``share_90`` is rank_90 over the smaller side of the matrix, also for adapters. ``compact``
    counts the numbers of two factors of rank rank_90, (m + n) r for each m x n matrix;
    ``entries`` counts m n.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["chapter"], row["update"]), []).append(row)
    return [_update(chapter, name, group) for (chapter, name), group in groups.items()]


def _update(chapter: str, name: str, group: list[Row]) -> Row:
    def median(key: str) -> float | None:
        known = [row[key] for row in group if row.get(key) is not None]
        return float(np.median(known)) if known else None

    shapes = [(row["shape"], row["rank_90"]) for row in group]
    return {
        "chapter": chapter, "update": name, "matrices": len(group),
        "relative": median("relative"), "stable_rank": median("stable_rank"),
        "share_90": float(np.median([row["rank_90"] / min(row["shape"]) for row in group])),
        "above_edge": median("above_edge"),
        "entries": sum(m * n for (m, n), _ in shapes),
        "compact": sum(r * (m + n) for (m, n), r in shapes),
    }


def energy_at(row: Row, share: float) -> float:
    """Energy in the first ``share`` of a matrix's directions, between recorded ranks on a line.

    NaN beyond the largest recorded rank, unless all of the energy lies below it.
    """
    ranks = np.array([0, *row["ranks"]]) / min(row["shape"])
    end = 1.0 if row["energy"][-1] > 0.999 else np.nan
    return float(np.interp(share, ranks, [0.0, *row["energy"]], right=end))
