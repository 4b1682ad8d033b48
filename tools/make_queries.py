"""Write the training queries of chapters 02 and 03 from their grammar, and all judgments by the rule.

    python tools/make_queries.py           # exit 1 and name the files that differ
    python tools/make_queries.py --write

The hand-written queries of validation and test are read, never written. A made query is dropped when
no title meets it fully, when more than 60 do, or when it reads like a hand-written one.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mangalab.data import _files, catalogue, leakage, relevance, retrieval
from mangalab.data.relevance import Need

SEED = 20
MOST = 60  # titles that meet a query fully
ALIKE = 0.5  # Jaccard index of 5-grams at which a made query counts as a hand-written one
TYPOS = 0.08
FORGOTTEN = 0.35  # share of a pitch's words that a made description lacks
COLUMNS = ("id", "query", "slices", "core", "soft", "never", "hard", "like", "find")
SLICE = {
    **dict.fromkeys(("finished", "volumes", "demo", "age", "year", "author"), "constraint"),
    **{"price": "constraint;volatile", "stock": "constraint;volatile", "like": "like_but"},
    **{"topic_mood": "topic", "two_topics": "topic", "pitch": "plot"},
}
Made = tuple[dict[str, str], Need]


class Maker:
    """Draws the parts of one query: what fills the template, and the need that it states."""

    def __init__(self, grammar: dict, rng: random.Random) -> None:
        known = [c for c in relevance.concepts().values() if not c.held_out and c.words]
        self.topics = [c for c in known if c.kind == "topic"]
        self.moods = [c for c in known if c.kind == "mood"]
        self.titles = [t for t in catalogue.load() if t.id not in retrieval.held_out()]
        self.grammar, self.rng = grammar, rng

    def draw(self, kind: str) -> Made:
        """Fillings and need of one query of a kind."""
        special: dict[str, Callable[[], Made]] = {
            "mood": self.mood, "like": self.like, "like_but": self.like, "plot": self.plot,
            "known_item": self.known_item, "author": self.author, "pitch": self.pitch,
        }
        return special.get(kind, lambda: self.about(kind))()

    def about(self, kind: str) -> Made:
        """A topic, with whatever else the kind asks of it."""
        topic, other = self.rng.sample(self.topics, 2)
        mood, hard, fill = self.rng.choice(self.moods), "", {}
        if kind in ("finished", "volumes", "demo", "age", "price", "stock", "year"):
            fill, hard = self.condition(kind)
        conditions = ("finished", hard) if kind == "volumes" else tuple(filter(None, (hard,)))
        words = self.grammar["japanese"].get(topic.name) if kind == "jp_mix" else None
        fill |= {
            "t": words if words and self.rng.random() < 0.5 else self.rng.choice(topic.words),
            "u": self.rng.choice(other.words), "m": self.rng.choice(mood.words), "mood": mood.name,
        }
        core = (topic.name, other.name) if kind == "two_topics" else (topic.name,)
        never = (other.name,) if kind == "negation" else ()
        return fill, Need(core=core, never=never, hard=conditions)

    def condition(self, kind: str) -> tuple[dict[str, str], str]:
        """A hard condition and how the template says it."""
        ranges = {"volumes": (3, 15), "price": (500, 800), "year": (2005, 2020)}
        if kind in ranges:
            number = self.rng.randint(*ranges[kind]) // (50 if kind == "price" else 1)
            number *= 50 if kind == "price" else 1
            return {"n": str(number)}, f"{kind}{'>=' if kind == 'year' else '<='}{number}"
        if kind == "demo":
            name = self.rng.choice(("Shonen", "Shojo", "Seinen", "Josei"))
            return {"d": name.lower()}, f"demo={name}"
        return {}, {"finished": "finished", "age": "age<=13", "stock": "stock"}[kind]

    def mood(self) -> Made:
        mood = self.rng.choice(self.moods)
        return {"m": self.rng.choice(mood.words)}, Need(core=(mood.name,))

    def like(self) -> Made:
        """A title's own topics, up to two, the rarer first."""
        title, mood = self.rng.choice(self.titles), self.rng.choice(self.moods)
        held = sorted((c for c in self.topics if title.id in c.central), key=lambda c: len(c.central))
        core = tuple(c.name for c in held[:2])
        fill = {"x": title.title, "m": self.rng.choice(mood.words), "mood": mood.name}
        return fill, Need(core=core, like=title.id)

    def known_item(self) -> Made:
        title = self.rng.choice(self.titles)
        name = misremembered(self.rng.choice((title.title, title.romaji)), self.rng)
        return {"x": name}, Need(find=(title.id,))

    def plot(self) -> Made:
        title = self.rng.choice(self.titles)
        themes = self.rng.sample(title.themes, 3)
        return dict(zip("pqr", themes, strict=True)), Need(find=(title.id,))

    def pitch(self) -> Made:
        """What is left of a title's pitch in somebody's memory."""
        title = self.rng.choice(self.titles)
        words = title.pitch.lower().rstrip(".").replace(",", "").split()
        kept = [word for word in words if self.rng.random() > FORGOTTEN]
        return {"p": " ".join(kept)}, Need(find=(title.id,))

    def author(self) -> Made:
        name = self.rng.choice(self.rng.choice(self.titles).authors)
        return {"a": name}, Need(hard=(f"author={name}",))


def misremembered(name: str, rng: random.Random) -> str:
    """A title as somebody recalls it: lower case, a word lost or moved, or a slip of the finger."""
    words, chance = name.lower().split(), rng.random()
    if len(words) > 2 and chance < 0.4:
        words.pop(rng.randrange(len(words)))
    elif len(words) > 1 and chance < 0.55:
        words = words[1:] + words[:1]
    text = " ".join(words)
    return slip(text, rng) if chance > 0.6 else text


def slip(text: str, rng: random.Random) -> str:
    """The text with one letter dropped, doubled, or swapped with the next."""
    places = [i for i in range(1, len(text) - 1) if text[i : i + 2].isalpha() and text[i].isascii()]
    if not places:
        return text
    i = rng.choice(places)
    before, letter, after = text[:i], text[i], text[i + 1 :]
    return before + rng.choice((after, letter + letter + after, after[0] + letter + after[1:]))


def train_rows(grammar: dict) -> Iterator[tuple[str, str, Need]]:
    """Text, slices and need of every training query, shuffled."""
    rng = random.Random(SEED)
    maker, found, seen = Maker(grammar, rng), [], set()
    for kind, count in grammar["counts"].items():
        wanted = len(found) + count
        for _ in range(40 * count):
            if len(found) == wanted:
                break
            made = one(maker, kind, rng)
            if made and leakage.normalise(made[0]) not in seen:
                seen.add(leakage.normalise(made[0]))
                found.append(made)
    rng.shuffle(found)
    written = [q.text for split in ("validation", "test") for q in retrieval.queries(split)]
    alike = {p.left for p in leakage.near_duplicates([f[0] for f in found], written, ALIKE)}
    yield from (made for made in found if made[0] not in alike)


def one(maker: Maker, kind: str, rng: random.Random) -> tuple[str, str, Need] | None:
    """One query, or None where no title or too many meet it."""
    fill, need = maker.draw(kind)
    template = rng.choice(maker.grammar[kind])
    if "{m}" in template and need.core and kind != "mood":
        need = Need(need.core, (fill["mood"],), need.never, need.hard, need.like, need.find)
    text, slices = template.format(**fill), SLICE.get(kind, kind)
    if kind not in ("known_item", "jp_mix") and rng.random() < TYPOS:
        text, slices = slip(text, rng), slices + ";typo"
    if not (need.core or need.hard or need.find):
        return None
    full = sum(relevance.grade(need, title) == relevance.TOP for title in maker.titles)
    return (text, slices, need) if 1 <= full <= MOST else None


def judgment_lines(split: str, needs: dict[str, Need]) -> str:
    """The judgments file of one split; held-out titles are left out of training."""
    by_hand = {(o.query_id, o.title_id): o.grade for o in retrieval.overrides()}
    hidden = retrieval.held_out() if split == "train" else frozenset()
    lines = ["query_id\ttitle_id\tgrade"]
    for name, need in needs.items():
        for title in catalogue.load():
            grade = by_hand.get((name, title.id), relevance.grade(need, title))
            if grade and title.id not in hidden:
                lines.append(f"{name}\t{title.id}\t{grade}")
    return "\n".join(lines) + "\n"


def make() -> dict[str, str]:
    """Name and contents of every file that this tool writes."""
    import yaml

    grammar = yaml.safe_load(_files.read_text("queries_grammar.yml"))
    lines, needs = ["\t".join(COLUMNS)], {}
    for number, (text, slices, need) in enumerate(train_rows(grammar), start=1):
        name = f"rq-{number:04}"
        needs[name] = need
        lists = [";".join(x) for x in (need.core, need.soft, need.never, need.hard)]
        lines.append("\t".join([name, text, slices, *lists, need.like, ";".join(need.find)]))
    files = {"queries_train.tsv": "\n".join(lines) + "\n"}
    files["judgments_train.tsv"] = judgment_lines("train", needs)
    for split in ("validation", "test"):
        hand = {query.id: query.need for query in retrieval.queries(split)}
        files[f"judgments_{split}.tsv"] = judgment_lines(split, hand)
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the files")
    write, differing = parser.parse_args().write, []
    for name, text in make().items():
        path = _files.TEXT / name
        if not path.is_file() or path.read_bytes() != text.encode("utf8"):
            differing.append(name)
        if write:
            path.write_bytes(text.encode("utf8"))
    print(f"{'wrote' if write else 'differ:'} {', '.join(differing) or 'nothing'}")
    return int(bool(differing) and not write)


if __name__ == "__main__":
    sys.exit(main())
