"""The retention sets keep the counts, lengths and balance that their card states."""

from collections import Counter

import pytest

from mangalab.data import retention


def test_passages_have_the_stated_counts_and_lengths():
    validation, test = retention.passages("validation"), retention.passages("test")
    assert (len(validation), len(test)) == (12, 29)
    assert len(set(validation + test)) == 41
    assert all(60 <= len(text.split()) <= 90 for text in validation + test)


def test_an_unknown_split_names_the_known_ones():
    with pytest.raises(ValueError, match="validation, test"):
        retention.passages("train")


def test_questions_are_well_formed():
    questions = retention.questions()
    assert len(questions) == 193
    assert len({choice.question for choice in questions}) == 193
    for choice in questions:
        assert len(set(choice.options)) == 4, choice
        assert not choice.question.endswith(("?", ".", " ")), choice
        assert max(len(option.split()) for option in choice.options) <= 3, choice


def test_the_right_answers_are_balanced_and_always_in_the_same_place():
    first, second = retention.questions(), retention.questions()
    assert first == second
    counts = Counter(choice.answer for choice in first)
    assert max(counts.values()) - min(counts.values()) <= 1
    paris = next(choice for choice in first if choice.question == "The capital of France is")
    assert paris.options[paris.answer] == "Paris"


def test_nothing_is_about_the_shop():
    text = " ".join(retention.passages("validation") + retention.passages("test")).lower()
    text += " ".join(choice.question for choice in retention.questions()).lower()
    assert not [word for word in ("manga", "anime", "comic", "volume") if word in text]
