"""The chapter's handle in a plain process: what it records, what it refuses."""

import json

import numpy as np
import pytest

from mangalab import claims, debate, figures
from mangalab.evaluation.intervals import Interval, wilson
from mangalab.lab import Lab, find_root
from mangalab.profiles import Profile
from mangalab.record import RecordError

CLAIMS = """\
- {id: "1", text: "a count", claimed: 100, direction: equal, tolerance: 0.0}
- {id: "2", text: "at least", claimed: 0.9, direction: at_least}
- {id: "3", text: "at most, about", claimed: 10, direction: at_most, tolerance: 0.1}
- {id: "4", text: "in words", claimed: "NF4 is best"}
"""
BANK = """\
- id: q1
  level: Fresh
  minutes: 2
  question: What is a rank?
  answer: Here recall was {base_recall}.
  key_insight: It bounds the update.
  mistake: {what: More is better, tempting: Simple, cost: Forgetting}
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "book" / "interview").mkdir(parents=True)
    (tmp_path / "chapters.yml").write_text("{}", encoding="utf8")
    (tmp_path / "book" / "claims.yml").write_text(CLAIMS, encoding="utf8")
    (tmp_path / "book" / "interview" / "99-test.yml").write_text(BANK, encoding="utf8")
    monkeypatch.setenv("MANGALAB_ROOT", str(tmp_path))
    monkeypatch.setenv("MANGALAB_FRAGMENT", str(tmp_path / "fragment.json"))
    monkeypatch.setenv("MANGALAB_PROFILE", "cpu")
    return Lab.open("99-test", seed=3, alpha=1.5)


@pytest.fixture
def shown(monkeypatch):
    """Everything that the lab displays as Markdown."""
    texts = []
    monkeypatch.setattr("mangalab.lab._markdown", texts.append)
    return texts


def written(lab):
    return json.loads((lab.root / "fragment.json").read_text(encoding="utf8"))


def test_open_records_what_it_runs_on(lab):
    found = written(lab)
    assert (found["chapter"], found["profile"], found["seed"]) == ("99-test", "cpu", 3)
    assert found["parameters"] == {"alpha": 1.5} and found["seeds"] == [3]
    assert found["device"] == "cpu" and found["versions"]["torch"] and not found["complete"]


def test_root_is_found_upward(lab, monkeypatch):
    monkeypatch.delenv("MANGALAB_ROOT")
    assert find_root(lab.root / "book" / "interview") == lab.root


def test_say_records_text_and_value(lab, shown):
    lab.say("Rank {rank} keeps **{energy:.1%}**.", rank=8, energy=0.9123)
    assert shown == ["Rank 8 keeps **91.2%**."]
    values = written(lab)["values"]
    assert values["rank"] == {"value": 8, "text": "8"}
    assert values["energy"] == {"value": 0.9123, "text": "91.2%"}


def test_say_takes_intervals(lab, shown):
    lab.say("Recall {recall:.0%}", recall=wilson(7, 10))
    found = written(lab)["values"]["recall"]
    assert found["value"] == 0.7 and found["n"] == 10 and found["low"] < 0.7 < found["high"]
    assert shown == [f"Recall {found['text']}"] and found["text"].startswith("70% [")


@pytest.mark.parametrize(
    ("template", "values", "says"),
    [
        ("{a}", {"a": 1, "b": 2}, "'b'"),
        ("{a} {b}", {"a": 1}, "'b'"),
        ("{a:.2f}", {"a": float("nan")}, "'a' is nan"),
        ("{a:.2f}", {"a": float("inf")}, "'a' is inf"),
        ("{a:.2f}", {"a": np.float32("nan")}, "'a' is nan"),
    ],
)
def test_say_refuses(lab, template, values, says):
    with pytest.raises(RecordError, match=says):
        lab.say(template, **values)


def test_a_part_of_an_interval_records_the_interval(lab, shown):
    lab.say("At least {recall.low:.0%}, {gain:.1f}", recall=wilson(7, 10), gain=np.float32(0.5))
    assert shown == ["At least 40%, 0.5"]
    assert written(lab)["values"]["recall"]["value"] == 0.7
    assert written(lab)["values"]["gain"] == {"value": 0.5, "text": "0.5"}


def test_one_name_has_one_value(lab, shown):
    lab.value("n", 10, unit="titles")
    lab.say("Of {n} titles", n=10)
    assert written(lab)["values"]["n"]["unit"] == "titles"
    with pytest.raises(RecordError, match="'n' is 10 already and now 11"):
        lab.say("Of {n} titles", n=11)


def test_table_cells(lab, shown):
    lab.table([{"name": "a|b", "share": 0.12345, "count": 12345, "none": None, "ok": True}], "What")
    assert "| a\\|b | 0.123 | 12,345 | – | yes |" in shown[0] and shown[0].endswith("*What*")
    with pytest.raises(ValueError, match="no rows"):
        lab.table([])


def test_compare_by_shape(lab, shown):
    by_seed = lab.compare("seeds", [0.6, 0.7, 0.65], [0.5, 0.58, 0.56], "recall")
    assert by_seed.word == "better" and by_seed.n == 3 and "paired t" in by_seed.method
    fixed = lab.compare("fixed", [[1, 0, 1, 0] * 10], [[1, 0, 1, 0] * 10], "recall")
    assert fixed.word == "no difference shown" and fixed.n == 40
    both = lab.compare("both", [[2.0, 2.1] * 9] * 3, [[1.0, 1.2] * 9] * 3, "loss",
                       higher_is_better=False)
    assert both.word == "worse"
    assert [c["seeds"] for c in written(lab)["comparisons"]] == [3, 1, 3]
    assert "**better**" in shown[0] and "n = 3" in shown[0]
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        lab.compare("odd", [1, 2], [1, 2, 3], "recall")


@pytest.mark.parametrize(
    ("claim", "given", "word"),
    [
        ("1", {"measured": 100}, "held"),
        ("1", {"measured": 101}, "refuted"),
        ("2", {"measured": 0.95, "low": 0.91, "high": 0.99}, "held"),
        ("2", {"measured": 0.95, "low": 0.89, "high": 0.99}, "inconclusive"),
        ("2", {"measured": Interval(0.5, 0.4, 0.6, 50, "Wilson")}, "refuted"),
        ("3", {"measured": 10.9}, "held"),
        ("3", {"measured": 11.1}, "refuted"),
        ("4", {"holds": True, "measured": "0.1 against 0.2"}, "held"),
        ("4", {"holds": False}, "refuted"),
        ("4", {"note": "needs an H100"}, "beyond this run"),
    ],
)
def test_claims_are_judged(lab, claim, given, word):
    assert lab.claim(claim, **given) == word
    assert written(lab)["claims"][0]["verdict"] == word


def test_claims_that_cannot_be_judged(lab):
    with pytest.raises(claims.ClaimError, match="'9' is not in book/claims"):
        lab.claim("9", measured=1)
    with pytest.raises(claims.ClaimError, match="pass holds"):
        lab.claim("4", measured=1.0)
    with pytest.raises(claims.ClaimError, match="equal, at_least or at_most"):
        claims.judge(1, 1, direction="near")
    assert claims.judge(1, float("nan")) == "inconclusive"


def test_claims_table_shows_every_judgement(lab, shown):
    lab.claim("1", measured=100)
    lab.claim("4", note="needs an H100")
    lab.claims_table()
    assert "| 1 | a count | 100 | **held** |" in shown[0]
    assert "| 4 | in words | needs an H100 | **beyond this run** |" in shown[0]


OPTIONS = [debate.Option("small", {"recall": 0.4}), debate.Option("large", {"recall": 0.6})]


def best(options):
    return max(options, key=lambda option: option.metrics["recall"]).name


def test_decide_resolves_and_records(lab, shown):
    chosen = lab.decide("rank", "Which rank?", OPTIONS, debate.Rule("Highest recall.", best),
                        {"Priya": "I see {gain:+.1f}."}, "small", {"gain": 0.2})
    assert chosen == "large"
    assert "**Priya** (senior ML engineer): I see +0.2." in shown[0]
    assert "where the scenario chose **small**" in shown[0]
    assert "| **large** | **0.6** |" in shown[0] and "| small | 0.4 |" in shown[0]
    found = written(lab)
    assert found["decisions"][0]["agrees"] is False and found["values"]["gain"]["text"] == "+0.2"


@pytest.mark.parametrize(
    ("options", "chosen", "lines", "says"),
    [
        (OPTIONS, "medium", {}, "chose 'medium', which is none of"),
        (OPTIONS[:1], "small", {}, "two or more options"),
        (OPTIONS + OPTIONS[:1], "small", {}, "different names"),
        (OPTIONS, "small", {"Kim": "hello"}, "unknown persona"),
        (OPTIONS, "small", {"Priya": "{gain:.1f}"}, r"quotes \['gain'\]: add to values="),
    ],
)
def test_decisions_that_cannot_be_made(lab, options, chosen, lines, says):
    rule = debate.Rule("Fixed.", lambda _: chosen)
    with pytest.raises(debate.DecisionError, match=says):
        lab.decide("rank", "Which?", options, rule, lines, "small")


def test_requirements_filter_options():
    passes = debate.require("recall", at_least=0.5)
    assert [passes(option) for option in OPTIONS] == [False, True]
    assert debate.require("recall", at_most=0.5)(OPTIONS[0])


def test_figure_needs_words(lab, shown, capsys):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots()
    axes.plot([1, 2])
    for alt in ("A line.", "Loss falls from two to one over a hundred steps."):
        with pytest.raises(figures.FigureError, match="other words than the caption"):
            lab.show(fig, "loss", alt, "Loss falls from two to one over a hundred steps.")
    lab.show(fig, "loss", "A line that rises from one to two without any bend.", "Loss")
    assert written(lab)["figures"][0]["id"] == "loss" and shown == ["*Loss*"]
    assert not plt.fignum_exists(fig.number)


def test_drill_quotes_this_run(lab, shown):
    from mangalab.book.interview import BankError

    with pytest.raises(BankError, match=r"'q1' quotes \['base_recall'\]"):
        lab.drill()
    lab.value("base_recall", 0.25, spec=".0%")
    lab.drill()
    assert "Here recall was 25%." in shown[-1] and "<summary>What is a rank? (2 min)" in shown[-1]


def test_card_completes_the_record(lab, shown):
    lab.say("{n} titles", n=3)
    assert written(lab)["complete"] is False
    lab.card()
    assert written(lab)["complete"] is True
    assert "1 values, 0 comparisons" in shown[-1] and "alpha=1.5" in shown[-1]


def test_smoke_card_says_that_it_is_not_publishable(lab, shown):
    lab.profile = Profile("smoke")
    lab.card()
    assert "not publishable" in shown[-1]


def test_displays_print_outside_a_notebook(lab, capsys):
    lab.say("Rank {rank}", rank=8)
    assert "Markdown" in capsys.readouterr().out
