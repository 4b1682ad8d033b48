"""What helps to read: glossary, tiers, reading orders, reading time, downloads. No Sphinx here.

``book/glossary.yml``, ``book/tiers.yml`` and ``book/reading-orders.yml`` are content; a file that is
not there means that the book has none.
"""

import math
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .project import BookError, Project

WORDS_A_MINUTE = 220
TIER_ORDER = "tiers"


class Entry(BaseModel):
    """Base of everything that is read from YAML: unknown fields are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, populate_by_name=True
    )


class Term(Entry):
    """One term of the glossary; ``hover`` false keeps it from being marked in prose."""

    term: str
    text: str
    aliases: tuple[str, ...] = ()
    see: tuple[str, ...] = ()
    chapter: str | None = None
    hover: bool = True


class Planned(Entry):
    """A chapter of the plan, written or not: its number, title and subject."""

    number: str
    title: str
    learn: str


class Tier(Entry):
    """A group of chapters of one difficulty and purpose."""

    title: str
    about: str
    chapters: tuple[Planned, ...]


class Step(Entry):
    """One stop of a reading order: a page (``book/…``) or a chapter's number, and why it is there."""

    page: str | None = None
    chapter: str | None = None
    why: str = ""


class Order(Entry):
    """A way through the book for one purpose."""

    id: str
    title: str
    purpose: str = Field(alias="for")
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Download:
    """A file beside the pages: what it is, its path from their root, its size in bytes."""

    label: str
    path: str
    size: int


def load(project: Project, name: str, kind: type) -> list:
    """Entries of ``book/<name>.yml`` as ``kind``; BookError names the entry and field at fault."""
    path = project.root / "book" / f"{name}.yml"
    return list(parsed(path, path.stat().st_mtime_ns, kind)) if path.exists() else []


@cache
def parsed(path: Path, changed: int, kind: type) -> tuple:
    """Entries of a file, parsed once for each time that it ``changed``."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf8")) or []
        return tuple(TypeAdapter(list[kind]).validate_python(raw))
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise BookError(f"book/{path.name} is no valid YAML: {text}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ", ".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
        raise BookError(f"book/{path.name}, entry {where}: {first['msg'].lower()}") from None


def glossary(project: Project) -> list[Term]:
    """Terms of the glossary."""
    return load(project, "glossary", Term)


def tiers(project: Project) -> list[Tier]:
    """The chapters in their tiers, as far as planned."""
    return load(project, "tiers", Tier)


def orders(project: Project) -> list[Order]:
    """The reading orders: those of the file, then the one by tiers."""
    found, groups = load(project, "reading-orders", Order), tiers(project)
    if groups:
        steps = tuple(Step(chapter=c.number, why=t.title) for t in groups for c in t.chapters)
        purpose = "go from the core techniques to the special ones, whatever their numbers"
        found.append(Order(id=TIER_ORDER, title="By tier", purpose=purpose, steps=steps))
    return found


def tier_of(groups: list[Tier], chapter: str) -> int | None:
    """Place (from 1) of the tier that holds a chapter's id or number; None where none does."""
    number = chapter.partition("-")[0]
    places = (i for i, t in enumerate(groups, 1) for c in t.chapters if c.number == number)
    return next(places, None)


def docname_of(step: Step, docnames: set[str]) -> str | None:
    """The page of a step: a chapter is found by its number; None where the book has no such page."""
    if step.page:
        name = step.page.partition("#")[0].removesuffix(".md").removesuffix(".ipynb")
        return name if name in docnames else None
    start = f"notebooks/{(step.chapter or '').partition('-')[0]}-"
    return min((name for name in docnames if name.startswith(start)), default=None)


def minutes(words: int) -> int:
    """Reading time of so many words of prose, at least one minute."""
    return max(1, math.ceil(words / WORDS_A_MINUTE))


def duration(seconds: float) -> str:
    """A time span as a reader says it: `12 s`, `3 min`, `1 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f}\u00a0s"
    whole = round(seconds / 60)
    hours, rest = divmod(whole, 60)
    return f"{whole}\u00a0min" if not hours else f"{hours}\u00a0h {rest}\u00a0min"


def size_text(size: int) -> str:
    """A file's size: `98 kB`, `1.3 MB`."""
    return f"{size / 1e6:.1f}\u00a0MB" if size >= 1e6 else f"{max(1, round(size / 1e3))}\u00a0kB"


def publish(project: Project, profile: str, chapter: str, pages: Path) -> list[Download]:
    """Copy a chapter's notebooks to ``downloads/`` under ``pages``: source, with results, script."""
    source, executed = project.notebook(chapter), project.executed(profile, chapter)
    folder = pages / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    if source.exists():
        made.append(("Notebook without results", copy(source, folder / f"{chapter}.ipynb")))
    target = folder / f"{chapter}-with-results.ipynb"
    target.unlink(missing_ok=True)
    if executed.exists():
        made.append(("Notebook with the results shown here", copy(executed, target)))
    if source.exists():
        made.append(("Python script", script(source, folder / f"{chapter}.py")))
    return [Download(label, f"downloads/{f.name}", f.stat().st_size) for label, f in made]


def copy(source: Path, target: Path) -> Path:
    """Copy a file; returns where to."""
    shutil.copyfile(source, target)
    return target


def script(source: Path, target: Path) -> Path:
    """Write a notebook as a script with its prose as comments; returns where to."""
    import jupytext

    target.write_text(jupytext.writes(jupytext.read(source), fmt="py:percent"), encoding="utf8")
    return target
