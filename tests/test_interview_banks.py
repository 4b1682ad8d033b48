"""Question banks: the schema names each fault, real banks quote only what runs recorded."""

import copy
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import sample_book
import yaml

from mangalab.book import interview_schema as schema
from mangalab.book.interview import LEVELS, BankError, bind, load_bank

ROOT = Path(__file__).resolve().parents[1]
BANKS = sorted((ROOT / "book" / "interview").glob("*.yml"))
RECORDS = [*ROOT.glob("artifacts/runs/cpu/*.json"), *ROOT.glob("reference/cpu/*.json")]
GOOD = {
    "id": "why", "level": "Fresh", "minutes": 2, "question": "Why?", "answer": "It is {base_recall}.",
    "key_insight": "k", "mistake": {"what": "w", "tempting": "t", "cost": "c"},
}  # fmt: skip


@pytest.fixture
def faults(tmp_path):
    """Writes one question with changes as a bank; returns what the schema says of it."""

    def check(name="04-x.yml", **changes):
        entry = {**copy.deepcopy(GOOD), **changes}
        entry = {key: value for key, value in entry.items() if value != "DROP"}
        (tmp_path / name).write_text(yaml.safe_dump([entry]), encoding="utf8")
        with pytest.raises(BankError) as caught:
            schema.read_bank(tmp_path / name)
        return str(caught.value)

    return check


@pytest.mark.parametrize("path", BANKS, ids=[path.stem for path in BANKS])
def test_bank_is_complete(path):
    bank = load_bank(path)
    levels = Counter(question["level"] for question in bank)
    assert len(bank) >= 8 and set(levels) == set(LEVELS)
    assert [q.id for q in schema.read_bank(path)] == [question["id"] for question in bank]


@pytest.mark.parametrize("path", BANKS, ids=[path.stem for path in BANKS])
def test_every_bank_has_its_page(path):
    page = path.with_suffix(".md").read_text(encoding="utf8")
    assert f"{{interview-bank}} {path.stem}\n" in page


@pytest.mark.parametrize("path", BANKS, ids=[path.stem for path in BANKS])
def test_no_result_of_ours_is_typed_by_hand(path):
    found = [f"{q.id}, {line}" for q in schema.read_bank(path) for line in schema.typed_results(q)]
    assert found == []


@pytest.mark.skipif(not RECORDS, reason="no chapter has run here in profile cpu")
def test_banks_quote_only_what_runs_recorded():
    records = {path.stem: json.loads(path.read_text(encoding="utf8")) for path in RECORDS}
    questions = [(path.stem, question) for path in BANKS for question in schema.read_bank(path)]
    quoted = {pair for bank, q in questions for pair in schema.quoted_values(q, bank)}
    known = {(chapter, key) for chapter, record in records.items() for key in record["values"]}
    assert {pair for pair in quoted if pair[0] in records} - known == set()


@pytest.mark.parametrize("path", BANKS, ids=[path.stem for path in BANKS])
def test_no_braces_are_left_for_the_reader(path):
    """Outside code and formulas, whatever stands in braces is filled in."""
    for question in schema.read_bank(path):
        for field, text in question.texts():
            shown = schema.VERBATIM.sub(" ", schema.with_roles(text, path.stem))
            left = re.findall(r"\{[a-z_][^},]*\}", shown.replace("{measured}", " "))
            assert not left, f"{question.id}, {field}: {left}"


def test_keys_of_one_word_are_filled_in_and_groups_of_formulas_are_not():
    assert bind("{churn} of {n_test}", {"churn": "3 %", "n_test": "9"}, "x") == "3 % of 9"
    formula = r"$\frac{a}{bc} x_{to} \mathrm{rank}$ \{or\}"
    assert bind(formula, {}, "x") == formula


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": "DROP"}, "field 'answer': Field required"),
        ({"answer": "  "}, "field 'answer': String should have at least 1"),
        ({"level": "Junior"}, "field 'level': Input should be 'Fresh'"),
        ({"minutes": 0}, "field 'minutes'"),
        ({"minutes": "soon"}, "field 'minutes'"),
        ({"mistake": {"what": "w", "tempting": "t"}}, "field 'mistake.cost': Field required"),
        ({"folow_ups": ["x"]}, "field 'folow_ups': Extra inputs"),
        ({"follow_ups": ["x", ""]}, "field 'follow_ups.1'"),
        ({"covers": ["Q10.2"]}, "field 'covers.0'"),
        ({"question": "How many numbers?"}, "needs a field 'napkin'"),
        ({"question": "Two\n\nparts?"}, "must be one paragraph"),
        ({"answer": "It is {04-lora-qlora:recall_r16}."}, "{04-lora-qlora:recall_r16} must be written"),
        ({"answer": "It is $x_{1}$, `{base_recall}`."}, "`{base_recall}` must stand outside"),
        ({"answer": "It is ${base_recall}$."}, "must stand outside code and maths"),
        ({"napkin": "$1 at $3.67 an hour"}, "reads as a formula"),
    ],
)
def test_the_schema_names_file_question_field_and_fault(faults, changes, words):
    message = faults(**changes)
    assert message.startswith("04-x.yml, question 'why'") and words in message


def test_a_general_bank_names_the_chapter_of_a_value(faults, tmp_path):
    assert "must be written like {04-lora-qlora:key}" in faults("general.yml")
    good = [{**GOOD, "answer": "It is {04-ran:recall} of $\\frac{a_i}{b_i}$ for \\$3."}]
    (tmp_path / "general.yml").write_text(yaml.safe_dump(good), encoding="utf8")
    [question] = schema.read_bank(tmp_path / "general.yml")
    assert schema.quoted_values(question, "general") == {("04-ran", "recall")}
    assert "{measured}`04-ran:recall` of" in schema.with_roles(question.answer, "general")


def test_all_faults_of_a_file_are_told_at_once(tmp_path):
    bad = [GOOD, GOOD, {**GOOD, "id": "b", "minutes": 99}, "no mapping"]
    (tmp_path / "04-x.yml").write_text(yaml.safe_dump(bad), encoding="utf8")
    with pytest.raises(BankError) as caught:
        schema.read_bank(tmp_path / "04-x.yml")
    assert all(words in str(caught.value) for words in ("twice", "'minutes'", "entry 4"))


@pytest.mark.parametrize("text", ["a: [", "just text", "", "[]"])
def test_a_file_that_is_no_bank_is_told_by_name(tmp_path, text):
    (tmp_path / "04-x.yml").write_text(text, encoding="utf8")
    with pytest.raises(BankError, match=r"04-x\.yml"):
        schema.read_bank(tmp_path / "04-x.yml")


@pytest.mark.parametrize(
    ("answer", "caught"),
    [
        ("In this chapter recall reaches 83 %.", True),
        ("Our run gained 2.5 points. Good.", True),
        ("We measured a loss of 0.4 nats.", True),
        ("In this chapter recall reaches {recall_r16}.", False),
        ("18 % of messages carry two intents.", False),
        ("In this run 200 of 400 = 50 % were right.", False),
        ("Unlike our run, the paper reports 90 %.", False),
    ],
)
def test_typed_results_are_found_and_arithmetic_is_not(answer, caught):
    question = schema.Question.model_validate({**GOOD, "answer": answer})
    assert bool(schema.typed_results(question)) == caught


# ---------------------------------------------------------------------- the built sample
def page(name: str, profile: str = "cpu") -> str:
    return (sample_book.built(profile) / "book" / "interview" / f"{name}.html").read_text("utf8")


def test_answers_on_pages_carry_measured_values_with_their_run():
    bound = r'<abbr class="measured" title="04-ran, run of[^"]*">93.1\s%</abbr>'
    assert re.search(bound, page("04-ran"))
    general = page("general")
    assert "93.1" in general and '<abbr class="measured-missing"' in general
    assert "93.1" not in page("04-ran", "smoke")


@pytest.mark.parametrize("name", ["cards", "mock", "by-level", "print"])
def test_pages_over_all_banks_have_each_question_once(name):
    ids = re.findall(r'data-level="\w+" data-minutes="\d+" id="(q-[^"]+)"', page(name))
    assert len(ids) == len(set(ids)) == 6


def test_search_knows_a_question_from_its_own_page_only():
    index = (sample_book.built("cpu") / "searchindex.js").read_text(encoding="utf8")
    index = json.loads(re.search(r"setIndex\((.*)\)", index, re.DOTALL)[1])
    where = index["terms"]["fast"]
    found = {index["docnames"][i] for i in where}
    assert found == {"book/interview/04-ran", "book/interview/general"}


def test_other_pages_load_nothing_of_the_interview_part():
    built = sample_book.built("cpu")
    assert "interview-core.js" not in (built / "book" / "claims.html").read_text(encoding="utf8")
    scripts = re.findall(r"interview-\w+\.js", page("cards"))
    assert scripts[0] == "interview-core.js" and len(scripts) == 3
