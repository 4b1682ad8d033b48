"""The book's pages: quoted values, boxes, ledger, figures' texts, and nothing from the network."""

import json
import re
import subprocess
import sys
from pathlib import Path

import html_gate
import pytest
import sample_book
import yaml

from mangalab.book import pages
from mangalab.book.project import Project
from mangalab.book.tables import ledger, states

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def runs(tmp_path: Path) -> pages.Runs:
    """Records of the sample in profile cpu."""
    return pages.Runs(Project(sample_book.make(tmp_path)), "cpu")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf8")


def page(name: str, profile: str = "cpu") -> str:
    """HTML of a page of the built sample."""
    return text_of(sample_book.built(profile) / f"{name}.html")


# ---------------------------------------------------------------------- without a build
@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("04-ran:recall", "50 %"),
        ("04-ran:recall:.3f", "0.500"),
        ("04-ran:loss", "2.319\u00a0nats"),
        ("04-ran:loss:.1f", "2.3\u00a0nats"),
    ],
)
def test_a_quoted_value_has_the_recorded_or_the_asked_format(runs, target, shown):
    quote = pages.quote(runs, target)
    assert (quote.text, quote.measured) == (shown, True)
    assert "run of 2026-11-22" in quote.title and "seed 0" in quote.title


def test_the_title_of_a_quoted_value_names_n_and_interval(runs):
    title = pages.quote(runs, "04-ran:loss").title
    assert "n = 120" in title and "95 % interval 2.2 to 2.4" in title


@pytest.mark.parametrize("target", ["04-ran:nope", "06-never-run:loss", "no-chapter:x", "04-ran"])
def test_a_missing_value_says_so(runs, target):
    assert pages.quote(runs, target).text == pages.MISSING


def test_a_smoke_value_is_never_quoted(tmp_path):
    smoke = pages.Runs(Project(sample_book.make(tmp_path, "smoke")), "smoke")
    quote = pages.quote(smoke, "04-ran:recall")
    assert not quote.measured and "50" not in quote.text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(32768000, "32,768,000"), (0.0464, "0.0464"), (12345.6, "12,346"), (3.0, "3"), ("a", "a")],
)
def test_numbers_are_grouped_or_short(value, shown):
    assert pages.number(value) == shown


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        ("failed", {"cell": 7, "name": "ValueError", "message": "bad"}, "cell 7: ValueError: bad"),
        ("timeout", {"cell": 3}, "Timed out at cell 3"),
        ("killed", {"message": "out of memory"}, "out of memory"),
    ],
)
def test_the_box_says_what_failed_and_where(status, error, words):
    record = sample_book.record("x", "cpu", status=status, error=error)
    [(kind, _, text)] = pages.notices(record, "x", "cpu")
    assert kind == "danger" and words in text


def test_ledger_escapes_text_and_joins_the_measured_verdict(runs):
    html = ledger.html(runs, lambda chapter: f"{chapter}.html")
    assert "&lt;b&gt;parameters" in html and "<b>parameters" not in html
    row = html[html.index('id="claim-003-01"') :]
    assert 'data-measured="refuted"' in html and "32,768,000" in row and "04-ran.html" in row


def test_smoke_judgements_never_enter_the_ledger(tmp_path):
    smoke = pages.Runs(Project(sample_book.make(tmp_path, "smoke")), "smoke")
    assert 'data-measured="refuted"' not in ledger.html(smoke, lambda chapter: None)


def test_status_marks_what_is_over_budget(runs):
    html = states.html(runs, lambda chapter: None)
    assert '<strong class="over">61 s of 60</strong>' in html and "900 MB of 2,000" in html
    assert html.count("Never run here") == 1 and "failed at cell 5: ValueError: bad" in html


def test_vendored_files_match_their_checksums():
    command = [sys.executable, ROOT / "tools" / "vendor.py", "--check"]
    assert subprocess.run(command, check=False).returncode == 0


def test_contents_name_only_existing_pages_and_every_chapter():
    toc = yaml.safe_load(text_of(ROOT / "_toc.yml"))
    entries = [entry for part in toc["parts"] for entry in part["chapters"]]
    entries += [below for entry in entries for below in entry.get("sections", [])]
    for name in [toc["root"], *(entry["file"] for entry in entries if "file" in entry)]:
        assert (ROOT / f"{name}.md").exists(), name
    globs = ["notebooks/[0-9]*", "book/projects/[0-9]*", "book/interview/[0-9]*"]
    assert [entry["glob"] for entry in entries if "glob" in entry] == globs


def test_an_incomplete_run_is_not_quoted(tmp_path):
    folder = sample_book.make(tmp_path)
    failed = sample_book.record("04-ran", "cpu", status="failed", error={"cell": 9})
    sample_book.write(folder / "artifacts" / "runs" / "cpu" / "04-ran.json", failed)
    runs = pages.Runs(Project(folder), "cpu")
    quote = pages.quote(runs, "04-ran:loss")
    assert not quote.measured and "failed at cell 9" in quote.title
    assert 'data-measured="refuted"' not in ledger.html(runs, lambda chapter: None)


@pytest.mark.slow
def test_every_quoted_value_is_recorded_by_its_chapter(smoke_book):
    for path in (ROOT / "book").rglob("*.md"):
        for target in re.findall(r"\{measured\}`([^`]+)`", text_of(path)):
            chapter, key = target.split(":")[:2]
            record = json.loads(text_of(ROOT / f"artifacts/runs/smoke/{chapter}.json"))
            assert key in record["values"], f"{path.name} quotes {target}"


# ---------------------------------------------------------------------- the built sample
@pytest.mark.parametrize("profile", ["cpu", "smoke"])
def test_built_pages_pass_the_gate(profile):
    assert html_gate.problems(sample_book.built(profile)) == []


def test_built_values_carry_their_provenance():
    html = page("book/index")
    assert re.search(r'<abbr class="measured" title="04-ran, run of 2026[^"]*">50.0%</abbr>', html)
    assert html.count(pages.MISSING) == 2


def test_a_figure_keeps_its_alternative_text():
    assert f'alt="{sample_book.ALT}"' in page("notebooks/04-ran")


def test_a_chapter_link_finds_the_notebook_by_number_or_says_planned():
    html = page("book/index")
    assert 'href="../notebooks/04-ran.html">Four</a>' in html
    assert '<span class="planned">Nine (planned)</span>' in html


def test_each_chapter_says_which_run_it_shows():
    ran, failed, never = (page(f"notebooks/{name}") for name in sample_book.CHAPTERS[:3])
    assert 'class="run-strip"' in ran and "danger admonition" not in ran
    assert "Failed at cell 5: ValueError: bad." in failed and html_gate.FAILED_BOX in failed
    assert (
        'class="note admonition"' in never
        and "Not run here yet" in never
        and "run-strip" not in never
    )


def test_a_smoke_book_is_stamped_on_every_chapter_and_quotes_nothing():
    for name in sample_book.CHAPTERS[:2]:
        assert "numbers not publishable" in page(f"notebooks/{name}", "smoke")
    assert "50.0%" not in page("book/index", "smoke")


def test_alerts_and_diagrams_are_not_code():
    html = page("book/index")
    assert 'class="warning admonition"' in html
    assert "const mermaid = window.mermaid;" in html and "import mermaid" not in html


def test_a_new_record_reaches_the_pages_that_quote_it():
    folder = sample_book.built("cpu").parents[1]
    path = folder / "artifacts" / "runs" / "cpu" / "04-ran.json"
    old = text_of(path)
    changed = json.loads(old)
    changed["values"]["recall"]["value"] = 0.625
    try:
        sample_book.write(path, changed)
        assert sample_book.build(folder, whole=False).returncode == 0
        assert "62.5%" in page("book/index")
    finally:
        sample_book.write(path, old)
        sample_book.build(folder, whole=False)


def test_a_missing_value_fails_a_strict_build(tmp_path):
    done = sample_book.build(sample_book.make(tmp_path), MANGALAB_STRICT="1")
    assert done.returncode != 0 and "no recorded value 'los'" in done.stdout + done.stderr
