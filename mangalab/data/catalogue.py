"""The shop's catalogue: real manga titles with checked facts and hand-written descriptions."""

from dataclasses import dataclass
from functools import cache

from mangalab.data._files import read_rows

DEMOGRAPHICS = ("Shonen", "Shojo", "Seinen", "Josei", "Kids", "")
AGE_RATINGS = ("all", "13", "16", "18")


@dataclass(frozen=True)
class Title:
    """One manga of the catalogue; `end_year` and `volumes` are None until it is finished."""

    id: str
    title: str
    romaji: str
    authors: tuple[str, ...]  # story first, then art, where two people made it
    year: int  # start of serialisation
    end_year: int | None
    volumes: int | None
    demographic: str  # one of DEMOGRAPHICS; "" where the magazine has no fixed one
    magazine: str  # the last one; "" where there was none
    genres: tuple[str, ...]
    themes: tuple[str, ...]
    tone: tuple[str, ...]
    age_rating: str  # one of AGE_RATINGS
    price_jpy: int  # invented, volatile
    stock: int  # invented, volatile
    pitch: str

    @property
    def author(self) -> str:
        """All authors as one phrase: "A", "A and B", "A, B and C"."""
        *others, last = self.authors
        return f"{', '.join(others)} and {last}" if others else last


@cache
def load() -> tuple[Title, ...]:
    """Every title of the catalogue, sorted by id."""
    return tuple(_title(row) for row in read_rows("catalogue.tsv"))


def by_id(title_id: str) -> Title:
    """The title with this id; KeyError, saying how ids look, where there is none."""
    index = _index()
    if title_id not in index:
        raise KeyError(f"no title {title_id!r}; ids are slugs of the English title ('one-piece')")
    return index[title_id]


@cache
def _index() -> dict[str, Title]:
    return {title.id: title for title in load()}


def _title(row: dict[str, str]) -> Title:
    """A catalogue row with its lists split and its numbers read."""
    lists = {name: _split(row[name]) for name in ("authors", "genres", "themes", "tone")}
    numbers = {name: int(row[name]) for name in ("year", "price_jpy", "stock")}
    optional = {name: int(row[name]) if row[name] else None for name in ("end_year", "volumes")}
    return Title(**{**row, **lists, **numbers, **optional})


def _split(field: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in field.split(";") if part.strip())
