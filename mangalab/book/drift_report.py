"""A diff as a short table for people, as Markdown for an issue, and complete as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from .drift import FAILS, Drift, Row, counts

SCHEMA = 1
HEADS = {
    "flip": "conclusions that changed",
    "unrepeatable": "same inputs, another value (chapters must be deterministic)",
    "drift": "values outside their tolerance",
    "missing": "values that are gone",
    "cost": "time and memory",
    "new": "new values (not in the reference; no fault)",
}
SHOWN = 12  # rows of one section in a terminal
ISSUE_ROWS = 60
ISSUE_CHARACTERS = 60_000  # GitHub takes 65 536


def exit_code(drifts: list[Drift]) -> int:
    """1: drift, or a chapter without a good run; 2: a chapter without reference; 0: neither."""
    if any(drift.fails for drift in drifts):
        return 1
    return 2 if any(drift.state == "no-reference" for drift in drifts) else 0


def as_json(drifts: list[Drift], profile: str) -> dict[str, Any]:
    """Everything that was compared; the schema is in reference/README.md."""
    return {
        "schema": SCHEMA,
        "profile": profile,
        "ok": exit_code(drifts) == 0,
        "exit_code": exit_code(drifts),
        "counts": counts(drifts),
        "chapters": [{**asdict(drift), "fails": drift.fails} for drift in drifts],
    }


def lines(drifts: list[Drift], profile: str) -> list[str]:
    """What a terminal shows."""
    found = [headline(drifts, profile), *_states(drifts)]
    for outcome, title in HEADS.items():
        rows = [(d.chapter, row) for d in drifts for row in d.rows if row.outcome == outcome]
        if not rows:
            continue
        found += ["", f"{title} ({len(rows)}):"]
        found += columns([("", c, r.key, _move(r), r.detail) for c, r in rows[:SHOWN]])
        if len(rows) > SHOWN:
            found.append(f"  ... and {len(rows) - SHOWN} more: mangalab diff --json")
    return found


def headline(drifts: list[Drift], profile: str) -> str:
    """One sentence: how much was compared, by which rule, and what came of it."""
    n = counts(drifts)
    known = [drift for drift in drifts if drift.state == "compared"]
    words = f"diff: profile {profile}, {len(known)} of {len(drifts)} chapters, {n['compared']} values"
    if n["intervals"]:
        expected = 0.05 * n["intervals"]
        words += (
            f"; {n['intervals']} with intervals, {n['outside']} outside the joint 95 % interval "
            f"(independent runs: about {expected:.0f}), judged together by Holm's rule"
        )
    if any(n[name] for name in FAILS):
        return f"{words}: drift"
    states = {drift.state for drift in drifts}
    faults = [state for state in ("no-good-run", "no-reference") if state in states]
    return f"{words}: {' and '.join(faults).replace('-', ' ') or 'no drift'}"


def _states(drifts: list[Drift]) -> list[str]:
    found = []
    for drift in drifts:
        if drift.state == "no-good-run":
            found.append(f"  {drift.chapter}  not compared: {drift.note}")
        elif drift.state == "no-reference":
            found.append(f"  {drift.chapter}  no reference: {drift.note}")
        else:
            found.append(f"  {drift.chapter}  {provenance(drift)}")
    return found


def provenance(drift: Drift) -> str:
    """Which run met which reference, and how far their inputs agree."""
    sides = " against ".join(
        f"{str(side.get('started'))[:16].replace('T', ' ')} ({str(side.get('commit'))[:8]})"
        for side in (drift.run, drift.accepted)
    )
    if drift.same_run:
        words = "the accepted run itself"
    elif drift.same_inputs:
        words = "the same inputs"
    else:
        words = f"changed since: {', '.join(drift.changed) or 'nothing recorded'}"
    words += f"; stale: {drift.stale}" if drift.stale else ""
    return f"{sides}; {words}" + (f"; {drift.note}" if drift.note else "")


def markdown(drifts: list[Drift], profile: str) -> str:
    """The body of an issue: short, complete enough to act on, safe to show."""
    parts = [headline(drifts, profile) + ".", ""]
    parts += [f"- {code(line.strip())}" for line in _states(drifts)]
    for outcome in HEADS:
        rows = [(d.chapter, row) for d in drifts for row in d.rows if row.outcome == outcome]
        if rows:
            parts += ["", f"### {HEADS[outcome].capitalize()} ({len(rows)})", ""]
            parts += _table(rows[:ISSUE_ROWS])
            if len(rows) > ISSUE_ROWS:
                parts.append(f"\n… and {len(rows) - ISSUE_ROWS} more in the artifact's drift.json.")
    text = "\n".join(parts) + "\n"
    cut = text[:ISSUE_CHARACTERS].rpartition("\n")[0]
    return text if len(text) <= ISSUE_CHARACTERS else f"{cut}\n\n… cut; all of it is in drift.json.\n"


def _table(rows: Iterable[tuple[str, Row]]) -> list[str]:
    head = ["| chapter | value | accepted → this run | |", "|---|---|---|---|"]
    return head + [
        f"| {chapter} | {code(row.key)} | {code(_move(row))} | {row.detail.replace('|', '/')} |"
        for chapter, row in rows
    ]


def code(text: str) -> str:
    """Text as a code span that no Markdown, mention or table can break out of."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "/").split()) + "`"


def _move(row: Row) -> str:
    if row.outcome == "new":
        return short(row.new)
    if row.outcome == "missing":
        return f"{short(row.old)}, gone"
    alike = short(row.old) == short(row.new) and _float(row.old) and _float(row.new)
    show = repr if alike else short
    return f"{show(row.old)} -> {show(row.new)}"


def _float(value: object) -> bool:
    return isinstance(value, float)


def short(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of texts in aligned columns, two spaces between them."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = (zip(row, widths, strict=True) for row in rows)
    return ["  ".join(text.ljust(width) for text, width in row).rstrip() for row in padded]
