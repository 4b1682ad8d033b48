"""`mangalab serve`: adapters of one base model over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..project import BookError


def named(given: list[str]) -> dict[str, Path]:
    """`name=folder` texts as a mapping; a bare folder stands for its sub-folders that hold adapters."""
    found: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if equals:
            found[name] = Path(folder)
            continue
        inside = sorted(p.parent for p in Path(text).glob("*/adapter_config.json"))
        if not inside:
            raise BookError(f"{text}: no adapters there; give name=FOLDER, or a folder of such folders")
        found |= {p.name: p for p in inside}
    return found


def serve(
    adapters: Annotated[
        list[str], typer.Argument(help="name=FOLDER of each adapter, or one folder that holds them")
    ],
    host: Annotated[str, typer.Option(help="interface; other machines reach it only if you say so")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8009,
    waiting: Annotated[int, typer.Option(help="requests that may wait; more get a 429", min=1)] = 8,
    batch: Annotated[int, typer.Option(help="requests that share a pass", min=1)] = 4,
    prompt_tokens: Annotated[int, typer.Option(help="longest prompt; longer: 422", min=1)] = 256,
    new_tokens: Annotated[int, typer.Option(help="longest answer; more asked: 422", min=1)] = 64,
    threads: Annotated[int, typer.Option(help="of torch; 0: its own choice", min=0)] = 0,
) -> None:
    """Serve LoRA adapters of the book's causal LM from one base model in memory.

    POST /generate {"adapter": NAME, "prompt": TEXT, "max_new_tokens": N}; "base" is the model without
    an adapter. GET /adapters lists the names, GET /health says how many wait. Weights are read from
    safetensors only. Unknown adapters get a 404 that lists the known ones. Ctrl-C stops.

    Exit codes: 0 stopped, 2 an adapter or the port cannot be used.

    Example: mangalab serve tone=adapters/tone json=adapters/json --port 8009
    """
    folders = named(adapters)
    from ...serving.app import Limits
    from ...serving.engine import AdapterError, check_adapter
    from ...serving.server import bind, run

    try:
        for folder in folders.values():
            check_adapter(folder)
        sock = bind(host, port)
    except AdapterError as error:
        raise BookError(str(error)) from None
    except OSError as error:
        raise BookError(f"cannot listen on {host}:{port}: {error.strerror}; try --port 0") from None
    print(f"serving {', '.join(folders)} on http://{host}:{sock.getsockname()[1]} (Ctrl-C stops)")
    limits = Limits(prompt_tokens=prompt_tokens, new_tokens=new_tokens, waiting=waiting, batch=batch)
    run(folders, limits, sock, threads)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(serve)
