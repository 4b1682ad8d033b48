"""Sphinx part of the landing page: pictures of what was found, counts of statements."""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from . import landing, pages
from .project import Project

CHAPTERS, LEDGER = "notebooks/", "book/claims"


class Landing(SphinxDirective):
    """What the directives of the landing page share."""

    has_content = True

    @property
    def runs(self) -> pages.Runs:
        """The records of this build."""
        return pages.Runs(Project(Path(self.env.srcdir)), self.config.mangalab_profile)

    def url(self, docname: str) -> str | None:
        """Relative URL of a page, None where the book has none."""
        if docname not in self.env.found_docs:
            return None
        return self.env.app.builder.get_relative_uri(self.env.docname, docname)

    def link(self, chapter: str) -> str | None:
        """Relative URL of a chapter's page."""
        return self.url(CHAPTERS + chapter)

    @property
    def words(self) -> list[str]:
        """The words of the content."""
        return " ".join(self.content).split()

    def html(self) -> str:
        """What stands in the directive's place."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """The HTML as a node."""
        return [nodes.raw("", self.html(), format="html")]


class Findings(Landing):
    """``{findings}``: the named cards, each a question with its picture."""

    def html(self) -> str:
        """The cards side by side."""
        cards = "".join(landing.card(self.runs, name, self.link) for name in self.words)
        return f'<div class="findings">{cards}</div>'


class Verdicts(Landing):
    """``{verdict-bar}``: all statements by what became of them."""

    def html(self) -> str:
        """The bar and its key."""
        return landing.verdicts(self.runs, self.link)


class Refuted(Landing):
    """``{not-held}``: the statements with the given ids beside what was found."""

    def html(self) -> str:
        """The list."""
        return landing.refuted(self.runs, self.words, self.link, self.url(LEDGER))


class StatementCount(SphinxRole):
    """``{statements}`all``` or a desk verdict: how many statements the claims file has of it."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The number."""
        runs = pages.Runs(Project(Path(self.env.srcdir)), self.config.mangalab_profile)
        counts = landing.desk(runs)
        number = counts.total() if self.text == "all" else counts[self.text]
        return [nodes.inline("", f"{number:,}", classes=["statement-count"])], []


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.add_directive("findings", Findings)
    app.add_directive("verdict-bar", Verdicts)
    app.add_directive("not-held", Refuted)
    app.add_role("statements", StatementCount())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
