"""The glossary: its page, and definitions that open at a term's first occurrence in prose.

Terms are marked when a page is built, not in the browser. A marked term is a link to the glossary, so
that it works without JavaScript; ``_static/reading.js`` opens the definition beside it.
"""

import re
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from markdown_it import MarkdownIt
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import reading
from .project import Project

PAGE = "book/glossary"
MATHS = re.compile(r"\$([^$]+)\$")
UNMARKED = {PAGE, "book/index", "book/bibliography"}
# text inside these is no running prose
NOT_PROSE = (
    nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.math, nodes.math_block,
    nodes.raw, nodes.abbreviation, nodes.table, nodes.caption, nodes.term, nodes.pending,
)  # fmt: skip


class GlossaryTerms(SphinxDirective):
    """``{glossary-terms}``: Sphinx's own glossary, written from ``book/glossary.yml``."""

    def run(self) -> list[nodes.Node]:
        """Parse a ``glossary`` directive that holds every term."""
        project = Project(Path(self.env.srcdir))
        path = project.root / "book" / "glossary.yml"
        self.env.note_dependency(str(path))
        chapters = {name.partition("/")[2][:2]: name for name in self.env.found_docs}
        lines = ["```{glossary}", ":sorted:", ""]
        for term in reading.glossary(project):
            lines += [*entry(term, chapters), ""]
        container = nodes.container()
        source = StringList([*lines, "```"], source=str(path))
        self.state.nested_parse(source, self.content_offset, container)
        return container.children


def entry(term: reading.Term, chapters: dict[str, str]) -> list[str]:
    """Lines of one glossary entry; ``chapters`` maps numbers to the pages of written chapters."""
    text = " ".join(term.text.split())
    more = []
    if term.see:
        more.append("See also " + ", ".join(f"{{term}}`{name}`" for name in term.see) + ".")
    docname = chapters.get((term.chapter or "")[:2])
    if docname and docname.startswith("notebooks/"):
        more.append(f"Used in [chapter {term.chapter[:2]}](../{docname}.ipynb).")
    body = [text, *([" ".join(more)] if more else [])]
    return [term.term, *term.aliases, *(f"  {line}\n" for line in body)]


# --------------------------------------------------------------------------- definitions in prose
@cache
def matcher(words: tuple[str, ...]) -> re.Pattern | None:
    """Pattern of any of the words, the longest first; a plural s may follow."""
    if not words:
        return None
    longest = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(spelled, longest))})s?(?![\w-])")


def spelled(word: str) -> str:
    """Pattern of a word: capitals may start a plain word; abbreviations keep their case."""
    parts = [re.escape(part) for part in word.split()]
    first = word[0]
    if first.islower():
        parts[0] = f"[{first}{first.upper()}]{re.escape(word.split()[0][1:])}"
    return r"\s+".join(parts)


def names(terms: list[reading.Term]) -> dict[str, reading.Term]:
    """Terms by every name that is looked for in prose."""
    return {name: t for t in terms if t.hover for name in (t.term, *t.aliases)}


def normal(found: str, known: dict[str, reading.Term]) -> str | None:
    """The glossary's name for a piece of text that the pattern found."""
    text = " ".join(found.split())
    for form in (text, text[:1].lower() + text[1:]):
        for name in (form, form.removesuffix("s")):
            if name in known:
                return name
    return None


def mark_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Mark the first occurrence of each term on a page; remember which, for their definitions."""
    known = names(reading.glossary(Project(Path(app.srcdir))))
    pattern = matcher(tuple(known))
    if pattern is None or docname in UNMARKED or PAGE not in app.env.found_docs:
        return
    page = app.builder.get_relative_uri(docname, PAGE)
    objects = app.env.get_domain("std").objects
    places = {t.term: objects.get(("term", t.term), ("", ""))[1] for t in known.values()}
    seen: dict[str, reading.Term] = {}
    for text in prose(doctree):
        pieces = marked(text.astext(), pattern, known, seen, lambda t: f"{page}#{places[t.term]}")
        if len(pieces) > 1:
            text.parent.replace(text, pieces)
    doctree["mangalab_terms"] = list(seen.values())
    if any("$" in term.text for term in seen.values()):
        app.env.get_domain("math").data["has_equations"][docname] = True  # loads MathJax


def prose(doctree: nodes.document) -> list[nodes.Text]:
    """Texts of paragraphs that are neither code, links, maths, headings, tables nor outputs."""
    paragraphs = [p for p in doctree.findall(nodes.paragraph) if not inside(p, NOT_PROSE)]
    texts = [text for p in paragraphs for text in p.findall(nodes.Text)]
    return [text for text in texts if not inside(text, NOT_PROSE)]


def inside(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    """Whether a node lies in one of the kinds, or in a code cell's output."""
    while (node := node.parent) is not None:
        if isinstance(node, kinds) or "cell" in node.get("classes", []):
            return True
    return False


def marked(
    text: str,
    pattern: re.Pattern,
    known: dict[str, reading.Term],
    seen: dict[str, reading.Term],
    url: Callable[[reading.Term], str],
) -> list[nodes.Node]:
    """``text`` cut into nodes, with terms that were not ``seen`` before as links."""
    pieces: list[nodes.Node] = []
    start = 0
    for match in pattern.finditer(text):
        name = normal(match[0], known)
        if name is None or known[name].term in seen:
            continue
        term = known[name]
        seen[term.term] = term
        pieces += [nodes.Text(text[start : match.start()]), link(match[0], term, url(term))]
        start = match.end()
    return [*pieces, nodes.Text(text[start:])] if pieces else [nodes.Text(text)]


def link(shown: str, term: reading.Term, url: str) -> nodes.raw:
    """A marked term: a link to its entry, described by its definition at the end of the page."""
    html = (
        f'<a class="gloss" href="{escape(url)}" aria-describedby="{identifier(term)}">'
        f"{escape(shown)}</a>"
    )
    return nodes.raw("", html, format="html")


def identifier(term: reading.Term) -> str:
    """Id of a term's definition on a page that uses it."""
    return "gloss-" + re.sub(r"\W+", "-", term.term.lower()).strip("-")


def append_definitions(app: Sphinx, pagename: str, template: str, context: dict, doctree) -> None:
    """Definitions of the marked terms, hidden at the end of the page (not in its search text)."""
    terms = doctree.get("mangalab_terms") if doctree is not None else None
    if terms:
        notes = "".join(f'<p id="{identifier(t)}">{definition(t)}</p>' for t in terms)
        context["body"] += f'<div class="gloss-notes" hidden>{notes}</div>'


def definition(term: reading.Term) -> str:
    """A definition as HTML: inline Markdown and formulas."""
    parts = MATHS.split(" ".join(term.text.split()))
    html = [
        f'<span class="math notranslate nohighlight">\\({escape(part)}\\)</span>'
        if odd else MarkdownIt("js-default").renderInline(part)
        for odd, part in ((i % 2, part) for i, part in enumerate(parts))
    ]  # fmt: skip
    return f"<strong>{escape(term.term)}</strong> {''.join(html)}"


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.add_directive("glossary-terms", GlossaryTerms)
    app.connect("doctree-resolved", mark_terms)
    app.connect("html-page-context", append_definitions)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
