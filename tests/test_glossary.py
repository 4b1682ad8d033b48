"""The glossary is consistent: one meaning a name, no dead reference, texts of a size to say aloud."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CHAPTERS = {f"{number:02d}" for number in range(1, 19)}
FIELDS = {"term", "aliases", "see", "chapter", "hover", "text"}


def faults(terms: list[dict]) -> list[str]:
    """What is wrong with a glossary, one line a fault."""
    known = {entry["term"] for entry in terms}
    found, meaning = [], {}
    for entry in terms:
        term, see = entry["term"], entry.get("see", [])
        for name in (term, *entry.get("aliases", [])):
            if (other := meaning.setdefault(name.casefold(), term)) != term:
                found.append(f"{term}: {name!r} already names {other!r}")
        if len(set(map(str.casefold, entry.get("aliases", [])))) < len(entry.get("aliases", [])):
            found.append(f"{term}: an alias twice")
        found += [f"{term}: no term {name!r} to see" for name in see if name not in known]
        found += [f"{term}: refers to itself"] * (term in see)
        # Sphinx sets curly quotes in the term, and references to it no longer match
        found += [f"{term}: apostrophe in a term; give that name as an alias"] * ("'" in term)
        if not 40 <= len(entry["text"]) <= 400:
            found.append(f"{term}: {len(entry['text'])} characters")
        if entry["text"].count("$") % 2:
            found.append(f"{term}: maths is not closed")
        if entry.get("chapter", "01") not in CHAPTERS:
            found.append(f"{term}: no chapter {entry['chapter']}")
        found += [f"{term}: unknown field {field}" for field in entry.keys() - FIELDS]
    names = [entry["term"].casefold() for entry in terms]
    if len(set(names)) < len(names) or names != sorted(names):
        found.append("terms are not sorted, or one is there twice")
    return found


@pytest.fixture(scope="module")
def terms():
    return yaml.safe_load((ROOT / "book" / "glossary.yml").read_text(encoding="utf8"))


def test_glossary_is_consistent(terms):
    assert not faults(terms)
    assert len(terms) >= 130


def test_chapters_that_are_written_are_in_the_glossary(terms):
    written = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert written <= {entry.get("chapter") for entry in terms}


GOOD = {"term": "rank", "text": "Number of independent directions of a matrix."}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"aliases": ["LoRA"]}, "already names"),
        ({"see": ["nowhere"]}, "no term"),
        ({"see": ["rank"]}, "itself"),
        ({"text": "short"}, "characters"),
        ({"text": GOOD["text"] + " $r"}, "not closed"),
        ({"chapter": "19"}, "no chapter"),
        ({"colour": "red"}, "unknown field"),
        ({"term": "a rank"}, "not sorted"),
        ({"term": "Moore's rank"}, "apostrophe"),
    ],
)
def test_planted_fault_is_found(change, fault):
    lora = {"term": "LoRA", "text": "Training of a low-rank update beside frozen weights."}
    assert not faults([lora, GOOD])
    assert any(fault in line for line in faults([lora, GOOD | change]))
