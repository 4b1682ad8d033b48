"""The drift gate: each test plants one kind of drift in a copy of an accepted run."""

import copy
import math

import pytest

from mangalab.book import drift, drift_report, reference, tolerances

LIMITS = tolerances.Tolerances(
    family_error=0.05, exact=1e-9, seed=0.05, floor=1e-6, time=1.5, seconds=5,
    repeatable=("cpu *",), overrides={"05-x:told": {"kind": "seed", "why": "a sentence of counts"},
               "05-x:kept_*": {"kind": "seed", "relative": 0.5, "why": "a planted exception"}},
)  # fmt: skip
RUN = {
    "schema": 1, "chapter": "05-x", "profile": "cpu", "status": "passed", "complete": True,
    "key": "k1", "key_parts": {"device": "cpu x86_64", "code": ["a"], "lock": {"torch": "2.13"}},
    "started": "2026-11-22T13:00:00+00:00", "commit": "c" * 40, "dirty": False, "device": "cpu",
    "dtype": "bfloat16", "machine": "Some CPU, 2 cores", "seeds": [0, 1, 2], "seconds": 60.0,
    "peak_mb": 900, "versions": {"torch": "2.13.0"}, "parameters": {"alpha": 1},
    "values": {
        "recall": {"value": 0.80, "low": 0.70, "high": 0.88, "n": 100, "text": "80 %"},
        "loss": {"value": 2.0}, "kept_share": {"value": 1.0}, "parameters": {"value": 460800},
        "step_ms": {"value": 12.0, "kind": "time"}, "best": {"value": "focal"},
        "gain": {"value": "+13.2% [+6.2%, +20.2%]"}, "told": {"value": "a (3)"},
        "hits": {"value": 60, "n": 100},
    },
    "comparisons": [{"id": "focal", "a": "focal", "b": "ce", "metric": "recall", "n": 3, "seeds": 3,
                     "difference": 0.02, "low": 0.01, "high": 0.03, "verdict": "better"}],
    "claims": [{"id": "003-01", "measured": 0.046422, "verdict": "refuted"},
               {"id": "001-02", "measured": "1 of 3", "verdict": "held"}],
    "decisions": [{"id": "rank", "resolution": "16", "agrees": True}],
}  # fmt: skip


def changed(**edits) -> dict:
    """A copy of the run on other inputs; `a__b__c=x` sets run["a"]["b"]["c"] (lists: by number)."""
    run = copy.deepcopy(RUN)
    run |= {"key": "k2", "started": "2026-11-23T13:00:00+00:00"}
    run["key_parts"]["code"] = ["b"]
    for path, value in edits.items():
        *parents, last = path.split("__")
        place = run
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place[name]
        place[last] = value
    return run


def before(**edits) -> dict:
    """The same, as an accepted run: its inputs differ from those of `changed`."""
    return changed(**edits) | {"key": "k1", "key_parts": RUN["key_parts"]}


def against(run: dict, limits=LIMITS, accepted: dict = RUN) -> drift.Drift:
    """One chapter's diff with the family judged."""
    found = drift.compare(
        reference.reduce(accepted), reference.reduce(run), limits, frozenset(["003-01"])
    )
    return drift.settle([found], limits)[0]


def outcomes(found: drift.Drift) -> dict[str, str]:
    """Key -> outcome of all rows that are not the same or within."""
    return {r.key: r.outcome for r in found.rows if r.outcome not in ("same", "within")}


def test_the_same_run_has_no_drift():
    found = against(RUN)
    assert found.same_run and not found.fails and outcomes(found) == {}


@pytest.mark.parametrize(
    ("edits", "key", "outcome"),
    [
        ({"values__recall__value": 0.80 + 1e-12}, None, None),
        ({"values__recall__value": 0.86, "values__recall__high": 0.93}, None, None),
        ({"values__recall__value": 0.3, "values__recall__low": 0.2, "values__recall__high": 0.4},
         "recall", "drift"),
        ({"values__loss__value": 2.09}, None, None),
        ({"values__loss__value": 2.2}, "loss", "drift"),
        ({"values__kept_share__value": 0.6}, None, None),
        ({"values__parameters__value": 460801}, "parameters", "drift"),
        ({"values__best__value": "cross-entropy"}, "best", "drift"),
        ({"values__told__value": "b (4)"}, None, None),
        ({"values__hits__value": 61}, None, None),  # of n = 100: measured, within 5 %
        ({"values__hits__value": 50}, "hits", "drift"),
        ({"values__gain__value": "+14.2% [+7.2%, +21.2%]"}, None, None),
        ({"values__gain__value": "+53.2% [+46.2%, +60.2%]"}, "gain", "drift"),
        ({"values__step_ms__value": 17.9}, None, None),
        ({"values__step_ms__value": 18.1}, "step_ms", "cost"),
        ({"values__step_ms__value": 7.0}, "step_ms", "cost"),
        ({"seconds": 95.0}, "seconds", "cost"),
        ({"peak_mb": 1400}, "peak_mb", "cost"),
        ({"parameters__alpha": 2}, "parameter alpha", "drift"),
        ({"claims__0__measured": 0.0465}, "claim 003-01", "drift"),
        ({"claims__0__measured": 0.046422 * (1 + 1e-13)}, None, None),
        ({"claims__1__measured": "2 of 3"}, None, None),
        ({"claims__1__verdict": "inconclusive"}, "claim 001-02", "flip"),
        ({"comparisons__0__verdict": "no difference shown"}, "comparison focal", "flip"),
        ({"decisions__0__resolution": "4"}, "decision rank", "flip"),
        ({"decisions__0__agrees": False}, "decision rank, agrees with the scenario", "flip"),
        ({"values__extra": {"value": 1}}, "extra", "new"),
    ],
)  # fmt: skip
def test_each_kind_of_change_is_told(edits, key, outcome):
    found = against(changed(**edits))
    assert outcomes(found) == ({key: outcome} if key else {})
    assert found.fails == (outcome not in (None, "new"))
    assert not found.same_inputs and found.changed == ("code",)


def test_a_value_that_is_gone_is_listed():
    run = changed()
    del run["values"]["loss"], run["decisions"][0]
    assert outcomes(against(run)) == {"loss": "missing", "decision rank": "missing"}


def test_same_inputs_other_value_is_the_fault_of_the_chapter():
    run = copy.deepcopy(RUN) | {"started": "2026-11-23T13:00:00+00:00"}
    run["values"]["recall"]["value"] += 1e-12
    run["values"]["step_ms"]["value"] *= 1.2  # timings may differ
    found = against(run)
    assert found.same_inputs and found.fails and outcomes(found) == {"recall": "unrepeatable"}


def test_an_interval_that_moves_alone_is_unrepeatable_too():
    run = copy.deepcopy(RUN)
    run["values"]["recall"]["high"] += 1e-9
    assert outcomes(against(run)) == {"recall": "unrepeatable"}


def test_a_gpu_promises_no_bits():
    parts = {**RUN["key_parts"], "device": "gpu NVIDIA T4"}
    accepted, run = copy.deepcopy(RUN) | {"key_parts": parts}, copy.deepcopy(RUN) | {"key_parts": parts}
    run["values"]["recall"]["value"] += 1e-6
    found = against(run, accepted=accepted)
    assert found.same_inputs and not found.fails


@pytest.mark.parametrize("name", ["machine", "dtype", "versions", "threads"])
def test_another_machine_precision_or_package_excuses_other_bits(name):
    run = copy.deepcopy(RUN) | {name: {"torch": "2.14.0"} if name == "versions" else "other"}
    run["values"]["recall"]["value"] += 1e-12
    found = against(run)
    assert found.changed == (name,) and not found.same_inputs and not found.fails


def test_times_on_another_machine_never_fail():
    run = changed(machine="Slow CPU, 1 cores", seconds=600.0, values__step_ms__value=120.0)
    found = against(run)
    assert not found.fails
    assert {r.key for r in found.rows if r.outcome == "unjudged"} == {"seconds", "step_ms", "peak_mb"}


def test_seconds_of_a_short_chapter_are_start_up_noise():
    short = copy.deepcopy(RUN) | {"seconds": 2.0}
    assert outcomes(against(changed(seconds=6.0), accepted=short)) == {}


# ------------------------------------------------------------------ statistics
def test_p_is_five_percent_at_the_edge_of_the_joint_interval():
    for freedom in (1, 2, 30, math.inf):
        assert drift.p_value(1.0, 1.0, freedom) == pytest.approx(0.05, abs=1e-6)
    # normal: 2 x 1.96 standard errors; t with two degrees of freedom has a far heavier tail
    assert drift.p_value(2.0, 1.0, math.inf) == pytest.approx(8.86e-5, rel=1e-2)
    assert drift.p_value(2.0, 1.0, 2) == pytest.approx(0.0133, rel=1e-2)


def test_the_halves_that_face_each_other_count():
    a, b = {"low": 0.5, "high": 0.52}, {"low": 0.6, "high": 0.9}
    assert drift.half_width(a, b, 0.51, 0.64) == pytest.approx(math.hypot(0.01, 0.04))
    assert drift.half_width(b, a, 0.64, 0.51) == pytest.approx(math.hypot(0.04, 0.01))


def many(k: int, rng, shift: float = 0.0) -> tuple[dict, dict]:
    """Two independent runs of one experiment with k values of 50 observations each."""
    from scipy import stats

    sides = []
    for moved in (0.0, shift):
        draws = rng.normal(size=(k, 50))
        draws[0] += moved
        half = stats.t.ppf(0.975, 49) * draws.std(1, ddof=1) / math.sqrt(50)
        mean = draws.mean(1)
        sides.append({f"v{i}": {"value": float(m), "low": float(m - h), "high": float(m + h), "n": 50}
                      for i, (m, h) in enumerate(zip(mean, half, strict=True))})  # fmt: skip
    return before(values=sides[0]), changed(values=sides[1])


def test_false_alarm_rate_over_many_values_is_the_stated_one():
    import numpy as np

    rng, books, alarms, outside = np.random.default_rng(0), 200, 0, 0
    for _ in range(books):
        first, second = many(100, rng)
        found = against(second, accepted=first)
        alarms += any(row.outcome == "drift" for row in found.rows)
        outside += sum(row.outside for row in found.rows)
    # uncorrected, 5 of 100 values lie outside, and nearly every diff would fail
    assert 0.04 < outside / (100 * books) < 0.06
    assert alarms / books < 0.10  # 0.05 is stated; 200 diffs: 0.05 + 3 standard errors


def test_a_real_change_among_many_values_is_found():
    import numpy as np

    first, second = many(100, np.random.default_rng(1), shift=1.5)
    found = against(second, accepted=first)
    assert [row.key for row in found.rows if row.outcome == "drift"] == ["v0"]


def test_few_seeds_have_a_heavy_tail():
    """The same move beside the same interval: noise from three seeds, drift from a thousand."""
    def found(n: int) -> dict[str, str]:
        old, new = ({"value": v, "low": v - 0.1, "high": v + 0.1, "n": n} for v in (0.5, 0.7))
        return outcomes(against(changed(values={"a": new}), accepted=before(values={"a": old})))

    assert found(3) == {} and found(1000) == {"a": "drift"}


def test_one_family_over_all_chapters():
    """A difference that one chapter alone would call drift is not one among a thousand values."""
    wide = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 1000}
    moved = {"value": 0.67, "low": 0.57, "high": 0.77, "n": 1000}
    single = against(changed(values={"a": moved}), accepted=before(values={"a": wide}))
    assert outcomes(single) == {"a": "drift"}
    same = {f"s{i}": wide for i in range(1000)}
    many_values = before(values={"a": wide, **same})
    among = against(changed(values={"a": moved, **same}), accepted=many_values)
    assert outcomes(among) == {} and sum(row.outside for row in among.rows) == 1


# ------------------------------------------------------------------ what people and jobs read
def test_report_puts_changed_conclusions_first_and_counts():
    run = changed(comparisons__0__verdict="worse", values__parameters__value=1, seconds=500.0)
    text = "\n".join(drift_report.lines([against(run)], "cpu"))
    places = [text.index(w) for w in ("conclusions that", "outside their tol", "time and memory")]
    assert places == sorted(places)
    assert "better -> worse" in text and "460800 -> 1" in text and "8.33 times" in text
    head = text.splitlines()[0]
    assert "3 with intervals" in head and "Holm" in head and head.endswith(": drift")


def test_unequal_values_never_look_equal():
    run = copy.deepcopy(RUN) | {"started": "later"}
    run["values"]["recall"]["value"] += 1e-12
    assert "0.8 -> 0.800000000001" in "\n".join(drift_report.lines([against(run)], "cpu"))


def test_markdown_is_safe_and_fits_an_issue():
    evil = "x` | @everyone <img src=x> [a](http://b)\n# heading"
    run = changed(values__best__value=evil, values__loss__value=9.0)
    text = drift_report.markdown([against(run)], "cpu")
    row = next(line for line in text.splitlines() if "focal ->" in line)
    assert row.count("|") == 5 and row.count("`") == 4 and "\n# heading" not in text
    failed = drift.Drift("06-y", "no-good-run", "failed at cell 3: ValueError: `rm`\n@all")
    text = drift_report.markdown([failed], "cpu")
    assert "- `06-y not compared: failed at cell 3: ValueError: 'rm' @all`" in text
    many_rows = [against(changed(values={f"{'k' * 900}{i}": {"value": i + 1} for i in range(900)},
                                 chapter=f"05-{n}"),
                         accepted=before(values={f"{'k' * 900}{i}": {"value": i} for i in range(900)}))
                 for n in range(3)]  # fmt: skip
    text = drift_report.markdown(many_rows, "cpu")
    assert len(text) < 65_536 and "drift.json" in text


def test_json_holds_every_value_that_was_compared():
    found = against(changed(values__loss__value=9.0))
    told = drift_report.as_json([found], "cpu")
    assert set(told) == {"schema", "profile", "ok", "exit_code", "counts", "chapters"}
    rows = told["chapters"][0]["rows"]
    others = {"seconds", "decision rank", "parameter alpha", "claim 003-01", "comparison focal"}
    assert {row["key"] for row in rows} == {*RUN["values"], *others, "claim 001-02", "peak_mb"}
    loss = next(row for row in rows if row["key"] == "loss")
    assert (loss["old"], loss["new"], loss["outcome"], loss["kind"]) == (2.0, 9.0, "drift", "seed")
    assert told["counts"]["drift"] == 1 and told["exit_code"] == 1 and not told["ok"]


TIMED = LIMITS.model_copy(update={"overrides": {
    "05-x:claim 001-02": tolerances.Rule(kind="time", why="a planted timed claim")}})


@pytest.mark.parametrize(
    ("new", "edits", "outcome"),
    [
        ((9.0, 7.0, 12.0), {}, None),  # overlaps 5 to 8: no flip, although the words differ
        ((20.0, 15.0, 25.0), {}, {"claim 001-02": "flip"}),
        ((20.0, 15.0, 25.0), {"machine": "Slow CPU, 1 cores"}, {"claim 001-02": "unjudged"}),
    ],
)  # fmt: skip
def test_a_timed_claim_flips_only_where_the_intervals_lie_apart(new, edits, outcome):
    names = ("measured", "low", "high")
    accepted, run = before(), changed(**edits)
    accepted["claims"][1] |= dict(zip(names, (6.0, 5.0, 8.0), strict=True)) | {"n": 12}
    run["claims"][1] |= dict(zip(names, new, strict=True)) | {"n": 12, "verdict": "inconclusive"}
    found = against(run, TIMED, accepted)
    rows = [(r.kind, r.outcome) for r in found.rows if r.key == "claim 001-02"]
    if outcome is None:
        assert rows == [("word", "within"), ("time", "within")] and not found.fails
    else:
        assert rows[0] == ("word", outcome["claim 001-02"])
        assert found.fails == ("machine" not in edits)
    # the same numbers of a claim that is no time: the word alone decides
    plain = [r.outcome for r in against(run, accepted=accepted).rows if r.key == "claim 001-02"]
    assert plain[0] == "flip"
