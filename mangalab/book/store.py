"""Copies of records and executed notebooks in object storage: `mangalab run --store s3://bucket/book`.

Papermill reads and writes them with its own handlers: s3, gs, adl, abs, hdfs and http, each with
the package that its documentation names. For every other scheme that fsspec knows (file, memory,
sftp, ...) a handler is registered with papermill in the way it documents for its users. A store is
laid out as `artifacts/` is: `runs/<profile>/<chapter>.json`, `executed/<profile>/<chapter>.ipynb`.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from typing import Any

from ..record import SCHEMA
from . import keys, records
from .chapters import Chapter
from .project import BookError, Project


class FsspecHandler:
    """What papermill asks of a storage handler, for any scheme of fsspec."""

    def read(self, path: str) -> str:
        """Text of a file."""
        system, name = self._file(path)
        return system.read_text(name, encoding="utf8")

    def write(self, text: str, path: str) -> None:
        """Write text, making folders where the storage has them."""
        system, name = self._file(path)
        system.makedirs(posixpath.dirname(name), exist_ok=True)
        system.write_text(name, text, encoding="utf8")

    def listdir(self, path: str) -> list[str]:
        """Addresses of what lies in a folder."""
        system, name = self._file(path)
        return [system.unstrip_protocol(entry) for entry in system.ls(name, detail=False)]

    def pretty_path(self, path: str) -> str:
        """The address as people see it."""
        return path

    def _file(self, path: str) -> tuple[Any, str]:
        import fsspec

        return fsspec.core.url_to_fs(path)


@dataclass(frozen=True)
class Store:
    """A folder in some storage, by its address."""

    url: str

    @classmethod
    def open(cls, url: str, profile: str) -> Store:
        """Check that the address can be written to; BookError says what is wrong with it."""
        from fsspec import available_protocols
        from papermill.iorw import LocalHandler

        scheme, separator, _ = url.partition("://")
        if not separator:
            raise BookError(f"--store {url}: not an address such as s3://bucket/book or file:///path")
        if isinstance(papermill_io().get_handler(url), LocalHandler):  # papermill has none for it
            if scheme not in available_protocols():
                raise BookError(f"--store {url}: neither papermill nor fsspec knows {scheme}://")
            papermill_io().register(f"{scheme}://", FsspecHandler())
        store = cls(url.rstrip("/"))
        store._write("store.json", {"schema": SCHEMA, "profile": profile, "at": records.now()})
        return store

    def put(self, project: Project, record: dict[str, Any]) -> None:
        """Copy a record and its executed notebook to the store."""
        profile, chapter = record["profile"], record["chapter"]
        executed = project.executed(profile, chapter)
        if record.get("executed") and executed.exists():
            text = executed.read_text(encoding="utf8")
            self._write(f"executed/{profile}/{chapter}.ipynb", text)
        self._write(f"runs/{profile}/{chapter}.json", record)

    def fetch(self, project: Project, chapters: list[Chapter], profile: str) -> None:
        """Bring good runs of the inputs as they are now, for chapters that would run here.

        They are put where the runner looks for earlier good runs, which then takes them up.
        """
        for chapter in chapters:
            if not keys.why(project, chapter, profile)[0]:
                continue
            try:
                record = json.loads(self._read(f"runs/{profile}/{chapter.id}.json"))
                if record.get("schema") == SCHEMA and keys.holds(project, chapter, profile, record):
                    executed = self._read(f"executed/{profile}/{chapter.id}.ipynb")
                    records.keep(project, record, executed)
            except (BookError, ValueError, AttributeError):
                continue  # not there, or no record of ours: the chapter runs

    def _write(self, name: str, contents: dict[str, Any] | str) -> None:
        text = contents if isinstance(contents, str) else json.dumps(contents, indent=1)
        try:
            papermill_io().write(text, f"{self.url}/{name}")
        except Exception as error:  # each storage library raises its own
            raise BookError(f"cannot write {self.url}/{name}: {_words(error)}") from None

    def _read(self, name: str) -> str:
        try:
            return papermill_io().read(f"{self.url}/{name}")
        except Exception as error:
            raise BookError(f"cannot read {self.url}/{name}: {_words(error)}") from None


def papermill_io() -> Any:
    """Papermill's table of storage handlers; importing it takes a moment."""
    from papermill.iorw import papermill_io

    return papermill_io


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
