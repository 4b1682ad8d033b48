"""Marked messages keep the counts, the guide's rules and the separation that their card states."""

import re
from collections import Counter

import pytest

from mangalab.data import catalogue, entities, leakage
from mangalab.data._files import CARDS, read_rows

SETS = {split: entities.load(split) for split in entities.SPLITS}
HAND = [m for split in ("validation", "test") for m in SETS[split]]
CARD = (CARDS / "entities.md").read_text(encoding="utf8")


def words(kind):
    return [(m, m.text[s.start : s.end]) for m in HAND for s in m.spans if s.kind == kind]


def test_marks_become_spans_and_text():
    text, spans = entities.parse("where is [Berserk](TITLE) vol [12](VOLUME)?")
    assert text == "where is Berserk vol 12?"
    assert [(text[s.start : s.end], s.kind) for s in spans] == [("Berserk", "TITLE"), ("12", "VOLUME")]
    with pytest.raises(ValueError, match="TITLE, AUTHOR"):
        entities.parse("[Zoro](CHARACTER)")


def test_counts_are_those_of_the_card():
    assert len(SETS["test"]) >= 300 and len(SETS["validation"]) >= 80
    for kind in entities.KINDS:
        counts = [sum(s.kind == kind for m in SETS[x] for s in m.spans) for x in entities.SPLITS]
        assert f"| {kind} | {' | '.join(map(str, counts))} |" in CARD
    for risk in entities.RISKS:
        counts = [sum(m.risk == risk for m in SETS[x]) for x in entities.SPLITS]
        assert f"| {risk} | {' | '.join(map(str, counts))} |" in CARD
    found = Counter(s for m in SETS["test"] for s in m.slices)
    for name in entities.SLICES:
        first = sum(name in m.slices for m in SETS["validation"])
        assert f"| {name} | {first} | {found[name]} |" in CARD


def test_texts_are_clean_and_spans_lie_inside_without_overlap():
    for split, rows in SETS.items():
        assert len({m.id for m in rows}) == len({m.text.casefold() for m in rows}) == len(rows), split
        for m in rows:
            assert m.text == m.text.strip() and "  " not in m.text and not re.search(r"[\[\]]", m.text)
            edges = [e for s in m.spans for e in (s.start, s.end)]
            assert edges == sorted(edges) and all(0 <= e <= len(m.text) for e in edges), m.id
            assert all(m.text[s.start : s.end].strip() == m.text[s.start : s.end] for s in m.spans)


def test_titles_are_in_the_catalogue_or_listed_by_hand():
    known = {name.casefold() for t in catalogue.load() for full in (t.title, t.romaji)
             for name in (full, full.split(":")[0], full.rstrip("!.?"))}  # fmt: skip
    listed = {row["typed"] for row in read_rows("entities_nicknames.tsv")}
    ids = {row["id"] for row in read_rows("entities_nicknames.tsv")} - {""}
    assert all(catalogue.by_id(name) for name in ids)
    typed = {text for _, text in words("TITLE")}
    assert {text for text in typed if text.casefold() not in known} == listed


def test_marks_keep_to_the_guide():
    assert [t for _, t in words("VOLUME") if re.match(r"vol(ume)?s?\b|the\b", t, re.IGNORECASE)] == []
    assert [t for _, t in words("DATE") if re.match(r"(on|in|by|at|the|before|since)\b", t)] == []
    assert [t for _, t in words("PRICE") if not re.search(r"[$€£¥]|yen|euro|dollar|buck|quid", t)] == []
    assert [t for _, t in words("ORDER") if not re.search(r"\d{3}", t)] == []
    named = [m.id for m in HAND if "no_entity" in m.slices and m.spans]
    assert named == [] and all(m.spans or "no_entity" in m.slices for m in HAND)


def test_the_splits_share_no_wording():
    names = [name for t in catalogue.load() for name in (t.title, t.romaji)]
    masked = {x: [leakage.mask(m.text, names) for m in rows] for x, rows in SETS.items()}
    for left, right in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert leakage.exact_duplicates(masked[left], masked[right]) == ()
        assert leakage.near_duplicates(masked[left], masked[right], threshold=0.5) == ()


def test_training_names_no_title_of_the_other_half():
    half = {t.title for t in entities.training_titles()}
    other = [t.title.casefold() for t in catalogue.load() if t.title not in half and len(t.title) > 9]
    spans = [(m.text, s) for m in SETS["train"] for s in m.spans if s.kind == "TITLE"]
    named = {text[s.start : s.end].casefold() for text, s in spans}
    assert [t for t in other if t in named] == [] and len(named) > 100


def test_making_is_seeded_and_refuses_too_many():
    assert entities.make(50) == entities.make(50) == SETS["train"][:50]
    assert entities.make(50, seed=1) != entities.make(50)
    with pytest.raises(ValueError, match="templates make"):
        entities.make(10**6)
    with pytest.raises(ValueError, match="train, validation, test"):
        entities.load("dev")
