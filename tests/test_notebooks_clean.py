"""Notebooks are stored clean, and the cleaner does what it says."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import clean_notebooks  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook_is_clean(path):
    assert clean_notebooks.clean(path, check=True), "run tools/clean_notebooks.py notebooks"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapter_has_parameters_and_an_entry(path):
    from mangalab.book import chapters, keys, notebook
    from mangalab.book.project import PROFILES, Project

    entry = chapters.load(Project(ROOT))[path.stem]
    for profile in PROFILES:
        assert profile in entry.budget
        keys.prepare(notebook.read(path), entry, profile, None)


def test_cleaning_drops_outputs_and_keeps_tags(tmp_path):
    code = new_code_cell("1 + 1\n", metadata={"tags": ["parameters"], "papermill": {"a": 1}})
    code.outputs, code.execution_count = [new_output("stream", text="2")], 7
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A"), code]), path)
    assert clean_notebooks.main(["--check", str(path)]) == 1
    assert clean_notebooks.main([str(tmp_path)]) == 0
    cell = nbformat.read(path, as_version=4).cells[1]
    assert (cell.outputs, cell.execution_count, cell.source) == ([], None, "1 + 1")
    assert cell.metadata == {"tags": ["parameters"]}
    assert clean_notebooks.main(["--check", str(path)]) == 0
