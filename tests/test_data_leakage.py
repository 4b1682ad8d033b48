"""The leakage helper, and no leak between the splits of the question set."""

from itertools import combinations

from mangalab.data import catalogue, leakage, qa


def test_exact_duplicates_ignore_case_accents_and_punctuation():
    found = leakage.exact_duplicates(["Where is my ORDER?"], ["where is my order", "Where is it?"])
    assert found == ("where is my order",)


def test_near_duplicates_are_the_pairs_of_brute_force():
    left = ["show me horror manga please", "who wrote berserk", "gift for my sister"]
    right = ["show me some horror manga please", "who wrote it", "a gift for my sister"]
    pairs = leakage.near_duplicates(left, right, threshold=0.2)
    expected = {
        (a, b, len(x & y) / len(x | y))
        for a in left
        for b in right
        for x, y in [(leakage.ngrams(a), leakage.ngrams(b))]
        if len(x & y) / len(x | y) >= 0.2
    }
    assert {(p.left, p.right, p.similarity) for p in pairs} == expected
    assert len(pairs) >= 3 and pairs[0].similarity >= pairs[-1].similarity


def test_mask_takes_the_longest_name_first():
    masked = leakage.mask("Is Tokyo Ghoul:re like TOKYO GHOUL?", ["Tokyo Ghoul", "Tokyo Ghoul:re"])
    assert masked == "Is # like #?"
    assert leakage.mask("Realistic", ["Real"]) == "Realistic"


def test_short_texts_have_a_gram():
    assert leakage.near_duplicates(["a"], ["A!"])[0].similarity == 1.0


def _wordings(split):
    """Questions of a split with the title masked, over every wording of the grammar."""
    per_fact = {"train": 20, "validation": 6}.get(split, 1)
    questions = qa.load(split, per_fact=per_fact)
    titles = {q.id: catalogue.by_id(q.title_id) for q in questions}
    return {leakage.mask(q.question, [titles[q.id].title, titles[q.id].romaji]) for q in questions}


def test_question_wordings_differ_between_splits():
    wordings = {split: _wordings(split) for split in qa.SPLITS}
    for one, other in combinations(("train", "validation", "test"), 2):
        assert leakage.exact_duplicates(wordings[one], wordings[other]) == ()
        assert leakage.near_duplicates(wordings[one], wordings[other], threshold=0.5) == ()
    assert leakage.near_duplicates(wordings["train"], wordings["untaught"], threshold=0.5) == ()
