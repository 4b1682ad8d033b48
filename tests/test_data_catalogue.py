"""The catalogue's size, spread and ranges."""

import re
from collections import Counter

import pytest

from mangalab.data import catalogue

TITLES = catalogue.load()


def test_size_and_uniqueness():
    assert len(TITLES) >= 280
    for field in ("id", "title", "pitch"):
        values = [getattr(title, field).casefold() for title in TITLES]
        assert [value for value, n in Counter(values).items() if n > 1] == []
    assert [t.id for t in TITLES] == sorted(t.id for t in TITLES)


def test_ranges():
    for t in TITLES:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", t.id), t.id
        assert 1950 <= t.year <= 2025, t.id
        assert t.end_year is None or t.year <= t.end_year <= 2025, t.id
        assert t.volumes is None or 1 <= t.volumes <= 250, t.id
        assert t.authors and t.genres, t.id
        assert t.demographic in catalogue.DEMOGRAPHICS, t.id
        assert t.age_rating in catalogue.AGE_RATINGS, t.id
        assert 400 <= t.price_jpy <= 1200 and 0 <= t.stock <= 60, t.id


def test_only_finished_titles_have_an_end():
    assert [t.id for t in TITLES if (t.end_year is None) != (t.volumes is None)] == []
    assert catalogue.by_id("berserk").volumes is None  # goes on after its author's death
    assert catalogue.by_id("my-hero-academia").end_year == 2024


def test_descriptions_are_complete():
    for t in TITLES:
        assert 3 <= len(t.themes) <= 5 and 1 <= len(t.tone) <= 3, t.id
        assert 8 <= len(t.pitch.split()) <= 16 and t.pitch.endswith("."), t.id


def test_spread():
    decades = Counter(t.year // 10 * 10 for t in TITLES)
    assert all(decades[decade] >= 2 for decade in range(1960, 2030, 10)), decades
    demographics = Counter(t.demographic for t in TITLES)
    floors = {"Shonen": 60, "Seinen": 60, "Shojo": 40, "Josei": 12}
    assert all(demographics[name] >= floor for name, floor in floors.items()), demographics
    genres = Counter(genre for t in TITLES for genre in t.genres)
    wanted = ("Sports", "Horror", "Historical", "Iyashikei", "Music", "Boys Love", "Girls Love")
    assert all(genres[genre] >= 5 for genre in (*wanted, "Gourmet")), genres


def test_author_phrase():
    assert catalogue.by_id("berserk").author == "Kentaro Miura"
    assert catalogue.by_id("death-note").author == "Tsugumi Ohba and Takeshi Obata"
    three = catalogue.by_id("pokemon-adventures").author
    assert three == "Hidenori Kusaka, Mato and Satoshi Yamamoto"


def test_unknown_id_says_how_ids_look():
    with pytest.raises(KeyError, match="no title 'One Piece'; ids are slugs"):
        catalogue.by_id("One Piece")
