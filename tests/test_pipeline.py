"""The pipeline of project 8: real training at a small size, refusals, resumption, parity."""

import json
from dataclasses import replace

import pytest

from mangalab.pipeline import stages

SMALL = stages.Settings(method="probe", n_train=200, epochs=1, floor=0.3)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder after one small run, its facts and what was told."""
    folder, told = tmp_path_factory.mktemp("pipeline"), []
    return folder, stages.run(folder, SMALL, told.append), told


@pytest.mark.model
def test_first_run_registers_a_champion_with_its_card(first):
    folder, facts, told = first
    assert facts["register"] == {"version": "v1", "promoted": True, "champion": "v1"}
    assert len(told) == 2 * len(stages.STAGES)
    card = (folder / "registry" / "v1" / "MODEL_CARD.md").read_text("utf8")
    value, low, high = facts["evaluate"]["accuracy"]
    assert low < value < high and f"{value:.3f}" in card and "| escalation |" in card
    logged = (folder / "registry" / "v1" / "requests.jsonl").read_text("utf8").splitlines()
    assert len(logged) == facts["try_out"]["requests"] and "confidence" in json.loads(logged[0])


@pytest.mark.model
def test_second_run_repeats_nothing_and_an_interrupted_one_goes_on(first):
    folder, facts, _ = first
    told = []
    assert stages.run(folder, SMALL, told.append) == facts
    assert all("done before" in line for line in told)
    (folder / "7-try_out.json").unlink()
    told.clear()
    stages.run(folder, SMALL, told.append)
    assert sum("done before" in line for line in told) == len(stages.STAGES) - 1


@pytest.mark.model
def test_a_worse_candidate_is_refused_and_the_champion_stays(first):
    folder = first[0]
    facts = stages.run(folder, replace(SMALL, n_train=30, lr=1e-6), lambda _: None)
    assert not facts["gate"]["passes"] and "champion v1" in facts["gate"]["reason"]
    assert stages.registry(folder)["champion"] == "v1" and len(stages.registry(folder)["versions"]) == 2


@pytest.mark.model
def test_the_floor_holds_although_nothing_got_worse(first):
    folder, facts, _ = first
    before = {"evaluate": facts["evaluate"]}
    above = stages.gate(folder, replace(SMALL, margin=0.5), before)
    below = stages.gate(folder, replace(SMALL, floor=0.99), before)
    assert above["passes"] and not below["passes"] and "floor" in below["reason"]


@pytest.mark.model
def test_other_weights_in_the_registry_are_noticed(first):
    from safetensors.torch import load_file, save_file

    folder = first[0]
    path = folder / "registry" / "v1" / "model.safetensors"
    kept = path.read_bytes()
    state = load_file(path)
    state["head.bias"] = state["head.bias"] + 0.5
    save_file(state, path)
    save_file({**state, "head.bias": state["head.bias"] - 0.5}, folder / "model.safetensors")
    with pytest.raises(stages.PipelineError, match="answer otherwise"):
        stages.try_out(folder, SMALL, {"register": {"version": "v1"}})
    path.write_bytes(kept)


def test_changed_data_stops_it_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(stages._files, "changed_files", lambda: ("intents_test.tsv",))
    with pytest.raises(stages.PipelineError, match=r"data_checksums\.py --write"):
        stages.check_data(tmp_path, SMALL, {})


def test_leaked_test_messages_stop_it(tmp_path, monkeypatch):
    whole = stages.intents.load
    leaked = lambda split: whole("test" if split == "validation" else split) + whole("test")[:1]  # noqa: E731
    monkeypatch.setattr(stages.intents, "load", lambda s: leaked(s) if s == "train" else whole(s))
    with pytest.raises(stages.PipelineError, match="are in train"):
        stages.check_data(tmp_path, SMALL, {})


def test_bad_settings_name_the_limit():
    with pytest.raises(stages.PipelineError, match=r"probe, top, full"):
        stages.Settings(method="lora")
    with pytest.raises(stages.PipelineError, match="n_train >= 20"):
        stages.Settings(n_train=3)
