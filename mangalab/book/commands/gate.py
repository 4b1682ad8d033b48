"""`mangalab accept` and `mangalab diff`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .shared import DEFAULT, AsJson, Chapters, DryRun, ProfileName, opened


def accept(
    chapters: Chapters = None,
    profile: ProfileName = DEFAULT,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="also runs of uncommitted changes")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Make the last good runs the reference that later runs are compared with.

    Writes reference/NAME/CHAPTER.json (NAME: cpu, or gpu- and the device) and prints what changes;
    commit the files like code. Smoke, failed, incomplete, stale and dirty runs are refused, each
    with its reason. Exit codes: 0 all accepted, 1 some refused, 2 bad input.

    Example: mangalab accept 04 --dry-run
    """
    from .. import gate
    from ..drift_report import columns

    project, chosen = opened(profile, chapters)
    done = gate.accept(project, chosen, profile, allow_dirty, dry_run)
    rows = [(one.chapter, _words(one, dry_run)) for one in done]
    print("\n".join(columns(rows)))
    for one in done:
        for line in _moves(one):
            print(line)
    raise typer.Exit(1 if any(one.refused for one in done) else 0)


def _words(one, dry: bool) -> str:
    if one.refused:
        return f"refused: {one.refused}"
    place = f"reference/{one.name}/{one.chapter}.json"
    if one.drift is None:
        return f"{'would be' if dry else 'is'} the first reference: {place}"
    moved = sum(row.old != row.new for row in one.drift.rows)
    if one.drift.same_run and not moved:
        return "is the reference already"
    return f"{moved} of {len(one.drift.rows)} values change{'' if dry else 'd'}: {place}"


def _moves(one) -> list[str]:
    from ..drift_report import HEADS, columns, short

    if one.refused or one.drift is None:
        return []
    moved = [row for row in one.drift.rows if row.old != row.new]
    moved.sort(key=lambda row: [*HEADS, row.outcome].index(row.outcome))
    rows = [("", r.outcome, r.key, f"{short(r.old)} -> {short(r.new)}", r.detail) for r in moved]
    return ["", f"{one.chapter}:", *columns(rows)] if rows else []


def diff(
    chapters: Chapters = None,
    profile: ProfileName = DEFAULT,
    reference: Annotated[
        str, typer.Option(help="folder of reference/ to compare with; default: the run's own")
    ] = "",
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="the text of a GitHub issue")] = False,
) -> None:
    """Compare the last runs with the reference, value by value.

    Tolerances: reference/tolerances.yml; the rules and the JSON: reference/README.md.
    Exit codes: 0 no drift, 1 drift or a chapter without a good run, 2 no reference or bad input.

    Example: mangalab diff 01 04 --profile cpu --json > drift.json
    """
    from .. import drift_report, gate

    project, chosen = opened(profile, chapters)
    found = gate.diff(project, chosen, profile, reference)
    if as_json:
        print(json.dumps(drift_report.as_json(found, profile), indent=1, ensure_ascii=False))
    elif markdown:
        print(drift_report.markdown(found, profile), end="")
    else:
        print("\n".join(drift_report.lines(found, profile)))
    raise typer.Exit(drift_report.exit_code(found))


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command()(accept)
    app.command()(diff)
