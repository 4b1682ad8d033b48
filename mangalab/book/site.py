"""The book's Sphinx extension: executed notebooks, measured values, offline assets, figures' texts.

Execution is off in the builder. Pages are the clean sources, with the executed copy of the chosen
profile laid over them (``artifacts/executed/<profile>/<chapter>.ipynb``) and a box that says what
happened where there is none.
"""

import hashlib
import json
import os
import re
from base64 import b64decode
from pathlib import Path, PurePosixPath

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from . import pages
from .project import Project

logger = logging.getLogger(__name__)
CHAPTERS = "notebooks/"
ALERT = re.compile(r"\[!(NOTE|TIP|IMPORTANT|WARNING|CAUTION)\]\s*")


def runs_of(app: Sphinx) -> pages.Runs:
    """The records of the profile that this build shows."""
    return pages.Runs(Project(Path(app.srcdir)), app.config.mangalab_profile)


def use_vendored_assets(app: Sphinx) -> None:
    """Serve ``_vendor``; in html_static_path earlier, every script would land on every page."""
    app.config.html_static_path.append(str(Path(app.srcdir) / "_vendor"))


def show_executed(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace a chapter's clean source by its executed copy; remember its figures' texts."""
    if not docname.startswith(CHAPTERS):
        return
    runs, chapter = runs_of(app), PurePosixPath(docname).name
    executed = runs.project.executed(runs.profile, chapter)
    for path in (executed, runs.project.record(runs.profile, chapter)):
        app.env.note_dependency(str(path))
    if runs.record(chapter) is None or not executed.exists():
        return
    text = executed.read_text(encoding="utf8")
    try:
        notebook = json.loads(text)
    except ValueError:
        logger.warning("executed copy %s is not JSON: shown without results", executed)
        return
    source[0] = text
    app.env.temp_data["mangalab_alts"] = alternative_texts(notebook)


def alternative_texts(notebook: dict) -> dict[str, str]:
    """Alternative texts of a notebook's pictures by SHA-256, which is how myst-nb names the files.

    myst-nb 1.4 reads width and height from output metadata but drops ``alt``.
    """
    texts = {}
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    for output in outputs:
        metadata = output.get("metadata", {})
        for kind, data in output.get("data", {}).items():
            alt = metadata.get(kind, {}).get("alt") or metadata.get("alt")
            if alt and kind in ("image/png", "image/jpeg", "image/gif"):
                content = data if isinstance(data, str) else "".join(data)
                texts[hashlib.sha256(b64decode(content)).hexdigest()] = alt
    return texts


def dress_page(app: Sphinx, doctree: nodes.document) -> None:
    """Alternative texts and alerts on every page; boxes and the run strip on a chapter."""
    alts = app.env.temp_data.get("mangalab_alts", {})
    for image in doctree.findall(nodes.image):
        image["alt"] = image.get("alt") or alts.get(PurePosixPath(image["uri"]).stem, "")
    for quote in list(doctree.findall(nodes.block_quote)):
        make_alert(quote)
    docname = app.env.docname
    section = doctree.next_node(nodes.section)
    if docname.startswith(CHAPTERS) and section is not None:
        section[1:1] = chapter_head(runs_of(app), PurePosixPath(docname).name)


def make_alert(quote: nodes.block_quote) -> None:
    """Turn a quote that starts with ``[!NOTE]`` (as on GitHub) into an admonition."""
    text = quote.next_node(nodes.Text)
    match = ALERT.match(text) if text is not None else None
    if match is None:
        return
    kind = match[1].lower()
    text.parent.replace(text, nodes.Text(text[match.end() :]))
    box = admonition(kind, kind.capitalize(), [])
    box += quote.children
    quote.replace_self(box)


def admonition(kind: str, title: str, body: list[nodes.Node]) -> nodes.admonition:
    """A box of the theme with a title."""
    return nodes.admonition("", nodes.title("", title), *body, classes=[kind])


def chapter_head(runs: pages.Runs, chapter: str) -> list[nodes.Node]:
    """What stands under a chapter's title: which run this is, and what went wrong if it did."""
    record = runs.record(chapter)
    head: list[nodes.Node] = []
    if record is not None:
        line = pages.strip(record, runs.budget(chapter))
        head.append(nodes.raw("", line, format="html"))
    for kind, title, text in pages.notices(record, chapter, runs.profile):
        head.append(admonition(kind, title, [nodes.paragraph("", text)]))
    return head


class Measured(SphinxRole):
    """``{measured}`chapter:key``` or ``chapter:key:format``: a recorded value."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Render the value; where it is missing, say so (a warning only in strict builds)."""
        runs = runs_of(self.env.app)
        chapter = self.text.partition(":")[0]
        self.env.note_dependency(str(runs.project.record(runs.profile, chapter)))
        quote = pages.quote(runs, self.text)
        if not quote.measured and self.config.mangalab_strict:
            logger.warning("measured: %s", quote.title, location=self.get_location())
        kind = "measured" if quote.measured else "measured-missing"
        return [nodes.abbreviation("", quote.text, explanation=quote.title, classes=[kind])], []


class ChapterLink(SphinxRole):
    """``{chapter}`04 LoRA and QLoRA```: a link to that chapter, or its title marked as planned."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Find the notebook by its number."""
        number, _, title = self.text.partition(" ")
        start = f"{CHAPTERS}{number}-"
        found = sorted(name for name in self.env.found_docs if name.startswith(start))
        if not found:
            return [nodes.inline("", f"{title} (planned)", classes=["planned"])], []
        url = self.env.app.builder.get_relative_uri(self.env.docname, found[0])
        return [nodes.reference("", title, refuri=url, internal=True)], []


def draw_diagrams_offline(app: Sphinx, pagename: str, template: str, context: dict, _) -> None:
    """Load mermaid as a classic script: browsers refuse ES modules of pages opened from disk."""
    scripts = context.get("script_files", [])
    for script in scripts:
        body = getattr(script, "attributes", {}).get("body") or ""
        if body.lstrip().startswith("import mermaid"):
            script.attributes["body"] = re.sub(
                r"import mermaid from [^;]*;", "const mermaid = window.mermaid;", body, count=1
            )
            app.add_js_file("mermaid/mermaid.min.js", priority=100)


def read_in_parallel(app: Sphinx) -> None:
    """Vouch for two extensions that do not say whether they may be loaded by several readers.

    One numbers parts of a book that has none, the other serves LaTeX only.
    """
    for name in ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex"):
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True


def pages_made_of_others(app: Sphinx, env: BuildEnvironment, *_: object) -> list[str]:
    """Pages to read anew whatever changed, since they show parts of others.

    Chapters show themselves; interview pages note every bank and record that they are made of.
    """
    alone = (CHAPTERS, "book/interview/")
    return [name for name in env.found_docs if not name.startswith(alone)]


def setup(app: Sphinx) -> dict:
    """Register everything with Sphinx."""
    profile = os.environ.get("MANGALAB_PROFILE", "cpu")
    app.add_config_value("mangalab_profile", profile, "env", str)
    app.add_config_value("mangalab_strict", os.environ.get("MANGALAB_STRICT") == "1", "env", bool)
    # after sphinxcontrib-mermaid has added its script to the page, before anyone sorts scripts
    app.connect("html-page-context", draw_diagrams_offline)
    parts = ("reading", "orders", "glossary", "landing", "access", "interview", "estimate", "guide")
    for part in parts:
        app.setup_extension(f"mangalab.book.site_{part}")
    app.add_role("measured", Measured())
    app.add_role("chapter", ChapterLink())
    app.setup_extension("mangalab.book.site_records")
    app.connect("builder-inited", use_vendored_assets)
    app.connect("builder-inited", read_in_parallel)
    app.connect("env-get-outdated", pages_made_of_others)
    app.connect("source-read", show_executed)
    app.connect("doctree-read", dress_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
