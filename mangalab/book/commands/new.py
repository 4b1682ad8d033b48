"""`mangalab new`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..project import Project


def new(
    chapter: Annotated[str, typer.Argument(help="NN-words, such as 02-embedding-adapter")],
    title: Annotated[str, typer.Option(help="as the contents show it")],
    tier: Annotated[int, typer.Option(help="1 (core techniques) to 5 (synthesis)", min=1, max=5)] = 1,
) -> None:
    """Start a chapter: notebook, entry of chapters.yml and question bank, all of which run at once.

    The skeleton measures something small and real, so that each section can be replaced while the
    chapter keeps running. Exit codes: 0 written, 2 a bad or taken id (nothing is written).

    Example: mangalab new 02-embedding-adapter --title "Embedding adapter" --tier 1
    """
    from ..drift_report import columns
    from ..scaffold import New

    project = Project.find()
    for path in New(project, chapter, title, tier).write():
        print(f"wrote  {path.relative_to(project.root)}")
    steps = [
        (f"mangalab run {chapter} --profile smoke", "it runs as it is"),
        ("make lab", "replace the placeholders, heading by heading"),
        ("chapters.yml", "budgets from what a run took; smoke and gpu parameters"),
        ("book/claims.yml", f'the scenario\'s statements, with chapter: "{chapter}"'),
        (f"book/interview/{chapter}.yml", "eight questions or more over four levels"),
        (f"mangalab run {chapter} && mangalab build", "then make test"),
    ]
    print("\nnext:")
    print("\n".join(columns([("", *step) for step in steps])))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(new)
