"""Redaction: the marks of the files, the rules on what they were written for, and what must stay."""

from collections import Counter

import pytest

from mangalab.data import leakage, pii


def test_marks_are_parsed_to_places():
    message = pii.parse("x", "I am {NAME:Ann Lee}, {EMAIL:a@example.org}!")
    assert message.text == "I am Ann Lee, a@example.org!"
    assert [(message.text[s.start : s.end], s.type) for s in message.spans] == [
        ("Ann Lee", "NAME"), ("a@example.org", "EMAIL")]  # fmt: skip
    assert pii.redact(message.text, message.spans) == "I am [NAME], [EMAIL]!"
    with pytest.raises(ValueError, match="no type 'NICK'"):
        pii.parse("x", "{NICK:bob}")


def test_files_are_as_their_card_says():
    test, validation = pii.load("test"), pii.load("validation")
    kinds = Counter(s.type for m in test for s in m.spans)
    assert (len(test), len(validation), kinds.total()) == (125, 40, 95)
    assert kinds["NAME"] == 40 and sum(not m.spans for m in test) == 43
    assert leakage.near_duplicates([m.text for m in validation], [m.text for m in test], 0.7) == ()


def test_rules_are_right_on_the_lines_they_were_written_for():
    for message in pii.load("validation"):
        found = pii.find(message.text)
        assert pii.leaked(message, found) == [], message.text
        assert all(any(s.overlaps(t) for t in message.spans) for s in found), message.text


@pytest.mark.parametrize("text", [
    "ISBN 9784088725093 in stock?", "volumes 1-72 of Naruto", "order 48213 is late", "by Naoki Urasawa",
    "from 24.99 to 29.99", "card 4111 1111 1111 1112",
])  # fmt: skip
def test_what_is_not_personal_stays(text):
    assert pii.redact(text) == text


def test_a_half_hidden_number_counts_as_leaked():
    message = pii.parse("x", "call {PHONE:07700 900312} now")
    half = (pii.Span(5, 10, "PHONE"),)
    assert len(pii.leaked(message, half)) == 1 and pii.leaked(message, pii.find(message.text)) == []


def test_luhn_knows_the_published_test_numbers():
    assert all(map(pii.luhn, ("4111111111111111", "378282246310005", "6011111111111117")))
    assert not pii.luhn("4111111111111112")
