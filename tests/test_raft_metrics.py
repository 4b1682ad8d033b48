"""Judging grounded answers: candidates, the answer check against labels by hand, denominators."""

import numpy as np
import pytest

from mangalab.data import raft
from mangalab.evaluation import raft as judge


def _case(field, kind="answerable", title="downfall", **more):
    fields = (field,) if isinstance(field, str) else field
    question = raft.Question("x", "?", title, fields, kind, (), "test")
    return raft.case(question, **more)


def test_candidates_of_an_answerable_price():
    case = _case("price")
    found = {c.role: c.text for c in judge.candidates(case) if c.role != "distractor"}
    title = case.question.title
    assert found == {"abstain": "Cannot tell", "right": case.answer,
                     "stale": raft.value(title, "price", "then"),
                     "invented": raft.value(title, "price", "other")}
    distractors = {c.text for c in judge.candidates(case) if c.role == "distractor"}
    assert distractors == {s.values["price"] for s in case.sheets if s.title != title}


def test_candidates_without_evidence_hold_no_right_answer():
    for kind in raft.KINDS[1:]:
        roles = [c.role for c in judge.candidates(_case("price", kind))]
        assert "right" not in roles and "stale" in roles and "distractor" in roles
        assert roles.count("side") == (2 if kind == "contradiction" else 0)


@pytest.mark.parametrize("split", raft.SPLITS)
def test_candidate_texts_are_distinct_and_one_is_right(split):
    for q in raft.questions(split):
        case = raft.case(q)
        found = judge.candidates(case)
        assert len({c.text for c in found}) == len(found)
        assert [c.text for c in found if judge.is_right(case, c.role)] == [case.answer]


def test_every_candidate_is_judged_as_its_own_role():
    """The free-text judge and the candidates agree, whatever the fields."""
    for q in raft.questions("test"):
        case = raft.case(q)
        for candidate in judge.candidates(case):
            assert judge.judge(candidate.text, case) == candidate.role, (q.id, candidate)


# prediction, fields, values, right: labelled by hand, after the check was written
LABELLED = [
    ("929 yen", "price", "929 yen", True),
    ("It costs 929 yen.", "price", "929 yen", True),
    ("¥929", "price", "929 yen", True),
    ("929", "price", "929 yen", True),
    ("1,029 yen", "price", "1029 yen", True),
    ("929 copies", "price", "929 yen", False),
    ("928 yen", "price", "929 yen", False),
    ("929 or 880 yen", "price", "929 yen", False),
    ("9290 yen", "price", "929 yen", False),
    ("Cannot tell", "price", "929 yen", False),
    ("", "price", "929 yen", False),
    ("sold out", "stock", "sold out", True),
    ("It is out of stock.", "stock", "sold out", True),
    ("0 copies", "stock", "sold out", True),
    ("12 copies", "stock", "sold out", False),
    ("1 copy", "stock", "1 copy", True),
    ("We have 28.", "stock", "28 copies", True),
    ("28 days", "stock", "28 copies", False),
    ("in 3 days", "delivery", "3 days", True),
    ("3", "delivery", "3 days", True),
    ("13 days", "delivery", "3 days", False),
    ("2001", "year", "2001", True),
    ("It began in 2001.", "year", "2001", True),
    ("2001 to 2014", "year", "2001", False),
    ("27 volumes", "volumes", "27", True),
    ("27", "volumes", "27", True),
    ("27 yen", "volumes", "27", False),
    ("Inio Asano", "author", "Inio Asano", True),
    ("by Inio Asano.", "author", "Inio Asano", True),
    ("Asano", "author", "Inio Asano", False),
    ("Kentarou Miura", "author", "Kentaro Miura", True),
    ("Weekly Shonen Jump", "magazine", "Weekly Shonen Jump", True),
    ("Shonen Jump+", "magazine", "Weekly Shonen Jump", False),
    ("929 yen, 12 copies", "price stock", "929 yen|12 copies", True),
    ("12 copies at 929 yen", "price stock", "929 yen|12 copies", True),
    ("929, 12", "price stock", "929 yen|12 copies", True),
    ("12, 929", "price stock", "929 yen|12 copies", False),
    ("12 yen, 929 copies", "price stock", "929 yen|12 copies", False),
    ("929 yen", "price stock", "929 yen|12 copies", False),
    ("Inio Asano, 2005", "author year", "Inio Asano|2005", True),
    ("Inio Asano", "author year", "Inio Asano|2005", False),
    ("2005", "author year", "Inio Asano|2005", False),
]


@pytest.mark.parametrize(("text", "fields", "values", "right"), LABELLED)
def test_the_answer_check_agrees_with_labels_by_hand(text, fields, values, right):
    assert judge.says(text, fields.split(), values.split("|")) is right


@pytest.mark.parametrize(("text", "role"), [
    ("Cannot tell", "abstain"), ("I can't tell from these sheets.", "abstain"),
    ("The price is not stated.", "abstain"), ("The sheets disagree.", "abstain"),
    ("{now}", "right"), ("Downfall costs {now}.", "right"), ("{then}", "stale"),
    ("{wrong}", "distractor"), ("12345 yen", "invented"), ("a fine book", "invented"),
    ('Downfall, "Price: {now}". {now}', "right"), ('Downfall, "Price: {now}". {then}', "stale"),
])
def test_roles_of_free_answers(text, role):
    case = _case("price")
    wrong = next(s.values["price"] for s in case.sheets if s.title != case.question.title)
    assert judge.judge(text.format(now=case.now, then=case.then, wrong=wrong), case) == role


def test_a_number_in_the_title_is_no_answer():
    case = _case("price", title="20th-century-boys")
    assert judge.judge(f"20th Century Boys costs {case.answer}", case) == "right"


def test_quotes_must_be_verbatim_and_from_the_right_sheet():
    case = _case("price")
    other = next(s for s in case.sheets if s.title != case.question.title)
    assert judge.quote_state(case.quoted, case) == "oracle"
    assert judge.quote_state(case.answer, case) == "none"
    assert judge.quote_state(f'"{other.line("price")}" 1', case) == "elsewhere"
    assert judge.quote_state(f'"Price: {case.then}" 1', case) == "altered"
    assert judge.quote_state('"Downfall | price" 1', case) == "altered"


def test_each_metric_has_its_own_denominator():
    cases = [_case("price"), _case("price", "missing_sheet"), _case(("price", "stock")),
             _case("author")]
    roles = ["distractor", "stale", "part", "abstain"]
    found = {name: judge.hits(name, cases, roles) for name in judge.METRICS}
    assert found == {
        "right": [False] * 4, "utilisation": [False] * 3, "distractor": [True, False, False, False],
        "stale": [False, True, False], "detail lost": [True],
        "false abstention": [False, False, True], "unsupported": [True]}
    assert judge.share("stale", cases, roles).n == 3
    with pytest.raises(ValueError, match="none of the 1 cases"):
        judge.share("unsupported", cases[:1], roles[:1])
    with pytest.raises(ValueError, match="unknown roles"):
        judge.hits("right", cases, ["nonsense"] * 4)


def test_the_best_cut_on_a_case_done_by_hand():
    right = [True, True, False, False]
    lack = [False, False, True, True]
    assert judge.best_cut(right, lack, [3.0, 2.0, 1.0, 0.0]) == 2.0
    assert judge.best_cut(right, [False] * 4, [3.0, 2.0, 1.0, 0.0]) == -np.inf
    assert judge.best_cut([False] * 4, lack, [3.0, 2.0, 1.0, 0.0]) in (2.0, 3.0)
    with pytest.raises(ValueError, match="best_cut"):
        judge.best_cut([True], [True], [0.0])
