"""Sphinx part of reading: facts under titles, commands, downloads, repository links."""

import os
from html import escape
from pathlib import Path, PurePosixPath

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from . import pages, reading
from .project import Project

CHAPTERS = "notebooks/"
TOOLS = {"book/interview/cards", "book/interview/mock"}  # worked with rather than read
LAUNCHERS = {
    "binderhub_url": "https://mybinder.org",
    "colab_url": "https://colab.research.google.com",
}


# ------------------------------------------------------------------ repository and launch buttons
def use_repository(app: Sphinx, config: Config) -> None:
    """Links to the forge, Binder and Colab where a repository is known; none otherwise.

    ``MANGALAB_REPOSITORY`` goes before ``repository: url`` of ``_config.yml``.
    """
    options = config.html_theme_options
    url = os.environ.get("MANGALAB_REPOSITORY") or options.get("repository_url") or ""
    options["repository_url"] = url.rstrip("/").removesuffix(".git")
    for button in ("use_repository_button", "use_issues_button", "use_edit_page_button"):
        options[button] = bool(url)
    launch = LAUNCHERS if "github.com" in url else {"binderhub_url": LAUNCHERS["binderhub_url"]}
    options["launch_buttons"] = {"notebook_interface": "jupyterlab", **(launch if url else {})}


def extend_download_button(app: Sphinx, pagename: str, template: str, context: dict, _) -> None:
    """The theme's download button offers the same files as the box under a chapter's title."""
    files = app.env.metadata.get(pagename, {}).get("mangalab_downloads")
    for group in context.get("header_buttons", []):
        if group.get("label") != "download-buttons" or not files:
            continue
        printing = [b for b in group["buttons"] if b["type"] == "javascript"]
        links = [
            {"type": "link", "url": context["pathto"](path, 1), "text": label, "icon": "fas fa-file",
             "label": "download-file-button"}
            for label, path in files
        ]  # fmt: skip
        group["buttons"] = links + printing


# ------------------------------------------------------------------------------ under the title
def add_facts(app: Sphinx, doctree: nodes.document) -> None:
    """Reading time under the title; on chapters also tier, run time, commands and downloads."""
    docname, section = app.env.docname, doctree.next_node(nodes.section)
    untimed = docname in TOOLS or "no_reading_time" in app.env.metadata.get(docname, {})
    if section is None or untimed:
        return
    if docname.startswith(CHAPTERS):
        section[1:1] = chapter_facts(app, docname)
    else:
        length = reading.minutes(count_words(doctree))
        section[1:1] = [facts([f"{length}\u00a0min to read"])]


def facts(items: list[str]) -> nodes.raw:
    """The line of facts under a title; items are HTML."""
    spans = "".join(f"<span>{item}</span>" for item in items)
    return nodes.raw("", f'<p class="page-facts">{spans}</p>', format="html")


def count_words(doctree: nodes.document) -> int:
    """Words of prose: paragraphs and list items, no code, no maths, no generated tables."""
    return sum(len(p.astext().split()) for p in doctree.findall(nodes.paragraph))


def chapter_facts(app: Sphinx, docname: str) -> list[nodes.Node]:
    """Facts and tools of a chapter."""
    runs = pages.Runs(Project(Path(app.srcdir)), app.config.mangalab_profile)
    chapter = PurePosixPath(docname).name
    items = [tier_fact(runs.project, chapter), *time_facts(runs, chapter)]
    files = reading.publish(runs.project, runs.profile, chapter, Path(app.outdir))
    pairs = [(file.label, file.path) for file in files]
    app.env.metadata[docname]["mangalab_downloads"] = pairs
    return [facts([item for item in items if item]), *tools(chapter, files)]


def tier_fact(project: Project, chapter: str) -> str:
    """`Tier 2 of 5: …`, empty where the chapter stands in no tier."""
    groups = reading.tiers(project)
    place = reading.tier_of(groups, chapter)
    return f"Tier {place} of {len(groups)}: {escape(groups[place - 1].title)}" if place else ""


def time_facts(runs: pages.Runs, chapter: str) -> list[str]:
    """How long it takes to read and to run: measured here, or else its budget."""
    entry, record = runs.chapters().get(chapter), runs.record(chapter) or {}
    found = [f"{entry.minutes}\u00a0min to read"] if entry else []
    if record.get("status") == "passed" and record.get("seconds"):
        found.append(f"ran in {reading.duration(record['seconds'])} here")
    elif entry and runs.profile in entry.budget:
        found.append(f"about {reading.duration(entry.budget[runs.profile].seconds)} to run")
    return found


def tools(chapter: str, files: list[reading.Download]) -> list[nodes.Node]:
    """A folded box: the command that opens this very notebook, and the files to download."""
    links = "".join(
        f'<li><a href="../{file.path}" download>{escape(file.label)}</a>'
        f' <span class="kind">{escape(Path(file.path).name)}, {reading.size_text(file.size)}'
        "</span></li>"
        for file in files
    )
    opening = '<details class="chapter-tools"><summary>Run or download this chapter</summary>'
    intro = (
        "<p>In the book's folder, this opens the notebook in JupyterLab (<code>make lab</code> opens "
        "them all):</p>"
    )
    command = f".venv/bin/jupyter lab notebooks/{chapter}.ipynb"
    code = nodes.literal_block(command, command, language="sh")
    ending = f'<p>Or take it with you:</p><ul class="downloads">{links}</ul></details>'
    return [
        nodes.raw("", opening + intro, format="html"), code, nodes.raw("", ending, format="html"),
    ]  # fmt: skip


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.connect("config-inited", use_repository)
    app.connect("doctree-read", add_facts, priority=600)  # above the strip that says which run it is
    app.connect("html-page-context", extend_download_button, priority=800)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
