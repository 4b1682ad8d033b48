"""What pages show, computed from run records and ``book/claims.yml``: plain functions, no Sphinx.

Everything here returns text or HTML. A record that does not exist is a normal case (a fresh clone),
never an error; a smoke record is shown as such and its numbers are never quoted.
"""

from dataclasses import dataclass
from html import escape

from . import chapters, records
from .chapters import Budget, Chapter
from .project import Project

MISSING = "not measured here yet"
NO_SMOKE = "no value from a smoke run"
STATES = {
    "passed": "Ran",
    "failed": "Failed",
    "timeout": "Ran out of time",
    "killed": "Killed",
    "never-run": "Never run here",
}


@dataclass(frozen=True)
class Runs:
    """The run records of one profile of a project."""

    project: Project
    profile: str

    def record(self, chapter: str) -> dict | None:
        """The record of a chapter (a notebook's stem); None when it never ran here."""
        record = records.read(self.project, self.profile, chapter)
        return None if record["status"] == "never-run" else record

    def results(self, chapter: str) -> dict | None:
        """The record of a chapter whose numbers may be quoted: a whole run, and not a smoke run."""
        record = self.record(chapter)
        whole = record is not None and record["status"] == "passed"
        return record if whole and self.profile != "smoke" else None

    def chapters(self) -> dict[str, Chapter]:
        """Chapters by id, in the order of ``chapters.yml``."""
        known = (self.project.root / "chapters.yml").exists()
        return chapters.load(self.project) if known else {}

    def budget(self, chapter: str) -> Budget | None:
        """What a run of the chapter may take in this profile."""
        entry = self.chapters().get(chapter)
        return entry.budget.get(self.profile) if entry else None


@dataclass(frozen=True)
class Quote:
    """A recorded value as a page shows it."""

    text: str
    title: str
    measured: bool


def quote(runs: Runs, target: str) -> Quote:
    """The value that ``chapter:key`` or ``chapter:key:format`` names, with its provenance."""
    chapter, _, rest = target.partition(":")
    key, _, spec = rest.partition(":")
    record = runs.results(chapter)
    entry = (record or {}).get("values", {}).get(key)
    if entry is None:
        return Quote(*missing(runs, chapter, key), False)
    return Quote(value_text(entry, spec), provenance(record, entry), True)


def missing(runs: Runs, chapter: str, key: str) -> tuple[str, str]:
    """What stands in the place of a value, and why it is not there."""
    record = runs.record(chapter)
    if record is None:
        return MISSING, f"{chapter} has not run on this machine in profile {runs.profile}"
    if runs.profile == "smoke":
        return NO_SMOKE, "smoke runs only prove that every cell runs"
    if record["status"] != "passed":
        return MISSING, f"the last run of {chapter} is incomplete: {records.summary(record)}"
    return MISSING, f"{chapter} has no recorded value {key!r}"


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
    parts += [f"device {record['device']}"] if record.get("device") else []
    parts += [f"run id {str(record['key'])[:10]}"] if record.get("key") else []
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
    status = record["status"]
    if status != "passed":
        what = sentence(records.summary(record))
        text = f"{what} Results after that point are missing; none are left over from an older run."
        boxes.append(("danger", f"{STATES.get(status, status)}: this chapter is incomplete", text))
    return boxes


def sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def strip(record: dict, budget: Budget | None) -> str:
    """The line under a chapter's title that says which run the page shows, as HTML."""
    seconds = record.get("seconds")
    facts = [
        time_tag(record.get("started")),
        f"profile {record.get('profile')}",
        f"device {record['device']}" if record.get("device") else None,
        record.get("dtype"),
        None if record.get("seed") is None else f"seed {record['seed']}",
        None if seconds is None else duration(seconds, budget),
        run_id(record),
    ]
    items = "".join(f"<span>{fact}</span>" for fact in map(html_or_none, facts) if fact)
    return f'<p class="run-strip" data-state="{escape(record["status"])}">{items}</p>'


class Html(str):
    """Text that is HTML already and must not be escaped again."""

    def __html__(self) -> str:
        """Templates ask for this before they escape."""
        return self


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


def duration(seconds: float, budget: Budget | None) -> str:
    """Seconds, with the budget where there is one."""
    return f"{seconds:.0f} s" + (f" (budget {budget.seconds:.0f} s)" if budget else "")


def run_id(record: dict) -> Html | None:
    """The short run key."""
    key = record.get("key")
    return Html(f"run <code>{escape(str(key)[:10])}</code>") if key else None


def chip(word: str, kind: str = "") -> str:
    """A coloured word; the colour (of ``kind``, default the word) repeats what the word says."""
    kind = (kind or word).lower().replace(" ", "-")
    return f'<span class="chip chip-{escape(kind)}">{escape(word)}</span>'
