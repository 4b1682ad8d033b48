"""What pages show, computed from run records and ``book/claims.yml``: plain functions, no Sphinx.

Everything here returns text or HTML. A record that does not exist is a normal case (a fresh clone),
never an error; a smoke record is shown as such and its numbers are never quoted.
"""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

MISSING = "not measured here yet"
NO_SMOKE = "no value from a smoke run"
STATES = {
    "passed": "Ran",
    "failed": "Failed",
    "timeout": "Ran out of time",
    "killed": "Killed",
    "interrupted": "Interrupted",
    "running": "Running",
    "never-run": "Never run here",
    "planned": "Planned",
}


@dataclass(frozen=True)
class Runs:
    """The run records of one profile under a repository root."""

    root: Path
    profile: str

    def record_path(self, chapter: str) -> Path:
        """Where the runner writes the record of ``chapter`` (a notebook's stem)."""
        return self.root / "artifacts" / "runs" / self.profile / f"{chapter}.json"

    def executed_path(self, chapter: str) -> Path:
        """Where the runner writes the executed copy of a chapter."""
        return self.root / "artifacts" / "executed" / self.profile / f"{chapter}.ipynb"

    def record(self, chapter: str) -> dict | None:
        """The record of a chapter; None when it never ran here; damage is reported as a failure."""
        path = self.record_path(chapter)
        try:
            record = json.loads(path.read_text(encoding="utf8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            why = f"its run record cannot be read ({error}): delete {path.name} and run it again"
            return {"chapter": chapter, "profile": self.profile, "status": "failed", "why": why}
        return None if record.get("status") == "never-run" else record

    def chapters(self) -> dict[str, dict]:
        """Entries of ``chapters.yml`` by chapter id, in its order."""
        entries = load_yaml(self.root / "chapters.yml") or {}
        return dict(entries.get("chapters", entries))


def load_yaml(path: Path) -> object:
    """Contents of a YAML file, or None where there is no such file."""
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf8")) if path.exists() else None


@dataclass(frozen=True)
class Quote:
    """A recorded value as a page shows it."""

    text: str
    title: str
    measured: bool


def quote(runs: Runs, target: str) -> Quote:
    """The value that ``chapter:key`` or ``chapter:key:format`` names, as text with its provenance."""
    chapter, _, rest = target.partition(":")
    key, _, spec = rest.partition(":")
    record = runs.record(chapter)
    entry = (record or {}).get("values", {}).get(key)
    if entry is None:
        return Quote(MISSING, f"{chapter} has no recorded value {key!r} here", False)
    if runs.profile == "smoke":
        return Quote(NO_SMOKE, "smoke runs only prove that every cell runs", False)
    return Quote(value_text(entry, spec), provenance(record, entry), True)


def value_text(entry: dict, spec: str = "") -> str:
    """The recorded text of a value, or the value in the given format with its unit."""
    if entry.get("text") and not spec:
        return str(entry["text"])
    value, unit = entry["value"], entry.get("unit") or ""
    text = format(value, spec) if spec else number(value)
    return text if not unit or text.endswith("%") else f"{text}\u00a0{unit}"


def number(value: object) -> str:
    """A number as a reader wants it: thousands grouped, four significant digits otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def provenance(record: dict, entry: dict) -> str:
    """One sentence: which run, when, on what, with which seed, how many observations."""
    parts = [f"{record.get('chapter')}, run of {day(record)}", f"profile {record.get('profile')}"]
    if record.get("seed") is not None:
        parts.append(f"seed {record['seed']}")
    if entry.get("n"):
        parts.append(f"n = {number(entry['n'])}")
    if entry.get("low") is not None and entry.get("high") is not None:
        parts.append(f"95 % interval {number(entry['low'])} to {number(entry['high'])}")
    return ", ".join(parts)


def day(record: dict) -> str:
    """Date of a run, or words where the record has none."""
    return str(record.get("started") or "unknown date")[:10]


def notices(record: dict | None, chapter: str, profile: str) -> list[tuple[str, str, str]]:
    """Boxes at the top of a chapter page: (kind, title, Markdown-free text)."""
    if record is None:
        text = (
            "This page shows the source of the chapter without results, because it has not been "
            f"executed on this machine in profile {profile}. “make book” runs it."
        )
        return [("note", "Not run here yet", text)]
    boxes = []
    if profile == "smoke":
        text = (
            "Smoke runs use tiny settings to prove that every cell runs. Nothing on this page is "
            "a result: do not quote it."
        )
        boxes.append(("warning", "Smoke run: numbers not publishable", text))
    status = record.get("status", "failed")
    if status != "passed":
        why = record.get("why") or "the record gives no reason"
        text = f"{sentence(why)} Results below that point are missing, and none are from an older run."
        boxes.append(("danger", f"{STATES.get(status, status)} in its last run", text))
    return boxes


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def strip(record: dict, budget: dict) -> str:
    """The line under a chapter's title that says which run the page shows, as HTML."""
    seconds = record.get("seconds")
    facts = [
        time_tag(record.get("started")),
        f"profile {record.get('profile')}",
        record.get("device"),
        record.get("dtype"),
        None if record.get("seed") is None else f"seed {record['seed']}",
        None if seconds is None else duration(seconds, budget.get("seconds")),
        run_id(record),
    ]
    items = "".join(f"<span>{fact}</span>" for fact in map(html_or_none, facts) if fact)
    return f'<p class="run-strip" data-state="{escape(record.get("status", ""))}">{items}</p>'


class Html(str):
    """Text that is HTML already and must not be escaped again."""


def html_or_none(fact: object) -> str | None:
    """Escaped text of a fact; None stays None."""
    if fact is None or fact == "":
        return None
    return fact if isinstance(fact, Html) else escape(str(fact))


def time_tag(started: str | None) -> Html | None:
    """A <time> element; the reader's browser adds the age (``_static/book.js``)."""
    if not started:
        return None
    shown = started[:16].replace("T", " ")
    return Html(f'<time datetime="{escape(started)}">{escape(shown)}</time>')


def duration(seconds: float, budget: float | None) -> str:
    """Seconds, with the budget where there is one."""
    return f"{seconds:.0f} s" + (f" of {budget:.0f} s" if budget else "")


def run_id(record: dict) -> Html | None:
    """The short run key."""
    key = record.get("key")
    return Html(f"run <code>{escape(str(key)[:10])}</code>") if key else None


def chip(word: str) -> str:
    """A coloured word; the colour repeats what the word says."""
    kind = word.lower().replace(" ", "-")
    return f'<span class="chip chip-{escape(kind)}">{escape(word)}</span>'
