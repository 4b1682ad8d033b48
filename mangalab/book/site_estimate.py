"""Sphinx part of the page Estimator: its directives, and its scripts kept to that page."""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import estimate_pages as pages
from .project import Project

PAGE, ASSETS = "book/estimator", "estimate"
TABLES = {
    "estimate-calculator": lambda project: pages.calculator(),
    "estimate-presets": lambda project: pages.presets(),
    "estimate-measured": pages.measured,
    "estimate-published": pages.published,
}


class Estimate(SphinxDirective):
    """``{estimate-calculator}``, ``-presets``, ``-measured``, ``-published``: HTML made when built."""

    def run(self) -> list[nodes.Node]:
        """The HTML as a node."""
        project = Project(Path(self.env.srcdir))
        for name in (pages.MEASURED, pages.PUBLISHED):
            self.env.note_dependency(str(project.root / name))
        return [nodes.raw("", TABLES[self.name](project), format="html")]


def keep_to_its_page(app: Sphinx, pagename: str, template: str, context: dict, _) -> None:
    """Leave the calculator's files out of other pages; on its own the arithmetic comes first."""
    for kind in ("script_files", "css_files"):
        named = [(Path(str(f.filename or "")).name, f) for f in context.get(kind, [])]
        if pagename != PAGE:
            named = [(name, f) for name, f in named if not name.startswith(ASSETS)]
        named.sort(key=lambda pair: pair[0] == "estimate-page.js")
        context[kind] = [f for _, f in named]


def setup(app: Sphinx) -> dict:
    """Register the directives with Sphinx."""
    for name in TABLES:
        app.add_directive(name, Estimate)
    app.connect("html-page-context", keep_to_its_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
