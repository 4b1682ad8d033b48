"""The store of trained things: what it finds again, what it makes anew, what it refuses."""

import importlib.util
import json
import sys
import threading
from pathlib import Path

import pytest

from mangalab import artifacts
from mangalab.artifacts import ArtifactError, cached, sources
from mangalab.data import _files

TOY = '''
from ..data import _files
from . import helper


def train(folder, size=2):
    """Writes its parameters."""
    _files.read_text("facts.tsv")
    (folder / "weights.json").write_text(str(helper.DOUBLE * size), encoding="utf8")
    return {"size": size}


def train_on_it(folder):
    from ..artifacts import cached

    below = cached("below", train, size=5)
    (folder / "top.json").write_text(below.file("weights.json").read_text(), encoding="utf8")


def bad(folder):
    (folder / "model.bin").write_text("pickle", encoding="utf8")


def broken(folder):
    (folder / "weights.json").write_text("half", encoding="utf8")
    raise RuntimeError("out of memory")
'''


class Toy:
    """A package in a temporary folder whose files a test can edit."""

    def __init__(self, root: Path) -> None:
        self.package = root / "mangalab"
        for folder in ("training", "data/text"):
            (self.package / folder).mkdir(parents=True)
        self.edit("__init__.py", "")
        self.edit("training/__init__.py", "")
        self.edit("training/helper.py", "DOUBLE = 2\n")
        self.edit("training/other.py", "UNUSED = 1\n")
        self.edit("data/__init__.py", "")
        self.edit("data/_files.py", "")
        self.edit("data/text/facts.tsv", "id\n1\n")
        self.edit("training/toy.py", TOY)

    def edit(self, name: str, text: str) -> None:
        (self.package / name).write_text(text, encoding="utf8")

    def load(self):
        """The toy training module (run from the edited file), registered under its package's name."""
        for name in ("helper", "toy"):
            spec = importlib.util.spec_from_file_location(
                f"mangalab.training.{name}", self.package / "training" / f"{name}.py"
            )
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            setattr(sys.modules["mangalab.training"], name, module)
            spec.loader.exec_module(module)
        return module


@pytest.fixture
def toy(tmp_path, monkeypatch):
    import mangalab.training

    made = Toy(tmp_path)
    monkeypatch.setattr(artifacts, "PACKAGE", made.package)
    monkeypatch.setattr(artifacts, "_machine", lambda: {"device": "cpu", "dtype": "float32"})
    monkeypatch.setattr(_files, "TEXT", made.package / "data" / "text")
    monkeypatch.setattr(_files, "_opened", {})
    monkeypatch.setenv("MANGALAB_ROOT", str(tmp_path))
    yield made
    for name in ("helper", "toy"):
        sys.modules.pop(f"mangalab.training.{name}", None)
        if hasattr(mangalab.training, name):
            delattr(mangalab.training, name)


def test_second_call_trains_nothing_and_reads_the_same(toy):
    module = toy.load()
    first = cached("toy", module.train, size=3)
    second = cached("toy", module.train, size=3)
    assert (first.made, second.made) == (True, False)
    assert first.key == second.key and second.meta == {"size": 3}
    assert second.file("weights.json").read_text() == "6"
    with pytest.raises(FileNotFoundError, match=r"no file 'x'; it has: manifest\.json, weights\.json"):
        second.file("x")


@pytest.mark.parametrize(
    "name, text, again",
    [
        ("training/toy.py", TOY.replace("* size", "* size * 10"), True),
        ("training/helper.py", "DOUBLE = 7\n", True),
        ("data/text/facts.tsv", "id\n2\n", True),
        ("training/other.py", "UNUSED = 2\n", False),
    ],
)
def test_only_what_it_was_made_from_makes_it_anew(toy, name, text, again):
    cached("toy", toy.load().train)
    toy.edit(name, text)
    assert cached("toy", toy.load().train).made is again


def test_parameters_and_machine_are_part_of_the_key(toy, monkeypatch):
    module = toy.load()
    small, large = cached("toy", module.train, size=1), cached("toy", module.train, size=2)
    assert small.key != large.key and small.path.exists()
    monkeypatch.setattr(artifacts, "_machine", lambda: {"device": "cuda", "dtype": "bfloat16"})
    assert cached("toy", module.train, size=1).made


def test_a_newer_version_replaces_the_older_of_the_same_parameters(toy):
    old, other = cached("toy", toy.load().train), cached("toy", toy.load().train, size=9)
    toy.edit("training/helper.py", "DOUBLE = 7\n")
    new = cached("toy", toy.load().train)
    assert not old.path.exists() and other.path.exists() and new.path.exists()


def test_damage_is_seen_and_mended(toy):
    module = toy.load()
    first = cached("toy", module.train)
    first.file("weights.json").write_text("other", encoding="utf8")
    again = cached("toy", module.train)
    assert again.made and again.file("weights.json").read_text() == "4"
    (again.path / "manifest.json").write_text("{", encoding="utf8")
    assert cached("toy", module.train).made


def test_a_training_that_fails_leaves_nothing(toy):
    with pytest.raises(RuntimeError, match="out of memory"):
        cached("toy", toy.load().broken)
    assert not [p for p in (artifacts.store() / "toy").iterdir() if p.is_dir()]


def test_refusals_say_why(toy):
    module = toy.load()
    with pytest.raises(ArtifactError, match=r"wrote model\.bin; allowed: \.safetensors"):
        cached("toy", module.bad)
    with pytest.raises(ArtifactError, match="is no function of mangalab: move it"):
        cached("toy", lambda folder: None)
    with pytest.raises(ArtifactError, match="lower-case"):
        cached("My Toy", module.train)


def test_what_was_loaded_counts_as_used_by_the_run(toy, monkeypatch):
    cached("toy", toy.load().train)
    monkeypatch.setattr(_files, "_opened", {})
    cached("toy", toy.load().train)
    assert set(_files.opened()) == {"facts.tsv"}


def test_one_made_from_another_follows_it(toy):
    assert cached("top", toy.load().train_on_it).file("top.json").read_text() == "10"
    assert not cached("top", toy.load().train_on_it).made
    manifest = json.loads(cached("top", toy.load().train_on_it).file("manifest.json").read_text())
    assert "mangalab/training/helper.py" in manifest["modules"] | manifest["used_modules"]
    toy.edit("training/helper.py", "DOUBLE = 3\n")
    assert cached("top", toy.load().train_on_it).file("top.json").read_text() == "15"


def test_two_at_once_train_once(toy):
    module, found = toy.load(), []
    threads = [
        threading.Thread(target=lambda: found.append(cached("toy", module.train))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(a.made for a in found) == [False, False, False, True]


def test_sources_of_a_real_module_reach_what_it_imports():
    found = sources("mangalab.training.sft")
    assert {"mangalab/training/sft.py", "mangalab/training/llama.py"} <= set(found)
    assert "mangalab/book/runner.py" not in found and "mangalab/artifacts.py" not in found
