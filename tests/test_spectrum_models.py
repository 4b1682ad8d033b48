"""Updates of models: live PEFT adapters, saved folders, checkpoints; applying them; summaries."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from mangalab import spectrum as sp


def tiny_llama(seed=0, **overrides):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 50}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, **overrides))


def tiny_peft(**options):
    from peft import LoraConfig, get_peft_model

    options = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]} | options
    model = get_peft_model(tiny_llama(), LoraConfig(**options))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    return model


OPTIONS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"v_proj": 8, r"layers\.1\.self_attn\.q_proj": 2},
        "alpha_pattern": {"layers.0.self_attn.q_proj": 32},
    },
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
}


@pytest.fixture(params=OPTIONS)
def peft_model(request):
    return tiny_peft(**OPTIONS[request.param])


@pytest.mark.filterwarnings("ignore")
def test_live_and_saved_adapter_are_equal_and_match_peft(peft_model, tmp_path):
    live = sp.updates_from_peft(peft_model)
    peft_model.save_pretrained(tmp_path, save_embedding_layers=False)
    saved = sp.updates_from_adapter(tmp_path)
    assert sorted(live) == sorted(saved) and len(live) in (3, 4)
    modules = dict(peft_model.get_base_model().named_modules())
    for name, update in live.items():
        assert torch.equal(update.matrix(), saved[name].matrix())
        delta = modules[name].get_delta_weight("default")
        torch.testing.assert_close(update.matrix(), delta, rtol=1e-5, atol=1e-7)
        dense = torch.linalg.svdvals(delta.double())[: update.max_rank]
        torch.testing.assert_close(update.singular_values(), dense, rtol=1e-5, atol=0)


def test_live_updates_are_copies():
    model = tiny_peft()
    update = sp.updates_from_peft(model)["model.layers.0.self_attn.q_proj"]
    before = update.frobenius
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert update.spectrum().energy ** 0.5 == pytest.approx(before)


def test_fan_in_fan_out_weights_are_stored_transposed():
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    base = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=40))
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    model = get_peft_model(base, config)
    with torch.no_grad():
        model.base_model.model.transformer.h[0].attn.c_attn.lora_B["default"].weight.normal_()
    (name, update), *_ = sp.updates_from_peft(model).items()
    layer = dict(model.get_base_model().named_modules())[name]
    assert update.shape == tuple(layer.base_layer.weight.shape) == (32, 96)
    torch.testing.assert_close(update.matrix(), layer.get_delta_weight("default"))


def test_live_dora_and_unknown_adapters_are_refused():
    with pytest.raises(sp.AdapterError, match="variant"):
        sp.updates_from_peft(tiny_peft(use_dora=True))
    with pytest.raises(sp.AdapterError, match=r"'other'; it has \['default'\]"):
        sp.updates_from_peft(tiny_peft(), "other")
    with pytest.raises(sp.AdapterError, match="it has none"):
        sp.updates_from_peft(tiny_llama())


@pytest.fixture
def adapter_folder(tmp_path):
    tiny_peft().save_pretrained(tmp_path)
    return tmp_path


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf8")) | changes
    path.write_text(json.dumps(config), encoding="utf8")


def edit_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


def replace_weights_by_pickle(folder):
    path = folder / "adapter_model.safetensors"
    path.rename(path.with_suffix(".bin"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: edit_config(f, use_dora=True), "use_dora"),
        (lambda f: edit_config(f, peft_type="IA3"), "IA3"),
        (lambda f: edit_config(f, r=16), "rank 4, but the configuration says 16"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "adapter_config.json").unlink(), "holds no adapter_config.json"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 99), "not a readable"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "does not exist"),
        (replace_weights_by_pickle, "pickle"),
        (lambda f: edit_tensors(f, lambda t: dict(list(t.items())[1:])), "has only B"),
        (lambda f: edit_tensors(f, lambda t: {"x": torch.ones(2)}), "no LoRA keys"),
        (
            lambda f: edit_tensors(f, lambda t: t | {"q.lora_magnitude_vector": torch.ones(2)}),
            "DoRA",
        ),
    ],
)
def test_damaged_adapter_folder_is_named(adapter_folder, damage, message):
    damage(adapter_folder)
    with pytest.raises(sp.AdapterError, match=message):
        sp.updates_from_adapter(adapter_folder)


def test_missing_folder_and_left_out_tensors_are_said(adapter_folder):
    with pytest.raises(sp.AdapterError, match="no folder"):
        sp.updates_from_adapter(adapter_folder / "nowhere")
    edit_tensors(adapter_folder, lambda t: t | {"score.weight": torch.ones(2, 2)})
    with pytest.warns(UserWarning, match="score.weight"):
        assert len(sp.updates_from_adapter(adapter_folder)) == 4


def write_checkpoint(path, tensors, sharded=False):
    path.mkdir()
    if not sharded:
        save_file(tensors, path / "model.safetensors")
        return path
    files = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({n: t for n, t in tensors.items() if files[n] == file}, path / file)
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}), encoding="utf8")
    return path


@pytest.fixture
def pair(tmp_path):
    generator = torch.Generator().manual_seed(0)
    before = {
        f"model.layers.{i}.mlp.up_proj.weight": torch.randn(12, 8, generator=generator)
        for i in range(3)
    }
    before |= {"norm.weight": torch.ones(8), "ids": torch.ones(2, 2, dtype=torch.int64)}
    after = {name: t + 1 if t.dim() == 2 else t for name, t in before.items()}
    return before, after, tmp_path


@pytest.mark.parametrize("sharded", [False, True])
def test_checkpoint_pair_reads_lazily_and_subtracts(pair, sharded):
    before, after, tmp = pair
    first = write_checkpoint(tmp / "before", before)
    second = write_checkpoint(tmp / "after", after, sharded)
    updates = sp.updates_from_checkpoints(first / "model.safetensors", second)
    assert sorted(updates) == [f"model.layers.{i}.mlp.up_proj" for i in range(3)]
    for name, update in updates.items():
        weight = before[name + ".weight"]
        assert torch.equal(update.delta, after[name + ".weight"] - weight)
        assert update.base_norm == pytest.approx(float(weight.norm()), rel=1e-6)


def test_checkpoint_mismatches_are_named(pair):
    before, after, tmp = pair
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(3)]
    after[names[0]] = torch.ones(8, 12)
    del after[names[1]]
    paths = write_checkpoint(tmp / "before", before), write_checkpoint(tmp / "after", after)
    with pytest.raises(sp.AdapterError, match=r"layers.0.mlp.up_proj \(\[12, 8\] before"):
        sp.updates_from_checkpoints(*paths)
    loose = sp.updates_from_checkpoints(*paths, strict=False)
    assert list(loose) == ["model.layers.2.mlp.up_proj"]
    assert loose.skipped["model.layers.1.mlp.up_proj"] == "only before"
    with pytest.raises(sp.AdapterError, match="share no"):
        other = write_checkpoint(tmp / "other", {"a.weight": torch.ones(2, 2)})
        sp.updates_from_checkpoints(paths[0], other, strict=False)


def test_index_cannot_point_outside_its_folder(pair):
    before, _, tmp = pair
    path = write_checkpoint(tmp / "before", before, sharded=True)
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf8")
    with pytest.raises(sp.AdapterError, match="outside"):
        sp.updates_from_checkpoints(path, path)


def state(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


def same(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_applied_restores_bit_for_bit_even_after_an_error(dtype):
    model = tiny_llama(tie_word_embeddings=True).to(dtype)
    before = state(model)
    names = ["model.layers.0.self_attn.q_proj", "model.embed_tokens", "lm_head"]
    shapes = [(64, 64), (50, 64), (50, 64)]
    updates = {n: sp.DenseUpdate(torch.randn(s)) for n, s in zip(names, shapes, strict=True)}
    with pytest.raises(RuntimeError, match="inside"), sp.applied(model, updates):
        assert not same(before, state(model))
        raise RuntimeError("inside")
    assert same(before, state(model))


def test_applied_adapter_gives_the_logits_of_peft():
    model = tiny_peft().eval()
    ids = torch.arange(12)[None]
    updates = sp.updates_from_peft(model)
    with torch.no_grad():
        adapted = model(ids).logits
        with model.disable_adapter():
            base = model(ids).logits
            with sp.applied(model, updates):
                merged = model(ids).logits
            with sp.applied(model, {n: u.truncate(4) for n, u in updates.items()}):
                full_rank = model(ids).logits
            with sp.applied(model, updates, factor=0.0):
                nothing = model(ids).logits
            assert torch.equal(model(ids).logits, base)
    assert (adapted - base).abs().max() > 1e-3
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(full_rank, adapted, rtol=1e-4, atol=1e-5)
    assert torch.equal(nothing, base)


def test_applied_refuses_before_it_changes_anything():
    model = tiny_peft()
    before = state(model)
    good = sp.updates_from_peft(model)
    wrong_shape = {"model.layers.0.self_attn.q_proj": sp.DenseUpdate(torch.ones(3, 3))}
    with pytest.raises(ValueError, match="count twice"), sp.applied(model, good):
        pass
    with (
        model.disable_adapter(),
        pytest.raises(ValueError, match="no module 'gone'"),
        sp.applied(model, good | {"gone": sp.DenseUpdate(torch.ones(3, 3))}),
    ):
        pass
    with (
        model.disable_adapter(),
        pytest.raises(ValueError, match=r"weight \(64, 64\), update \(3, 3\)"),
        sp.applied(model, wrong_shape),
    ):
        pass
    assert same(before, state(model))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.mlp.up_proj", (3, "mlp.up_proj")),
        ("encoder.layer.11.attention.self.query", (11, "attention.self.query")),
        ("model.layers.2.mlp.experts.7.w1", (2, "mlp.experts.7.w1")),
        ("model.embed_tokens", (None, "model.embed_tokens")),
    ],
)
def test_names_are_parsed(name, expected):
    assert sp.parse_name(name) == expected


def test_summary_rows_are_json_safe_and_right(pair):
    model = tiny_peft()
    updates = sp.updates_from_peft(model)
    rows = sp.summary(updates, weights=model, ranks=(1, 4, 64))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert [row["name"] for row in rows] == list(updates)
    row, update = rows[0], updates["model.layers.0.self_attn.q_proj"]
    assert (row["layer"], row["module"], row["shape"]) == (0, "self_attn.q_proj", [64, 64])
    weight = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
    assert row["relative"] == pytest.approx(update.frobenius / float(weight.norm()), rel=1e-6)
    first = update.spectral_norm**2 / update.frobenius**2
    assert row["energy"] == pytest.approx([first, 1.0, 1.0])
    assert row["method"] == "factored" and row["edge"] is None and row["above_edge"] is None
    with_sigma = sp.summary(updates, sigma=dict.fromkeys(updates, 1e-4))[0]
    assert with_sigma["edge"] == pytest.approx(1e-4 * 2 * 8) and with_sigma["above_edge"] == 4


def test_summary_of_dense_incomplete_and_zero_updates():
    generator = torch.Generator().manual_seed(0)
    updates = {
        "noise": sp.DenseUpdate(torch.randn(60, 40, generator=generator), base_norm=100.0),
        "zero": sp.DenseUpdate(torch.zeros(60, 40)),
    }
    noise, zero = sp.summary(updates)
    assert noise["above_edge"] == 0 and noise["complete"] and noise["method"] == "dense"
    assert noise["relative"] == pytest.approx(noise["frobenius"] / 100)
    assert zero["rank_90"] == 0 and zero["edge"] is None and zero["effective_rank"] == 0
    part = sp.summary(updates, ranks=(1, 5, 20), k=5)[0]
    assert part["energy"][2] is None and part["effective_rank"] is None and part["edge"] is None
    assert part["energy"][1] == pytest.approx(noise_share(updates["noise"], 5))
    assert not part["complete"] and math.isfinite(part["stable_rank"])
    json.dumps(sp.summary(updates) + sp.summary(updates, k=5), allow_nan=False)


def noise_share(update, k):
    return float(sp.energy_curve(update.singular_values())[k - 1])


def test_summary_reads_a_lazy_pair_once_each(pair, monkeypatch):
    before, after, tmp = pair
    first, second = write_checkpoint(tmp / "a", before), write_checkpoint(tmp / "b", after)
    updates = sp.updates_from_checkpoints(first, second)
    reads = []
    original = sp.CheckpointPair.__getitem__
    monkeypatch.setattr(
        sp.CheckpointPair, "__getitem__", lambda s, n: (reads.append(n), original(s, n))[1]
    )
    rows = sp.summary(updates)
    assert sorted(reads) == sorted(updates) and all(row["relative"] > 0 for row in rows)
