"""Reading data files, their checksums and their cards."""

import subprocess
import sys
from pathlib import Path

import pytest

from mangalab.data import _files

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "TEXT", tmp_path)
    monkeypatch.setattr(_files, "_opened", {})
    return tmp_path


def test_rows_keep_quotes_and_skip_notes(folder):
    (folder / "a.tsv").write_bytes(b'# note\nid\ttext\nx\tsay "hi"\r\n\ny\t\n')
    assert _files.read_rows("a.tsv") == [{"id": "x", "text": 'say "hi"'}, {"id": "y", "text": ""}]


def test_broken_row_names_file_and_line(folder):
    (folder / "a.tsv").write_text("id\ttext\nx\ty\tz\n", encoding="utf8")
    with pytest.raises(ValueError, match=r"a\.tsv, line 2: 3 fields, the header has 2"):
        _files.read_rows("a.tsv")


def test_unknown_file_lists_those_there(folder):
    (folder / "a.tsv").touch()
    with pytest.raises(FileNotFoundError, match=r"no data file 'b\.tsv'.*there are: a\.tsv"):
        _files.read_text("b.tsv")


def test_opened_notes_what_was_read(folder):
    (folder / "a.tsv").write_bytes(b"abc\r\n")
    _files.read_text("a.tsv")
    assert _files.opened() == {"a.tsv": _files.checksums()["a.tsv"]}
    unix = "edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb"
    assert _files.opened()["a.tsv"] == unix  # sha256 of b"abc\n", on Windows too


def test_changed_files_are_named_and_still_readable(folder):
    for name in ("same.tsv", "edited.tsv", "new.tsv"):
        (folder / name).write_text("x", encoding="utf8")
    digest = _files.checksums()["same.tsv"]
    lines = [f"{digest}  same.tsv\n", f"{'0' * 64}  edited.tsv\n", f"{digest}  gone.tsv\n"]
    (folder / _files.CHECKSUMS).write_text("".join(lines), encoding="utf8")
    assert _files.changed_files() == ("edited.tsv", "gone.tsv", "new.tsv")
    assert _files.read_text("edited.tsv") == "x"


def test_recorded_checksums_are_true():
    changed = _files.changed_files()
    assert not changed, f"run `python tools/data_checksums.py --write` if {changed} are meant"


def test_every_data_file_has_a_card():
    cards = " ".join(path.read_text(encoding="utf8") for path in _files.CARDS.glob("*.md"))
    assert [name for name in _files.data_files() if name not in cards] == []


def test_data_files_are_clean_text():
    for name in _files.data_files():
        text = _files.TEXT.joinpath(name).read_bytes().decode("utf8")
        assert text.endswith("\n"), name
        assert "\ufeff" not in text, name
        assert not [line for line in text.split("\n") if line.endswith(" ")], name


def test_data_import_needs_only_the_standard_library():
    heavy = "{'torch', 'numpy', 'pandas', 'transformers', 'sklearn'}"
    code = f"import sys, mangalab.data.qa, mangalab.data.leakage; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr
