"""Sphinx part of the decision guide: its questions as a form, its rules as parsed Markdown."""

from html import escape
from pathlib import Path
from urllib.parse import urlencode

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import chapters, guide
from .project import Project

PAGE, ASSETS = "book/decision-guide", "guide"


def form(questions: list[dict]) -> str:
    """One list of answers a question; without scripts the form stays hidden."""
    fields = []
    for q in questions:
        answers = q["answers"].items()
        options = "".join(f'<option value="{escape(k)}">{escape(v)}</option>' for k, v in answers)
        fields.append(
            f'<label>{escape(q["ask"])}<select name="{escape(q["id"])}">'
            f'<option value="">not said</option>{options}</select></label>'
        )
    return (
        f'<form class="guide-form" hidden aria-label="Your situation">{"".join(fields)}'
        '<button type="reset">Start again</button></form><p class="guide-says" role="status"></p>'
    )


def cases(found: dict) -> str:
    """The known cases: the usual advice, and the first rules here; each links to the filled form."""
    titles = {rule["id"]: rule["do"] for rule in found["rules"]}
    rows = []
    for case in found.get("cases", []):
        ids = guide.chosen(found["rules"], case["given"])
        steps = "".join(f'<li><a href="#rule-{i}">{escape(titles[i])}</a></li>' for i in ids[:3])
        rows.append(
            f'<tr><th scope="row"><a class="guide-case" href="#{escape(urlencode(case["given"]))}">'
            f'{escape(case["case"])}</a></th><td data-label="Usual advice"><div>{escape(case["said"])}'
            f'</div></td><td data-label="First rules here"><div><ol>{steps}</ol></div></td></tr>'
        )
    head = "".join(f'<th scope="col">{t}</th>' for t in ("Case", "Usual advice", "First rules here"))
    return (
        f'<div class="records"><table class="ledger guide-cases"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


class Cases(SphinxDirective):
    """``{decision-cases}``: known cases under these rules."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / guide.FILE))
        return [nodes.raw("", cases(guide.load(root)), format="html")]


class Guide(SphinxDirective):
    """``{decision-guide}``: the form and every rule; a script hides the rules that do not apply."""

    def run(self) -> list[nodes.Node]:
        """The form, then one container a rule."""
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / guide.FILE))
        found = guide.load(root)
        known = chapters.load(Project(root)) if (root / "chapters.yml").exists() else {}
        self.titles = {name[:2]: chapter.title for name, chapter in known.items()}
        made: list[nodes.Node] = [nodes.raw("", form(found["questions"]), format="html")]
        for number, rule in enumerate(found["rules"], 1):
            made += self._rule(number, rule, found["questions"])
        return made

    def _rule(self, number: int, rule: dict, questions: list[dict]) -> list[nodes.Node]:
        when = " ".join(f"{q}={'|'.join(answers)}" for q, answers in rule["when"].items())
        head = f'<section class="guide-rule" id="rule-{rule["id"]}" data-when="{escape(when)}">'
        name = f'<h3><span class="guide-rung">{number}</span> {escape(rule["do"])}</h3>'
        number, title = rule["chapter"], self.titles.get(rule["chapter"], "chapter")
        text = (
            f"*When:* {guide.condition(rule, questions)}.\n\n{rule['because']}\n\n"
            f"*Not yet:* {rule['not_yet']}\n\n"
            f"*Measured in* {{chapter}}`{number} {title}`."
        )
        return [
            nodes.raw("", head + name, format="html"),
            *self.parse_text_to_nodes(text),
            nodes.raw("", "</section>", format="html"),
        ]


def keep_to_its_page(app: Sphinx, pagename: str, template: str, context: dict, _) -> None:
    """Leave the guide's files out of other pages."""
    if pagename != PAGE:
        for kind in ("script_files", "css_files"):
            named = [(Path(str(f.filename or "")).name, f) for f in context.get(kind, [])]
            context[kind] = [f for name, f in named if name not in ("guide.js", "guide.css")]


def setup(app: Sphinx) -> dict:
    """Register the directive with Sphinx."""
    app.add_directive("decision-guide", Guide)
    app.add_directive("decision-cases", Cases)
    app.connect("html-page-context", keep_to_its_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
