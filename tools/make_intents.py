"""Make the intent messages for training and validation from the hand-written lines and the grammar.

    python tools/make_intents.py           # exit 1 if the committed files differ from what is made
    python tools/make_intents.py --write   # after a change to the seeds, the grammar or the styles

Reads intents_seeds.tsv, intents_grammar.yml and intents_styles.yml; writes intents_train.tsv,
intents_validation.tsv and intents_train_multi.tsv, all in mangalab/data/text.
"""

import argparse
import random
import re
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mangalab.data._files import TEXT, read_rows, read_text
from mangalab.data.intents import INTENTS, TRAFFIC

SIZES = {"train": 2600, "validation": 520}
FLOOR = {"train": 0, "validation": 27}  # at least so many of every intent
MULTI = 300
RATES = {"jargon": 0.22, "slang": 0.15, "jp_mix": 0.09}
TYPOS = 0.08
SHORT, LONG = 4, 25  # words: at most, at least
TRIES = 60  # draws before a message is taken without the style that was wanted
JARGON_ENDS = {"product_discovery", "product_question", "recommendation", "return_request"}
CONTEXT_FITS = set(INTENTS) - {"chitchat", "escalation", "promotion", "checkout_help"}
CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
NEIGHBOURS = dict(zip("abcdeghiklmnoprstuvwy", "sbvfwhjkjolmipetryvqt", strict=True))


class Grammar:
    """Draws plain messages: templates in a shuffled round, slots and alternatives at random."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.source = yaml.safe_load(read_text("intents_grammar.yml"))
        self.styles = yaml.safe_load(read_text("intents_styles.yml"))
        self.multi = self.styles.pop("multi")
        self.slots = {name: _items(text) for name, text in self.source["slots"].items()}
        self.words = {style: set(self.styles[style]["words"].split()) for style in RATES}
        self.rounds: dict[str, list[str]] = {}

    def template(self, block: str) -> str:
        """Next template of a block; none comes back before all of them had their turn."""
        left = self.rounds.setdefault(block, [])
        if not left:
            left.extend(block.strip().split("\n"))
            self.rng.shuffle(left)
        return left.pop()

    def fill(self, template: str) -> str:
        """Choose among the alternatives, fill the slots without using one filler twice."""
        text = re.sub(r"\[([^\[\]]*)\]", lambda m: self.rng.choice(m[1].split("|")), template)
        used: set[str] = set()

        def slot(match: re.Match[str]) -> str:
            choices = [item for item in self.slots[match[1]] if item not in used]
            used.add(choice := self.rng.choice(choices))
            return choice

        return _tidy(re.sub(r"\{(\w+)\}", slot, text))

    def message(self, split: str, intent: str) -> str:
        """One plain message of `intent`, now and then with a greeting, a context or a closing."""
        text = self.fill(self.template(self.source[split][intent]))
        frames, draw = self.source["frames"][split], self.rng.random
        if intent in CONTEXT_FITS and draw() < 0.16:
            context = self.fill(self.rng.choice(frames["context"]))
            text = f"{context} {text}"
        if intent != "chitchat" and draw() < 0.16:
            text = f"{self.rng.choice(frames['opener'])}, {text}"
        if intent != "chitchat" and draw() < 0.16:
            text = f"{text}, {self.rng.choice(frames['closer'])}"
        return _tidy(text)

    def joined(self, pair: str) -> tuple[str, tuple[str, ...]]:
        """Two clauses, sometimes three, in either order; and their intents in that order."""
        names = pair.split()
        self.rng.shuffle(names)
        if self.rng.random() < 0.06:
            names.append(self.rng.choice([name for name in INTENTS if name not in names]))
        clauses = self.multi["clauses"]
        text = self.fill(self.template(clauses[names[0]]))
        for name in names[1:]:
            join = self.template(self.multi["joins"])
            gap = "" if join[0] in ",.;?" else " "
            text += gap + join.format(b=self.fill(self.template(clauses[name])))
        return _tidy(text), tuple(names)

    def styled(self, text: str, style: str, ends: bool) -> str:
        """Put jargon, slang or Japanese words into a message; unchanged where nothing fits."""
        rules = self.styles[style]
        fits = [p for p in rules["replace"] if re.search(rf"\b{re.escape(p)}\b", text, re.I)]
        self.rng.shuffle(fits)
        for plain in fits[: self.rng.choice((1, 1, 2))]:
            variant = self.rng.choice(rules["replace"][plain])
            text = re.sub(rf"\b{re.escape(plain)}\b", variant, text, count=1, flags=re.I)
        if ends and (not fits or self.rng.random() < 0.15):
            text = text.rstrip("?.!") + self.rng.choice(rules["end"])
        return text

    def typed(self, text: str) -> str:
        """Lower case mostly, few full stops, question marks and apostrophes often left out."""
        draw = self.rng.random
        if draw() < 0.12:
            text = text.replace("'", "")
        text = text.lower() if draw() < 0.6 else text[:1].upper() + text[1:]
        asks = re.match(r"(do|does|is|are|can|which|what|when|who|how|where)\b", text, re.I)
        if asks and text[-1].isalnum() and draw() < 0.45:
            return text + self.rng.choice(("?", "?", "?", " ?", "??"))
        return text + ("." if text[-1].isalnum() and draw() < 0.12 else "")

    def misspelt(self, text: str) -> str:
        """One or two slips of the fingers: letters swapped, dropped, doubled or missed."""
        for _ in range(self.rng.choice((1, 1, 2))):
            words = [m for m in re.finditer(r"\b[a-z]{4,}\b", text) if m[0].isascii()]
            if not words:
                return text
            place = self.rng.choice(words)
            text = text[: place.start()] + self._slip(place[0]) + text[place.end() :]
        return text

    def _slip(self, word: str) -> str:
        i = self.rng.randrange(1, len(word) - 1)
        kind = self.rng.randrange(4)
        if kind == 0:
            return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        if kind == 1:
            return word[:i] + word[i + 1 :]
        if kind == 2:
            return word[:i] + word[i] + word[i:]
        return word[:i] + NEIGHBOURS.get(word[i], word[i]) + word[i + 1 :]

    def style_of(self, text: str) -> set[str]:
        """Styles that the words of a message show."""
        words = {word.strip(".,?!:;()\"'") for word in text.lower().split()}
        found = {style for style in RATES if words & self.words[style]}
        return found | ({"jp_mix"} if CJK.search(text) else set())

    def slices(self, text: str, typo: bool) -> str:
        """Slices of a message, as the TSV files have them."""
        found = [style for style in RATES if style in self.style_of(text)]
        found += ["typo"] if typo else []
        found = found or ["plain"]
        length = len(text.split())
        found += ["short"] if length <= SHORT else ["long"] if length >= LONG else []
        return ";".join(found)


def _items(text: str) -> list[str]:
    return [part for part in re.split(r"[;\n]", text.strip()) if part]


def _tidy(text: str) -> str:
    text = re.sub(r"\s+([,.?!;])", r"\1", re.sub(r"\s+", " ", text)).strip(" ,")
    text = re.sub(r"\ba (?=[aeio]|uplift)", "an ", text)
    return re.sub(r"([,.?!;:])(?:,|\.(?= ))+", r"\1", text)


def _key(text: str) -> str:
    return re.sub(r"\W", "", text.lower())


def draw_row(grammar: Grammar, rates: dict[str, float], draw) -> tuple[str, tuple[str, ...], bool]:
    """Draw messages until one shows just the styles that the dice asked for."""
    rng = grammar.rng
    wanted = {style for style in RATES if rng.random() < rates[style]}
    for _ in range(TRIES):
        text, intents = draw()
        for style in sorted(wanted - grammar.style_of(text)):
            ends = style != "jargon" or intents[0] in JARGON_ENDS
            text = grammar.styled(text, style, ends)
        if grammar.style_of(text) == wanted:
            break
    text = grammar.typed(text)
    changed = grammar.misspelt(text) if rng.random() < rates["typo"] else text
    return changed, intents, changed != text


def left_over(rows: list[tuple], grammar: Grammar, total: int) -> dict[str, float]:
    """Rate each style needs in the rows to come, so that all rows together meet RATES."""
    room = max(total - len(rows), 1)
    have = {s: sum(s in grammar.style_of(text) for text, _, _ in rows) for s in RATES}
    rates = {s: (RATES[s] * total - have[s]) / room for s in RATES}
    return rates | {"typo": (TYPOS * total - sum(typo for *_, typo in rows)) / room}


def single(grammar: Grammar, split: str) -> list[tuple[str, tuple[str, ...], bool]]:
    """Hand-written lines first, then grammar rows until every intent has its share."""
    seeds = [row for row in read_rows("intents_seeds.tsv") if row["split"] == split]
    rows = [(row["text"], (row["intent"],), row["typo"] == "1") for row in seeds]
    seen = {_key(text) for text, _, _ in rows}
    share = dict(zip(INTENTS, TRAFFIC, strict=True))
    goal = {name: max(FLOOR[split], round(share[name] * SIZES[split])) for name in INTENTS}
    rates = left_over(rows, grammar, sum(goal.values()))
    for intent in INTENTS:
        missing = goal[intent] - sum(row["intent"] == intent for row in seeds)
        while missing > 0:
            row = draw_row(
                grammar, rates, lambda name=intent: (grammar.message(split, name), (name,))
            )
            if _key(row[0]) not in seen:
                seen.add(_key(row[0]))
                rows.append(row)
                missing -= 1
    grammar.rng.shuffle(rows)
    return rows


def several(grammar: Grammar) -> list[tuple[str, tuple[str, ...], bool]]:
    """Messages with two or three intents, every listed pair about equally often."""
    rates = RATES | {"typo": TYPOS}
    pairs = grammar.multi["pairs"]
    return [
        draw_row(grammar, rates, lambda: grammar.joined(grammar.template(pairs)))
        for _ in range(MULTI)
    ]


def table(grammar: Grammar, rows: list[tuple], prefix: str) -> str:
    """Rows as TSV text with the columns id, text, intents, slices."""
    lines = ["id\ttext\tintents\tslices"]
    for number, (text, intents, typo) in enumerate(rows, start=1):
        slices = grammar.slices(text, typo)
        lines.append(f"{prefix}-{number:04d}\t{text}\t{';'.join(intents)}\t{slices}")
    return "\n".join(lines) + "\n"


def make() -> dict[str, str]:
    """File name -> content. Every split has its own seed, so that one can change alone."""
    train, validation, multi = (Grammar(random.Random(seed)) for seed in (101, 102, 103))
    return {
        "intents_train.tsv": table(train, single(train, "train"), "tr"),
        "intents_validation.tsv": table(validation, single(validation, "validation"), "va"),
        "intents_train_multi.tsv": table(multi, several(multi), "tm"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the three files")
    made = make()
    if parser.parse_args().write:
        for name, text in made.items():
            (TEXT / name).write_text(text, encoding="utf8", newline="\n")
        return 0
    stale = [name for name, text in made.items() if read_text(name) != text]
    for name in stale:
        print(f"{name} is not what the grammar makes; if that is meant: --write")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
