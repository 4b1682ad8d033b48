"""`mangalab spectrum --top K --base B`: certified largest values of full updates, laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .drift_report import columns
from .project import BookError
from .spectrum_table import _bar, _number, _warn, resolve, totals


def measure_top(
    path: Path,
    base: Path,
    rank: int,
    top: int,
    partial: bool = False,
    tol: float | None = None,
    memory: float | None = None,
) -> list[dict[str, Any]]:
    """One row a module, with the keys of `mangalab.spectrum.summary` and the intervals; streamed."""
    from ..spectrum import AdapterError
    from ..spectrum.blocks import MEMORY, stream
    from ..spectrum.topk import TOLERANCE, top_values

    source = resolve(path)
    if (source / "adapter_config.json").is_file():
        raise BookError(f"{path} is an adapter, which holds its update itself: leave out --base")
    tol = TOLERANCE if tol is None else tol
    try:
        pair = stream(resolve(base), source, not partial, MEMORY if memory is None else memory)
        _warn(pair, [])
        found = []
        for name in _bar(pair):
            blocks = pair.blocks(name)
            found.append(top_row(name, top_values(blocks, top, tol), rank))
        return found
    except (AdapterError, ValueError) as error:
        raise BookError(str(error)) from None


def top_row(name: str, found: Any, rank: int) -> dict[str, Any]:
    """What the k largest values tell of module `name`; None where all values would be needed.

    `energy` is the share in the first `rank` values; `top_energy` bounds on the share in all k.
    """
    from ..spectrum import parse_name, rank_for_energy, stable_rank

    layer, module = parse_name(name)
    values, known = found.values, rank <= len(found.low)
    whole = len(values) == min(found.shape)
    return {
        "name": name,
        "layer": layer,
        "module": module,
        "shape": list(found.shape),
        "max_rank": min(found.shape),
        "method": found.method,
        "complete": whole,
        "error_bound": float((found.high - found.low).max()) / 2,
        "frobenius": found.energy**0.5,
        "spectral_norm": float(values[0]),
        "relative": found.energy**0.5 / found.base_norm if found.base_norm else None,
        "ranks": [rank],
        "energy": [sum(found.share(rank)) / 2 if known or whole else None],
        "rank_90": rank_for_energy(values, 0.90, None if whole else found.energy),
        "rank_99": rank_for_energy(values, 0.99, None if whole else found.energy),
        "stable_rank": stable_rank(values, found.energy),
        "low": found.low.tolist(),
        "high": found.high.tolist(),
        "top_energy": list(found.share()),
        "width": found.width,
        "certified": found.met,
        "failure": found.failure,
        "passes": found.passes,
    }


def top_totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`totals`, the energy in the k largest values of every module, and what is certified."""
    energy = sum(row["frobenius"] ** 2 for row in rows)
    inside = [sum(row["frobenius"] ** 2 * row["top_energy"][i] for row in rows) for i in (0, 1)]
    return {
        **totals([row | {"effective_rank": None} for row in rows]),
        "top_energy": [part / energy for part in inside] if energy > 0 else None,
        "certified": sum(row["certified"] for row in rows),
        "widest": max(row["width"] for row in rows),
        "failure": sum(row["failure"] for row in rows),
    }


def top_table(rows: list[dict[str, Any]], rank: int) -> list[str]:
    """One line a module and a summary."""
    count = max(len(row["low"]) for row in rows)
    head = ("module", "shape", "largest", f"value {count}", "rank 90 %", "stable", f"energy at {rank}",
            "|dW|", "|dW|/|W|", "interval", "by")  # fmt: skip
    found = top_totals(rows)
    words = f"{found['modules']} modules, |dW| {found['frobenius']:.3g}; "
    if found["top_energy"]:
        words += f"{found['top_energy'][0]:.2%} to {found['top_energy'][1]:.2%} of the energy in the "
        words += f"first {count} of each module; "
    words += f"certified as asked: {found['certified']} of {found['modules']}, the widest interval is "
    words += f"{found['widest']:.0e} of the largest value; the probability that any bound fails is "
    words += f"{found['failure']:.0e}" if found["failure"] else "0"
    if found["zero_modules"]:
        words += f"; {found['zero_modules']} modules did not move at all"
    return [*columns([head, *(_cells(row, count) for row in rows)]), "", words]


def _cells(row: dict[str, Any], count: int) -> tuple[str, ...]:
    middle = [(low + high) / 2 for low, high in zip(row["low"], row["high"], strict=True)]
    return (
        row["name"],
        "x".join(map(str, row["shape"])),
        f"{middle[0]:.4g}",
        f"{middle[count - 1]:.4g}" if len(middle) == count else "-",
        _number(row["rank_90"], "d"),
        _number(row["stable_rank"], ".1f"),
        _number(row["energy"][0], ".1%"),
        f"{row['frobenius']:.3g}",
        _number(row["relative"], ".2%"),
        f"{row['width']:.0e}",
        row["method"],
    )
