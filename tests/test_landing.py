"""The landing page's pictures: from records, else from accepted runs, else plain words."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sample_book

from mangalab.book import drawings, landing, pages
from mangalab.book.drawings import Point, Row
from mangalab.book.project import Project

ROOT = Path(__file__).resolve().parents[1]
VALUES = {
    "printed": 83886080, "qv_params_70b": 32768000, "rank_chosen": "16", "rank90_full": 44.5,
    "max_rank": 576, "energy16_full": 0.734, "recall_r4": 0.1, "recall_r16": 0.25,
    "forgetting_r4": 0.4, "forgetting_r16": 0.7,
}  # fmt: skip
ENERGY = [{"ranks": [1, 16, 64], "energy": [low, low + 0.4, 0.95]} for low in (0.1, 0.2, 0.3)]


def lora(profile: str = "cpu", **changes: object) -> dict:
    """A record of chapter 04 that is whole enough for its pictures."""
    values = {key: {"value": value} for key, value in VALUES.items()}
    values["recall_r4"] |= {"low": 0.05, "high": 0.15}
    parts = {"values": values, "claims": [], "spectra": [{"id": "full", "rows": ENERGY}]}
    return sample_book.record(landing.LORA, profile, **{**parts, **changes})


@pytest.fixture
def runs(tmp_path) -> pages.Runs:
    """An empty book."""
    (tmp_path / "chapters.yml").write_text("{}", encoding="utf8")
    return pages.Runs(Project(tmp_path), "cpu")


def card(runs: pages.Runs, name: str) -> str:
    """A card on a page of a book without other pages."""
    return landing.card(runs, name, lambda chapter: None)


def write(runs: pages.Runs, record: dict, folder: str = "artifacts/runs/cpu") -> None:
    sample_book.write(runs.project.root / folder / f"{landing.LORA}.json", record)


def drawn(html: str) -> ElementTree.Element:
    """The picture of a card; it must be well-formed and say in words what it shows."""
    svg = ElementTree.fromstring(re.search(r"<svg.*?</svg>", html, re.S)[0])
    assert svg.get("role") == "img" and len(svg.get("aria-label")) > 20
    return svg


@pytest.mark.parametrize("name", ["parameters", "rank", "spectrum"])
def test_a_card_shows_its_record_with_its_source(runs, name):
    write(runs, lora())
    html = card(runs, name)
    drawn(html)
    assert "From the run of 2026-11-22, on cpu" in html


@pytest.mark.parametrize("name", sorted(set(landing.FINDINGS) - {"spectrum", "parameters"}))
def test_the_accepted_runs_of_the_book_carry_the_picture(runs, name):
    """A value that a chapter renames must not leave an empty card on the first page."""
    (runs.project.root / "reference").symlink_to(ROOT / "reference")
    html = card(runs, name)
    drawn(html)
    assert "From the accepted reference run" in html and "make book" not in html


def test_numbers_are_those_of_the_record(runs):
    write(runs, lora(values=lora()["values"] | {"qv_params_70b": {"value": 1234567}}))
    html = card(runs, "parameters")
    assert html.count("1,234,567") == 3 and "32,768,000" not in html  # bar, label, sentence


def test_without_a_record_the_card_says_how_to_get_it(runs):
    html = card(runs, "rank")
    assert "make book" in html and "<svg" not in html


def test_an_accepted_run_stands_in_and_says_so(runs):
    write(runs, lora(started="2026-10-01T00:00:00"), "reference/cpu")
    html = card(runs, "rank")
    assert "From the accepted reference run of 2026-10-01" in html
    write(runs, lora())
    assert "accepted" not in card(runs, "rank")


def test_a_picture_that_the_accepted_run_does_not_carry_is_no_error(runs):
    accepted = lora()
    del accepted["spectra"]
    write(runs, accepted, "reference/cpu")
    assert "make book" in card(runs, "spectrum") and "<svg" in card(runs, "rank")


def test_neither_smoke_nor_failed_runs_are_shown(runs):
    write(runs, lora(status="failed"))
    assert "<svg" not in card(runs, "rank")
    smoke = pages.Runs(runs.project, "smoke")
    write(runs, lora("smoke"), "artifacts/runs/smoke")
    write(runs, lora(), "reference/cpu")
    assert "<svg" not in card(smoke, "rank")


def test_the_bar_counts_every_statement(tmp_path):
    book = pages.Runs(Project(sample_book.make(tmp_path)), "cpu")
    html = landing.verdicts(book, lambda chapter: None)
    assert "1 wrong" in html and "1 unsupported" in html and "hold as written" not in html
    assert "1 refuted" in html
    assert len(drawn(html)) == 2


def test_a_statement_stands_beside_what_was_found(tmp_path):
    book = pages.Runs(Project(sample_book.make(tmp_path)), "cpu")
    html = landing.refuted(book, ["003-01", "001-02"], lambda chapter: None, "claims.html")
    assert "&lt;b&gt;" in html and "found: 32,768,000 parameters" in html
    assert "unsupported on the desk" in html and 'href="claims.html#claim-003-01"' in html


def test_a_statement_that_a_run_confirms_leaves_the_list(tmp_path):
    book = pages.Runs(Project(sample_book.make(tmp_path)), "cpu")
    path = book.project.record("cpu", "04-ran")
    record = json.loads(path.read_text(encoding="utf8"))
    record["claims"][0]["verdict"] = "held"
    path.write_text(json.dumps(record), encoding="utf8")
    html = landing.refuted(book, ["003-01", "001-02"], lambda chapter: None, None)
    assert "001-02" in html and "003-01" not in html


def test_intervals_are_drawn_to_scale_and_never_leave_the_picture():
    row = Row("a", Point(50, -20, 140), "50 %")
    svg = drawn(drawings.dots([row], 100, "one dot in the middle of its scale"))
    whisker = next(e for e in svg if e.get("class") == "whisker")
    mark = next(e for e in svg if e.get("class") == "mark")
    ends = float(whisker.get("x1")), float(whisker.get("x2"))
    assert float(mark.get("cx")) == pytest.approx(sum(ends) / 2)
    assert 0 <= ends[0] < ends[1] <= drawings.WIDE
