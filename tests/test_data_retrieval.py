"""Queries and judgments keep the rule, the counts and the separation that their card states."""

import importlib.util
from collections import Counter

import pytest

from mangalab.data import catalogue, leakage, relevance, retrieval
from mangalab.data._files import CARDS, TEXT
from mangalab.data.relevance import Need

TITLES = catalogue.load()
SPLITS = {split: retrieval.queries(split) for split in retrieval.SPLITS}
JUDGED = {split: retrieval.judgments(split) for split in retrieval.SPLITS}


def grade(title_id, **need):
    return relevance.grade(Need(**need), catalogue.by_id(title_id))


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match="train, validation, test"):
        retrieval.queries("dev")


def test_sizes():
    assert len(SPLITS["test"]) >= 400 and len(SPLITS["validation"]) >= 100
    assert 1500 <= len(SPLITS["train"]) <= 3000
    for rows in SPLITS.values():
        assert len({q.id for q in rows}) == len({q.text for q in rows}) == len(rows)
        assert all(q.text == q.text.strip() and q.slices for q in rows)


def test_every_slice_of_the_test_set_has_thirty_queries():
    counts = Counter(s for q in SPLITS["test"] for s in q.slices)
    assert set(counts) == set(retrieval.SLICES)
    assert min(counts.values()) >= 30, counts


@pytest.mark.parametrize("split", retrieval.SPLITS)
def test_every_query_has_a_title_that_meets_it_and_most_titles_do_not(split):
    for query in SPLITS[split]:
        found = Counter(JUDGED[split][query.id].values())
        if split != "train":
            assert 1 <= found[3] <= 60, query
        assert sum(found.values()) < len(TITLES) / 2, query
    assert any(JUDGED["train"].values())


def test_every_title_is_the_best_answer_to_a_test_query():
    best = {t for grades in JUDGED["test"].values() for t, g in grades.items() if g == 3}
    assert {t.id for t in TITLES} - best == set()


def test_grade_table_has_the_judgments_in_catalogue_order():
    table = retrieval.grades("validation")
    assert len(table) == len(SPLITS["validation"]) and {len(row) for row in table} == {len(TITLES)}
    first = {t.id: g for t, g in zip(TITLES, table[0], strict=True) if g}
    assert first == JUDGED["validation"][SPLITS["validation"][0].id]


def test_training_says_nothing_of_the_held_out_titles_and_needs():
    hidden = retrieval.held_out()
    assert len(hidden) == pytest.approx(len(TITLES) / 5, abs=1)
    assert not hidden & {title for grades in JUDGED["train"].values() for title in grades}
    concepts = relevance.concepts()
    used = {name for q in SPLITS["train"] for name in q.need.core + q.need.soft + q.need.never}
    assert not {name for name in used if concepts[name].held_out}
    assert not {q.need.like for q in SPLITS["train"]} & hidden
    for query in SPLITS["test"] + SPLITS["validation"]:
        first = query.need.core[0].split("|") if query.need.core else ()
        fresh = bool(first) and all(concepts[name].held_out for name in first)
        assert fresh == ("new_need" in query.slices), query


def test_automatic_slices_follow_their_definitions():
    rank, hidden = retrieval.popularity(), retrieval.held_out()
    assert sorted(rank.values()) == list(range(1, len(TITLES) + 1))
    for query in SPLITS["test"] + SPLITS["validation"]:
        best = sorted(rank[t] for t, g in JUDGED[query.split][query.id].items() if g == 3)
        middle, words = best[(len(best) - 1) // 2], len(query.text.split())
        assert ("head" in query.slices) == (middle <= 88), query
        assert ("tail" in query.slices) == (middle >= 212), query
        assert ("short" in query.slices) == (words <= 3), query
        assert ("long" in query.slices) == (words >= 12), query
        named = {t for t, g in JUDGED[query.split][query.id].items() if g == 3}
        assert ("new_title" in query.slices) == (named <= hidden), query


def test_volatile_queries_are_those_that_constrain_price_or_stock():
    for query in SPLITS["test"] + SPLITS["validation"] + SPLITS["train"]:
        asks = any(c.startswith(("price", "total", "stock")) for c in query.need.hard)
        assert asks == ("volatile" in query.slices), query


def test_splits_share_no_phrasing():
    """Titles are masked: what is compared is the wording."""
    names = [name for t in TITLES for name in (t.title, t.romaji) if len(name) > 4]

    def masked(text):
        return leakage.mask(text, [name for name in names if name.casefold() in text.casefold()])

    texts = {s: [masked(q.text) for q in rows] for s, rows in SPLITS.items()}
    texts = {s: [text for text in rows if len(text) > 12] for s, rows in texts.items()}
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert leakage.exact_duplicates(texts[one], texts[other]) == ()
        assert leakage.near_duplicates(texts[one], texts[other], threshold=0.4) == ()


def test_the_committed_files_are_what_rule_grammar_and_overrides_make():
    path = TEXT.parents[2] / "tools" / "make_queries.py"
    spec = importlib.util.spec_from_file_location("make_queries", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.make().items():
        assert (TEXT / name).read_text(encoding="utf8") == text, f"run {path.name} --write"


def test_overrides_change_the_rule_and_say_why():
    needs = {q.id: q.need for split in ("validation", "test") for q in SPLITS[split]}
    seen = set()
    for o in retrieval.overrides():
        assert (o.query_id, o.title_id) not in seen and o.reason
        seen.add((o.query_id, o.title_id))
        ruled = relevance.grade(needs[o.query_id], catalogue.by_id(o.title_id))
        assert ruled == o.rule != o.grade, o
    card = (CARDS / "retrieval.md").read_text(encoding="utf8")
    assert f"{len(retrieval.overrides()):,} grades were changed" in " ".join(card.split())


def test_the_rule_counts_what_is_missing():
    assert grade("emma", core=("victorian", "romance")) == 3
    assert grade("emma", core=("victorian",), soft=("funny",)) == 2
    assert grade("emma", core=("victorian",), soft=("funny", "scary")) == 1
    assert grade("the-case-study-of-vanitas", core=("victorian",)) == 2  # near
    assert grade("haikyu", core=("baseball",)) == 1  # only the broader concept
    assert grade("emma", core=("baseball",)) == 0
    assert grade("black-butler", core=("victorian", "romance")) == 1  # a later need is missing
    assert grade("black-butler", core=("romance", "victorian")) == 0  # the first need is missing
    assert grade("haikyu", core=("baseball|sports",)) == 3
    assert grade("emma", core=("victorian",), never=("romance",)) == 0


def test_the_rule_refuses_what_breaks_a_hard_condition():
    good = {"finished": True, "volumes<=10": True, "volumes<=9": False, "ongoing": False}
    good |= {"demo=Seinen": True, "age<=13": True, "age<=all": False, "year>=2002": False}
    good |= {"author=Kaoru Mori": True, "price<=890": False, "stock": True}
    for condition, kept in good.items():
        assert grade("emma", core=("victorian",), hard=(condition,)) == 3 * kept, condition
    assert not relevance.meets(catalogue.by_id("berserk"), "volumes<=500")  # no end, no count
    with pytest.raises(ValueError, match="condition 'cheap'"):
        grade("emma", hard=("cheap",))


def test_the_rule_on_named_titles():
    assert grade("emma", core=("victorian",), like="emma") == 0  # known already
    assert grade("aqua", find=("aqua",)) == 3 and grade("aria", find=("aqua",)) == 2
    assert grade("a-brides-story", find=("emma",)) == 1  # the same maker
    assert grade("black-butler", find=("emma",), core=("victorian",)) == 1  # one title is meant
    assert grade("black-butler", find=("emma", "innocent"), core=("victorian",)) == 2  # never above 2
    assert grade("dragon-head", find=("emma",)) == 0


def test_unknown_terms_are_named():
    with pytest.raises(ValueError, match="no concept 'vampire'"):
        grade("emma", core=("vampire",))
    with pytest.raises(ValueError, match="no title has 't:nonsense'"):
        relevance._titles("t:nonsense")


def test_documents_hold_lasting_facts_and_volatile_ones_on_demand():
    title = catalogue.by_id("emma")
    text = retrieval.document(title)
    assert text.startswith("Emma by Kaoru Mori. A maid and a merchant's son")
    assert "Historical" in text and "finished in 10 volumes" in text
    assert "yen" not in text and "stock" not in text
    assert retrieval.document(title, volatile=True) == f"{text} 891 yen a volume, 40 in stock."
    assert "still running" in retrieval.document(catalogue.by_id("berserk"))
    assert len({retrieval.document(t) for t in TITLES}) == len(TITLES)
