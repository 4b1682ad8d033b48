"""The persona's dialogues: splits, style rules, titles kept apart."""

import pytest

from mangalab.data import catalogue, leakage, persona


def test_sizes_and_every_written_answer_keeps_the_house_style():
    assert len(persona.load("test")) >= 100 and len(persona.load("validation")) >= 24
    for split in persona.SPLITS:
        for line in persona.load(split):
            assert all(persona.rules(line.answer).values()), (line.answer, persona.rules(line.answer))


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ("Yes, reader, it is here. Mind the spine.", "opening"),
        ("Ah, reader, it is here.", "closing"),
        ("Ah, reader, I put it here. Mind the spine.", "no first person"),
        ("Ah, reader, it's in our cellar. Mind the spine.", "no first person"),
        ("Ah, reader, it is here. It is blue. Mind the spine.", "one short sentence"),
        ("Ah, reader, " + "very " * 25 + "old. Mind the spine.", "one short sentence"),
        ("Ah, reader, it is here! Mind the spine.", "calm"),
    ],
)
def test_each_rule_catches_its_fault_alone(answer, broken):
    assert [name for name, kept in persona.rules(answer).items() if not kept] == [broken]


def test_an_empty_answer_keeps_no_rule():
    assert not any(persona.rules("").values())


def test_training_is_seeded_distinct_and_balanced():
    first = persona.load("train", 70)
    assert first == persona.load("train", 70) != persona.load("train", 70, seed=1)
    assert len({(line.prompt, line.answer) for line in first}) == 70
    counts = [sum(line.topic == topic for line in first) for topic in {line.topic for line in first}]
    assert len(counts) == 7 and max(counts) - min(counts) <= 2


def test_training_names_no_title_of_the_hand_written_lines():
    titles = persona.train_titles()
    assert len(titles) >= 60 and set(titles) <= {t.title for t in catalogue.load()}
    written = [f"{line.prompt} {line.answer}".casefold() for s in ("validation", "test")
               for line in persona.load(s)]
    assert not [t for t in titles for text in written if t.casefold() in text]


def test_wordings_differ_between_splits():
    names = [t.title for t in catalogue.load()] + [persona.OPENING, persona.CLOSING]
    sides = {s: [leakage.mask(x, names) for line in persona.load(s) for x in (line.prompt, line.answer)]
             for s in persona.SPLITS}
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert leakage.near_duplicates(sides[one], sides[other], threshold=0.7) == ()


def test_limits_are_named():
    with pytest.raises(ValueError, match="no split 'dev'"):
        persona.load("dev")
    with pytest.raises(ValueError, match="asked for 9000"):
        persona.load("test", 9000)
