"""`mangalab new`: a chapter that runs as it is, with every section in its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

import nbformat
import yaml

from . import chapters
from .notebook import read as read_notebook
from .project import BookError, Project

NAME = re.compile(r"\d\d(-[a-z0-9]+)+")
LONGEST = 60  # characters: the id is a file name under several folders, and Windows paths are short
TEMPLATES = Path(__file__).parent / "templates"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class New:
    """A chapter to be: checked against the book before anything is written."""

    project: Project
    id: str
    title: str
    tier: int

    @property
    def bank(self) -> Path:
        """Its interview questions."""
        return self.project.root / "book" / "interview" / f"{self.id}.yml"

    @property
    def page(self) -> Path | None:
        """The page that shows them, where the contents take one page a bank."""
        toc = self.project.root / "_toc.yml"
        paged = toc.is_file() and "book/interview/[0-9]" in toc.read_text(encoding="utf8")
        return self.bank.with_suffix(".md") if paged else None

    def check(self) -> None:
        """Raise BookError when the id is bad or taken, or the title cannot stand in a heading."""
        if not NAME.fullmatch(self.id) or len(self.id) > LONGEST:
            raise BookError(
                f"{self.id!r} is no chapter id: two digits, then words of a-z and 0-9 joined by '-', "
                f"at most {LONGEST} characters, such as 02-embedding-adapter"
            )
        number = self.id[:2]
        for known in chapters.load(self.project):
            if known == self.id:
                raise BookError(f"{self.id} is in chapters.yml already; choose another id")
            if known.startswith(f"{number}-"):
                raise BookError(f"number {number} belongs to {known}; choose another number")
        for path in filter(None, (self.project.notebook(self.id), self.bank, self.page)):
            if path.exists():
                raise BookError(f"{path} is there already; choose another id or remove it")
        if not self.title.strip() or "\n" in self.title or len(self.title) > 100:
            raise BookError("a title is one line of 1 to 100 characters: --title \"Embedding adapter\"")

    def write(self) -> list[Path]:
        """Write notebook, questions and entry; all of them or, after an error, none."""
        self.check()
        notebook, entries = self.notebook(), self.entries()
        texts = {
            self.project.notebook(self.id): nbformat.writes(notebook).rstrip("\n") + "\n",
            self.bank: self.fill("chapter.yml"),
        }
        if self.page:
            texts[self.page] = self.fill("interview.md.txt")
        written = list(texts)
        try:
            for path, text in texts.items():
                _write(path, text)
            read_notebook(written[0])
            _replace(self.project.root / "chapters.yml", entries)
            chapters.load(self.project)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise
        return [*written, self.project.root / "chapters.yml"]

    def fill(self, name: str) -> str:
        """A template with this chapter's id, number and title."""
        text = (TEMPLATES / name).read_text(encoding="utf8")
        return Template(text).substitute(id=self.id, number=self.id[:2], title=self.title.strip())

    def notebook(self) -> nbformat.NotebookNode:
        """The skeleton as a notebook without outputs: cells are parted by `# %%` lines."""
        cells = []
        for position, part in enumerate(self.fill("chapter.py.txt").split("# %% ")[1:]):
            kind, _, source = part.partition("\n")
            make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
            metadata = {"tags": ["parameters"]} if kind == "parameters" else {}
            cells.append(make(source.strip(), metadata=metadata, id=f"c{position:03d}"))
        metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
        return nbformat.v4.new_notebook(cells=cells, metadata=metadata)

    def entries(self) -> str:
        """The text of chapters.yml with the new entry at its place; nothing else changes."""
        path = self.project.root / "chapters.yml"
        lines = path.read_text(encoding="utf8").splitlines()
        title = yaml.safe_dump(self.title.strip(), width=1000, allow_unicode=True).splitlines()[0]
        entry = Template((TEMPLATES / "chapters.yml.txt").read_text(encoding="utf8"))
        fresh = entry.substitute(id=self.id, title=title, tier=self.tier).rstrip("\n").splitlines()
        later = (i for i, line in enumerate(lines) if re.match(r"['\"]?\d\d-", line) and
                 line.strip("'\"") > self.id)  # fmt: skip
        at = next(later, len(lines))
        before, after = lines[:at], lines[at:]
        gap = [""] if before and before[-1].strip() and not before[-1].startswith("#") else []
        return "\n".join([*before, *gap, *fresh, *([""] if after else []), *after]) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf8", newline="\n") as file:  # never over somebody's work
        file.write(text)


def _replace(path: Path, text: str) -> None:
    """Swap a file's contents in one step, once the new ones are known to be valid YAML."""
    yaml.safe_load(text)
    scratch = path.with_name(f"{path.name}.tmp")
    scratch.write_text(text, encoding="utf8", newline="\n")
    scratch.replace(path)
