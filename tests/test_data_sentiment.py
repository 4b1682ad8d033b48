"""The sentiment turns keep the counts, labels and separation that their card states."""

import importlib.util
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import yaml

from mangalab.data import catalogue, leakage, sentiment
from mangalab.data._files import CARDS, TEXT

SETS = {split: sentiment.load(split) for split in sentiment.SPLITS}
TALKS = {split: sentiment.conversations(split) for split in sentiment.HAND_WRITTEN}
COMBINED = (
    "sarcasm", "indirect", "polite", "enthusiastic", "negation", "mixed", "urgency_calm",
    "confusion_complaint", "churn_hint", "neutral_negative",
)  # fmt: skip

SIZES = {"train": 3210, "validation": 259, "test": 690}
LABEL_COUNTS = {
    "train": (780, 630, 355, 385, 170, 1350),
    "validation": (92, 51, 25, 35, 20, 68),
    "test": (278, 132, 73, 86, 59, 168),
}  # in the order of LABELS
SLICE_COUNTS = {
    "validation": (18, 21, 9, 12, 10, 10, 15, 19, 17, 19, 13, 5, 6, 4, 13, 11, 4, 56, 31, 4),
    "test": (56, 66, 27, 41, 32, 32, 40, 45, 48, 60, 41, 20, 15, 30, 50, 31, 18, 115, 57, 26),
}  # in the order of SLICES


def texts(split):
    return [turn.text for turn in SETS[split]]


def own_words(split):
    return [text for text in texts(split) if len(text.split()) > 3]


def maker():
    path = TEXT.parents[2] / "tools" / "make_sentiment.py"
    spec = importlib.util.spec_from_file_location("make_sentiment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_unknown_splits_name_the_known_ones():
    with pytest.raises(ValueError, match="train, validation, test"):
        sentiment.load("dev")
    with pytest.raises(ValueError, match="validation, test"):
        sentiment.conversations("train")


def test_sizes_and_lengths():
    assert {split: len(turns) for split, turns in SETS.items()} == SIZES
    for turns in SETS.values():
        assert len({t.id for t in turns}) == len({t.text.casefold() for t in turns}) == len(turns)
        assert all(t.text == t.text.strip() and "  " not in t.text and t.slices for t in turns)
    lengths = [len(text.split()) for text in texts("test")]
    assert min(lengths) <= 2 and 50 <= max(lengths) <= 60


def test_label_counts_are_those_of_the_card():
    for split, expected in LABEL_COUNTS.items():
        assert tuple(sentiment.label_matrix(SETS[split]).sum(axis=0)) == expected
    assert min(LABEL_COUNTS["test"]) >= 40 and min(LABEL_COUNTS["validation"]) >= 20


def test_slice_counts_are_those_of_the_card():
    for split in sentiment.HAND_WRITTEN:
        counts = Counter(s for turn in SETS[split] for s in turn.slices)
        assert set(counts) <= set(sentiment.SLICES)
        assert tuple(counts[s] for s in sentiment.SLICES) == SLICE_COUNTS[split]
    assert min(SLICE_COUNTS["test"][:2]) >= 40  # sarcasm, indirect
    assert all(
        dict(zip(sentiment.SLICES, SLICE_COUNTS["test"], strict=True))[s] >= 24 for s in COMBINED
    )


@pytest.mark.parametrize("name", ["sentiment"])
def test_the_card_states_the_counts(name):
    card = (CARDS / f"{name}.md").read_text(encoding="utf8")
    for index, label in enumerate(sentiment.LABELS):
        row = " | ".join(f"{LABEL_COUNTS[s][index]:,}" for s in sentiment.SPLITS)
        assert f"| {label} | {row} |" in card
    for index, name in enumerate(sentiment.SLICES):
        row = " | ".join(str(SLICE_COUNTS[s][index]) for s in ("validation", "test"))
        assert f"| {name} | {row} |" in card


def test_neutral_is_the_absence_of_the_other_five():
    for turns in SETS.values():
        matrix = sentiment.label_matrix(turns)
        assert matrix.dtype == np.int8 and matrix.shape == (len(turns), 6)
        assert (matrix[:, 5] == 1 - matrix[:, :5].any(axis=1)).all()
    assert sentiment.label_matrix([]).shape == (0, 6)


def test_labels_come_together_in_several_ways():
    pairs = Counter(t.labels for t in SETS["test"] if len(t.labels) > 1)
    assert sum(pairs.values()) >= 80 and len(pairs) >= 10
    trained = {t.labels for t in SETS["train"]}
    for pair in ("satisfaction", "urgency", "confusion", "churn_risk"):
        assert ("frustration", pair) in trained and pairs["frustration", pair] >= 10


def test_slices_do_not_give_the_label_away():
    test = SETS["test"]
    for name in ("sarcasm", "negation", "mixed", "urgency_calm", "churn_hint"):
        assert len({t.labels for t in test if name in t.slices}) >= 3
    assert not any(t.labels != ("neutral",) for t in test if "neutral_negative" in t.slices)


def row(**changes):
    fields = dict.fromkeys(("id", "conversation", "text", "reply", "slices", "split"), "x")
    return fields | {"turn": "1", "minutes": "0", "labels": "neutral"} | changes


def test_contradicting_and_unknown_labels_are_refused():
    assert sentiment._turn(row()).labels == ("neutral",)
    with pytest.raises(ValueError, match="neutral stands alone"):
        sentiment._turn(row(labels="urgency;neutral"))
    with pytest.raises(ValueError, match="neutral stands alone"):
        sentiment._turn(row(labels=""))
    with pytest.raises(ValueError, match="unknown labels"):
        sentiment._turn(row(labels="anger"))


@pytest.mark.parametrize(("split", "total", "escalated"), [("test", 72, 30), ("validation", 35, 15)])
def test_conversations_are_whole_and_in_order(split, total, escalated):
    found = TALKS[split]
    assert len(found) == total and sum(c.escalate for c in found) == escalated
    assert sum(len(c.turns) for c in found) == sum(bool(t.conversation) for t in SETS[split])
    for conversation in found:
        turns = conversation.turns
        assert [t.turn for t in turns] == list(range(1, len(turns) + 1)) and 3 <= len(turns) <= 6
        assert all(a.minutes <= b.minutes for a, b in pairwise(turns))
        assert 0 <= conversation.escalate_from <= len(turns) and all(t.reply for t in turns)
        assert {t.conversation for t in turns} == {conversation.id}
        kinds = sentiment.ESCALATED if conversation.escalate else sentiment.SETTLED
        assert conversation.kind in kinds


@pytest.mark.parametrize("split", sentiment.HAND_WRITTEN)
def test_neither_frustration_nor_length_nor_time_decides_the_outcome(split):
    found, escalate = TALKS[split], np.array([c.escalate for c in TALKS[split]])
    angry = np.array([any("frustration" in t.labels for t in c.turns) for c in found])
    assert angry[~escalate].mean() > 0.2 and (~angry[escalate]).any()
    earlier = np.array([c.turns[0].minutes > 0 for c in found])
    assert earlier[~escalate].any() and (~earlier[escalate]).any()
    assert {len(c.turns) for c in found if c.escalate} & {len(c.turns) for c in found if not c.escalate}
    assert len({c.escalate_from for c in found}) >= 4


def test_weights_restore_the_prevalence():
    found = TALKS["test"]
    weights = sentiment.conversation_weights(found)
    escalate = np.array([c.escalate for c in found])
    assert weights.mean() == pytest.approx(1)
    assert weights[escalate].sum() / weights.sum() == pytest.approx(0.03)
    with pytest.raises(ValueError, match="both classes"):
        sentiment.conversation_weights([c for c in found if c.escalate])


@pytest.mark.parametrize(
    ("left", "right"), [("train", "validation"), ("train", "test"), ("validation", "test")]
)
def test_no_two_splits_share_a_turn(left, right):
    assert not leakage.exact_duplicates(texts(left), own_words(right))
    assert not leakage.near_duplicates(texts(left), own_words(right), threshold=0.5)


def test_no_two_turns_of_the_test_set_have_one_skeleton():
    names = [title.title for title in catalogue.load()]
    bare = [leakage.mask(text, names) for text in own_words("test")]
    bare = [" ".join("#" if word.isdigit() else word for word in text.split()) for text in bare]
    assert len(set(bare)) == len(bare)
    alike = leakage.near_duplicates(bare, bare, threshold=0.5)
    assert not [pair for pair in alike if pair.left != pair.right]


def test_no_template_repeats_a_hand_written_turn():
    grammar = yaml.safe_load((TEXT / "sentiment_grammar.yml").read_text(encoding="utf8"))
    make, rng = maker(), np.random.default_rng(0)
    lines = [line for block in grammar["blocks"].values() for line in block.strip().split("\n")]
    assert len(lines) > 250 and len(set(lines)) == len(lines)
    drawer = make.Maker(grammar, make.random.Random(int(rng.integers(9))))
    filled = [drawer.fill(line) for line in lines]
    hand = own_words("test") + own_words("validation")
    assert not leakage.near_duplicates(filled, hand, threshold=0.5)


def test_training_is_imbalanced_and_its_labels_follow_from_the_blocks():
    counts = dict(zip(sentiment.LABELS, LABEL_COUNTS["train"], strict=True))
    assert counts["neutral"] > 0.4 * SIZES["train"] and counts["churn_risk"] < 0.06 * SIZES["train"]
    grammar = yaml.safe_load((TEXT / "sentiment_grammar.yml").read_text(encoding="utf8"))
    for label in sentiment.LABELS:
        assert counts[label] == sum(n for block, n in grammar["shares"].items() if label in block)


def test_the_committed_file_is_what_the_grammar_makes():
    committed = (TEXT / "sentiment_train.tsv").read_text(encoding="utf8")
    assert maker().make() == committed, "run tools/make_sentiment.py --write"


def test_hand_written_lines_are_all_in_the_training_turns():
    lines = sentiment.hand_written_lines()
    assert len(lines) == 249 and lines <= {turn.text for turn in sentiment.load("train")}
