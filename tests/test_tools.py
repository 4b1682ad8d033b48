"""`mangalab spectrum` and `estimate` against the modules that they show, and their refusals."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from test_accept import call

from mangalab import estimate, shapes, sizing
from mangalab.book.project import BookError


@pytest.fixture
def adapter(tmp_path):
    """An adapter of one module with singular values 3, 1 and scale 2, and one that never moved."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    A, B = torch.zeros(2, 6), torch.zeros(5, 2)
    A[0, 0] = A[1, 1] = 1.0
    B[0, 0], B[1, 1] = 3.0, 1.0
    prefix = "base_model.model.model.layers.0.self_attn."
    save_file({f"{prefix}q_proj.lora_A.weight": A, f"{prefix}q_proj.lora_B.weight": B,
               f"{prefix}v_proj.lora_A.weight": A.clone(),
               f"{prefix}v_proj.lora_B.weight": torch.zeros(5, 2)},
              folder / "adapter_model.safetensors")  # fmt: skip
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf8")
    return folder


def checkpoint(path, shift: float = 0.0, **more) -> None:
    weight = torch.eye(8)
    weight[0, 1] += shift
    save_file({"a.weight": weight, "b.weight": torch.ones(8, 4), **more}, path)


def test_an_adapter_by_module(adapter):
    told = json.loads(call("spectrum", str(adapter), "--rank", "1", "--json").output)
    q, v = told["modules"]
    assert q["name"] == "model.layers.0.self_attn.q_proj" and q["rank_90"] == 1
    assert q["energy"] == [pytest.approx(0.9)] and q["stable_rank"] == pytest.approx(10 / 9)
    assert q["spectral_norm"] == pytest.approx(6.0) and v["frobenius"] == 0
    assert told["summary"]["zero_modules"] == 1
    assert told["summary"]["frobenius"] == pytest.approx(2 * math.sqrt(10))
    text = call("spectrum", str(adapter / "adapter_model.safetensors"), "--rank", "1").output
    assert "energy at 1" in text and "90.0%" in text and "1 modules did not move" in text


def test_a_pair_of_checkpoints_and_a_folder_of_the_hubs_cache(tmp_path):
    hub = tmp_path / "models--x--y"
    snapshot = hub / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    checkpoint(snapshot / "model.safetensors")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc", encoding="utf8")
    checkpoint(tmp_path / "after.safetensors", shift=0.5)
    options = ["--base", str(hub), "--json"]
    told = json.loads(call("spectrum", str(tmp_path / "after.safetensors"), *options).output)
    moved = {row["name"]: row for row in told["modules"]}
    assert moved["a"]["frobenius"] == pytest.approx(0.5) and moved["a"]["rank_90"] == 1
    assert moved["b"]["frobenius"] == 0


def test_weights_that_do_not_match_are_named_or_left_out(tmp_path):
    checkpoint(tmp_path / "before.safetensors")
    checkpoint(tmp_path / "after.safetensors", extra=torch.ones(2, 2))
    pair = [str(tmp_path / "after.safetensors"), "--base", str(tmp_path / "before.safetensors")]
    with pytest.raises(BookError, match=r"extra \(only after\)"):
        call("spectrum", *pair)
    done = call("spectrum", *pair, "--partial")
    assert done.exit_code == 0 and "left out: extra" in done.stderr


def test_what_is_no_update_is_refused_with_the_way_out(tmp_path, adapter):
    checkpoint(tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    base = ["--base", str(tmp_path / "model.safetensors")]
    for arguments, words in (
        ([str(tmp_path / "nothing")], "does not exist"),
        ([str(tmp_path / "pytorch_model.bin")], "is a pickle"),
        ([str(tmp_path / "model.safetensors")], "--base"),
        ([str(empty)], "no adapter_config.json"),
        ([str(tmp_path / "broken.safetensors"), *base], "not a readable safetensors"),
        ([str(adapter), *base], "leave out --base"),
    ):
        with pytest.raises(BookError, match=words):
            call("spectrum", *arguments)
    (adapter / "adapter_config.json").write_text('{"peft_type": "IA3"}', encoding="utf8")
    with pytest.raises(BookError, match="only 'LORA'"):
        call("spectrum", str(adapter))


# ------------------------------------------------------------------ estimate
def test_estimate_is_the_modules_arithmetic():
    options = "--method qlora --rank 16 --batch 4 --sequence 2048 --tokens 1e7 --price 2 --json".split()
    told = json.loads(call("estimate", "llama-3-8b", *options).output)
    shape = shapes.SHAPES["Llama-3-8B"]
    plan = sizing.Plan(shape, "qlora", batch=4, length=2048)
    wanted, bill = sizing.memory(plan), sizing.bill(plan, 1e7, estimate.DEVICES["A100-80"], 0.4, 2)
    assert told["memory_bytes"]["total"] == wanted.total and told["plan"]["model"] == "Llama-3-8B"
    assert told["peak"] == wanted.peak == "loss" and told["bill"]["dollars"] == bill.dollars
    assert told["trained"] == estimate.lora_parameters(shape, 16) == 6_815_744
    assert told["adapter_bytes"]["bf16"] == estimate.adapter_bytes(shape, 16)
    assert told["hours"] == bill.hours and told["device"]["fits"] is True
    text = call("estimate", "Llama-3-70B", "--method", "full", "--device", "h100").output
    assert "does not fit on H100 (80 GB)" in text and "adapter on disk" not in text


def test_estimate_reads_a_configuration(tmp_path):
    config = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 10,
              "num_attention_heads": 2, "intermediate_size": 16}  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf8")
    for place in (path, tmp_path):
        told = json.loads(call("estimate", str(place), "--json").output)
        assert told["parameters"] == shapes.Shape.from_config(config).parameters
    llama, mamba = '{"model_type": "llama"}', '{"model_type": "mamba"}'
    for text, words in (
        ("{", "config.json: "),
        ("[]", "no model configuration"),
        (llama, "no model configuration"),
        (mamba, "has no shape rule"),
    ):
        path.write_text(text, encoding="utf8")
        with pytest.raises(BookError, match=words):
            call("estimate", str(path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a model"),
        (["gpt-9"], "no known shape"),
        (["llama-3-8b", "--targets", "query"], "no linear module 'query'"),
        (["llama-3-8b", "--method", "dora"], "method 'dora' is unknown"),
        (["llama-3-8b", "--precision", "fp8"], "precision 'fp8' is unknown"),
        (["llama-3-8b", "--precision", "mixed"], "is for full fine-tuning"),
        (["llama-3-8b", "--rank", "0"], "rank=0 is below 1"),
        (["all-MiniLM-L6-v2", "--method", "prefix"], "no rule for an encoder"),
        (["llama-3-8b", "--tokens", "1", "--price", "-1"], "price=-1"),
        (["llama-3-8b", "--device", "tpu"], "device 'tpu' is unknown"),
        (["llama-3-8b", "--tokens", "1", "--mfu", "40"], "mfu=40"),
    ],
)
def test_estimate_refuses_with_the_way_out(arguments, words):
    with pytest.raises(BookError, match=words):
        call("estimate", *arguments)


def test_estimate_lists_what_it_knows():
    told = json.loads(call("estimate", "--list", "--json").output)
    assert set(told["shapes"]) == set(sizing.SHAPES) > set(shapes.SHAPES)
    assert set(told["devices"]) == {*estimate.DEVICES, "RTX-4090", "RTX-3090"}
    assert "Llama-3-8B" in call("estimate", "--list").output
