"""Parameter counts against PEFT and transformers on the meta device; memory and cost by hand."""

import subprocess
import sys

import pytest

from mangalab import estimate as e

SMALL = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100}  # fmt: skip
QV = ("q_proj", "v_proj")
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


def llama_config(shape):
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, tie_word_embeddings=shape.tied,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Llama-3-8B", 8_030_261_248),
        ("Llama-3-70B", 70_553_706_496),
        ("Llama-2-7B", 6_738_415_616),
        ("Llama-2-13B", 13_015_864_320),
        ("LLaMA-1-65B", 65_285_660_672),
        ("SmolLM2-135M", 134_515_008),
        ("all-MiniLM-L6-v2", 22_713_216),
        ("MiniLM-L12-H384", 33_360_000),
        ("distilbert-base-uncased", 66_362_880),
        ("distilbert-base-multilingual-cased", 134_734_080),
    ],
)
def test_published_totals(name, parameters):
    assert e.SHAPES[name].parameters == parameters
    assert sum(e.SHAPES[name].parts.values()) == parameters


def test_quantised_linears_of_70b():
    assert e.SHAPES["Llama-3-70B"].linear_parameters == 68_451_041_280


@pytest.mark.parametrize("name", ["Llama-3-8B", "Llama-3-70B"])
@pytest.mark.parametrize("targets", [QV, QKVO, e.ALL_LINEAR])
def test_counts_equal_peft_on_the_meta_device(name, targets):
    torch = pytest.importorskip("torch")
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    shape = e.SHAPES[name]
    with torch.device("meta"):
        base = LlamaForCausalLM(llama_config(shape))
        chosen = targets if isinstance(targets, str) else list(targets)
        adapted = get_peft_model(base, LoraConfig(r=16, target_modules=chosen))
    trainable, everything = adapted.get_nb_trainable_parameters()
    assert trainable == e.lora_parameters(shape, 16, targets)
    assert everything == shape.parameters + trainable
    assert e.lora_share(shape, 16, targets) == trainable / everything


@pytest.mark.parametrize("name", ["Llama-3-8B", "Llama-3-70B", "SmolLM2-135M"])
def test_whole_models_on_the_meta_device(name):
    torch = pytest.importorskip("torch")
    from transformers import LlamaForCausalLM

    config = llama_config(e.SHAPES[name])
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert sum(p.numel() for p in model.parameters()) == e.SHAPES[name].parameters
    shape = e.Shape.from_config(config, name=name)
    assert shape == e.SHAPES[name]
    assert e.Shape.from_config(config.to_dict(), name=name) == shape


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "distilbert-base-uncased"])
def test_encoders_on_the_meta_device(name):
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    shape = e.SHAPES[name]
    if shape.family == "bert":
        config = BertConfig(
            hidden_size=shape.hidden, num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads, intermediate_size=shape.intermediate,
        )  # fmt: skip
        model_class = BertModel
    else:
        config, model_class = DistilBertConfig(), DistilBertModel
    with torch.device("meta"):
        model = model_class(config)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters
    assert e.Shape.from_config(config, name=name) == shape


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj"], 20_971_520),
        (QV, 32_768_000),
        (QKVO, 65_536_000),
        ((*QV, "gate_proj", "up_proj", "down_proj"), 174_325_760),
        (e.ALL_LINEAR, 207_093_760),
    ],
)
def test_lora_on_70b(targets, expected):
    shape = e.SHAPES["Llama-3-70B"]
    assert e.lora_parameters(shape, 16, targets) == expected
    assert e.lora_parameters(shape, 64, targets) == 4 * expected


def test_suffix_targets_of_an_encoder():
    shape = e.SHAPES["all-MiniLM-L6-v2"]
    assert e.lora_parameters(shape, 8, ["query", "value"]) == 6 * 8 * 2 * 768
    assert set(shape.select(["output.dense"])) == {"attention.output.dense", "output.dense"}


def test_bits_per_parameter():
    assert e.bits_per_parameter(double=False) == 4.5
    assert e.bits_per_parameter(double=True) == 4 + 8 / 64 + 32 / (64 * 256)


def test_memory_of_70b():
    shape = e.SHAPES["Llama-3-70B"]
    full = e.memory(shape, "full", batch=0)
    assert full.total == 16 * shape.parameters
    assert e.memory(shape, "full", scheme="bf16", batch=0).total == 8 * shape.parameters
    lora = e.memory(shape, "lora", batch=0)
    assert lora.states == 2 * shape.parameters + 16 * 32_768_000
    qlora = e.memory(shape, "qlora", batch=0)
    assert qlora.weights / e.GB == pytest.approx(39.5, abs=0.05)
    single = e.memory(shape, "qlora", batch=0, double=False)
    assert (single.weights - qlora.weights) / e.GB == pytest.approx(3.19, abs=0.01)
    assert qlora.rows()[-1] == {"part": "total", "GB": qlora.total / e.GB}


def test_activations_follow_korthikanti():
    shape = e.SHAPES["Llama-3-70B"]
    plain = e.activation_bytes(shape, 4, 512)
    assert plain == 34 * 512 * 4 * 8192 * 80
    maps = e.activation_bytes(shape, 4, 512, attention_maps=True) - plain
    assert maps == 5 * 64 * 512**2 * 4 * 80
    kept = e.activation_bytes(shape, 4, 512, checkpointing=True)
    assert kept == 2 * 512 * 4 * 8192 * 80 + 34 * 512 * 4 * 8192
    assert e.logits_bytes(shape, 4, 512) == 2 * 4 * 4 * 512 * 128256


def test_time_and_cost():
    assert e.flops_per_token(1) == 6
    assert e.flops_per_token(1, frozen=True) == 4
    assert e.flops_per_token(1, frozen=True, checkpointing=True, adapter=0.5) == 9
    a100 = e.DEVICES["A100-80"]
    assert e.hours(312e12 * 3600, a100, mfu=0.5, devices=2) == pytest.approx(1)
    assert e.cost(2, 3.5, devices=8) == 56
    assert e.storage_cost(100 * e.GB, 0.023) == pytest.approx(2.3)
    assert e.steps(3000, 16, 3) == 564


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: e.lora_parameters(s, 0), "r=0"),
        (lambda s: e.lora_parameters(s, 4, ["qproj"]), "'qproj'"),
        (lambda s: e.memory(s, "dora"), "'dora'"),
        (lambda s: e.memory(s, "full", scheme="fp8"), "'fp8'"),
        (lambda s: e.hours(1, e.DEVICES["A10G"], mfu=40), "mfu=40"),
        (lambda s: e.Shape.from_config({"model_type": "gpt2"}), "'gpt2'"),
        (lambda s: e.Shape.from_config({**SMALL, "mlp_bias": True}), "biases"),
    ],
)
def test_errors_name_the_value(call, words):
    with pytest.raises(ValueError, match=words):
        call(e.SHAPES["Llama-3-8B"])


def test_importing_loads_nothing_heavy():
    code = "import sys, mangalab.estimate; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
