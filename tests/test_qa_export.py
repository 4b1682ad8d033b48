"""Question sets as files: schemas name planted faults, round trips lose nothing, hops are needed."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from mangalab.data import qa_export as export


@pytest.fixture(scope="module")
def rows():
    return export.grounded("test") + export.two_hop()


def test_every_two_hop_question_needs_two_sheets(rows):
    hops = [row for row in rows if row.hops > 1]
    assert len(hops) > 40 and {export.hops_needed(row) for row in hops} == {2}
    one = hops[0]
    alone = next(s for s in one.context.split("\n") if one.answer in s)
    assert not export.enough(one, [alone])


def test_squad_is_valid_in_place_and_comes_back(rows):
    held = export.spans_only(rows)
    squad = json.loads(json.dumps(export.to_squad(held)))
    assert export.faults(squad, export.SQUAD) == [] and export.misplaced(squad) == []
    assert sorted(export.from_squad(squad), key=lambda r: r.id) == sorted(held, key=lambda r: r.id)
    assert len(held) < len(rows) and all(r.parts == 1 for r in held if r.answer)


def test_two_details_do_not_fit_squad(rows):
    row = next(r for r in rows if r.parts == 2 and r.answer)
    with pytest.raises(ValueError, match="no run of words"):
        export.to_squad([row])


def test_jsonl_is_valid_and_comes_back(rows):
    text = export.to_jsonl(rows)
    assert all(export.faults(json.loads(line), export.JSONL) == [] for line in text.splitlines())
    assert export.from_jsonl(text) == [(r.id, r.context, r.question, r.answer) for r in rows]


@pytest.mark.parametrize("fault, named", [
    (lambda q: q.update(is_impossible=True), "answers"),
    (lambda q: q.pop("id"), "'id' is a required property"),
    (lambda q: q["answers"][0].update(answer_start=-1), "answer_start"),
    (lambda q: q.update(kind="easy"), "kind"),
])  # fmt: skip
def test_planted_faults_are_named(rows, fault, named):
    squad = export.to_squad([next(r for r in export.spans_only(rows) if r.answer)])
    fault(squad["data"][0]["paragraphs"][0]["qas"][0])
    assert any(named in found for found in export.faults(squad, export.SQUAD))


def test_a_moved_answer_is_seen_although_the_schema_passes(rows):
    squad = export.to_squad([next(r for r in export.spans_only(rows) if r.answer)])
    squad["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] += 1
    assert export.faults(squad, export.SQUAD) == [] and len(export.misplaced(squad)) == 1


def test_composition_has_the_asked_shares(rows):
    shares = {"answerable": 0.7, "unanswerable": 0.2, "adversarial": 0.1}
    found = export.compose(rows, shares, 0.15)
    kinds = Counter(r.kind for r in found)
    assert {k: kinds[k] / len(found) for k in shares} == pytest.approx(shares, abs=0.02)
    assert sum(r.hops > 1 for r in found) / len(found) == pytest.approx(0.15, abs=0.02)
    assert export.compose([replace(r, kind="answerable") for r in rows], shares, 0.15) == ()
