"""Data checks catch what is planted, gates refuse by name, the registry obeys them, creep adds up."""

import hashlib

import numpy as np
import pytest

from mangalab.evaluation.latency import Latency
from mangalab.mlops import checks, gates
from mangalab.mlops.costs import Job, best_interval, break_even, overhead
from mangalab.mlops.creep import POLICIES, World, year
from mangalab.mlops.faults import PLANTS, planted
from mangalab.mlops.gates import Evidence, judge
from mangalab.mlops.registry import CHAMPION, PREVIOUS, RefusedError, Registry, RegistryError

LABELS = ("escalation", "chitchat", "faq")
WORDS = "where is my parcel with the third volume of the long red series about a quiet lake".split()


def batch(n=120):
    rng = np.random.default_rng(0)
    texts = (f"{i} " + " ".join(rng.permutation(WORDS)) for i in range(n))
    return [{"id": f"m-{i}", "text": t, "intents": LABELS[i % 3]} for i, t in enumerate(texts)]


HELD = ["please let a person call me about this order today, it is about my own money",
        "ten other words that nobody ever wrote in this place before now and here"]  # fmt: skip
CONTRACT = checks.Contract(LABELS, (1.0, 1.0, 1.0))
EXPECTED = {
    "unknown label": "label", "empty text": "text", "row twice": "id",
    "one message, two labels": "conflict", "default label, 30 %": "mix", "a class is lost": "rare",
    "test message, shouted": "leak", "test message, one word more": "leak",
}  # fmt: skip


@pytest.fixture(scope="module")
def held():
    return checks.HeldOut.of(HELD)


def test_a_clean_batch_has_no_finding(held):
    assert checks.validate(batch(), CONTRACT, held) == []


@pytest.mark.parametrize("name", EXPECTED)
def test_each_planted_fault_is_found_by_its_check(name, held):
    found = checks.validate(planted(name, batch(), 1, HELD), CONTRACT, held)
    assert EXPECTED[name] in {f.check for f in found}


def test_swapped_labels_pass_every_check_of_form(held):
    rows = planted("two labels swapped, 50 %", batch(), 1, HELD)
    assert rows != batch()
    assert checks.validate(rows, CONTRACT, held) == []


def test_planting_leaves_the_clean_rows_alone():
    rows = batch()
    for name in PLANTS:
        planted(name, rows, 2, HELD)
    assert rows == batch()


def test_missing_column_and_changed_file_are_named(tmp_path, held):
    found = checks.validate([{"id": "a", "text": "b"}], CONTRACT, held)
    assert [f.check for f in found] == ["columns"] and found[0].where == ("intents",)
    path = tmp_path / "week.json"
    path.write_text("x", encoding="utf8")
    digest = hashlib.sha256(b"x").hexdigest()
    assert checks.checksum(path, digest) == []
    path.write_text("y", encoding="utf8")
    assert checks.checksum(path, digest)[0].where == ("week.json",)


def test_a_large_batch_is_not_refused_for_a_trifle(held):
    rows = batch(3000)
    for row in rows[:60]:
        row["intents"] = "faq"  # significant, but only two in a hundred
    assert checks.label_mix(rows, CONTRACT) == []


# ---------------------------------------------------------------------------- gates
def made(name, accuracy, n=300, seed=0, sure=3.0, ms=1.0):
    """Evidence of a model that is right in a share of the messages of each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    right = rng.random(n) < np.asarray(accuracy)[labels]
    answers = np.where(right, labels, (labels + 1) % 3)
    logits = sure * np.eye(3)[answers]
    return Evidence(name, labels, logits, Latency(np.full(50, ms)))


COST = 1 - np.eye(3)
ALL = [gates.not_worse(0.05), gates.floor(0.7), gates.rare_classes({"escalation": 0}),
       gates.harm(COST, 0.06), gates.calibration(0.2), gates.latency(1.25)]  # fmt: skip
GOOD = made("champion", (0.9, 0.9, 0.9))


def test_the_champion_passes_against_itself():
    assert judge(GOOD, GOOD, ALL).passed


def test_each_gate_refuses_what_it_is_for():
    poor = judge(made("poor", (0.6, 0.6, 0.6)), GOOD, ALL)
    assert {"macro recall", "absolute floor", "harm"} <= set(poor.refused_by)
    rare = judge(made("rare", (0.7, 0.9, 0.9)), GOOD, [gates.rare_classes({"escalation": 0})])
    assert rare.refused_by == ("rare classes",) and "escalation" in rare.outcomes[0].measured
    unsure = judge(made("unsure", (0.9, 0.9, 0.9), sure=0.1), GOOD, ALL)
    assert unsure.refused_by == ("calibration",)
    slow = judge(made("slow", (0.9, 0.9, 0.9), ms=2.0), GOOD, ALL)
    assert slow.refused_by == ("latency",)


def test_a_gate_that_measured_nothing_does_not_pass():
    unmeasured = Evidence("x", GOOD.labels, GOOD.logits)
    assert judge(unmeasured, GOOD, [gates.latency(2.0)]).refused_by == ("latency",)


def test_other_messages_are_no_comparison():
    with pytest.raises(ValueError, match="different messages"):
        judge(made("x", (0.9, 0.9, 0.9), n=297), GOOD, ALL)


# ---------------------------------------------------------------------------- registry
@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    pytest.importorskip("mlflow")
    return Registry.open(tmp_path_factory.mktemp("registry"))


def version(registry, tmp_path, text):
    folder = tmp_path / text
    folder.mkdir()
    (folder / "model.txt").write_text(text, encoding="utf8")
    return registry.log(folder, {"lr": 1e-3}, {"macro": 0.9}, {"loss": [2.0, 1.0]})


def test_promote_refuse_and_roll_back(registry, tmp_path):
    first, second, bad = (version(registry, tmp_path, t) for t in ("one", "two", "bad"))
    registry.promote(first, None)
    with pytest.raises(RegistryError, match="nothing to go to"):
        registry.rollback()
    with pytest.raises(RegistryError, match="needs a report"):
        registry.promote(second, None)
    with pytest.raises(RefusedError, match=r"absolute floor.*at least 70"):
        registry.promote(bad, judge(made("bad", (0.5, 0.5, 0.5)), GOOD, ALL))
    assert registry.at(CHAMPION) == first
    assert registry.tags(bad)["gate.absolute_floor"] == "refused"
    registry.promote(second, judge(GOOD, GOOD, ALL))
    assert (registry.at(CHAMPION), registry.at(PREVIOUS)) == (second, first)
    assert registry.rollback() == first == registry.at(CHAMPION)
    assert (registry.files(first) / "model.txt").read_text(encoding="utf8") == "one"


# ---------------------------------------------------------------------------- a year, and costs
def test_creep_adds_up_without_a_floor_and_stops_with_one():
    sharp = World(drift=-0.2, spread=0.0, n=10**9, churn=1e-9)  # a gate without noise
    ends = {p: year(sharp, p, 0.2 + 1e-6, below=1.0, trials=3)[0][:, -1] for p in POLICIES}
    assert ends["champion"] == pytest.approx(-10.4)
    assert ends["champion + floor"] == pytest.approx(-1.0, abs=0.01)
    assert ends["launch model"] == pytest.approx(-0.2)
    assert np.all(ends["lower end"] >= -10.4)


def test_gate_noise_is_that_of_the_formula():
    assert World(0, 0, 5500, 0.04).error == pytest.approx(100 * np.sqrt(0.04 / 5500))
    with pytest.raises(ValueError, match="choose one of"):
        year(World(0, 0, 1, 1), "best", 0.2)


def test_best_interval_is_a_minimum_and_break_even_breaks_even():
    save, rate, restart = 0.01, 0.2, 0.1
    best = best_interval(save, rate)
    least = overhead(best, save, restart, rate)
    assert least < min(overhead(k * best, save, restart, rate) for k in (0.5, 0.9, 1.1, 2.0))
    for pause in (0.0, 0.1):
        even = break_even(0.6, save, pause)
        waste = overhead(best_interval(save, even), save, pause, even)
        assert 0.4 * (1 + waste) == pytest.approx(1.0)


def test_job_by_the_month():
    assert Job("x", 1 / 3, 48, 4, 3.0).dollars == pytest.approx(192)
