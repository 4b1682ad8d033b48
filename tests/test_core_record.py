"""The fragment a chapter writes: keys, JSON types, atomic files, imported modules."""

import json
from pathlib import Path

import numpy as np
import pytest

import mangalab
from mangalab.record import (
    Fragment,
    RecordError,
    file_hash,
    imported_modules,
    imported_packages,
    plain,
    write_json,
)


@pytest.fixture
def fragment():
    return Fragment("99-test", "cpu", 0)


def test_same_key_other_value_is_an_error(fragment):
    fragment.put("recall", {"value": 0.5, "text": "50%"})
    fragment.put("recall", {"value": 0.5, "text": "0.5", "unit": "share"})
    assert fragment.values["recall"] == {"value": 0.5, "text": "0.5", "unit": "share"}
    with pytest.raises(RecordError, match=r"'recall' is 0\.5 already and now 0\.6"):
        fragment.put("recall", {"value": 0.6, "text": "60%"})


def test_same_id_other_contents_is_an_error(fragment):
    fragment.add("claims", {"id": "003-01", "verdict": "held"})
    fragment.add("claims", {"id": "003-01", "verdict": "held"})
    assert len(fragment.claims) == 1
    with pytest.raises(RecordError, match="claims '003-01' was recorded twice"):
        fragment.add("claims", {"id": "003-01", "verdict": "refuted"})


def test_plain_gives_json_types():
    import torch

    mixed = {"a": np.float32(0.5), 2: (np.int64(3), torch.tensor(4.0)), "n": float("nan")}
    assert plain(mixed) == {"a": 0.5, "2": [3, 4.0], "n": None}
    assert plain(np.arange(3)) == [0, 1, 2] and plain(np.bool_(True)) is True
    assert plain(torch.tensor([[1.0, float("inf")]])) == [[1.0, None]]
    assert plain(np.array([1.5])) == [1.5] and plain("x") == "x" and plain(None) is None
    json.dumps(plain(mixed))
    with pytest.raises(RecordError, match=r"cannot record a \w*Path"):
        plain({"path": Path()})


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "deep" / "record.json"
    write_json(target, {"run": 1})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_json(target, {"run": 2})
    assert json.loads(target.read_bytes()) == {"run": 1}


def test_written_fragment(fragment, tmp_path, monkeypatch):
    monkeypatch.delenv("MANGALAB_FRAGMENT", raising=False)
    fragment.write()
    assert not list(tmp_path.iterdir())
    target = tmp_path / "fragment.json"
    monkeypatch.setenv("MANGALAB_FRAGMENT", str(target))
    fragment.put("name", {"value": "漫画", "text": "漫画"})
    fragment.write()
    found = json.loads(target.read_text(encoding="utf8"))
    assert found["schema"] == 1 and found["complete"] is False
    assert found["values"]["name"]["text"] == "漫画"
    assert [path.name for path in tmp_path.iterdir()] == ["fragment.json"]
    assert found["modules"]["mangalab/record.py"] == file_hash(
        Path(mangalab.__file__).with_name("record.py")
    )


def test_imported_modules_are_of_this_package_only():
    found = imported_modules()
    assert {"mangalab/__init__.py", "mangalab/record.py"} <= set(found)
    assert all(name.startswith("mangalab/") and len(sha) == 64 for name, sha in found.items())
    assert all((Path(mangalab.__file__).parents[1] / name).is_file() for name in found)


def test_the_press_is_no_input_of_a_chapter():
    import mangalab.book.interview  # noqa: F401  what lab.drill() imports

    assert not [name for name in imported_modules() if name.startswith("mangalab/book/")]


def test_imported_packages_are_named_as_in_the_lock():
    import sklearn  # noqa: F401

    assert {"numpy", "scikit-learn"} <= set(imported_packages())


def test_hash_ignores_line_ends_and_sees_edits(tmp_path):
    unix, windows, other = (tmp_path / name for name in ("a.py", "b.py", "c.py"))
    unix.write_bytes(b"x = 1\ny = 2\n")
    windows.write_bytes(b"x = 1\r\ny = 2\r\n")
    other.write_bytes(b"x = 1\ny = 3\n")
    first = file_hash(unix)
    assert first == file_hash(windows) != file_hash(other)
    unix.write_bytes(b"edited by somebody\n")
    assert file_hash(unix) != first


def test_a_module_keeps_the_hash_that_was_run(monkeypatch):
    before = imported_modules()
    monkeypatch.setattr("mangalab.record.file_hash", lambda path: "edited while the chapter runs")
    assert imported_modules() == before
