"""`mangalab status`, `why`, `doctor` and `clean`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..project import BookError, Project, check_profile
from .shared import DEFAULT, AsJson, Chapters, DryRun, ProfileName, opened

if TYPE_CHECKING:
    from ..chapters import Chapter


def _print(contents: Any) -> None:
    print(json.dumps(contents, indent=1, ensure_ascii=False))


def status(
    chapters: Chapters = None,
    profile: ProfileName = DEFAULT,
    as_json: AsJson = False,
    max_age: Annotated[
        float | None,
        typer.Option(help="fail when a chapter's last good run is older than so many days", min=0),
    ] = None,
    times: Annotated[
        bool, typer.Option("--times", help="where the seconds of the last runs went, worst first")
    ] = False,
) -> None:
    """One line a chapter: state of the last run, cost, and whether it is still fresh.

    With --times, instead: the seconds of the last runs by kind of work (training, generation, loading,
    evaluation, figures, ...), by chapter, and the worst cells. The kind of a cell is read off the names
    that it calls; a cell's seconds are never split.

    Exit codes: 0, and with --max-age 1 when a good run is too old or missing; 2 bad input, or --times
    where no run of the profile is.

    Example: mangalab status --profile cpu --max-age 7 --json
    """
    from .. import status as book_status

    project, chosen = opened(profile, chapters)
    if times and max_age is not None:
        raise BookError("--times and --max-age are two questions: ask one at a time")
    if times:
        _times(project, chosen, profile, as_json)
        return
    found = book_status.states(project, chosen, profile)
    old = book_status.too_old(found, max_age) if max_age is not None else []
    if as_json:
        _print(book_status.as_json(found, profile, old))
    else:
        width = max((len(one.chapter) for one in found), default=0)
        for one in found:
            print(f"{one.chapter:<{width}}  {one.line()}")
        for line in old:
            print(f"too old: {line}")
    raise typer.Exit(1 if old else 0)


def _times(project: Project, chosen: list[Chapter], profile: str, as_json: bool) -> None:
    from .. import times as book_times

    found = book_times.times(project, chosen, profile)
    if as_json:
        _print(found.as_json())
    else:
        print("\n".join(book_times.lines(found)))


def why(chapter: str, profile: ProfileName = DEFAULT, as_json: AsJson = False) -> None:
    """Say whether a chapter would run now, and why.

    Exit codes: 0 either way; 2 bad input.

    Example: mangalab why 04
    """
    from .. import keys

    project, chapters = opened(profile, [chapter])
    needed, reason = keys.why(project, chapters[0], profile)
    if as_json:
        _print({"schema": 1, "chapter": chapters[0].id, "profile": profile,
                "would_run": needed, "reason": reason})  # fmt: skip
    else:
        print(f"{chapters[0].id}: {'would run' if needed else 'would not run'}: {reason}")


def doctor(profile: ProfileName = DEFAULT, as_json: AsJson = False) -> None:
    """Check Python, packages, models, data, device, memory, disk, ports and browser.

    Each problem comes with its fix; --profile says what the device must be good for.
    Exit codes: 0 all that is needed is there, 1 something is not; 2 bad input.

    Example: mangalab doctor --profile gpu
    """
    from .. import doctor as surgery

    check_profile(profile)
    findings = surgery.examine(Project.find(), profile)
    ok = surgery.well(findings)
    if as_json:
        _print({"schema": surgery.SCHEMA, "profile": profile, "ok": ok,
                "findings": [asdict(one) for one in findings]})  # fmt: skip
    else:
        for finding in findings:
            print(finding.line())
    raise typer.Exit(0 if ok else 1)


def clean(
    everything: Annotated[
        bool, typer.Option("--all", help="also the history of runs, which nothing brings back")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    dry_run: DryRun = False,
) -> None:
    """Remove pages, records and executed notebooks.

    The history of runs stays unless --all is given; the environment, the model cache, sources and
    the reference always stay. Exit codes: 0 done or nothing to do, 1 you said no, 2 bad input.

    Example: mangalab clean --dry-run
    """
    from .. import cleaning

    project = Project.find()
    places = cleaning.targets(project, everything)
    if not places:
        print("nothing to remove")
        return
    for place in places:
        print(f"{'would remove' if dry_run else 'remove'}  {place.relative_to(project.root)}")
    print(f"{cleaning.size(places) / 1e6:.0f} MB")
    if dry_run:
        return
    cleaning.check_idle(project)
    if not yes and not sys.stdin.isatty():
        raise BookError("clean asks before it deletes, and nobody is there to answer: add --yes")
    if not yes and not typer.confirm("delete?"):
        raise typer.Exit(1)
    cleaning.remove(places)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, why, doctor, clean):
        app.command()(command)
