"""Requests to the assistant: counts of the card, separation of the splits, shelves, the log's flaws."""

import importlib.util
import re
from collections import Counter

import pytest

from mangalab.data import assistant, catalogue, leakage
from mangalab.data._files import TEXT, read_rows
from mangalab.evaluation import rubric

SETS = {split: assistant.load(split) for split in assistant.SPLITS}
FOUND_BY = {"choice": {"constraint", "age"}, "missing": {"escalation"}, "needless": {"escalation"},
            "ramble": {"length"}}  # fmt: skip


def maker():
    path = TEXT.parents[2] / "tools" / "make_assistant.py"
    spec = importlib.util.spec_from_file_location("make_assistant", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_counts_are_those_of_the_card():
    card = (TEXT.parent / "cards" / "assistant.md").read_text(encoding="utf8")
    for kind in assistant.KINDS:
        counts = [sum(r.kind == kind for r in SETS[split]) for split in assistant.SPLITS]
        assert f"| {kind} | {' | '.join(map(str, counts))} |" in card
    human = [sum(r.needs.human for r in SETS[split]) for split in assistant.SPLITS]
    assert f"| of these, a person is needed | {' | '.join(map(str, human))} |" in card
    assert len(SETS["test"]) >= 120 and len(SETS["train"]) == len(assistant.logged()) == 900
    flaws = Counter(row["flaw"] for row in read_rows("assistant_train.tsv"))
    for flaw, n in flaws.items():
        assert not flaw or re.search(rf"\| {flaw}[^|]*\| {n} \|", card), flaw


def test_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match="train, validation, test"):
        assistant.load("dev")


def test_hand_written_requests_share_no_wording_with_the_grammar():
    names = [t.title for t in catalogue.load()]
    masked = {s: [leakage.mask(r.text, names) for r in rows] for s, rows in SETS.items()}
    for split in ("validation", "test"):
        assert leakage.exact_duplicates(masked["train"], masked[split]) == ()
        assert leakage.near_duplicates(masked["train"], masked[split], threshold=0.5) == ()
    assert leakage.near_duplicates(masked["validation"], masked["test"], threshold=0.6) == ()


def test_shelves_hold_an_answer_and_a_temptation():
    rows = [r for split in SETS.values() for r in split]
    asked = [r for r in rows if r.kind == "recommend"]
    assert all(any(r.needs.fits(t) for t in r.shelf) for r in asked)
    assert sum(any(not r.needs.fits(t) for t in r.shelf) for r in asked) / len(asked) > 0.9
    assert all(r.about in r.shelf for r in rows if r.about)
    assert all(len(set(r.shelf)) == (0 if r.kind in ("support", "chat") else 2) for r in rows)
    first = Counter(r.needs.fits(r.shelf[0]) for r in asked)
    assert 0.3 < first[True] / len(asked) < 0.7  # the place of the answer tells nothing


def test_the_prompt_shows_what_a_reply_may_state():
    request = next(r for r in SETS["test"] if r.about and r.about.id == "solanin")
    shown = request.prompt()
    assert "Solanin | Inio Asano | Drama, Slice of Life | complete in 2 volumes | 16+" in shown
    assert request.prompt(grounded=False) == f"Customer: {request.text}"
    assert "yen" not in shown and "stock" not in shown  # volatile facts stay out


def test_the_rubric_finds_every_planted_flaw_and_only_those():
    rows = zip(SETS["train"], read_rows("assistant_train.tsv"), strict=True)
    for request, row in rows:
        found = {finding.check for finding in rubric.judge(row["reply"], request)}
        flaw = row["flaw"]
        assert found & FOUND_BY.get(flaw, {flaw}) if flaw else not found, (row["id"], flaw, found)


def test_the_training_file_is_what_the_grammar_makes(tmp_path, monkeypatch):
    module = maker()
    monkeypatch.setattr(module, "TEXT", tmp_path)
    module.main()
    made = (tmp_path / "assistant_train.tsv").read_bytes()
    assert made == (TEXT / "assistant_train.tsv").read_bytes()
