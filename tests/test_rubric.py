"""The rule judge: each check on its own, its measured accuracy, and duels without a favoured side."""

from collections import Counter

import pytest

from mangalab.data import assistant, catalogue
from mangalab.data.assistant import Request, parse_needs
from mangalab.evaluation import rubric
from mangalab.evaluation.mentions import titles, unknown_titles

# true, false and missed on the held-out half, as on the card
HELD_OUT = {
    "title": (22, 5, 1), "fact": (28, 1, 1), "constraint": (27, 4, 0), "age": (18, 1, 1),
    "spoiler": (9, 0, 10), "tone": (19, 1, 12), "length": (14, 0, 0), "escalation": (21, 1, 1),
    "any": (151, 6, 21),
}  # fmt: skip

# the same on a fine-tuned model's replies to validation requests
AUDITED = {
    "title": (3, 5, 1), "fact": (16, 1, 0), "constraint": (16, 1, 6), "age": (5, 0, 0),
    "spoiler": (1, 0, 0), "tone": (4, 0, 1), "escalation": (10, 0, 0), "any": (46, 1, 1),
}  # fmt: skip


def ask(needs="", kind="recommend", text="something to read"):
    return Request("x", kind, text, parse_needs(needs))


def checks(reply, request=None):
    return [finding.check for finding in rubric.judge(reply, request or ask())]


def test_labels_are_those_of_the_card():
    rows = {part: assistant.labelled(part) for part in assistant.PARTS}
    counts = Counter(issue for part in rows.values() for row in part for issue in row.issues)
    assert len(rows["development"]) == 248 and len(rows["held-out"]) == 264
    assert min(counts[check] for check in assistant.CHECKS) >= 25
    texts = [{row.request.text for row in part} for part in rows.values()]
    assert not texts[0] & texts[1]
    with pytest.raises(ValueError, match="development, held-out"):
        assistant.labelled("test")


def test_accuracy_on_the_held_out_half_is_that_of_the_card():
    rows = assistant.labelled("held-out")
    found = {check: rubric.measure(rows, check) for check in HELD_OUT}
    assert {c: (a.true, a.false, a.missed) for c, a in found.items()} == HELD_OUT
    assert found["spoiler"].recall.low < 0.3  # the interval says how little 19 spoilers can show


def test_accuracy_on_a_models_own_replies_is_that_of_the_card():
    rows = assistant.audited()
    found = {check: rubric.measure(rows, check) for check in AUDITED}
    assert {c: (a.true, a.false, a.missed) for c, a in found.items()} == AUDITED
    assert not any(row.issues for row in rows if "beside" in row.slices)


def test_a_judge_that_finds_nothing_has_no_precision(monkeypatch):
    monkeypatch.setitem(rubric.JUDGES, "tone", lambda reply, request: None)
    found = rubric.measure(assistant.labelled("development"), "tone")
    assert found.precision is None and found.recall.value == 0


def test_needs_refuse_what_they_do_not_know():
    needs = parse_needs("genre=Horror;finished;max_age=13;not=uzumaki")
    assert (needs.genre, needs.finished, needs.max_age) == ("Horror", True, 13)
    assert needs.excluded == ("uzumaki",)
    with pytest.raises(ValueError, match="unknown key 'genres'"):
        parse_needs("genres=Horror")
    with pytest.raises(KeyError):
        parse_needs("not=uzumakki")


def test_titles_are_found_by_any_name_and_words_are_not_titles():
    names = lambda text: [m.title.id for m in titles(text)]  # noqa: E731
    assert names("Shingeki no Kyojin, then HAIKYU!!") == ["attack-on-titan", "haikyu"]
    assert names("Battle Angel Alita: Last Order") == ["battle-angel-alita-last-order"]
    assert names("Another day, another story.") == []
    assert names("Try Life by Keiko Suenobu.") == ["life"]
    assert names("Iron Petals of Mars") == []
    assert names("Dragon Ball by Akira Toriyama") == ["dragon-ball"]


def test_an_unknown_title_is_told_from_people_and_denials():
    assert set(unknown_titles("Try The Silent Orchard by Junji Ito.")) == {"The Silent Orchard"}
    assert list(unknown_titles("Junji Ito wrote it. Uzumaki by Junji Ito is complete.")) == []
    assert list(unknown_titles('"The Silent Orchard" is not in our catalogue.')) == []


@pytest.mark.parametrize(("reply", "wrong"), [
    ("Uzumaki by Junji Ito is complete in three volumes.", False),
    ("Uzumaki by Ito Junji, 3 volumes.", False),
    ("Uzumaki by Naoki Urasawa is complete.", True),
    ("Uzumaki is complete in four volumes.", True),
    ("Uzumaki is still running.", True),
    ("Uzumaki, which began in 1990.", True),
    ("Solanin by Inio Asano is complete in 2 volumes.", False),
    ("Case Closed by Gosho Aoyama, still running.", False),
    ("Berserk is not finished.", False),
    ("Berserk is complete in 41 volumes.", True),
])  # fmt: skip
def test_facts(reply, wrong):
    assert bool(rubric.fact(reply, ask())) == wrong


def test_what_is_put_aside_is_not_offered():
    young = ask("genre=Horror;max_age=13;finished")
    assert checks("Uzumaki by Junji Ito is complete.", young) == ["age"]
    assert rubric.age("Uzumaki is rated 16, so no. Shaman King is complete.", young) is None
    owned = ask("not=death-note")
    assert rubric.constraint("If you like Death Note, take Liar Game.", owned) is None
    assert rubric.constraint("Death Note is the one.", owned) == "the customer has Death Note"


def test_naming_nothing_is_an_issue_only_where_something_fits():
    assert checks("I am sorry.", ask("genre=Horror;finished")) == ["constraint"]
    assert not rubric.possible(parse_needs("genre=Horror;max_age=13"))
    assert checks("I am sorry, we have none.", ask("genre=Horror;max_age=13")) == []
    assert checks("I am sorry.", ask(kind="info")) == []


def test_an_answer_speaks_of_the_title_that_was_asked_about():
    info = Request("x", "info", "volumes of uzumaki?", parse_needs(""), catalogue.by_id("uzumaki"))
    assert checks("It is complete in 3 volumes.", info) == [] == checks("By Junji Ito.", info)
    assert checks("I am happy to help.", info) == ["constraint"]
    assert checks("It is complete in 4 volumes.", info) == ["fact"]
    assert list(unknown_titles("A match: comedy, Psychological, complete in 3 volumes.")) == []


def test_length_spoiler_tone():
    info = ask(kind="info")
    assert checks(" ".join(["word"] * 61), info) == ["length"] == checks("", info)
    assert rubric.words("渦巻 is good") == 3
    assert checks("Light dies.", info) == ["spoiler"]
    assert checks("I won't say whether Light dies.", info) == []
    assert checks("bro just read it", info) == ["tone"]
    assert checks("Haikyu!! It is the one!", info) == []
    assert checks('"lol" is not my style.', info) == []


def test_a_hand_over_is_due_or_needless():
    person, alone = ask("human", "support"), ask("", "support")
    for reply in ("I am handing you over to a colleague.", "A supervisor will call you."):
        assert checks(reply, person) == [] and checks(reply, alone) == ["escalation"]
    assert checks("Our team is busy.", person) == ["escalation"]


def test_duels_count_ties_and_no_side_has_an_advantage():
    requests = [ask(kind="info")] * 400
    good, bad = ["Yes, we do."] * 400, ["yo bro."] * 400
    assert rubric.duel(good, bad, requests).rates["win"].value == 1
    assert rubric.duel(bad, good, requests).rates["loss"].value == 1
    assert rubric.duel(good, good, requests).rates["tie"].value == 1
    first = rubric.duel(good, good, requests, prefer=lambda a, b, r: 1)  # a judge that likes the first
    assert abs(sum(first.score) / 400 - 0.5) < 0.08
    with pytest.raises(ValueError, match="400, 400 replies to 2"):
        rubric.duel(good, bad, requests[:2])


def test_ages_are_numbers():
    assert {assistant.age(t) for t in catalogue.load()} == {0, 13, 16, 18}
