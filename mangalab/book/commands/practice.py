"""`mangalab exercise` and `mangalab pipeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..project import BookError, Project

FOLDER = Path("my")  # of the reader's answers; git ignores it


def exercise(
    number: Annotated[int | None, typer.Argument(help="1 to 8; without it: the list")] = None,
    check: Annotated[bool, typer.Option("--check", help="grade the file")] = False,
    file: Annotated[Path | None, typer.Option(help="default: my/exercise_N.py")] = None,
) -> None:
    """Exercises of the hands-on projects: write a function, have it checked.

    Without --check the unfinished file is written, never over one that is there. With it your file
    runs in a process of its own (two minutes at most) against cases with known results.
    Exit codes: 0 written or all right, 1 something is wrong, 2 bad input.

    Example: mangalab exercise 4; edit my/exercise_4.py; mangalab exercise 4 --check
    """
    from ...exercises import catalogue

    if number is None:
        print("\n".join(f"{one.number}  {one.title:<42} {one.page}.md" for one in catalogue.EXERCISES))
        return
    try:
        one = catalogue.exercise(number)
    except ValueError as error:
        raise BookError(str(error)) from None
    path = file or Project.find().root / FOLDER / one.file
    if check:
        raise typer.Exit(_graded(one, path))
    if path.exists():
        raise BookError(f"{path} is there already; check it with --check, or name another with --file")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(one.template, encoding="utf8")
    print(one.template.split('"""')[1].strip())
    print(f"\nwrote {path}\nedit it, then: mangalab exercise {number} --check")


def _graded(one, path: Path) -> int:
    """Print every finding; 0 if all of them hold."""
    from ...exercises.grade import AnswerError, grade

    try:
        found = grade(one.number, path)
    except AnswerError as error:
        print(error)
        return 1
    for finding in found:
        print(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.asked}")
        if not finding.ok:
            print(f"       {finding.hint}")
    right = sum(finding.ok for finding in found)
    print(
        f"{right} of {len(found)} right"
        + (f": {one.title.lower()}, done" if right == len(found) else "")
    )
    return 0 if right == len(found) else 1


def pipeline(
    method: Annotated[str, typer.Option(help="probe, top or full: what is trained")] = "top",
    folder: Annotated[Path | None, typer.Option(help="default: artifacts/pipeline")] = None,
    rows: Annotated[int, typer.Option(help="training messages", min=20)] = 2600,
    epochs: Annotated[int, typer.Option(min=1)] = 2,
    lr: Annotated[float, typer.Option(help="peak rate of the encoder")] = 2e-4,
    seed: Annotated[int, typer.Option()] = 0,
    floor: Annotated[float, typer.Option(help="accuracy below which nothing is promoted")] = 0.6,
    margin: Annotated[float, typer.Option(help="accuracy that may be lost to the champion")] = 0.02,
) -> None:
    """From data to a registered model: check, train, evaluate, gate, spectrum, register, try out.

    Stages that are done are not repeated; Ctrl-C is safe. The folder holds one JSON file a stage,
    REPORT.md, and registry/ with every version and its model card. Hands-on project 8.
    Exit codes: 0 promoted, 1 refused by the gate or stopped by a fault, 2 bad input.

    Example: mangalab pipeline --method full --epochs 3
    """
    from ...pipeline.stages import PipelineError, Settings, run

    target = folder or Project.find().artifacts / "pipeline"
    try:
        settings = Settings(method, rows, epochs, lr, seed, floor, margin)
    except PipelineError as error:
        raise BookError(str(error)) from None
    try:
        facts = run(target, settings, lambda line: print(line, flush=True))
    except PipelineError as error:
        print(error)
        raise typer.Exit(1) from None
    value, low, high = facts["evaluate"]["accuracy"]
    print(f"accuracy {value:.3f} [{low:.3f}, {high:.3f}], n = {facts['evaluate']['n']}")
    print(f"{facts['register']['version']}: {facts['gate']['reason']}")
    print(f"report: {target / 'REPORT.md'}")
    raise typer.Exit(0 if facts["register"]["promoted"] else 1)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(exercise)
    app.command()(pipeline)
