"""Every question bank loads, covers the four levels and has enough questions."""

from collections import Counter
from pathlib import Path

import pytest

from mangalab.book.interview import LEVELS, load_bank

BANKS = sorted((Path(__file__).parents[1] / "book" / "interview").glob("*.yml"))


@pytest.mark.parametrize("path", BANKS, ids=[path.stem for path in BANKS])
def test_bank_is_complete(path):
    bank = load_bank(path)
    levels = Counter(question["level"] for question in bank)
    assert len(bank) >= 8 and set(levels) == set(LEVELS)
    assert len({question["id"] for question in bank}) == len(bank)
    assert all(0 < question["minutes"] <= 15 for question in bank)
