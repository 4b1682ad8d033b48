"""Sphinx side of the pages that come from records: their directives, and the stamp of a smoke build.

Such a page is read anew when the table on it would come out different, whatever the cause (a record,
the history, a module that makes a run stale): the tables themselves are compared, not lists of files.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from .pages import Runs
from .tables import TABLES
from .tables.parts import Link

CHAPTERS = "notebooks/"
SMOKE = (
    '<p class="smoke-mark"><strong>Smoke build.</strong> Tiny settings, which only prove that every '
    "cell runs. No number on these pages is a result.</p>"
)


def runs_of(app: Sphinx) -> Runs:
    """The records of the profile that this build shows."""
    from .site import runs_of

    return runs_of(app)


def linker(app: Sphinx, docname: str) -> Link:
    """From the id of a chapter, or of a page of book/, to its address relative to a page; else None."""

    def link(chapter: str) -> str | None:
        targets = (CHAPTERS + chapter, "book/" + chapter)
        known = next((target for target in targets if target in app.env.found_docs), None)
        return app.builder.get_relative_uri(docname, known) if known else None

    return link


class RecordTable(SphinxDirective):
    """A table that is generated from records at build time."""

    def run(self) -> list[nodes.Node]:
        """The table as HTML; what it was is remembered, see `outdated`."""
        app, docname = self.env.app, self.env.docname
        html = TABLES[self.name](runs_of(app), linker(app, docname))
        tables(self.env).setdefault(docname, {})[self.name] = html
        return [nodes.raw("", html, format="html")]


def tables(env: BuildEnvironment) -> dict[str, dict[str, str]]:
    """Tables by page as they were last read."""
    if not hasattr(env, "mangalab_tables"):
        env.mangalab_tables = {}
    return env.mangalab_tables


def outdated(app: Sphinx, env: BuildEnvironment, *_: object) -> list[str]:
    """Pages whose tables would now be different."""
    runs = runs_of(app)
    return [
        docname
        for docname, old in tables(env).items()
        if docname in env.found_docs
        and any(TABLES[name](runs, linker(app, docname)) != html for name, html in old.items())
    ]


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop what is remembered of a page that is read again or gone."""
    tables(env).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    """Take over the pages that a parallel reader has read."""
    tables(env).update({name: t for name, t in tables(other).items() if name in docnames})


def stamp_smoke(app: Sphinx, config: Config) -> None:
    """Say on every page, search and index included, that a smoke build is none to quote."""
    if config.mangalab_profile == "smoke":
        config.html_theme_options = {**config.html_theme_options, "announcement": SMOKE}


def setup(app: Sphinx) -> dict:
    """Register everything with Sphinx."""
    for name in TABLES:
        app.add_directive(name, RecordTable)
    app.connect("config-inited", stamp_smoke)
    app.connect("env-get-outdated", outdated)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
