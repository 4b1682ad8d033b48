"""Options that several commands share, and the book that they work on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..project import Project, check_profile

if TYPE_CHECKING:
    from ..chapters import Chapter

Chapters = Annotated[list[str] | None, typer.Argument(help="ids or prefixes; none: all chapters")]
ProfileName = Annotated[str, typer.Option("--profile", "-P", help="smoke, cpu or gpu")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON (fields: docs/json.md)")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would change, change nothing")]
DEFAULT = os.environ.get("MANGALAB_PROFILE", "cpu")


def opened(profile: str, wanted: list[str] | None = None) -> tuple[Project, list[Chapter]]:
    """The book around the working directory and its chosen chapters."""
    from ..chapters import load, select

    check_profile(profile)
    project = Project.find()
    return project, select(load(project), wanted or [])
