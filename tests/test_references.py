"""Every entry of references.bib is cited on the bibliography page, once defined and complete."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIB = (ROOT / "references.bib").read_text(encoding="utf8")
ENTRY = re.compile(r"^@\w+\{(\w+),(.*)\}$", re.MULTILINE)


def entries() -> dict[str, str]:
    """Fields of each entry, by key; an entry is one line."""
    return dict(ENTRY.findall(BIB))


def test_bibliography_page_cites_every_entry():
    page = (ROOT / "book" / "bibliography.md").read_text(encoding="utf8")
    roles = re.findall(r"\{cite:[tp]\}`([^`]+)`", page)
    assert {key.strip() for role in roles for key in role.split(",")} == set(entries())


def test_keys_are_unique_and_carry_the_year():
    counts = Counter(re.findall(r"^@\w+\{(\w+),", BIB, re.MULTILINE))
    assert set(counts) == set(entries()) and max(counts.values()) == 1
    for key, fields in entries().items():
        year = re.search(r"year=\{(\d{4})\}", fields)
        assert year and year[1] in key, key
        assert "title={" in fields and "author={" in fields, key


def test_arxiv_number_agrees_with_year_and_address():
    for key, fields in entries().items():
        if number := re.search(r"journal=\{arXiv:((\d\d)\d\d\.\d{4,5})\}", fields):
            assert f"year={{20{number[2]}}}" in fields, key
            assert f"url={{https://arxiv.org/abs/{number[1]}}}" in fields, key
