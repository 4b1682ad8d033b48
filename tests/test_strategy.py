"""Records read together: refusals, prices per point, shrinking, roadmaps, the atlas."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from mangalab.book.chapters import load
from mangalab.book.project import Project
from mangalab.book.records import SCHEMA
from mangalab.strategy import atlas, records, value

ROOT = Path(__file__).parents[1]
SELF = "18-strategic-direction"


def written(root: Path, chapter: str, **changes) -> None:
    path = root / "artifacts" / "runs" / "cpu" / f"{chapter}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"schema": SCHEMA, "chapter": chapter, "profile": "cpu", "status": "passed"}
    path.write_text(json.dumps({**entry, "complete": True, **changes}), encoding="utf8")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A project whose chapters are those of the book; nothing counts as changed."""
    (tmp_path / "chapters.yml").write_text((ROOT / "chapters.yml").read_text("utf8"), "utf8")
    monkeypatch.setattr(records.keys, "why", lambda *_: (False, ""))
    return tmp_path


def test_refuses_with_every_name_and_the_command(root):
    written(root, "02-embedding-adapter", status="failed", why="cell 3 raised KeyError")
    written(root, "03-reranker", complete=False)
    written(root, "04-lora-qlora")
    wanted = ["01-intent-classifier", "02-embedding-adapter", "03-reranker", "04-lora-qlora"]
    with pytest.raises(records.RecordsError) as found:
        records.read_all(root, "cpu", wanted)
    said = str(found.value)
    assert "01-intent-classifier: missing" in said and "cell 3 raised KeyError" in said
    assert "03-reranker: incomplete" in said and "04-lora" not in said
    assert "mangalab run 01 02 03 --profile cpu" in said


def test_refuses_what_is_stale(root, monkeypatch):
    written(root, "04-lora-qlora")
    assert list(records.read_all(root, "cpu", ["04-lora-qlora"])) == ["04-lora-qlora"]
    monkeypatch.setattr(records.keys, "why", lambda *_: (True, "code cell 7 changed"))
    with pytest.raises(records.RecordsError, match="stale: code cell 7 changed"):
        records.read_all(root, "cpu", ["04-lora-qlora"])


def test_the_capstone_needs_every_other_chapter():
    assert set(records.needed(ROOT, SELF)) == set(load(Project(ROOT))) - {SELF}


def test_price_has_an_interval_or_no_upper_end():
    clear = value.per_point(1200, 2.0, 1.0, 3.0)
    assert (clear.low, clear.value, clear.high) == (400.0, 600.0, 1200.0)
    open_ended = value.per_point(1200, 2.0, -1.0, 3.0)
    assert open_ended.value is None and open_ended.high is None and open_ended.low == 400.0
    assert "at least $400" in str(open_ended)
    assert "no price" in str(value.per_point(1200, -2.0, -3.0, -1.0))
    with pytest.raises(ValueError, match="low <= gain <= high"):
        value.per_point(1, 5.0, 1.0, 2.0)


def test_shrinking_recovers_the_spread_and_the_posterior():
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.5, 2, 4000)
    truth = rng.normal(0, 1.5, 4000)
    kept, left, tau = value.shrink(truth + errors * rng.normal(size=4000), errors)
    assert tau == pytest.approx(1.5, rel=0.08)
    inside = np.abs(truth - kept) < value.Z * left
    assert inside.mean() == pytest.approx(0.95, abs=0.015)
    precise, vague = value.shrink([4.0, 4.0, -1, 2], [0.1, 4.0, 1, 1])[0][:2]
    assert precise > 3.5 and vague < 2


def test_shrinking_pure_noise_leaves_nothing():
    rng = np.random.default_rng(1)
    kept, _, tau = value.shrink(rng.normal(size=2000), np.ones(2000))
    assert tau < 0.3 and np.abs(kept).max() < 0.4


def random_case(seed: int):
    rng = np.random.default_rng(seed)
    return rng.normal(1, 2, 9), rng.integers(1, 40, 9) * 10.0, list(rng.choice(list("abcde"), 9)), 500.0


@pytest.mark.parametrize("seed", range(8))
def test_best_set_is_the_best_of_all_sets(seed):
    gain, cost, slots, budget = random_case(seed)
    allowed = [s for k in range(10) for s in itertools.combinations(range(9), k)
               if cost[list(s)].sum() <= budget and len({slots[i] for i in s}) == len(s)]
    best = max(gain[list(s)].sum() for s in allowed)
    taken = value.best_set(gain, cost, slots, budget)
    assert cost[taken].sum() <= budget and gain[taken].sum() == pytest.approx(best)


def test_best_set_equals_the_integer_program():
    gain, cost, slots, budget = random_case(77)
    rows = np.array([[slot == name for slot in slots] for name in sorted(set(slots))], float)
    limits = [LinearConstraint(cost[None], ub=budget), LinearConstraint(rows, ub=1.0)]
    found = milp(-gain, constraints=limits, integrality=np.ones(9), bounds=Bounds(0, 1))
    taken = value.best_set(gain, cost, slots, budget)
    assert gain[taken].sum() == pytest.approx(-found.fun)


def test_needed_n_grows_with_the_square():
    assert value.needed_n(1.0, 1.0, 100) == pytest.approx(385, abs=1)
    assert value.needed_n(2.0, 1.0, 100) == 100 and value.needed_n(-1.0, 1.0, 100) is None


def test_the_plan_is_whole():
    stated = value.plan()
    entries = stated["interventions"]
    ids = [entry["id"] for entry in entries]
    assert len(ids) == len(set(ids)) and len(stated["failures"]) >= 10
    assert {entry["chapter"] for entry in entries} <= set(load(Project(ROOT)))
    for failure in stated["failures"].values():
        assert {*failure["scenario"], failure["not"]} <= set(ids) and 0 < failure["share"] <= 1
    for entry in entries:
        text = (ROOT / "notebooks" / f"{entry['chapter']}.ipynb").read_text("utf8")
        assert "lab.compare(" in text and 1 <= entry["rung"] <= 7
        assert set(entry["work"]) <= {"engineer_days", "labels", "gpu_hours", "monthly"}
        assert not {"gain", "low", "high"} & set(entry), "gains are measured, never stated"


def test_gain_takes_the_sign_of_what_is_better():
    compared = {"id": "x", "metric": "errors", "difference": -0.04, "low": -0.06, "high": -0.01, "n": 9}
    entry = {"id": "i", "name": "n", "failure": "f", "rung": 1, "chapter": "c", "comparison": "x",
             "reverse": True, "work": {"engineer_days": 2, "labels": 10, "monthly": 5}}
    stated = {"interventions": [entry, {**entry, "id": "j", "comparison": "gone"}],
              "prices": {"engineer_days": 100, "labels": 1, "gpu_hours": 3}}
    found, absent = value.interventions({"c": {"comparisons": [compared]}}, stated)
    assert [round(x, 9) for x in (found[0].gain, found[0].low, found[0].high)] == [4.0, 1.0, 6.0]
    assert found[0].cost(12) == 210 + 60 and len(absent) == 1 and "gone" in absent[0]


def test_atlas_counts_what_it_says():
    row = {"shape": [4, 10], "max_rank": 4, "rank_90": 2, "relative": 0.1, "stable_rank": 1.5,
           "above_edge": 1, "ranks": [1, 2, 4], "energy": [0.5, 0.9, 1.0]}
    none = {**row, "rank_90": None}
    found = atlas.matrices({"c": {"spectra": [{"id": "u", "rows": [row, row, none]}]}})
    assert len(found) == 2
    summed = atlas.updates(found)[0]
    assert summed["entries"] == 80 and summed["compact"] == 2 * 2 * 14 and summed["share_90"] == 0.5
    assert atlas.energy_at(row, 0.25) == 0.5 and atlas.energy_at(row, 1.0) == 1.0
    assert np.isnan(atlas.energy_at({**row, "ranks": [1, 2], "energy": [0.5, 0.9]}, 0.9))
