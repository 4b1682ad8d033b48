"""The intent messages keep the counts, labels and separation that their card states."""

import importlib.util
import re
from collections import Counter

import pytest

from mangalab.data import intents
from mangalab.data._files import TEXT

SINGLE = ("train", "validation", "test")
SEVERAL = ("train_multi", "multi_validation", "multi")


def texts(split):
    return [utterance.text for utterance in intents.load(split)]


def committed(*splits):
    return [split for split in splits if (TEXT / f"intents_{split}.tsv").is_file()]


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match="train, train_multi, validation, test"):
        intents.load("dev")


def test_the_traffic_shares_belong_to_the_intents_and_sum_to_one():
    assert len(intents.INTENTS) == len(intents.TRAFFIC) == 10
    assert sum(intents.TRAFFIC) == pytest.approx(1.0)


def test_counts_of_the_made_splits():
    assert len(texts("train")) == 2600
    assert len(texts("train_multi")) == 300
    labels = Counter(u.intents[0] for u in intents.load("validation"))
    assert sum(labels.values()) == 538
    assert set(labels) == set(intents.INTENTS)
    assert min(labels.values()) >= 25


def test_training_is_as_imbalanced_as_the_traffic():
    counts = Counter(u.intents[0] for u in intents.load("train"))
    for name, share in zip(intents.INTENTS, intents.TRAFFIC, strict=True):
        assert counts[name] == pytest.approx(share * 2600, abs=1)


def test_ids_are_unique_and_texts_are_not_repeated():
    for split in committed("train", "validation", "train_multi"):
        rows = intents.load(split)
        assert len({u.id for u in rows}) == len(rows)
        assert len({u.text.lower() for u in rows}) == len(rows)


@pytest.mark.parametrize("split", [*SINGLE, *SEVERAL, "ood_validation", "ood"])
def test_every_split_has_the_right_number_of_known_labels(split):
    if not committed(split):
        pytest.skip(f"no intents_{split}.tsv")
    sizes = {len(u.intents) for u in intents.load(split)}
    if split in SINGLE:
        assert sizes == {1}
    elif split in SEVERAL:
        assert min(sizes) >= 2
    else:
        assert sizes == {0}
    assert all(u.text == u.text.strip() and u.slices for u in intents.load(split))


def test_an_unknown_label_is_refused():
    row = {"id": "x-1", "text": "hello", "intents": "greeting", "slices": "plain"}
    with pytest.raises(ValueError, match="x-1 of train has unknown intents"):
        intents._utterance(row, "train")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_styles_come_at_the_stated_rates_and_lengths_vary(split):
    rows = intents.load(split)
    rate = {s: sum(s in u.slices for u in rows) / len(rows) for s in ("jargon", "slang", "jp_mix")}
    assert rate["jargon"] == pytest.approx(0.22, abs=0.04)
    assert rate["slang"] == pytest.approx(0.15, abs=0.04)
    assert rate["jp_mix"] == pytest.approx(0.09, abs=0.02)
    assert sum("typo" in u.slices for u in rows) / len(rows) == pytest.approx(0.08, abs=0.03)
    lengths = [len(u.text.split()) for u in rows]
    assert 8 <= sum(lengths) / len(lengths) <= 12
    assert max(lengths) <= 45


def shingles(text):
    text = re.sub(r"\s+", " ", text.lower())
    return {text[i : i + 5] for i in range(max(len(text) - 4, 1))}


def nearest(left, right):
    """Largest Jaccard similarity of character 5-grams between two lists of texts, as a pair."""
    index = {}
    sets = [shingles(text) for text in right]
    for number, grams in enumerate(sets):
        for gram in grams:
            index.setdefault(gram, []).append(number)
    best = (0.0, "", "")
    for text in left:
        grams = shingles(text)
        shared = Counter(number for gram in grams for number in index.get(gram, ()))
        for number, count in shared.items():
            if count <= best[0] * len(grams):  # the similarity cannot exceed count / len(grams)
                continue
            similarity = count / (len(grams) + len(sets[number]) - count)
            best = max(best, (similarity, text, right[number]))
    return best


def test_nearest_finds_a_copy():
    assert nearest(["where is my order?"], ["hello", "Where is my order?"])[0] == 1.0


@pytest.mark.parametrize("other", ["test", "multi", "multi_validation", "ood", "ood_validation"])
def test_hand_written_splits_share_no_text_with_the_made_ones(other):
    if not committed(other):
        pytest.skip(f"no intents_{other}.tsv")
    long_enough = [text for text in texts(other) if len(text.split()) > 3]  # "hi" may recur
    made = texts("train") + texts("validation") + texts("train_multi")
    similarity, text, copy = nearest(long_enough, made)
    assert similarity < 0.7, (text, copy)


def test_validation_shares_no_text_with_training():
    train = texts("train") + texts("train_multi")
    assert not {text.lower() for text in train} & {text.lower() for text in texts("validation")}
    similarity, text, copy = nearest(texts("validation"), train)
    assert similarity < 0.7, (text, copy)


def test_the_committed_files_are_what_the_grammar_makes():
    path = TEXT.parents[2] / "tools" / "make_intents.py"
    spec = importlib.util.spec_from_file_location("make_intents", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.make().items():
        assert (TEXT / name).read_text(encoding="utf8") == text, f"run {path.name} --write"


def test_training_and_validation_share_no_template():
    import yaml

    grammar = yaml.safe_load((TEXT / "intents_grammar.yml").read_text(encoding="utf8"))
    sides = [
        {line for block in grammar[split].values() for line in block.strip().split("\n")}
        for split in ("train", "validation")
    ]
    assert min(map(len, sides)) > 70
    assert not sides[0] & sides[1]
