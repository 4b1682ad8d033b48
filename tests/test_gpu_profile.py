"""Profile gpu as far as it can be judged without a GPU: parameters, devices, precisions, shapes."""

import importlib.util
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from mangalab import profiles
from mangalab.book import chapters, keys, notebook
from mangalab.book.project import Project

ROOT = Path(__file__).resolve().parents[1]
PROJECT = Project(ROOT)
CHAPTERS = chapters.load(PROJECT)


def pretending():
    """The tool that runs a chapter as if there were a GPU."""
    spec = importlib.util.spec_from_file_location("pretend_gpu", ROOT / "tools" / "pretend_gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------ chapters.yml
@pytest.mark.parametrize("profile", ["smoke", "gpu"])
@pytest.mark.parametrize("name", CHAPTERS)
def test_overrides_are_parameters_of_their_notebook(name, profile):
    """Names exist and types fit; chapter 18 reads records and is the same everywhere on a GPU."""
    chapter = CHAPTERS[name]
    found = keys.prepare(notebook.read(PROJECT.notebook(name)), chapter, profile, None)
    assert chapter.overrides(profile) or (name, profile) == ("18-strategic-direction", "gpu")
    assert profile in chapter.budget
    recipe = found.get("recipe", {})
    if recipe:
        from mangalab.training import retriever, traced

        made = traced.TracedRecipe if name.startswith("17") else retriever.Recipe
        known = {field.name: type(getattr(made(), field.name)) for field in fields(made)}
        assert set(recipe) <= set(known)
        assert {key: type(value) for key, value in recipe.items()} == {k: known[k] for k in recipe}


# ------------------------------------------------------------------ device and precision
@pytest.mark.parametrize(("bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_decides_device_and_precision(monkeypatch, bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    profile = profiles.Profile("gpu")
    assert (profile.device, profile.dtype) == ("cuda", dtype)
    assert "this GPU" in profile.dtype_reason and "T4" in profiles.choose_device("gpu")[1]
    assert profiles.Profile("smoke").device == profiles.Profile("cpu").device == "cpu"


@pytest.mark.slow
def test_the_hubs_causal_lm_has_a_shape_that_the_engine_takes():
    """SmolLM2-1.7B's widths, two layers, on the meta device: loss and gradients stay there, in bf16."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from mangalab.sizing.shapes import SHAPES
    from mangalab.training import llama, sft

    shape = SHAPES["SmolLM2-1.7B"]
    config = LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=2,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = sft.attach(AutoModelForCausalLM.from_config(config), sft.LoRA(8))
    engine = llama.LeanLlama(model, torch.bfloat16)
    batch = llama.pack([([1, 2, 3, 4], 2), ([1, 2, 3], 1)], device=engine.head.device)
    hidden = engine.hidden(batch)
    assert (hidden.device.type, hidden.dtype) == ("meta", torch.bfloat16)
    engine.loss(batch).backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert gradients and all(g.device.type == "meta" and g.dtype == torch.float32 for g in gradients)


# ------------------------------------------------------------------ tools/pretend_gpu.py
@pytest.fixture
def pretended():
    """Faults of the block that runs while a GPU is pretended."""
    tool = pretending()
    faults = tool.Faults()
    with tool.Ops(faults) as ops, tool.Api(faults, ops):
        yield faults


def test_a_training_step_on_one_device_has_no_fault(pretended):
    model = torch.nn.Linear(3, 2).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = torch.ones(4, 3).to(model.weight.device)
    value = torch.nn.functional.cross_entropy(model(x) * torch.tensor(2.0), torch.ones(4).long().cuda())
    value.backward()
    optimizer.step()
    assert model.weight.grad.is_cuda and value.device.type == "cuda"
    assert x[torch.tensor([0, 2])].is_cuda  # an index may lie on the CPU
    assert value.item() and value.cpu().detach().numpy() and torch.func.vmap(torch.sum)(x).is_cuda
    assert not x.to(torch.bfloat16).cpu().is_cuda and torch.nn.functional.one_hot(x.long()).is_cuda
    assert not pretended


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        (lambda x: x + torch.ones(3), "aten.add.Tensor: tensors of both devices"),
        (lambda x: torch.nn.Linear(3, 2)(x), "aten.addmm.default: tensors of both devices"),
        (lambda x: torch.cat([x, torch.ones(1, 3)]), "aten.cat.default: tensors of both devices"),
        (lambda x: torch.ones(3)[x.long()[:, 0]], "aten.index.Tensor: tensors of both devices"),
        (lambda x: x.numpy(), "numpy of a GPU tensor: needs .cpu()"),
        (lambda x: torch.randn(2, generator=torch.Generator(), device=x.device), "a CPU generator"),
    ],
)
def test_a_mix_is_noted(pretended, mix, words):
    mix(torch.ones(2, 3).to("cuda"))
    assert len(pretended) == 1 and words in next(iter(pretended))[0]


def test_a_mix_in_a_backward_pass_is_noted(pretended):
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.full((2,), 2.0)  # made on the CPU

    Twice.apply(torch.ones(2, device="cuda").requires_grad_()).sum().backward()
    assert any("aten.mul.Tensor" in what for what, *_ in pretended)
    assert all(" from " not in line and "tensors of both" in line for line in pretended.lines())
