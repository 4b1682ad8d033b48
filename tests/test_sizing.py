"""The estimator against what PyTorch keeps: saved tensors byte by byte, live bytes, PEFT's counts."""

import subprocess
import sys
from dataclasses import replace

import pytest

from mangalab import estimate as e
from mangalab import sizing
from mangalab.shapes import Shape, _bert, _distilbert
from mangalab.sizing import Plan

# wide enough that no two kinds of tensor have the same size by chance
LLAMA = Shape("tiny", 2, 64, 4, 2, 16, 160, 1000, tied=True)
BERT = _bert("tiny-bert", 2, 64, 4, 160, 1000)
DISTIL = _distilbert("tiny-distil", 2, 64, 4, 160, 1000)
QV = ["q_proj", "v_proj"]
BATCH, LENGTH = 2, 32


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(plan: Plan, layers: int):
    """The model of a plan, with another number of layers."""
    import torch
    import transformers as t
    from peft import LoraConfig, get_peft_model

    s = plan.shape
    common = {
        "vocab_size": s.vocab,
        "attn_implementation": "eager" if plan.attention == "eager" else "sdpa",
    }
    torch.manual_seed(0)
    if s.family == "llama":
        model = t.LlamaForCausalLM(t.LlamaConfig(
            hidden_size=s.hidden, intermediate_size=s.intermediate, num_hidden_layers=layers,
            num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, tie_word_embeddings=s.tied,
            use_cache=False, **common))  # fmt: skip
    elif s.family == "bert":
        model = t.BertModel(t.BertConfig(
            hidden_size=s.hidden, intermediate_size=s.intermediate, num_hidden_layers=layers,
            num_attention_heads=s.heads, **common))  # fmt: skip
    else:
        model = t.DistilBertModel(t.DistilBertConfig(
            dim=s.hidden, hidden_dim=s.intermediate, n_layers=layers, n_heads=s.heads,
            **common))  # fmt: skip
    if plan.precision == "bf16":
        model = model.to(torch.bfloat16)
    if plan.checkpointing:
        model.gradient_checkpointing_enable()
    if plan.adapted:
        if plan.checkpointing:
            model.enable_input_require_grads()
        targets = [name.rpartition(".")[2] for name in plan.adapted]
        model = get_peft_model(model, LoraConfig(
            r=plan.rank, target_modules=sorted(set(targets)),
            lora_dropout=0.05 if plan.adapter_dropout else 0.0))  # fmt: skip
    return model.train(plan.dropout or s.family == "llama")


def batch_of(plan: Plan) -> dict:
    """Random ids of the plan's batch; padded where the plan says so, labels for a causal model."""
    import torch

    ids = torch.randint(0, plan.shape.vocab, (plan.batch, plan.length))
    mask = torch.ones_like(ids)
    if plan.padded:
        mask[0, : plan.length // 4] = 0
    labels = {"labels": ids} if plan.shape.family == "llama" else {}
    return {"input_ids": ids, "attention_mask": mask, **labels}


def saved_bytes(plan: Plan, layers: int) -> int:
    """Bytes of the distinct storages that autograd saves in one forward pass, parameters apart."""
    import contextlib

    import torch

    model, inputs, seen = build(plan, layers), batch_of(plan), {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage  # kept alive, so that no address comes twice
        return tensor

    cast = torch.autocast("cpu", torch.bfloat16) if plan.precision == "autocast" else None
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, cast or contextlib.nullcontext():
        out = model(**inputs)
    assert out is not None
    return sum(storage.nbytes() for storage in seen.values())


FULL = Plan(LLAMA, "full", batch=BATCH, length=LENGTH, checkpointing=False)
LORA = replace(FULL, method="lora", rank=8)
ENCODER = replace(FULL, shape=BERT, precision="fp32", padded=True)
CASES = {
    "fp32": replace(FULL, precision="fp32"),
    "bf16": FULL,
    "autocast": replace(FULL, precision="autocast"),
    "padded": replace(FULL, precision="fp32", padded=True),
    "padded bf16": replace(FULL, padded=True),
    "eager": replace(FULL, precision="fp32", attention="eager"),
    "eager bf16": replace(FULL, attention="eager"),
    "checkpointed": replace(FULL, checkpointing=True),
    "checkpointed autocast": replace(FULL, checkpointing=True, precision="autocast"),
    "lora fp32": replace(LORA, precision="fp32"),
    "lora bf16": LORA,
    "lora all fp32": replace(LORA, precision="fp32", targets="all-linear"),
    "lora all bf16": replace(LORA, targets="all-linear"),
    "lora dropout": replace(LORA, adapter_dropout=True, mask_bytes=4),
    "bert": ENCODER,
    "bert dropout": replace(ENCODER, dropout=True, mask_bytes=4),
    "bert lora": replace(ENCODER, method="lora", rank=8, targets=("query", "value")),
    "bert lora all": replace(ENCODER, method="lora", rank=8, targets="all-linear"),
    "distilbert": replace(ENCODER, shape=DISTIL),
    "distilbert dropout": replace(ENCODER, shape=DISTIL, dropout=True, mask_bytes=4),
}


@pytest.mark.parametrize("plan", CASES.values(), ids=CASES)
def test_one_layer_keeps_exactly_what_the_formula_says(plan):
    kept = saved_bytes(plan, 3) - saved_bytes(plan, 2)
    if plan.precision == "autocast" and not plan.checkpointing:  # the casts of its weights too
        kept -= 2 * plan.shape.linear_parameters // plan.shape.layers
    wanted = sizing.layer_activations(plan)
    if plan.checkpointing:
        from mangalab.sizing.activations import boundary

        wanted = boundary(plan)
    assert kept == wanted


def live_peak(plan: Plan) -> int:
    """Peak bytes of live tensors in the second training step."""
    import contextlib

    import torch

    from mangalab.sizing.live import LiveBytes

    model, inputs = build(plan, plan.shape.layers), batch_of(plan)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    cast = plan.precision == "autocast"

    def loss():
        with torch.autocast("cpu", torch.bfloat16) if cast else contextlib.nullcontext():
            return model(**inputs).loss

    with LiveBytes(model.parameters()) as live:
        for _ in range(2):
            live.peak = 0
            loss().backward()
            optimizer.step()
            optimizer.zero_grad()
    return live.peak


DEEP = Shape("deep", 6, 64, 4, 2, 16, 160, 500, tied=True)
WORDY = Shape("wordy", 2, 64, 4, 2, 16, 160, 8000, tied=True)
WIDE = Shape("wide", 4, 256, 4, 2, 64, 640, 500, tied=True)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "method", ["full fp32", "full bf16", "full autocast", "lora fp32", "lora bf16"]
)
@pytest.mark.parametrize("shape", [DEEP, WORDY, WIDE], ids=lambda s: s.name)
def test_peak_of_live_bytes(shape, method, checkpointing):
    method, precision = method.split()
    length = 64 if shape is WIDE else 256
    plan = Plan(shape, method, rank=8, precision=precision, batch=4, length=length,
                checkpointing=checkpointing, step="loop")  # fmt: skip
    assert sizing.memory(plan).total == pytest.approx(live_peak(plan), rel=0.06)


def test_live_bytes_counts_shared_storage_once_and_forgets_the_dead():
    import torch

    from mangalab.sizing.live import LiveBytes

    start = torch.zeros(100)
    with LiveBytes([start, start.view(10, 10)]) as live:
        assert live.now == 400
        other = start + 1
        view = other[:50]
        assert live.now == 800
        del other, view
        assert (live.now, live.peak) == (400, 800)


def test_published_totals_of_the_added_shapes():
    counts = {name: sizing.SHAPES[name].parameters for name in sizing.SHAPES if name not in e.SHAPES}
    assert counts == {
        "Mistral-7B": 7_241_732_096,
        "Llama-3.2-1B": 1_235_814_400,
        "Llama-3.2-3B": 3_212_749_824,
        "SmolLM2-1.7B": 1_711_376_384,
    }


@pytest.mark.parametrize("name", ["Mistral-7B", "Llama-3.2-1B", "Llama-3.2-3B", "SmolLM2-1.7B"])
def test_added_shapes_on_the_meta_device(name):
    import torch
    import transformers as t

    s = sizing.SHAPES[name]
    kind = (
        (t.MistralConfig, t.MistralForCausalLM)
        if "Mistral" in name
        else (t.LlamaConfig, t.LlamaForCausalLM)
    )
    config = kind[0](
        vocab_size=s.vocab, hidden_size=s.hidden, intermediate_size=s.intermediate,
        num_hidden_layers=s.layers, num_attention_heads=s.heads, num_key_value_heads=s.kv_heads,
        head_dim=s.head_dim, tie_word_embeddings=s.tied)  # fmt: skip
    with torch.device("meta"):
        model = kind[1](config)
    assert sum(p.numel() for p in model.parameters()) == s.parameters
    assert Shape.from_config(config, name=name) == s


@pytest.mark.parametrize("method", ["prompt", "prefix", "lora"])
def test_trained_parameters_are_pefts(method):
    import peft

    plan = Plan(LLAMA, method, rank=4, virtual_tokens=7, checkpointing=False)
    kind = {"task_type": "CAUSAL_LM"}
    config = {
        "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=7, **kind),
        "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=7, **kind),
        "lora": lambda: peft.LoraConfig(r=4, target_modules=QV, **kind),
    }[method]()
    base = build(replace(plan, method="full"), LLAMA.layers)
    trainable, _ = peft.get_peft_model(base, config).get_nb_trainable_parameters()
    assert trainable == sizing.trained_parameters(plan)


def numbers_in_state(optimizer, plan: Plan) -> int:
    """Numbers that an optimizer keeps after one step, counters apart."""
    import torch

    model, inputs = build(plan, plan.shape.layers), batch_of(plan)
    used = optimizer([p for p in model.parameters() if p.requires_grad])
    model(**inputs).loss.backward()
    used.step()
    held = [v for state in used.state.values() for v in state.values()]
    return sum(v.numel() for v in held if isinstance(v, torch.Tensor) and v.numel() > 1)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_states_of_the_optimizers(method):
    import torch
    from transformers import Adafactor

    from mangalab.sizing.memory import optimizer_bytes

    plan = replace(LORA, method=method, precision="fp32")
    for name, make in (
        ("adamw", torch.optim.AdamW),
        ("adafactor", Adafactor),
        ("sgd", lambda p: torch.optim.SGD(p, 0.1)),
        ("sgd-momentum", lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    ):
        assert 4 * numbers_in_state(make, plan) == optimizer_bytes(replace(plan, optimizer=name)), name


def test_states_follow_zero():
    big = sizing.SHAPES["Llama-3-70B"]
    plan = Plan(big, "full", precision="mixed", batch=0)

    def states(sharding: str, devices: int = 64) -> float:
        one = sizing.memory(replace(plan, sharding=sharding, devices=devices))
        names = ("weights", "gradients", "masters", "optimizer")
        return sum(one.phases["step"][name] for name in names)

    whole, layer = 16 * big.parameters, 2 * big.linear_parameters / big.layers
    assert states("none") == states("zero3", 1) == whole
    assert states("zero1") == pytest.approx((4 + 12 / 64) * big.parameters)
    assert states("zero2") == pytest.approx((2 + 14 / 64) * big.parameters + layer)
    assert states("zero3") == pytest.approx(whole / 64 + layer)


def test_four_bits_and_the_cache():
    big = sizing.SHAPES["Llama-3-70B"]
    plan = Plan(big, "inference-4bit", batch=2, length=4000, new_tokens=96)
    found = sizing.memory(plan)
    assert found.parts["weights"] == e.quantised_bytes(big)
    assert found.parts["cache"] == 2 * 80 * 8 * 128 * 2 * 4096 * 2 == sizing.kv_cache(plan, 4096)
    single = sizing.memory(replace(plan, double=False)).parts["weights"]
    assert single == e.quantised_bytes(big, double=False)


def test_logits_can_be_the_peak_and_chunks_cut_them():
    plan = Plan(sizing.SHAPES["Llama-3-8B"], "qlora", batch=8, length=2048)
    whole, cut = sizing.memory(plan), sizing.memory(replace(plan, loss_tokens=256))
    assert whole.peak == "loss" and whole.parts["logits"] == 12 * 8 * 2048 * 128256
    assert cut.phases["loss"]["logits"] == 12 * 256 * 128256 and cut.total < whole.total / 2
    assert sizing.memory(replace(plan, shape=BERT, method="full")).phases["loss"]["logits"] == 0


def test_flops_reduce_to_the_rules_of_thumb():
    from mangalab.sizing.compute import flops_per_token, matrix_parameters

    big = sizing.SHAPES["Llama-3-70B"]
    full = Plan(big, "full", length=1, checkpointing=False)
    n = matrix_parameters(full)
    assert n == big.linear_parameters + big.vocab * big.hidden
    assert flops_per_token(full) == pytest.approx(6 * n, rel=1e-4)
    lora = replace(full, method="lora")
    assert flops_per_token(lora) == pytest.approx(4 * n + 6 * 32_768_000, rel=1e-4)
    again = flops_per_token(replace(lora, checkpointing=True))
    assert again == pytest.approx(4 * n + 2 * big.linear_parameters + 8 * 32_768_000, rel=1e-4)
    attention = flops_per_token(replace(full, length=8192)) - flops_per_token(full)
    assert attention == 3 * 4 * 8191 / 2 * 8192 * 80


def test_flops_are_those_that_pytorch_counts():
    """Forward and backward on one core; the fused kernel counts the pairs that a mask hides."""
    from torch.utils.flop_counter import FlopCounterMode

    from mangalab.sizing.compute import flops_per_token

    plan = replace(FULL, precision="fp32", attention="eager")
    model, inputs = build(plan, LLAMA.layers), batch_of(plan)
    with FlopCounterMode(display=False) as counter:
        model(**inputs).loss.backward()
    hidden_pairs = 3 * 4 * LENGTH / 2 * 64 * LLAMA.layers
    assert counter.get_total_flops() / plan.tokens == flops_per_token(plan) + hidden_pairs


def test_bill():
    plan = Plan(sizing.SHAPES["Llama-2-7B"], "full", devices=2, batch=1)
    a100 = e.DEVICES["A100-80"]
    one = sizing.bill(plan, 1e9, a100, 0.5, 3)
    assert one.hours == pytest.approx(one.flops / (2 * 312e12 * 0.5) / 3600)
    assert one.dollars == pytest.approx(one.hours * 2 * 3) and one.device_hours == 2 * one.hours
    assert sizing.bill(plan, 1e9, a100, 0.5).dollars is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "dora"}, "method 'dora' is unknown: use one of full"),
        ({"precision": "mixed"}, "'mixed' is for full fine-tuning"),
        ({"devices": 0}, "devices=0 is below 1"),
        ({"targets": ("query",)}, "no linear module 'query'"),
        ({"sharding": "zero4"}, "sharding 'zero4'"),
    ],
)
def test_plans_that_make_no_sense(options, words):
    with pytest.raises(sizing.PlanError, match=words):
        sizing.memory(Plan(sizing.SHAPES["Llama-3-8B"], **options))


def test_importing_loads_nothing_heavy():
    code = "import sys, mangalab.sizing; assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
