"""The messages of new intents keep the counts, labels and separation that their card states."""

from collections import Counter

import pytest

from mangalab.data import intents, leakage, newcomers
from mangalab.data._files import CARDS

SETS = {split: newcomers.load(split) for split in newcomers.SPLITS}


def texts(split):
    return [message.text for message in SETS[split]]


def test_counts_are_those_of_the_card():
    counts = {s: Counter((m.near and "near") or m.intent for m in found) for s, found in SETS.items()}
    assert [counts["pool"][n] for n in newcomers.NEWCOMERS] == [128, 126, 127, 125]
    assert {counts["validation"][n] for n in newcomers.NEWCOMERS} == {30}
    assert {counts["test"][n] for n in newcomers.NEWCOMERS} == {62}
    assert [counts[s]["near"] for s in newcomers.SPLITS] == [98, 32, 64]
    card = (CARDS / "newcomers.md").read_text(encoding="utf8")
    for row in ("| preorder | 128 | 30 | 62 |", "| look-alikes | 98 | 32 | 64 |"):
        assert row in card


def test_look_alikes_carry_old_intents_and_the_rest_new_ones():
    for found in SETS.values():
        assert all((m.intent in intents.INTENTS) == bool(m.near) for m in found)
    assert {m.near for m in SETS["test"] if m.near} == set(newcomers.NEWCOMERS)


def test_messages_are_filled_and_different():
    for split in newcomers.SPLITS:
        assert len({t.casefold() for t in texts(split)}) == len(texts(split))
        assert not any(set(t) & set("[]{}|") or t != t.strip() for t in texts(split))


def test_the_pool_is_made_alike_every_time():
    assert newcomers.load("pool") == SETS["pool"]
    assert SETS["pool"][0].id == "nl-001-0"


def test_no_split_leaks_into_another():
    old = [u.text for split in intents.SPLITS for u in intents.load(split)]
    seen = {"pool": texts("pool"), "old": old}
    for split in ("validation", "test"):
        for name, others in seen.items():
            found = leakage.near_duplicates(others, texts(split), 0.45)
            assert not found, f"{split} against {name}: {found[:3]}"
        seen[split] = texts(split)


def test_unknown_splits_and_intents_are_named():
    with pytest.raises(ValueError, match="pool, validation, test"):
        newcomers.load("train")
    row = {"id": "x", "text": "hi", "intent": "chitchat", "near": "", "slices": "plain"}
    with pytest.raises(ValueError, match="x of test: intent 'chitchat'"):
        newcomers._newcomer(row, "hi", (), "test")
