"""The two pages that are tables of records: the claims ledger and the status of all chapters."""

from collections import Counter
from collections.abc import Callable
from html import escape

from .pages import STATES, Runs, chip, html_or_none, number, time_tag
from .project import Project
from .records import summary

Link = Callable[[str], str | None]  # chapter id -> relative URL, None where the book has no page

FILTERS = """<form class="ledger-filter" role="search" aria-label="Filter the claims">
<label>Words <input type="search" name="text" placeholder="rank, memory, 003-01 …"></label>
{selects}<output aria-live="polite"></output></form>"""

LABELS = {"seed": "Source"}  # to a reader a seed is a random one
CLAIM_HEAD = ("Id", "The statement", "On the desk", "Right value", "Measured here")
STATUS_HEAD = ("Chapter", "State", "Last run", "Seconds", "Memory", "What happened")


def claims(runs: Runs) -> list[dict]:
    """Entries of ``book/claims.yml``, each with the judgements of this profile's records."""
    entries = load_claims(runs.project)
    found = judgements(runs)
    return [{**entry, "judgements": found.get(str(entry["id"]), [])} for entry in entries]


def load_claims(project: Project) -> list[dict]:
    """Entries of ``book/claims.yml``; none where there is no such file."""
    import yaml

    path = project.root / "book" / "claims.yml"
    return yaml.safe_load(path.read_text(encoding="utf8")) if path.exists() else []


def judgements(runs: Runs) -> dict[str, list[dict]]:
    """What complete runs say about each claim; smoke runs say nothing."""
    found: dict[str, list[dict]] = {}
    for chapter in record_chapters(runs):
        record = runs.results(chapter) or {}
        for claim in record.get("claims", []):
            row = {**claim, "chapter": chapter, "started": record.get("started")}
            found.setdefault(str(claim["id"]), []).append(row)
    return found


def record_chapters(runs: Runs) -> list[str]:
    """Every chapter that chapters.yml names, or that has a notebook."""
    notebooks = sorted(p.stem for p in (runs.project.root / "notebooks").glob("*.ipynb"))
    return list(dict.fromkeys([*runs.chapters(), *notebooks]))


def ledger_html(runs: Runs, link: Link) -> str:
    """The claims table with its filter; rows become cards on a phone (custom.css)."""
    rows = claims(runs)
    if not rows:
        return "<p>There is no claims file in this checkout.</p>"
    measured = sorted({j["verdict"] for row in rows for j in row["judgements"]})
    choices = {
        "seed": sorted({str(row.get("seed", "")) for row in rows}),
        "verdict": sorted({str(row.get("verdict", "")) for row in rows}),
        "chapter": sorted({str(row["chapter"]) for row in rows if row.get("chapter")}),
        "measured": [*measured, "not measured"],
    }
    selects = "".join(select(name, words) for name, words in choices.items())
    body = "".join(claim_row(row, link) for row in rows)
    table = table_html(CLAIM_HEAD, body, "ledger")
    return counts(rows) + FILTERS.format(selects=selects) + table


def counts(rows: list[dict]) -> str:
    """How many claims there are, and of which verdict."""
    desk = Counter(str(row.get("verdict", "")) for row in rows)
    here = Counter(j["verdict"] for row in rows for j in row["judgements"])
    lines = [f"{len(rows)} statements on the desk: {count_chips(desk)}"]
    if here:
        lines.append(f"{here.total()} judged by this machine's runs: {count_chips(here)}")
    return "".join(f'<p class="counts">{line}</p>' for line in lines)


def count_chips(words: Counter) -> str:
    """Verdicts with their numbers, the most frequent first."""
    pairs = words.most_common()
    return " ".join(f'<span class="count">{chip(word)} {times}</span>' for word, times in pairs)


def select(name: str, words: list[str]) -> str:
    """A drop-down of the filter."""
    options = "".join(f"<option>{escape(word)}</option>" for word in words)
    title = LABELS.get(name, name.capitalize())
    options = f'<option value="">all</option>{options}'
    return f'<label>{title} <select name="{name}">{options}</select></label>\n'


def claim_row(row: dict, link: Link) -> str:
    """One claim: what was stated, what the desk check says, what the run measured."""
    ident, chapter = str(row["id"]), row.get("chapter")
    words = " ".join(j["verdict"] for j in row["judgements"]) or "not measured"
    data = {"seed": row.get("seed"), "verdict": row.get("verdict"), "chapter": chapter}
    attributes = "".join(f' data-{k}="{escape(str(v or ""))}"' for k, v in data.items())
    cells = [
        f'<a href="#claim-{escape(ident)}">{escape(ident)}</a>',
        escape(str(row.get("text", ""))) + derivation(row),
        chip(str(row.get("verdict", ""))) + kind_of(row),
        escape(value_of(row.get("correct"), row.get("unit"))),
        measured_cell(row["judgements"], chapter, link),
    ]
    attributes += f' id="claim-{escape(ident)}" data-measured="{escape(words)}"'
    return table_row(CLAIM_HEAD, cells, attributes)


def table_html(head: tuple[str, ...], body: str, kind: str) -> str:
    """A table of records."""
    ths = "".join(f'<th scope="col">{word}</th>' for word in head)
    table = f"<thead><tr>{ths}</tr></thead><tbody>{body}</tbody>"
    return f'<table class="{kind}">{table}</table>'


def table_row(head: tuple[str, ...], cells: list[str], attributes: str = "") -> str:
    """A row whose cells carry their column's name, for narrow screens."""
    pairs = zip(head, cells, strict=True)
    tds = "".join(f'<td data-label="{label}">{boxed(cell)}</td>' for label, cell in pairs)
    return f"<tr{attributes}>{tds}</tr>"


def boxed(cell: str) -> str:
    """A cell's contents in one element (a grid item on phones); an empty cell stays empty."""
    return f"<div>{cell}</div>" if cell else ""


def derivation(row: dict) -> str:
    """How the right value follows, folded away."""
    if not row.get("derivation"):
        return ""
    text, check = escape(str(row["derivation"])), row.get("check")
    how = f" <code>{escape(str(check))}</code>" if check else ""
    return f"<details><summary>Derivation</summary><p>{text}{how}</p></details>"


def kind_of(row: dict) -> str:
    """How the claim can be checked at all."""
    return f' <span class="kind">{escape(str(row["kind"]))}</span>' if row.get("kind") else ""


def value_of(value: object, unit: object) -> str:
    """A value with its unit; an empty string where there is none."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(number(one) for one in value) + (f" {unit}" if unit else "")
    text = number(value)
    return f"{text} {unit}" if unit and isinstance(value, (int, float)) else text


def measured_cell(found: list[dict], chapter: str | None, link: Link) -> str:
    """Verdict and measured value of each chapter that checked the claim."""
    if not found:
        return f'<span class="kind">not yet, in</span> {anchor(chapter, link)}' if chapter else ""
    return "<br>".join(
        " ".join((chip(j["verdict"]), escape(measured_text(j)), anchor(j["chapter"], link)))
        for j in found
    )


def measured_text(judgement: dict) -> str:
    """The measured value with its interval and n, where recorded."""
    measured = judgement.get("measured")
    text = "" if measured is None else number(measured)
    low, high = judgement.get("low"), judgement.get("high")
    if low is not None and high is not None and low != high:
        text += f" [{number(low)}, {number(high)}]"
    return text + (f", n = {number(judgement['n'])}" if judgement.get("n") else "")


def anchor(chapter: str, link: Link) -> str:
    """A link to a chapter that has a page; its id otherwise."""
    url, text = link(chapter), escape(str(chapter))
    return f'<a href="{escape(url)}">{text}</a>' if url else f'<span class="kind">{text}</span>'


def status_html(runs: Runs, link: Link) -> str:
    """One row per chapter: state, age, time and memory against their budgets, reason."""
    rows = "".join(status_row(chapter, runs, link) for chapter in record_chapters(runs))
    caption = f"<p>Profile of this build: <strong>{escape(runs.profile)}</strong>.</p>"
    return caption + table_html(STATUS_HEAD, rows, "ledger status")


def status_row(chapter: str, runs: Runs, link: Link) -> str:
    """State of one chapter in this profile."""
    record, budget = runs.record(chapter) or {"status": "never-run"}, runs.budget(chapter)
    entry, url = runs.chapters().get(chapter), link(chapter)
    title = escape(entry.title if entry else chapter)
    status = record["status"]
    cells = [
        f'<a href="{escape(url)}">{title}</a>' if url else title,
        chip(STATES.get(status, status)),
        html_or_none(time_tag(record.get("started"))) or "",
        against(record.get("seconds"), budget.seconds if budget else None, "s"),
        against(record.get("peak_mb"), budget.mb if budget else None, "MB"),
        escape(happened(record)),
    ]
    return table_row(STATUS_HEAD, cells)


def happened(record: dict) -> str:
    """Why a chapter ran, or how its run ended."""
    if record["status"] in ("passed", "never-run"):
        return record.get("why") or ""
    return summary(record)


def against(value: float | None, budget: float | None, unit: str) -> str:
    """A figure beside its budget, marked where it is over."""
    if value is None:
        return f"budget {budget:,.0f} {unit}" if budget else ""
    text = f"{value:,.0f} {unit}" + (f" of {budget:,.0f}" if budget else "")
    return f'<strong class="over">{text}</strong>' if budget and value > budget else text
