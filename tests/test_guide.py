"""The decision guide: every answer leads somewhere, every detector exists and is at work."""

import importlib
import itertools
import json
import re
from pathlib import Path

import pytest

from mangalab.book import guide, site_guide
from mangalab.book.project import BookError

ROOT = Path(__file__).parents[1]
FOUND = guide.load(ROOT)
PAGE = (ROOT / "book" / "decision-guide.md").read_text(encoding="utf8")
ROW = re.compile(r"\| `([\w.]+)`(?:, `([\w.]+)`)? \| \{chapter\}`(\d\d) ")


def test_every_combination_of_answers_leaves_a_rule():
    """Without a test set the first thing left is to build one."""
    names = [q["id"] for q in FOUND["questions"]]
    for answers in itertools.product(*(q["answers"] for q in FOUND["questions"])):
        given = dict(zip(names, answers, strict=True))
        assert guide.chosen(FOUND["rules"], given), given
        if given["test"] == "no":
            assert guide.chosen(FOUND["rules"], given)[0] == "test-set"


def test_what_changes_daily_never_goes_into_weights():
    for rows in ("few", "some", "many"):
        given = {"wrong": "facts", "change": "daily", "rows": rows, "test": "yes"}
        told = guide.chosen(FOUND["rules"], given)
        assert told[0] == "retrieve" and "lora-facts" not in told


def test_without_weights_nothing_is_trained():
    told = guide.chosen(FOUND["rules"], {"weights": "no", "test": "yes"})
    assert not {"lora-manner", "lora-facts", "tune-router", "distil", "supervised-first"} & set(told)


def test_every_rule_can_be_first():
    """A rule that no combination puts first or second is dead text."""
    names = [q["id"] for q in FOUND["questions"]]
    heads = set()
    for answers in itertools.product(*(q["answers"] for q in FOUND["questions"])):
        heads.update(guide.chosen(FOUND["rules"], dict(zip(names, answers, strict=True)))[:3])
    assert heads == {rule["id"] for rule in FOUND["rules"]}


def test_rules_quote_values_of_the_chapter_that_they_name():
    for rule in FOUND["rules"]:
        quoted = re.findall(r"\{measured\}`(\d\d)-", rule["because"])
        assert set(quoted) <= {rule["chapter"]}, rule["id"]
        assert not re.search(r"(?<![\w`.:-])\d+(?:\.\d+)? ?%", rule["because"]), "typed result"


def test_detectors_exist_and_are_used_in_their_chapters():
    rows = ROW.findall(PAGE)
    assert len(rows) == 19
    for *names, number in rows:
        (notebook,) = (ROOT / "notebooks").glob(f"{number}-*.ipynb")
        source = notebook.read_text(encoding="utf8")
        for name in filter(None, names):
            module, _, function = name.rpartition(".")
            assert callable(getattr(importlib.import_module(f"mangalab.{module}"), function)), name
            assert re.search(rf"\b{function}\b", source), f"{name} in {notebook.name}"


def test_every_instrument_shows_a_value_of_its_chapter():
    lines = [line for line in PAGE.splitlines() if ROW.search(line)]
    assert len(lines) == 19
    for line in lines:
        number = ROW.search(line)[3]
        assert set(re.findall(r"\{measured\}`(\d\d)-", line)) == {number}, line


TEXTS = PAGE + (ROOT / guide.FILE).read_text(encoding="utf8")
QUOTED = sorted(set(re.findall(r"\{measured\}`([\w-]+:\w+)", TEXTS)))


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_value_is_one_that_the_chapter_records(quoted):
    chapter, key = quoted.split(":")
    accepted = ROOT / "reference" / "cpu" / f"{chapter}.json"
    values = json.loads(accepted.read_text(encoding="utf8"))["values"] if accepted.exists() else {}
    assert key in values or key in (ROOT / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf8")


def test_known_cases_come_out_with_their_first_rules():
    told = {c["case"]: guide.chosen(FOUND["rules"], c["given"]) for c in FOUND["cases"]}
    assert [ids[0] for ids in told.values()] == [
        "retrieve", "lora-manner", "retrieve", "lora-manner", "retrieve", "examples"]  # fmt: skip
    assert "lora-facts" in told["Medical diagnosis"]
    assert "lora-facts" not in told["Customer support on a knowledge base"]
    html = site_guide.cases(FOUND)
    assert html.count("<tr>") == 7 and 'href="#wrong=facts&change=daily' in html.replace("&amp;", "&")


def test_a_case_with_an_answer_that_is_none_is_named(tmp_path):
    (tmp_path / "book").mkdir()
    text = (ROOT / guide.FILE).read_text("utf8")
    wrong = text.replace("given: {wrong: facts, change: daily", "given: {wrong: fact, change: daily")
    (tmp_path / guide.FILE).write_text(wrong, encoding="utf8")
    with pytest.raises(BookError, match=r"Customer support .* answers wrong with 'fact'"):
        guide.load(tmp_path)


def test_a_rule_that_asks_what_no_question_answers_is_named(tmp_path):
    (tmp_path / "book").mkdir()
    text = (ROOT / guide.FILE).read_text("utf8")
    wrong = text.replace("wrong: [manner], rows: [many]", "wrong: [manners]")
    (tmp_path / guide.FILE).write_text(wrong, encoding="utf8")
    with pytest.raises(BookError, match=r"lora-manner asks for wrong = \['manners'\]"):
        guide.load(tmp_path)


def test_form_is_hidden_without_scripts_and_labels_every_list():
    html = site_guide.form(FOUND["questions"])
    assert html.startswith('<form class="guide-form" hidden')
    assert html.count("<label>") == html.count("<select") == len(FOUND["questions"])
