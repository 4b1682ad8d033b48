"""Commands of `mangalab` beyond running and building; each module adds its own to the app."""

import typer


def register(app: typer.Typer) -> None:
    """Add every command of this package to the command line."""
    from . import arithmetic, gate, look, new, practice, serve

    for module in (look, gate, new, arithmetic, practice, serve):
        module.register(app)
