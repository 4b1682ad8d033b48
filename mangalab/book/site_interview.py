"""The interview pages: banks by chapter and by level, print version, flash cards, mock interviews.

Questions are parsed as the page's own Markdown, so that formulas are typeset and values are quoted as
everywhere else. Folding is ``<details>``: every page reads without a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import pages
from .interview import LEVELS, MISTAKE, BankError
from .interview_schema import GENERAL, Question, quoted_values, read_banks, with_roles
from .project import Project

PAGES = "book/interview/"
ASSETS = "interview"  # how the names of its files in _static start

# nodes of the questions of one build: several pages show each of them
PARSED: dict[Entry, tuple[list[nodes.Node], list[nodes.Node]]] = {}


class Box(nodes.General, nodes.Element):
    """An HTML element of any tag; its attributes are in ``html``."""


def visit_box(translator: object, box: Box) -> None:
    """Open the element."""
    tag = translator.starttag(box, box["tag"], "", **box.get("html", {}))
    translator.body.append(tag)


def depart_box(translator: object, box: Box) -> None:
    """Close the element."""
    translator.body.append(f"</{box['tag']}>\n")


def box(tag: str, kind: str, *children: nodes.Node, **html: str) -> Box:
    """A :class:`Box` of CSS class ``kind``."""
    return Box("", *children, tag=tag, classes=[kind] if kind else [], html=html)


@dataclass(frozen=True)
class Entry:
    """A question and the bank that it stands in."""

    bank: str
    question: Question

    @property
    def anchor(self) -> str:
        """Id of the question in every page that shows it, and in a reader's progress file."""
        return f"q-{self.bank.partition('-')[0]}-{self.question.id}"


class InterviewDirective(SphinxDirective):
    """What all directives over the banks share."""

    folded, mixed = True, True  # answers are folded; the page shows more than one bank

    def run(self) -> list[nodes.Node]:
        """Read the banks and show them; a fault in one of them is an error of the page."""
        app = self.env.app
        profile = app.config.mangalab_profile
        self.runs = pages.Runs(Project(Path(app.srcdir)), profile)
        folder = Path(app.srcdir) / "book" / "interview"
        try:
            self.banks = read_banks(folder)
        except BankError as error:
            raise self.error(str(error)) from None
        for path in [*folder.glob("*.yml"), Path(app.srcdir) / "chapters.yml"]:
            self.env.note_dependency(str(path))
        for chapter in {chapter for e in self.entries() for chapter, _ in self.quoted(e)}:
            self.env.note_dependency(str(self.runs.project.record(profile, chapter)))
        return self.show()

    def show(self) -> list[nodes.Node]:
        """The nodes of this directive."""
        raise NotImplementedError

    def entries(self) -> Iterator[Entry]:
        """Every question, bank by bank."""
        for bank, questions in self.banks.items():
            yield from (Entry(bank, question) for question in questions)

    @staticmethod
    def quoted(entry: Entry) -> set[tuple[str, str]]:
        """(chapter, key) of the values in a question."""
        return quoted_values(entry.question, entry.bank)

    def title_of(self, bank: str) -> str:
        """Title of a bank: its chapter's number and title."""
        chapter = self.runs.chapters().get(bank)
        if bank == GENERAL or chapter is None:
            return "General" if bank == GENERAL else bank
        return f"{bank.partition('-')[0]} {chapter.title}"

    def link(self, docname: str, text: str, anchor: str = "") -> nodes.Node:
        """A link to a page of the book, or the text alone where there is no such page."""
        if docname not in self.env.found_docs:
            return nodes.inline("", text)
        url = self.env.app.builder.get_relative_uri(self.env.docname, docname) + anchor
        return nodes.reference("", text, refuri=url, internal=True)

    def section(self, title: str, anchor: str, kind: str, body: Iterable[nodes.Node]) -> nodes.section:
        """A section of the page, listed in its table of contents."""
        return nodes.section("", nodes.title("", title), *body, ids=[anchor], classes=[kind])

    # ------------------------------------------------------------------ one question
    def shown(self, entry: Entry) -> Box:
        """A question with its answer, folded or open."""
        title, body = self.parsed(entry)
        q = entry.question
        facts = [q.level, f"{q.minutes} min", *([self.title_of(entry.bank)] if self.mixed else [])]
        meta = nodes.inline("", " · ".join(facts), classes=["iq-meta"])
        heading = nodes.inline("", "", *title, classes=["iq-q"])
        outer, inner = ("details", "summary") if self.folded else ("article", "header")
        data = {"data-bank": entry.bank, "data-level": q.level, "data-minutes": str(q.minutes)}
        node = box(outer, "iq", box(inner, "", heading, nodes.Text(" "), meta), **data)
        node["ids"] = [entry.anchor]
        node += box("div", "iq-body", *body, self.footer(entry))
        return node

    def footer(self, entry: Entry) -> nodes.paragraph:
        """Where the question comes from: its chapter, and its own address."""
        home = PAGES + entry.bank
        links = [self.link(home, "Link to this question", f"#{entry.anchor}")]
        if entry.bank != GENERAL:
            links.append(self.link(f"notebooks/{entry.bank}", f"Chapter {self.title_of(entry.bank)}"))
        parts = [part for link in links for part in (nodes.Text(" · "), link)]
        return nodes.paragraph("", "", *parts[1:], classes=["iq-links"])

    def parsed(self, entry: Entry) -> tuple[list[nodes.Node], list[nodes.Node]]:
        """Title and body of a question as fresh nodes; Markdown is parsed once a build."""
        if entry not in PARSED:
            PARSED[entry] = self.parse(entry)
        title, body = PARSED[entry]
        return [deepcopy(node) for node in title], [deepcopy(node) for node in body]

    def parse(self, entry: Entry) -> tuple[list[nodes.Node], list[nodes.Node]]:
        """Parse a question's texts."""
        q = entry.question
        body = self.markdown(entry, q.answer)
        insight = self.markdown(entry, f"**Key insight.** {q.key_insight}")
        body.append(box("div", "iq-insight", *insight))
        rows = []
        for key, head in MISTAKE.items():
            text = self.markdown(entry, getattr(q.mistake, key))
            rows += [box("dt", "", nodes.Text(head)), box("dd", "", *text)]
        body.append(box("dl", "iq-mistake", *rows))
        if q.napkin:
            body.append(box("div", "iq-napkin", *self.markdown(entry, f"**Napkin.** {q.napkin}")))
        if q.follow_ups:
            asked = "".join(f"- {text}\n" for text in q.follow_ups)
            body += [box("div", "iq-follow", *self.markdown(entry, f"**Follow-ups**\n\n{asked}"))]
        title = self.markdown(entry, q.question)
        return title[0].children if len(title) == 1 else title, body

    def markdown(self, entry: Entry, text: str) -> list[nodes.Node]:
        """Nodes of a text whose placeholders are the values of this build."""
        parent, where = nodes.Element(), f"{entry.bank}.yml"
        lines = StringList(with_roles(text, entry.bank).splitlines(), source=where)
        self.state.nested_parse(lines, self.content_offset, parent)
        return parent.children


class InterviewBank(InterviewDirective):
    """``{interview-bank} 04-lora-qlora``: the questions of one bank, by level."""

    required_arguments, mixed = 1, False

    def entries(self) -> Iterator[Entry]:
        """The questions of this bank."""
        return (e for e in super().entries() if e.bank == self.arguments[0])

    def show(self) -> list[nodes.Node]:
        """A section a level."""
        bank = self.arguments[0]
        if bank not in self.banks:
            raise self.error(f"no question bank {bank!r}; there are: {', '.join(self.banks)}")
        return list(by_level(self, self.entries()))


class InterviewLevels(InterviewDirective):
    """``{interview-levels}``: the questions of all banks, by level."""

    def show(self) -> list[nodes.Node]:
        """A section a level."""
        return list(by_level(self, self.entries()))


def by_level(page: InterviewDirective, entries: Iterable[Entry]) -> Iterator[nodes.section]:
    """A section for each level that has questions."""
    every = list(entries)
    for level in LEVELS:
        body = [page.shown(entry) for entry in every if entry.question.level == level]
        if body:
            yield page.section(level, level.lower(), "iq-group", body)


class InterviewDeck(InterviewDirective):
    """``{interview-deck} cards`` or ``mock``: all questions, which the script deals out one by one."""

    required_arguments = 1

    def show(self) -> list[nodes.Node]:
        """The place of the controls, then a section a bank."""
        mode = directives.choice(self.arguments[0], ("cards", "mock"))
        return [box("div", "iq-app", **{"data-mode": mode}), *self.by_bank()]

    def by_bank(self) -> Iterator[nodes.section]:
        """A section for each bank."""
        for bank in self.banks:
            body = [self.shown(entry) for entry in self.entries() if entry.bank == bank]
            yield self.section(self.title_of(bank), f"bank-{bank}", "iq-group", body)


class InterviewPrint(InterviewDeck):
    """``{interview-print}``: all questions with open answers, a bank on a new page."""

    required_arguments, folded, mixed = 0, False, False

    def show(self) -> list[nodes.Node]:
        """A section a bank."""
        return list(self.by_bank())


class InterviewIndex(InterviewDirective):
    """``{interview-index}``: how many questions each bank has, by level."""

    def show(self) -> list[nodes.Node]:
        """A table with a link to each bank's page."""
        head = box("tr", "", *(box("th", "", nodes.Text(t), scope="col") for t in self.columns()))
        rows = [self.row(bank, questions) for bank, questions in self.banks.items()]
        table = box("table", "table", box("thead", "", head), box("tbody", "", *rows))
        return [box("div", "pst-scrollable-table-container", table, tabindex="0", role="region",
                    **{"aria-label": "Number of questions by bank and level"})]  # fmt: skip

    @staticmethod
    def columns() -> tuple[str, ...]:
        """Headings of the table."""
        return ("Bank", *LEVELS, "Questions", "Minutes")

    def row(self, bank: str, questions: list[Question]) -> Box:
        """One bank."""
        counts = [sum(q.level == level for q in questions) for level in LEVELS]
        numbers = [*counts, len(questions), sum(q.minutes for q in questions)]
        cells = [box("td", "iq-number", nodes.Text(str(number))) for number in numbers]
        name = nodes.inline("", "", self.link(PAGES + bank, self.title_of(bank)))
        return box("tr", "", box("th", "", name, scope="row"), *cells)


def keep_to_its_pages(app: Sphinx, pagename: str, template: str, context: dict, _) -> None:
    """Leave scripts and styles of the interview part out of other pages; the shared script is first."""
    for kind in ("script_files", "css_files"):
        named = [(Path(str(f.filename or "")).name, f) for f in context.get(kind, [])]
        if not pagename.startswith(PAGES):
            named = [(name, f) for name, f in named if not name.startswith(ASSETS)]
        named.sort(key=lambda pair: pair[0] != "interview-core.js")
        context[kind] = [f for _, f in named]


def setup(app: Sphinx) -> dict:
    """Register the directives with Sphinx."""
    app.add_node(Box, html=(visit_box, depart_box))
    app.add_directive("interview-bank", InterviewBank)
    app.add_directive("interview-levels", InterviewLevels)
    app.add_directive("interview-deck", InterviewDeck)
    app.add_directive("interview-print", InterviewPrint)
    app.add_directive("interview-index", InterviewIndex)
    app.connect("builder-inited", lambda app: PARSED.clear())
    app.connect("html-page-context", keep_to_its_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
