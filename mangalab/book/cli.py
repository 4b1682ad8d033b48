"""Run the book's chapters, build its pages, and ask what the runs say.

Exit codes: 0 all is well; 1 a chapter failed, a page could not be built as it should, or a value
drifted; 2 bad input or an environment that does not work; 130 interrupted.

Every command has an example: mangalab COMMAND --help
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import commands
from .commands.shared import DEFAULT, Chapters, ProfileName
from .commands.shared import opened as _open
from .project import BookError, Project, explain
from .quick import lighten

if TYPE_CHECKING:
    from .build import Built
    from .chapters import Chapter

app = typer.Typer(
    help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False
)
Force = Annotated[bool, typer.Option("--force", help="run even when nothing changed")]
Timeout = Annotated[float | None, typer.Option(help="seconds that one notebook may take", min=1)]
Strict = Annotated[bool, typer.Option("--strict", help="exceeding a budget 1.5x is a failure")]
Given = Annotated[
    list[str] | None, typer.Option("--param", "-p", help="name=value for one chapter, as YAML")
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", help="chapters side by side at most; default: as many as fit", min=1),
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", help="tcp://host:port of a Dask scheduler whose workers run them"),
]
Keep = Annotated[
    str | None,
    typer.Option("--store", help="s3://bucket/path, file:///path, ...: runs go to and come from it"),
]


def _given(texts: list[str] | None, chapters: list[Chapter], profile: str) -> dict[str, Any]:
    """`name=value` texts as parameters, checked against the one chapter that they are for."""
    import yaml

    given: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise BookError(f"--param {text!r} is not of the form name=value")
        try:
            given[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise BookError(f"--param {name}: {value!r} is no YAML value") from None
    if given and len(chapters) != 1:
        raise BookError("--param needs one chapter: mangalab run CHAPTER --param name=value")
    if given:
        from . import keys, notebook

        chapter = chapters[0]
        source = notebook.read(Project.find().notebook(chapter.id))
        keys.prepare(source, chapter, profile, given)
    return given


def _run(
    profile: str,
    wanted: list[str] | None,
    force: bool,
    timeout: float | None,
    strict: bool,
    texts: list[str] | None,
    jobs: int | None = None,
    scheduler: str | None = None,
    address: str | None = None,
) -> bool:
    from .cluster import engine
    from .parallel import run_all
    from .progress import Progress
    from .store import Store

    project, chapters = _open(profile, wanted)
    given = _given(texts, chapters, profile)
    store = Store.open(address, profile) if address else None
    progress = Progress(project, profile, len(chapters), store)
    options = {"given": given, "force": force, "timeout": timeout}
    with engine(scheduler, project, chapters, profile, jobs) as where:
        if store and not (force or given):
            store.fetch(project, chapters, profile)
        results = run_all(project, chapters, profile, progress.show, **where, **options)
    return progress.conclude(results, strict)


def _build(profile: str, force: bool = False) -> bool:
    from .build import build

    project, chapters = _open(profile)
    built: Built = build(project, profile, chapters, force)
    for line in built.complaints:
        print(f"  {line}", file=sys.stderr)
    if not built.index.exists():
        log = project.artifacts / "build" / f"{profile}.log"
        print(f"mangalab: no page was built; see {log}", file=sys.stderr)
        return False
    print(f"pages: built in {built.seconds:.0f} s" if built.built else "pages: nothing changed")
    print(f"book:  {built.index}")
    return built.ok


def _exit(ok: bool) -> None:
    raise typer.Exit(0 if ok else 1)


@app.command()
def run(
    chapters: Chapters = None,
    profile: ProfileName = DEFAULT,
    force: Force = False,
    timeout: Timeout = None,
    strict: Strict = False,
    param: Given = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    store: Keep = None,
) -> None:
    """Run the notebooks whose inputs changed, and say why each one ran or did not.

    Chapters run side by side where cores, memory and GPUs allow, each with the threads that
    chapters.yml gives it: values do not depend on how many run at once. With --scheduler, workers
    of a Dask cluster run them; mangalab/book/cluster.py says how to start one. With --store, each
    run is copied there (records and executed notebooks, by papermill's writers or fsspec), and a good
    run of the same inputs is taken from there instead of running again.

    Exit codes: 0 every chapter is good, 1 one is not (or, with --strict, is over its budget), 2 bad
    input, 130 interrupted. For a job: mangalab status --json afterwards.

    Example: mangalab run 04 --profile smoke -p "ranks=[4, 16]"
    """
    _exit(_run(profile, chapters, force, timeout, strict, param, jobs, scheduler, store))


@app.command(name="build")
def build_pages(profile: ProfileName = DEFAULT, force: Force = False) -> None:
    """Build the HTML from the records and executed notebooks that are there.

    Nothing is executed. Exit codes: 0 built or nothing changed, 1 the builder complained, 2 bad input.

    Example: mangalab build --profile cpu
    """
    _exit(_build(profile, force))


@app.command()
def book(
    profile: ProfileName = DEFAULT,
    force: Force = False,
    timeout: Timeout = None,
    strict: Strict = False,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    store: Keep = None,
) -> None:
    """Run what changed, then build; pages are built even when a chapter failed.

    Exit codes: 0 every chapter and page is good, 1 one is not, 2 bad input, 130 interrupted.

    Example: mangalab book --profile cpu --strict
    """
    ran = _run(profile, None, force, timeout, strict, None, jobs, scheduler, store)
    _exit(_build(profile) and ran)


commands.register(app)


def _terminated(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point; every expected fault is one sentence on standard error."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _terminated)  # end like Ctrl-C, with records
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf8", errors="replace", line_buffering=True)
    lighten()
    code, sentence = 2, ""
    try:
        code = app(standalone_mode=False) or 0
    except typer.Exit as error:
        code = error.exit_code
    except KeyboardInterrupt:
        code, sentence = 130, "interrupted; finished chapters stay, the next run goes on from here"
    except BookError as error:
        sentence = str(error)
    except OSError as error:
        sentence = explain(error)
    except Exception as error:
        if os.environ.get("MANGALAB_DEBUG"):
            raise
        sentence = _other(error)
    if sentence:
        print(f"mangalab: {sentence}", file=sys.stderr)
    sys.exit(code)


def _other(error: Exception) -> str:
    """A usage error as the parser says it; anything else is a bug and says how to see more."""
    if hasattr(error, "format_message"):
        return error.format_message()
    name = type(error).__name__
    return f"internal error, {name}: {error} (MANGALAB_DEBUG=1 shows where)"


if __name__ == "__main__":
    main()
