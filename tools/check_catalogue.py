"""Compare every row of the catalogue with a fact sheet and print where they disagree.

    python tools/check_catalogue.py --facts manga_facts.tsv

The sheet is tab-separated with a header: english_title, romaji_title, authors, start_year,
end_year, volumes, status, demographic, magazine. Spelling is compared loosely (long vowels,
accents, name order); facts exactly. Exit code 1 on any disagreement. Not part of the test suite.
"""

import argparse
import csv
import re
import sys
import unicodedata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mangalab.data.catalogue import Title, load

# The name printed on English editions -> the sheet's entry for the same person.
SAME_PERSON = {
    "AidaIro": "Iro Aida",
    "Coolkyousinnjya": "Cool-kyou Shinja",
    "Garon Tsuchiya": "Marley Caribu",
    "Mizu Sahara": "Sumomo Yumeka",
    "NISIOISIN": "NISIO ISIN",
    "Nobuaki Minegishi": "Shinmei Minegishi",
    "Sho Fumimura": "Buronson",
    "Sho-u Tajima": "Shouu Tajima",
    "Taskohna": "Task Ohna",
}
ENGLISH_TITLE = {"Kids on the Slope": "Sakamichi no Apollon"}
PERIOD = {"weekly", "monthly", "magazine"}


def words(text: str) -> frozenset[str]:
    """Lower-case words with accents off and long vowels shortened."""
    text = unicodedata.normalize("NFKD", text.replace("☆", " ").replace("★", " "))
    text = "".join(c for c in text if not unicodedata.combining(c)).lower().replace("'", "")
    text = re.sub(r"oh(?=[^aeiou\s]|\b)", "o", re.sub(r"ou|oo", "o", text)).replace("uu", "u")
    return frozenset(re.findall(r"[^\W_]+", text))


def find(title: Title, sheet: list[dict[str, str]]) -> dict[str, str] | None:
    """The sheet's row for a title: by English title, else by its beginning with the same year."""
    wanted = words(ENGLISH_TITLE.get(title.title, title.title))
    for row in sheet:
        if words(row["english_title"]) == wanted:
            return row
    for row in sheet:
        same_start = wanted <= words(row["english_title"]) or words(title.romaji) == words(
            row["romaji_title"]
        )
        if same_start and row["start_year"] == str(title.year):
            return row
    return None


def disagreements(title: Title, row: dict[str, str]) -> list[str]:
    """What differs between a catalogue title and its row of the sheet, in words."""
    finished = row["status"] == "Finished"
    exact = {
        "year": (title.year, row["start_year"]),
        "end_year": (title.end_year or "", row["end_year"] if finished else ""),
        "volumes": (title.volumes or "", row["volumes"] if finished else ""),
    }
    found = [
        f"{name}: {ours}, sheet {theirs}"
        for name, (ours, theirs) in exact.items()
        if str(ours) != theirs
    ]
    for author in title.authors:  # the sheet has cut some names in the wrong place
        if not words(SAME_PERSON.get(author, author)) <= words(row["authors"]):
            found.append(f"author: {author}, sheet {row['authors']}")
    if words(title.demographic) != words(row["demographic"]):
        found.append(f"demographic: {title.demographic}, sheet {row['demographic']}")
    if words(title.magazine) - PERIOD != words(row["magazine"]) - PERIOD:
        found.append(f"magazine: {title.magazine}, sheet {row['magazine']}")
    genres = {genre.strip() for genre in row["genres"].split(";")}
    found += [f"genre: {genre}, not in the sheet" for genre in title.genres if genre not in genres]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facts", type=Path, required=True, help="the fact sheet (TSV)")
    with parser.parse_args().facts.open(encoding="utf8", newline="") as stream:
        sheet = list(csv.DictReader(stream, delimiter="\t"))
    wrong = 0
    for title in load():
        row = find(title, sheet)
        problems = disagreements(title, row) if row else ["not in the sheet"]
        wrong += bool(problems)
        for problem in problems:
            print(f"{title.id}: {problem}")
    print(f"{len(load())} titles compared, {wrong} disagree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
