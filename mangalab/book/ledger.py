"""The two pages that are tables of records: the claims ledger and the status of all chapters."""

from collections.abc import Callable
from html import escape

from .pages import STATES, Runs, chip, html_or_none, load_yaml, number, time_tag

Link = Callable[[str], str | None]  # chapter id -> relative URL, None where the book has no page

FILTERS = """<form class="ledger-filter" role="search" aria-label="Filter the claims">
<label>Words <input type="search" name="text" placeholder="rank, memory, 003-01 …"></label>
{selects}<output aria-live="polite"></output></form>"""


def claims(runs: Runs) -> list[dict]:
    """Entries of ``book/claims.yml``, each with the judgements of this profile's records."""
    entries = load_yaml(runs.root / "book" / "claims.yml") or []
    found = judgements(runs)
    return [{**entry, "judgements": found.get(str(entry["id"]), [])} for entry in entries]


def judgements(runs: Runs) -> dict[str, list[dict]]:
    """What the chapters' records say about each claim; nothing in a smoke profile."""
    found: dict[str, list[dict]] = {}
    if runs.profile == "smoke":
        return found
    for chapter in record_chapters(runs):
        record = runs.record(chapter) or {}
        for claim in record.get("claims", []):
            row = {**claim, "chapter": chapter, "started": record.get("started")}
            found.setdefault(str(claim["id"]), []).append(row)
    return found


def record_chapters(runs: Runs) -> list[str]:
    """Every chapter that chapters.yml names, or that has a notebook."""
    notebooks = sorted(p.stem for p in (runs.root / "notebooks").glob("*.ipynb"))
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
    head = "".join(
        f'<th scope="col">{word}</th>'
        for word in ("Id", "The statement", "On the desk", "Right value", "Measured here")
    )
    table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return FILTERS.format(selects=selects) + f'<table class="ledger">{table}</table>'


def select(name: str, words: list[str]) -> str:
    """A drop-down of the filter."""
    options = "".join(f"<option>{escape(word)}</option>" for word in words)
    title = name.capitalize()
    return f'<label>{title} <select name="{name}"><option value="">all</option>{options}</select></label>\n'


def claim_row(row: dict, link: Link) -> str:
    """One claim: what was stated, what the desk check says, what the run measured."""
    ident, chapter = str(row["id"]), row.get("chapter")
    words = " ".join(j["verdict"] for j in row["judgements"]) or "not measured"
    data = {"seed": row.get("seed"), "verdict": row.get("verdict"), "chapter": chapter}
    attributes = "".join(f' data-{k}="{escape(str(v or ""))}"' for k, v in data.items())
    cells = [
        ("Id", f'<a href="#claim-{escape(ident)}">{escape(ident)}</a>'),
        ("The statement", escape(str(row.get("text", ""))) + derivation(row)),
        ("On the desk", chip(str(row.get("verdict", ""))) + kind_of(row)),
        ("Right value", escape(value_of(row.get("correct"), row.get("unit")))),
        ("Measured here", measured_cell(row["judgements"], chapter, link)),
    ]
    tds = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells)
    return f'<tr id="claim-{escape(ident)}"{attributes} data-measured="{escape(words)}">{tds}</tr>'


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
    text = number(value)
    return f"{text}\u00a0{unit}" if unit and isinstance(value, (int, float)) else text


def measured_cell(found: list[dict], chapter: str | None, link: Link) -> str:
    """Verdict and measured value of each chapter that checked the claim."""
    if not found:
        return anchor(chapter, link) if chapter else ""
    return "<br>".join(
        f"{chip(j['verdict'])} {escape(measured_text(j))} {anchor(j['chapter'], link)}" for j in found
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
    entries = runs.chapters()
    head = ("Chapter", "State", "Last run", "Seconds", "Memory", "Why")
    ths = "".join(f'<th scope="col">{word}</th>' for word in head)
    rows = "".join(
        status_row(chapter, entries.get(chapter) or {}, runs, link, head)
        for chapter in record_chapters(runs)
    )
    table = f"<thead><tr>{ths}</tr></thead><tbody>{rows}</tbody>"
    caption = f"<p>Profile of this build: <strong>{escape(runs.profile)}</strong>.</p>"
    return caption + f'<table class="ledger status">{table}</table>'


def status_row(chapter: str, entry: dict, runs: Runs, link: Link, head: tuple[str, ...]) -> str:
    """State of one chapter in this profile."""
    record = runs.record(chapter)
    exists = (runs.root / "notebooks" / f"{chapter}.ipynb").exists()
    status = record.get("status", "failed") if record else "never-run" if exists else "planned"
    record, budget = record or {}, entry.get("budget") or {}
    title = escape(str(entry.get("title") or chapter))
    url = link(chapter)
    cells = [
        f'<a href="{escape(url)}">{title}</a>' if url else title,
        chip(STATES.get(status, status)),
        html_or_none(time_tag(record.get("started"))) or "",
        against(record.get("seconds"), budget.get("seconds"), "s"),
        against(record.get("peak_mb"), budget.get("mb"), "MB"),
        escape(str(record.get("why") or "")),
    ]
    pairs = zip(head, cells, strict=True)
    return "<tr>" + "".join(f'<td data-label="{k}">{cell}</td>' for k, cell in pairs) + "</tr>"


def against(value: float | None, budget: float | None, unit: str) -> str:
    """A figure beside its budget, marked where it is over."""
    if value is None:
        return f"budget {budget:,.0f} {unit}" if budget else ""
    text = f"{value:,.0f} {unit}" + (f" of {budget:,.0f}" if budget else "")
    return f'<strong class="over">{text}</strong>' if budget and value > budget else text
