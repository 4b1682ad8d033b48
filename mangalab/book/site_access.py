"""Accessibility: faults of the theme and of its parsers that are put right in the built pages."""

import re
from pathlib import Path

from sphinx.application import Sphinx

# the theme's pages, put right: text that must be on them -> what stands there instead
SEARCH = 'class="btn search-button-field search-button__button pst-js-only" title="Search"'
SIDEBAR = '<div id="pst-primary-sidebar"'
REPAIRS = (
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ('<summary><span class="toctree-toggle"',
     '<summary aria-label="Pages of this part"><span class="toctree-toggle"'),
    (f'{SEARCH} aria-label="Search"', SEARCH),
    ('data-mode="light" title="Light"', 'data-mode="light"'),
    ('data-mode="dark"  title="Dark"', 'data-mode="dark"'),
    ('data-mode="auto"  title="System Settings"', 'data-mode="auto"'),
    (f"{SIDEBAR} class", f'{SIDEBAR} role="complementary" aria-label="Book" class'),
)
EMPTY_HEAD = re.compile(r'<th class="head(?: [^"]*)?">(?:<p></p>|\s)*</th>')
BIBLIOGRAPHY_ROLES = re.compile(r' role="(?:list|doc-biblioentry)"(?= class="citation)')
ENTRY_ROLE = re.compile(r'(<div class="citation"[^>]*) role="doc-biblioentry"')


def repair_body(app: Sphinx, pagename: str, template: str, context: dict, _) -> None:
    """Empty table headings become cells; roles that browsers no longer know go."""
    body = context.get("body")
    if body:
        body = EMPTY_HEAD.sub('<td class="head"></td>', body)
        context["body"] = ENTRY_ROLE.sub(r"\1", BIBLIOGRAPHY_ROLES.sub("", body))


def repair_pages(app: Sphinx, error: Exception | None) -> None:
    """Put right what the theme's own templates get wrong, on every page."""
    if error is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        if path.relative_to(app.outdir).parts[0].startswith("_"):
            continue
        old = path.read_text(encoding="utf8")
        new = repaired(old)
        if new != old:
            path.write_text(new, encoding="utf8")


def repaired(html: str) -> str:
    """A page with the theme's faults put right."""
    for wrong, right in REPAIRS:
        html = html.replace(wrong, right)
    return html


def setup(app: Sphinx) -> dict:
    """Register with Sphinx."""
    app.connect("html-page-context", repair_body, priority=800)
    app.connect("build-finished", repair_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
