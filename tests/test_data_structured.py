"""Structured requests: splits, rendering, scoring."""

import json
from itertools import combinations

import pytest

from mangalab.data import catalogue, leakage, qa, structured


def test_counts_and_titles():
    test = structured.load("test")
    assert len(test) >= 80 and len({r.prompt for r in test}) == len({r.id for r in test})
    recall = {r.title_id for r in structured.load("test", kinds=("recall",))}
    extract = {r.title_id for r in structured.load("test", kinds=("extract",))}
    assert recall <= {t.id for t in qa.taught()[:64]} and len(recall) >= 40
    assert extract <= {t.id for t in qa.untaught()} and len(extract) >= 35


def test_templates():
    for kind in structured.KINDS:
        assert len(structured.load("train", (kind,), titles=1, per_title=8)) == 8
        assert len(structured.load("validation", (kind,), titles=1, per_title=4)) == 4


def test_extract_prompts_hold_every_fact_and_recall_prompts_hide_them():
    for split in structured.SPLITS:
        for r in structured.load(split):
            title = catalogue.by_id(r.title_id)
            facts = [*title.authors, str(title.year)]
            held = [fact in r.prompt for fact in facts if fact not in title.title]
            assert all(held) if r.kind == "extract" else not any(held), r.id
            assert str(r.expected["title"]).casefold() in r.prompt.casefold(), r.id


def test_loading_is_deterministic_seeded_and_capped():
    first = structured.load("train", titles=16)
    assert first == structured.load("train", titles=16) and len(first) == 32
    assert first != structured.load("train", titles=16, seed=1)
    few = structured.load("test", kinds=("recall",), titles=16)
    assert {r.title_id for r in few} <= {t.id for t in qa.taught()[:16]}


def test_wordings_differ_between_splits():
    wordings = {split: set() for split in structured.SPLITS}
    for split, per_title in (("train", 8), ("validation", 4), ("test", 1)):
        for r in structured.load(split, per_title=per_title):
            title = catalogue.by_id(r.title_id)
            names = (title.title, title.romaji, title.author, *title.authors, str(title.year))
            wordings[split].add(leakage.mask(r.prompt, names))
    for one, other in combinations(structured.SPLITS, 2):
        assert leakage.exact_duplicates(wordings[one], wordings[other]) == ()
        assert leakage.near_duplicates(wordings[one], wordings[other], threshold=0.5) == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "no split 'dev'"),
        ({"split": "test", "kinds": ("guess",)}, "no kind"),
        ({"split": "train", "per_title": 9}, "per_title=9, but train has 8 wordings of recall"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        structured.load(**arguments)


def _request(title_id):
    title = catalogue.by_id(title_id)
    return structured.Request("x", "?", structured.record(title), title_id, "test", "recall")


def test_render_is_one_compact_line_and_scores_full():
    request = _request("nausicaa-of-the-valley-of-the-wind")
    text = structured.render(request.expected)
    assert text == (
        '{"title":"Nausicaä of the Valley of the Wind","author":"Hayao Miyazaki","year":1982}'
    )
    assert structured.score(text, request) == structured.StructuredScore(1.0, 1.0, 1.0)


RIGHT = {"title": "Death Note", "author": "Tsugumi Ohba and Takeshi Obata", "year": 2003}


@pytest.mark.parametrize(
    ("text", "parses", "schema", "fields"),
    [
        (json.dumps(RIGHT, indent=2) + "\n", 1, 1, 1),
        (f"Here you are: {json.dumps(RIGHT)}", 0, 0, 1),
        (f"```json\n{json.dumps(RIGHT)}\n```", 0, 0, 1),
        (json.dumps(RIGHT | {"year": "2003"}), 1, 0, 1),
        (json.dumps(RIGHT | {"year": 2003.0}), 1, 0, 2 / 3),
        (json.dumps(RIGHT | {"year": True}), 1, 0, 2 / 3),
        (json.dumps(RIGHT | {"genre": "thriller"}), 1, 0, 1),
        (json.dumps(RIGHT | {"author": "Takeshi Obata and Tsugumi Ohba"}), 1, 1, 1),
        (json.dumps(RIGHT | {"author": "Takeshi Obata"}), 1, 1, 2 / 3),
        (json.dumps(RIGHT | {"author": ["Takeshi Obata"]}), 1, 0, 2 / 3),
        ('{"title": "Death Note"}', 1, 0, 1 / 3),
        ('{"title": "Death Note", "title": "Death Note"}', 0, 0, 0),
        ('{"title": "Death Note", "year": NaN}', 0, 0, 0),
        ('{oh} {"title": "Death Note"}', 0, 0, 1 / 3),
        ("{'title': 'Death Note'}", 0, 0, 0),
        ('["Death Note"]', 0, 0, 0),
        ("", 0, 0, 0),
        ("{" * 1500, 0, 0, 0),
        ('{"a":' * 1500, 0, 0, 0),
    ],
)
def test_score(text, parses, schema, fields):
    found = structured.score(text, _request("death-note"))
    assert (found.parses, found.schema) == (parses, schema)
    assert found.fields == pytest.approx(fields)
