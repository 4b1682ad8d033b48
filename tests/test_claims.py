"""Every claim is well formed; the computed ones have the value and verdict of the arithmetic."""

from pathlib import Path

import pytest
import yaml

from mangalab import claims_checks, claims_foundations, claims_resources
from mangalab.claims import judge

ROOT = Path(__file__).parents[1]
LEDGER = yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf8"))
BY_ID = {entry["id"]: entry for entry in LEDGER}
CHECKED = [entry for entry in LEDGER if entry["kind"] in ("compute", "table")]
REQUIRED = {"id", "seed", "text", "claimed", "kind", "verdict", "correct", "derivation", "chapter"}
OPTIONAL = {"unit", "direction", "tolerance", "rule", "check", "as"}
KINDS = {"compute", "table", "experiment", "paper", "external"}
VERDICTS = {"wrong", "inconsistent", "misleading", "unsupported", "ok", "external"}


MORE = (claims_resources.CHECKS, claims_foundations.CHECKS)
ALL = claims_checks.CHECKS | MORE[0] | MORE[1]


def evaluate(name):
    """A check of any module; the first one refuses a name that none has."""
    extra = next((checks[name] for checks in MORE if name in checks), None)
    return extra() if extra else claims_checks.evaluate(name)


def numbers(value):
    values = value if isinstance(value, list) else [value]
    return [float(v) for v in values]


def is_numeric(value):
    values = value if isinstance(value, list) else [value]
    return all(isinstance(v, int | float) for v in values)


def agrees(entry, computed):
    """Whether the computed value lies where the claim says, all members of a list."""
    claimed = entry["claimed"]
    if not (is_numeric(claimed) and is_numeric(computed)):
        return claimed == computed
    direction, tolerance = entry.get("direction", "equal"), entry.get("tolerance", 0.02)
    pairs = zip(numbers(claimed), numbers(computed), strict=True)
    return all(judge(c, m, direction=direction, tolerance=tolerance) == "held" for c, m in pairs)


def test_ids_are_unique_and_complete():
    assert len(BY_ID) == len(LEDGER)
    assert {f"003-{i:02d}" for i in range(1, 112)} <= set(BY_ID)
    assert {f"001-{i:02d}" for i in range(1, 19)} <= set(BY_ID)
    assert {f"002-{i:02d}" for i in range(1, 57)} <= set(BY_ID)
    assert {f"004-{i:02d}" for i in range(1, 34)} <= set(BY_ID)
    assert {f"000-{i:02d}" for i in range(1, 12)} <= set(BY_ID)


def test_an_experiment_is_measured_by_the_chapter_that_it_names():
    texts = {p.stem: p.read_text(encoding="utf8") for p in (ROOT / "notebooks").glob("*.ipynb")}
    for entry in LEDGER:
        if entry["kind"] == "experiment" and "as" not in entry:
            assert f'\\"{entry["id"]}\\"' in texts[entry["chapter"]], entry["id"]


def test_a_claim_settled_with_another_names_one_that_the_same_chapter_measures():
    for entry in LEDGER:
        if "as" in entry:
            other = BY_ID[entry["as"]]
            assert entry["kind"] == other["kind"] == "experiment" and "as" not in other
            assert entry["chapter"] == other["chapter"]


@pytest.mark.parametrize("entry", LEDGER, ids=BY_ID)
def test_entry_is_well_formed(entry):
    assert set(entry) >= REQUIRED and set(entry) <= REQUIRED | OPTIONAL
    assert entry["kind"] in KINDS and entry["verdict"] in VERDICTS
    assert entry.get("direction", "equal") in ("equal", "at_least", "at_most")
    assert ("check" in entry) == (entry["kind"] in ("compute", "table"))
    assert ("rule" in entry) == (entry["kind"] == "experiment")
    assert entry["text"].endswith(".") and entry["derivation"].endswith(".")


@pytest.mark.parametrize("entry", CHECKED, ids=[e["id"] for e in CHECKED])
def test_correct_value_is_the_computed_one(entry):
    computed = evaluate(entry["check"])
    if is_numeric(computed) and not isinstance(computed, bool):
        assert numbers(entry["correct"]) == pytest.approx(numbers(computed), rel=2e-3, abs=1e-9)
    else:
        assert computed == entry["correct"]


@pytest.mark.parametrize("entry", CHECKED, ids=[e["id"] for e in CHECKED])
def test_verdict_follows_from_the_values(entry):
    agreed = agrees(entry, evaluate(entry["check"]))
    if entry["verdict"] == "ok":
        assert agreed
    if entry["verdict"] in ("wrong", "inconsistent"):
        assert not agreed


def test_every_check_is_used():
    assert {entry["check"] for entry in CHECKED} == set(ALL)


def test_no_check_has_two_functions():
    assert len(ALL) == sum(len(checks) for checks in (claims_checks.CHECKS, *MORE))


def test_unknown_check_says_so():
    with pytest.raises(KeyError, match="nothing_here"):
        claims_checks.evaluate("nothing_here")


def test_the_headline_numbers():
    assert BY_ID["003-01"]["correct"] == 32_768_000
    assert BY_ID["003-07"]["correct"] == 207_093_760
    assert judge(168, 65.5, tolerance=0.02) == "refuted"


def test_a_year_that_is_neither_of_preprint_nor_venue_is_counted(monkeypatch):
    wrong = "2005 burges2006lambdarank; 2017 vaswani2017attention; 2019 kirkpatrick2016ewc"
    monkeypatch.setattr(claims_foundations, "READING", wrong)
    assert claims_foundations.years_off() == 2


def test_scores_of_pruning_disagree():
    assert claims_foundations.kept_weight("distance") == 0
    assert claims_foundations.kept_weight("movement") == 1
