"""`mangalab spectrum`: finds the update behind a path, measures it, and lays out the table."""

from __future__ import annotations

import statistics
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .drift_report import columns
from .project import BookError

SLOW = 2.0  # seconds after which a progress bar appears


def measure(
    path: Path, base: Path | None, rank: int, top: int | None = None, partial: bool = False
) -> list[dict[str, Any]]:
    """Rows of `mangalab.spectrum.summary` for the update at `path`; BookError when there is none."""
    from ..spectrum import AdapterError, summary

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            updates = _updates(path, base, partial)
        _warn(updates, said)
        if base is None:  # factored: all together in one batch, quick
            return summary(updates, ranks=[rank], k=top)
        return [row for name in _bar(updates) for row in _one(updates, name, rank, top)]
    except (AdapterError, ValueError) as error:
        raise BookError(str(error)) from None


def _one(updates: Mapping[str, Any], name: str, rank: int, top: int | None) -> list[dict[str, Any]]:
    from ..spectrum import summary

    return summary({name: updates[name]}, ranks=[rank], k=top)


def _updates(path: Path, base: Path | None, partial: bool) -> Mapping[str, Any]:
    """The update: factored from an adapter folder, else the difference of two checkpoints."""
    from ..spectrum import updates_from_adapter, updates_from_checkpoints

    source = resolve(path)
    if base is not None and (source / "adapter_config.json").is_file():
        raise BookError(f"{path} is an adapter, which holds its update itself: leave out --base")
    if base is not None:
        return updates_from_checkpoints(resolve(base), source, strict=not partial)
    if source.is_dir() and not list(source.glob("model*.safetensors*")):
        return updates_from_adapter(source)
    if source.name == "adapter_model.safetensors":
        return updates_from_adapter(source.parent)
    raise BookError(
        f"{path} is a whole checkpoint: name what it was trained from with --base, or give the folder "
        "of an adapter (adapter_config.json and adapter_model.safetensors)"
    )


def resolve(path: Path) -> Path:
    """The file or folder with the weights; of a folder of the hub's cache, its current snapshot."""
    if not path.exists():
        raise BookError(f"{path} does not exist; give a folder or a .safetensors file")
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        raise BookError(
            f"{path.name} is a pickle, which can run code when it is read: save the weights as "
            "safetensors (save_pretrained does) and give that file"
        )
    snapshots = path / "snapshots"
    if not snapshots.is_dir():
        return path
    main = path / "refs" / "main"
    chosen = snapshots / main.read_text(encoding="utf8").strip() if main.is_file() else None
    known = sorted(folder for folder in snapshots.iterdir() if folder.is_dir())
    if chosen in known:
        return chosen
    if len(known) == 1:
        return known[0]
    names = ", ".join(folder.name for folder in known) or "none"
    raise BookError(f"{path} has no current snapshot; give one of its folders snapshots/: {names}")


def _warn(updates: Mapping[str, Any], said: list[warnings.WarningMessage]) -> None:
    lines = [str(one.message) for one in said]
    if skipped := getattr(updates, "skipped", None):
        names = ", ".join(f"{name} ({why})" for name, why in list(skipped.items())[:5])
        lines.append(f"{len(skipped)} weights are left out: {names}")
    for line in lines:
        print(f"note: {line}", file=sys.stderr)


def _bar(updates: Mapping[str, Any]) -> Iterable[str]:
    from tqdm import tqdm

    return tqdm(updates, desc="spectra", delay=SLOW, leave=False)


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole update: norm, energy in the first r of every module, medians over modules."""
    energy = sum(row["frobenius"] ** 2 for row in rows)
    known = all(row["energy"][0] is not None for row in rows)
    inside = sum(row["frobenius"] ** 2 * row["energy"][0] for row in rows) if known else None
    middle = lambda key: _median([row[key] for row in rows])  # noqa: E731
    return {
        "modules": len(rows),
        "frobenius": energy**0.5,
        "energy": inside / energy if inside is not None and energy > 0 else None,
        "median_rank_90": middle("rank_90"),
        "median_effective_rank": middle("effective_rank"),
        "median_stable_rank": middle("stable_rank"),
        "zero_modules": sum(row["frobenius"] == 0 for row in rows),
    }


def _median(values: list[float | None]) -> float | None:
    return statistics.median(values) if values and None not in values else None


def table(rows: list[dict[str, Any]], rank: int) -> list[str]:
    """One line a module and a summary."""
    at = f"energy at {rank}"
    head = ("module", "shape", "rank 90 %", "effective", "stable", at, "|dW|", "|dW|/|W|")
    body = [_cells(row) for row in rows]
    found = totals(rows)
    words = f"{found['modules']} modules, |dW| {found['frobenius']:.3g}; "
    words += f"medians: rank 90 % {_number(found['median_rank_90'], 'g')}, "
    words += f"effective {_number(found['median_effective_rank'], '.1f')}, "
    words += f"stable {_number(found['median_stable_rank'], '.1f')}; "
    words += f"{_number(found['energy'], '.1%')} of the energy in the first {rank} of each module"
    if found["zero_modules"]:
        words += f"; {found['zero_modules']} modules did not move at all"
    return [*columns([head, *body]), "", words]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        "x".join(map(str, row["shape"])),
        _number(row["rank_90"], "d"),
        _number(row["effective_rank"], ".1f"),
        _number(row["stable_rank"], ".1f"),
        _number(row["energy"][0], ".1%"),
        f"{row['frobenius']:.3g}",
        _number(row["relative"], ".2%"),
    )


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
