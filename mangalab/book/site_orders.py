"""Sphinx part of tiers and reading orders: the tables, and every page's neighbours in each order."""

import json
from html import escape
from itertools import pairwise
from pathlib import Path, PurePosixPath

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from . import chapters, pages, reading
from .project import Project

CHAPTERS = "notebooks/"
LIST = "book/reading-orders"


class ChapterTable(SphinxDirective):
    """``{chapter-table}``: every chapter by tier, linked where it is written."""

    def run(self) -> list[nodes.Node]:
        """One heading and one list a tier, as HTML."""
        runs = pages.Runs(Project(Path(self.env.srcdir)), self.config.mangalab_profile)
        self.env.note_dependency(str(runs.project.root / "book" / "tiers.yml"))
        parts = [self.tier(runs, i, tier) for i, tier in enumerate(reading.tiers(runs.project), 1)]
        return [nodes.raw("", f'<div class="tiers">{"".join(parts)}</div>', format="html")]

    def tier(self, runs: pages.Runs, place: int, tier: reading.Tier) -> str:
        """One tier."""
        rows = "".join(self.row(runs, planned) for planned in tier.chapters)
        return (
            f'<div class="tier"><p class="tier-title"><strong>Tier {place}: {escape(tier.title)}'
            f"</strong> {escape(tier.about)}</p><ul>{rows}</ul></div>"
        )

    def row(self, runs: pages.Runs, planned: reading.Planned) -> str:
        """One chapter: number, title, what it is about, minutes."""
        docname = reading.docname_of(reading.Step(chapter=planned.number), self.env.found_docs)
        title, note = escape(planned.title), '<span class="kind">planned</span>'
        if docname:
            url = self.env.app.builder.get_relative_uri(self.env.docname, docname)
            title = f'<a href="{escape(url)}">{title}</a>'
            entry = runs.chapters().get(PurePosixPath(docname).name)
            note = f'<span class="kind">{entry.minutes}\u00a0min</span>' if entry else ""
        number = f'<span class="number">{escape(planned.number)}</span>'
        state = "" if docname else ' class="planned"'
        about = f'<span class="learn">{escape(planned.learn)}</span>'
        return f'<li{state}>{number}<span class="what">{title} {about}</span>{note}</li>'


class ReadingOrders(SphinxDirective):
    """``{reading-orders}``: every order with its steps; one of them can be followed."""

    def run(self) -> list[nodes.Node]:
        """Sections as HTML; the button of each works in ``reading.js``."""
        project = Project(Path(self.env.srcdir))
        for name in ("reading-orders", "tiers"):
            self.env.note_dependency(str(project.root / "book" / f"{name}.yml"))
        html = "".join(self.order(order) for order in reading.orders(project))
        return [nodes.raw("", f'<div class="orders">{html}</div>', format="html")]

    def order(self, order: reading.Order) -> str:
        """One order with its steps."""
        tiers = order.id == reading.TIER_ORDER  # says once what holds for a row of steps
        pairs = pairwise([reading.Step(), *order.steps])
        steps = "".join(self.step(now, not tiers or now.why != last.why) for last, now in pairs)
        return (
            f'<section class="order" id="order-{escape(order.id)}" aria-label="{escape(order.title)}">'
            f"<h3>{escape(order.title)}</h3>"
            f'<p>To {escape(order.purpose)}.</p><p class="pst-js-only"><button type="button" '
            f'data-order="{escape(order.id)}" aria-pressed="false">Follow this order</button></p>'
            f"<ol>{steps}</ol></section>"
        )

    def step(self, step: reading.Step, explain: bool) -> str:
        """One step: a link, or the title of a chapter that is still planned."""
        docname = reading.docname_of(step, self.env.found_docs)
        title = escape(step_title(self.env, step, docname))
        if docname:
            url = self.env.app.builder.get_relative_uri(self.env.docname, docname)
            part = "#" + step.page.partition("#")[2] if step.page and "#" in step.page else ""
            title = f'<a href="{escape(url + part)}">{title}</a>'
        else:
            title = f'<span class="planned">{title} (planned)</span>'
        why = f'<span class="why">{escape(step.why)}</span>' if explain else ""
        return f"<li>{title} {why}</li>"


def step_title(env: BuildEnvironment, step: reading.Step, docname: str | None) -> str:
    """Title of a step's page: of the plan, of the chapter's entry, of the page, or its name.

    Never what the builder knows of other pages: that depends on the order in which it reads them.
    """
    project = Project(Path(env.srcdir))
    planned = {c.number: c.title for tier in reading.tiers(project) for c in tier.chapters}
    number = step.chapter or (PurePosixPath(docname).name if docname else "")
    number = number.partition("-")[0]
    if number in planned:
        return f"{number} {planned[number]}"
    entry = chapters.load(project).get(PurePosixPath(docname or "").name)
    return entry.title if entry else heading(project, docname) or step.page or number


def heading(project: Project, docname: str | None) -> str | None:
    """First heading of a Markdown page."""
    path = project.root / f"{docname}.md"
    if not docname or not path.exists():
        return None
    lines = path.read_text(encoding="utf8").splitlines()
    return next((line[2:].strip() for line in lines if line.startswith("# ")), None)


def add_ways(app: Sphinx, pagename: str, template: str, context: dict, doctree) -> None:
    """Neighbours of the page in every reading order, and the tier's chapters below a chapter."""
    if doctree is None or "body" not in context:
        return
    project = Project(Path(app.srcdir))
    ways = {o.id: way(app, o, pagename) for o in reading.orders(project)}
    chosen = {ident: found for ident, found in ways.items() if found}
    if pagename.startswith(CHAPTERS):
        context["body"] += tier_navigation(app, project, pagename)
    if chosen:
        data = json.dumps(chosen, ensure_ascii=False).replace("<", "\\u003c")
        context["body"] += f'<script type="application/json" id="reading-ways">{data}</script>'


def way(app: Sphinx, order: reading.Order, pagename: str) -> dict | None:
    """Place of a page in an order, its neighbours there; only the start for a page outside it."""
    found = [(reading.docname_of(s, app.env.found_docs), s) for s in order.steps]
    stops = list({name: (name, step) for name, step in found if name}.values())
    if not stops:
        return None
    names = [name for name, _ in stops]

    def stop(place: int) -> dict | None:
        if not 0 <= place < len(stops):
            return None
        name, step = stops[place]
        url = app.builder.get_relative_uri(pagename, name) or "#"
        return {"href": url, "title": step_title(app.env, step, name)}

    entry: dict = {"title": order.title, "of": len(stops)}
    if LIST in app.env.found_docs:
        entry["all"] = app.builder.get_relative_uri(pagename, LIST)
    if pagename not in names:
        return {**entry, "start": stop(0)}
    here = names.index(pagename)
    return {**entry, "step": here + 1, "prev": stop(here - 1), "next": stop(here + 1)}


def tier_navigation(app: Sphinx, project: Project, pagename: str) -> str:
    """Links to the other chapters of a chapter's tier."""
    groups = reading.tiers(project)
    place = reading.tier_of(groups, PurePosixPath(pagename).name)
    if place is None:
        return ""
    tier, items = groups[place - 1], []
    for planned in tier.chapters:
        docname = reading.docname_of(reading.Step(chapter=planned.number), app.env.found_docs)
        text = f"{planned.number} {escape(planned.title)}"
        if docname == pagename:
            items.append(f'<li aria-current="page">{text}</li>')
        elif docname:
            url = app.builder.get_relative_uri(pagename, docname)
            items.append(f'<li><a href="{escape(url)}">{text}</a></li>')
        else:
            items.append(f'<li class="planned">{text}</li>')
    label = f"Tier {place} of {len(groups)}: {escape(tier.title)}"
    return (
        f'<nav class="tier-nav" aria-label="Chapters of this tier"><p>{label}</p>'
        f"<ul>{''.join(items)}</ul></nav>"
    )


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.add_directive("chapter-table", ChapterTable)
    app.add_directive("reading-orders", ReadingOrders)
    app.connect("html-page-context", add_ways)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
