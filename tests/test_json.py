"""docs/json.md names the fields that the commands print, no more and no fewer."""

import json
import re

import pytest
from test_accept import ROOT, book, call, passed  # noqa: F401
from test_times import executed
from test_tools import adapter  # noqa: F401

TIMES = ["status", "05", "--times"]

ROWS = dict(
    re.match(r"\| (.+?) \| (.+) \|$", line).groups()
    for line in (ROOT / "docs" / "json.md").read_text(encoding="utf8").splitlines()
    if line.startswith("| ") and "`" in line
)


def fields(row: str) -> set[str]:
    """Names in backquotes of a row, without what stands in brackets or after a semicolon."""
    text = re.sub(r"\([^()]*\)", "", ROWS[row]).partition(";")[0]
    return set(re.findall(r"`([a-z_0-9]+)`", text))


def printed(*arguments: str) -> dict:
    """What a command prints, which must be one JSON object."""
    found = json.loads(call(*arguments, "--json").stdout)
    assert found["schema"] == (2 if arguments[0] == "estimate" else 1)
    return found


@pytest.mark.parametrize(
    ("row", "arguments", "inner", "place"),
    [
        ("`status`", ["status"], "… each of `chapters`", lambda told: told["chapters"][0]),
        ("`status --times`", TIMES, "… each of its `chapters`", lambda told: told["chapters"][0]),
        ("`status --times`", TIMES, "… each of its `cells`", lambda told: told["cells"][0]),
        ("`why`", ["why", "05"], None, None),
        ("`doctor`", ["doctor"], "… each of `findings`", lambda told: told["findings"][0]),
        ("`diff`", ["diff"], None, None),
        ("`spectrum`", ["spectrum", "ADAPTER"], "… `summary`", lambda told: told["summary"]),
        ("`estimate`", ["estimate", "llama-3-8b"], None, None),
        ("`estimate --list`", ["estimate", "--list"], None, None),
    ],
)
def test_documented_fields_are_printed(book, adapter, monkeypatch, row, arguments, inner, place):  # noqa: F811
    from mangalab.book import doctor

    monkeypatch.setattr(doctor, "models", doctor.ports)  # no model is looked at here
    passed(book, "05-x")
    executed(book, "05-x")
    told = printed(*(str(adapter) if word == "ADAPTER" else word for word in arguments))
    assert set(told) == fields(row)
    if inner:
        assert set(place(told)) == fields(inner)
    if row == "`diff`":
        text = (ROOT / "reference" / "README.md").read_text(encoding="utf8")
        names = {*told["chapters"][0], *told["counts"]}
        assert {name for name in names if f"`{name}`" not in text} == set()
