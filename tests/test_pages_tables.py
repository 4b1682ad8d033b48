"""Comparisons, decisions, atlas, devices, trend: what may be said, and that smoke says nothing."""

import json
import re
import shutil

import pytest
import sample_book

from mangalab.book import tables
from mangalab.book.pages import Runs
from mangalab.book.project import Project
from mangalab.book.tables import comparisons, trend

EVIL = "<script>alert(1)</script>"
ROW = {"layer": 3, "module": "q_proj", "shape": [8, 8], "max_rank": 8, "rank_90": 4, "rank_99": 7,
       "effective_rank": 3.5, "stable_rank": 2.0, "relative": 0.02, "ranks": [1, 2, 16],
       "energy": [0.4, 0.6, 0.987], "edge": None, "above_edge": None}  # fmt: skip
FULL = {
    "comparisons": [
        {"id": "c", "a": "tuned " + EVIL, "b": "frozen", "metric": "recall", "n": 61, "seeds": 3,
         "difference": 0.31, "low": 0.12, "high": 0.5, "verdict": "better"},
        {"id": "d", "a": "one", "b": "two", "metric": "recall", "n": 61, "seeds": 1,
         "difference": 0.2, "low": -0.1, "high": 0.4, "verdict": "better"},
    ],
    "decisions": [
        {"id": "rank", "question": "Which " + EVIL, "rule": "the best", "resolution": "r4",
         "scenario": "r16", "agrees": True,
         "options": [{"name": "r4", "metrics": {"recall": 0.731}}, {"name": "r16", "metrics": {}}]},
    ],
    "spectra": [{"id": "full " + EVIL, "rows": [ROW]}],
}  # fmt: skip
SHOWN = {"run-comparisons": "+0.31", "run-decisions": "0.731", "run-atlas": "99 %",
         "run-trend": "2.319", "run-devices": "2.419",
         "claims-ledger": "32,768,000</span>"}  # fmt: skip


def make(folder, profile: str = "cpu") -> Runs:
    """The sample with a record that has everything, its line in the history, and a GPU's run."""
    sample_book.make(folder, profile)
    record = sample_book.record("04-ran", profile, **FULL)
    sample_book.write(folder / f"artifacts/runs/{profile}/04-ran.json", record)
    values = {key: entry["value"] for key, entry in record["values"].items()}
    sample_book.write(folder / "artifacts/history.jsonl", json.dumps({**record, "values": values}))
    gpu = sample_book.record("04-ran", "gpu", device="cuda")
    gpu["values"] = {"loss": {"value": 2.4187, "low": 2.35, "high": 2.5}, "recall": {"value": 0.5}}
    sample_book.write(folder / "reference/gpu-x/04-ran.json", gpu)
    sample_book.write(folder / "artifacts/runs/gpu/04-ran.json", gpu)
    return Runs(Project(folder), profile)


def html_of(name: str, runs: Runs) -> str:
    return tables.TABLES[name](runs, lambda chapter: f"{chapter}.html")


@pytest.mark.parametrize("name", SHOWN)
def test_a_record_reaches_its_page_with_provenance(tmp_path, name):
    html = html_of(name, make(tmp_path))
    assert SHOWN[name] in html
    if name != "run-trend":
        assert 'title="04-ran, run of 2026-11-22, profile' in html and "run id 0123456789" in html


@pytest.mark.parametrize("name", SHOWN)
def test_a_smoke_record_enters_no_table(tmp_path, name):
    html = html_of(name, make(tmp_path, "smoke"))
    assert SHOWN[name] not in html and "smoke build" in html


def test_a_claim_that_another_settles_shows_its_measurement(tmp_path):
    runs = make(tmp_path)
    path = tmp_path / "book/claims.yml"
    entries = [*sample_book.CLAIMS, {**sample_book.CLAIMS[1], "id": "002-33", "as": "003-01"}]
    sample_book.write(path, json.dumps(entries))
    row = html_of("claims-ledger", runs).split('id="claim-002-33"')[1]
    assert "refuted" in row.split("</tr>")[0]


def test_smoke_lines_of_the_history_enter_no_trend_of_another_profile(tmp_path):
    runs = make(tmp_path, "smoke")
    assert "2.319" not in html_of("run-trend", Runs(runs.project, "cpu"))


@pytest.mark.parametrize("name", tables.TABLES)
def test_what_a_record_says_is_escaped(tmp_path, name):
    assert "<script" not in html_of(name, make(tmp_path))


@pytest.mark.parametrize("name", SHOWN)
def test_a_fresh_clone_says_what_to_do(tmp_path, name):
    html = html_of(name, Runs(Project(tmp_path), "cpu"))
    assert "make book" in html or "no claims file" in html


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_picture_has_words_or_is_hidden(tmp_path, name):
    for tag in re.findall(r"<svg[^>]*>", html_of(name, make(tmp_path))):
        assert 'aria-hidden="true"' in tag or re.search(r'role="img" aria-label="[^"]{20,}"', tag)


@pytest.mark.parametrize(
    ("low", "high", "said", "word"),
    [
        (0.1, 0.4, "better", "better"),
        (-0.4, -0.1, "better", "better"),  # of a metric where less is good
        (0.1, 0.4, "worse", "worse"),
        (-0.1, 0.4, "better", "no difference shown"),
        (0.0, 0.4, "better", "no difference shown"),
        (None, None, "better", "no interval"),
    ],
)
def test_the_word_is_what_the_interval_allows(low, high, said, word):
    assert comparisons.allowed({"low": low, "high": high, "verdict": said}) == word


def test_an_interval_across_zero_is_not_called_better(tmp_path):
    html = html_of("run-comparisons", make(tmp_path))
    assert (html.count('data-verdict="better"'), html.count("forest-better")) == (1, 1)
    assert "interval −0.1 to +0.4: no difference shown" in html


def test_agreement_with_the_scenario_is_computed_not_read(tmp_path):
    assert 'data-verdict="differs"' in html_of("run-decisions", make(tmp_path))


def test_devices_say_when_there_is_no_gpu_record(tmp_path):
    runs = Runs(Project(sample_book.make(tmp_path)), "cpu")
    for folder in ("reference", "artifacts/runs/gpu"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    assert "No GPU record here" in html_of("run-devices", runs)


def test_devices_compare_values_count_equal_ones_and_name_the_source(tmp_path):
    html = html_of("run-devices", make(tmp_path))
    assert "accepted: gpu-x" in html and "1 values are equal" in html
    assert "1.043" in html and "intervals overlap" in html


# ---------------------------------------------------------------------- trend
def run(day: int, status: str = "passed", **values: float) -> str:
    started = f"2026-01-{day:02}T00:00:00+00:00"
    entry = {"chapter": "04-ran", "profile": "cpu", "status": status, "started": started,
             "seconds": 60.0 + day, "peak_mb": 100, "values": values}  # fmt: skip
    return json.dumps({**entry, "error": f"{status}: {EVIL}" if status != "passed" else None})


def test_the_trend_shows_failures_damage_and_renamed_values(tmp_path):
    runs = make(tmp_path)
    lines = [run(1, old_loss=3.0), run(2, "failed"), '{"chap', run(3, loss=2.5), run(4, loss=2.25)]
    sample_book.write(runs.project.history, "\n".join(lines))
    html = html_of("run-trend", runs)
    assert "1 damaged lines" in html and "4 runs, 3 of them good" in html
    assert "not by the latest: old_loss" in html
    assert "failed: &lt;script&gt;" in html and 'class="gap"' in html
    assert "loss over 2 runs, 2.25 to 2.5, last 2.25" in html


def test_thousands_of_runs_stay_one_small_page(tmp_path):
    runs = make(tmp_path)
    lines = [run(1 + n % 28, loss=2.0 + n % 7) for n in range(4000)]
    sample_book.write(runs.project.history, "\n".join(lines))
    html = html_of("run-trend", runs)
    assert "4000 runs" in html and len(html) < 30_000


def test_headlines_are_quoted_values_first_then_those_with_an_interval():
    values = {"a": {"value": 1, "low": 0, "high": 2}, "b": {"value": 2}, "c": {"value": "x", "low": 0}}
    assert trend.headlines({"values": values}, ["b", "gone"]) == ["b", "a"]


def test_the_fingerprint_follows_the_history_and_the_staleness(tiny):
    tiny.add("01-one", "record()")
    tiny.run("01-one")
    before = tables.fingerprint(tiny.project, "cpu")
    assert before == tables.fingerprint(tiny.project, "cpu")
    tiny.project.lock_file.write_text("some==2.0\n", encoding="utf8")
    stale = tables.fingerprint(tiny.project, "cpu")
    tiny.project.history.write_text("", encoding="utf8")
    assert len({before, stale, tables.fingerprint(tiny.project, "cpu")}) == 3


# ---------------------------------------------------------------------- the built sample
def test_built_tables_show_results_of_real_runs_only():
    real, smoke = (
        (sample_book.built(profile) / "book/records.html").read_text(encoding="utf8")
        for profile in ("cpu", "smoke")
    )
    for table in ("comparisons", "decisions", "atlas", "devices", "trend"):
        assert f"records-{table}" in real and f"records-{table}" in smoke
    assert 'class="recorded"' in real and "<svg" in real
    assert 'class="recorded"' not in smoke and "<svg" not in smoke
