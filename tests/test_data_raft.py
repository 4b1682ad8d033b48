"""Grounded questions: counts, sheets that settle or do not, volatile values, no leak."""

from collections import Counter

import pytest

from mangalab.data import catalogue, leakage, qa, raft


def test_counts_of_the_test_set():
    found = raft.questions("test")
    kinds = Counter(q.kind for q in found)
    assert len(found) >= 200 and len({q.text for q in found}) == len(found)
    assert sum(kinds[kind] for kind in raft.KINDS[1:]) >= 60
    assert min(kinds.values()) >= 20
    assert sum(q.volatile for q in found if q.kind == "answerable") >= 60
    assert sum(len(q.fields) > 1 for q in found) >= 40
    assert all(sum(name in q.slices for q in found) >= 15 for name in ("jp_mix", "typo"))
    assert len(raft.questions("validation")) >= 80


@pytest.mark.parametrize("split", ["validation", "test"])
def test_hand_written_questions_ask_what_exists(split):
    for q in raft.questions(split):
        assert q.fields and all(f in raft.VOLATILE or getattr(q.title, f) for f in q.fields), q
        assert len(q.fields) == 1 or q.kind == "answerable", q


def test_training_asks_about_the_shelf_only_and_everything_it_can():
    asked = {(q.title_id, q.fields[0]) for q in raft.questions("train") if len(q.fields) == 1}
    facts = {(name, f) for name in raft.SHELF for f in raft.LABELS
             if f in raft.VOLATILE or qa.askable(catalogue.by_id(name), f)}
    assert asked == facts
    assert {q.title_id for q in raft.questions("train")} == set(raft.SHELF)


def test_no_wording_is_in_two_splits():
    texts = {split: [_masked(q) for q in raft.questions(split)] for split in raft.SPLITS}
    for seed in (1, 2):
        texts["train"] += [_masked(q) for q in raft.questions("train", seed=seed)]
    for one, other, cut in (("train", "validation", 0.5), ("train", "test", 0.4),
                            ("validation", "test", 0.5)):
        assert leakage.exact_duplicates(texts[one], texts[other]) == ()
        assert leakage.near_duplicates(texts[one], texts[other], cut) == ()


def _masked(question):
    title = question.title.title
    return leakage.mask(question.text, [title, title.rstrip("!.")])


def test_volatile_values_change_and_stable_ones_do_not():
    for title in catalogue.load():
        for field in raft.VOLATILE:
            assert len({raft.value(title, field, version) for version in raft.VERSIONS}) == 3, title.id
        for field in raft.STABLE:
            if getattr(title, field):
                assert raft.value(title, field, "then") == raft.value(title, field, "now")
    berserk = catalogue.by_id("berserk")
    assert raft.value(berserk, "price", "then") == f"{berserk.price_jpy} yen"


@pytest.mark.parametrize("split", raft.SPLITS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_oracle_and_nothing_else_gives_the_answer(split, k):
    for q in raft.questions(split):
        case = raft.case(q, k=k, kind="answerable")
        assert len(case.sheets) == k + 1
        giving = [i for i, sheet in enumerate(case.sheets)
                  if all(sheet.values[f] == raft.value(q.title, f, "now") for f in q.fields)]
        assert giving == [case.oracle], q.id
        assert all(v in case.prompt for v in case.answer.split(", ")[:1])
        others = [s for i, s in enumerate(case.sheets) if i != case.oracle]
        assert not {s.values[f] for s in others for f in q.fields} & set(case.answer.split(", "))


@pytest.mark.parametrize("kind", raft.KINDS[1:])
def test_unanswerable_cases_lack_what_they_say(kind):
    for q in raft.questions("test"):
        if kind == "contradiction" and set(q.fields) & {"author", "magazine"}:
            continue
        case = raft.case(q, kind=kind)
        own = [s for s in case.sheets if s.title.id == q.title_id]
        assert len(case.sheets) == 3 and case.answer == raft.ABSTAIN and case.oracle is None
        assert len(own) == {"missing_sheet": 0, "missing_fact": 1, "contradiction": 2}[kind]
        if kind == "missing_fact":
            assert not set(own[0].values) & set(q.fields) and own[0].values
        if kind == "contradiction":
            assert all(own[0].values[f] != own[1].values[f] for f in q.fields), q.id


def test_distractors_tempt():
    """They list what is asked, and most share the author, the magazine or two genres."""
    alike = total = 0
    for q in raft.questions("test"):
        for other in raft.distractors(q, 2):
            assert all(f in raft.VOLATILE or getattr(other, f) for f in q.fields)
            shared = len(set(other.genres) & set(q.title.genres))
            alike += bool(set(other.authors) & set(q.title.authors)
                          or other.magazine == q.title.magazine or shared >= 2)
            total += 1
    assert alike / total > 0.85


def test_the_oracle_stands_at_every_place_alike():
    places = Counter(raft.case(q).oracle for q in raft.questions("test") if q.kind == "answerable")
    assert set(places) == {0, 1, 2} and min(places.values()) > 0.25 * sum(places.values())
    q = raft.questions("test")[0]
    assert [raft.case(q, place=i).oracle for i in range(3)] == [0, 1, 2]


def test_quotes_stand_in_the_prompt_word_for_word():
    for q in raft.questions("train"):
        case = raft.case(q, "then")
        quotes = case.quoted.split('"')[1::2]
        assert len(quotes) == len(q.fields) and all(quote in case.prompt for quote in quotes)
        assert case.quoted.endswith(case.answer)
    assert raft.case(raft.questions("train")[0], kind="missing_sheet").quoted == raft.ABSTAIN


def test_retrieved_sheets_are_answerable_only_with_the_right_one():
    q = raft.questions("test")[0]
    found = raft.with_sheets(q, [catalogue.by_id("berserk"), q.title])
    missed = raft.with_sheets(q, [catalogue.by_id("berserk")])
    assert (found.oracle, found.kind, missed.oracle) == (1, "answerable", None)
    assert found.answer == raft.value(q.title, "price", "now") and missed.answer == raft.ABSTAIN


def test_the_grammar_is_seeded():
    assert raft.questions("train", 40) == raft.questions("train", 40)
    assert raft.questions("train", 40) != raft.questions("train", 40, seed=1)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: raft.questions("dev"), "no split 'dev'; there are train"),
    (lambda: raft.questions("test", 999), "n=999, but test has 1 to"),
    (lambda: raft.case(raft.questions("test")[0], kind="contradiction", k=0), "k=0: need one of"),
    (lambda: raft.case(raft.questions("test")[0], place=3), "place=3, but there are places 0 to 2"),
    (lambda: raft.case(raft.questions("test")[0], k=900), "not k=900"),
    (lambda: raft.value(catalogue.by_id("berserk"), "volumes", "now"), "berserk has no volumes"),
    (lambda: raft.value(catalogue.by_id("berserk"), "price", "soon"), "no version 'soon'"),
])
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
