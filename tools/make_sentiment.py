"""Write the training turns of chapter 08 from hand-written lines and the grammar.

    python tools/make_sentiment.py           # exit 1 if the committed file differs
    python tools/make_sentiment.py --write   # after a change to seeds, grammar or catalogue

The hand-written turns of validation and test are read, never written: a made turn that reads like
one of them is dropped. Labels are those of the block, without noise.
"""

import argparse
import random
import re
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mangalab.data import catalogue, leakage, sentiment
from mangalab.data._files import TEXT, read_rows, read_text

SEED = 80
FILE = "sentiment_train.tsv"
ALIKE = 0.5  # Jaccard index of 5-grams at which a made turn counts as a hand-written one
SPARE = 20  # turns drawn beyond those needed, since some are dropped
TYPOS, SLANG, GREETING, CLOSING, SHOUTED = 0.08, 0.15, 0.10, 0.08, 0.02
STYLES = ("jargon", "slang", "jp_mix")  # found by the word lists of intents_styles.yml
SHORT, LONG = 4, 25  # words: at most, at least
CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
COLUMNS = ("id", "conversation", "turn", "minutes", "text", "reply", "labels", "slices", "split")
NEIGHBOURS = dict(zip("abcdeghiklmnoprstuvwy", "sbvfwhjkjolmipetryvqt", strict=True))


class Maker:
    """Draws turns: templates in a shuffled round, slots and alternatives at random."""

    def __init__(self, grammar: dict, rng: random.Random) -> None:
        self.grammar, self.rng = grammar, rng
        self.slots = {name: _items(text) for name, text in grammar["slots"].items()}
        self.slots["t"] = [title.title for title in catalogue.load() if len(title.title) <= 24]
        self.rounds: dict[str, list[str]] = {}
        styles = yaml.safe_load(read_text("intents_styles.yml"))
        self.words = {name: set(styles[name]["words"].split()) for name in STYLES}

    def line(self, block: str) -> str:
        """Next line of a block, filled; no line comes back before all of them had their turn."""
        left = self.rounds.setdefault(block, [])
        if not left:
            source = self.grammar["blocks"].get(block) or self.grammar[block]
            left.extend(source.strip().split("\n"))
            self.rng.shuffle(left)
        return self.fill(left.pop())

    def fill(self, template: str) -> str:
        """Choose among the alternatives, fill the slots without using one filler twice."""
        text = re.sub(r"\[([^\[\]]*)\]", lambda m: self.rng.choice(m[1].split("|")), template)
        used: set[str] = set()

        def slot(match: re.Match[str]) -> str:
            if match[1] == "b":
                return "{b}"
            used.add(choice := self.rng.choice([x for x in self.slots[match[1]] if x not in used]))
            return self.fill(choice) if "{" in choice else choice

        return re.sub(r"\{(\w+)\}", slot, text)

    def joined(self, block: str) -> str:
        """A line of each part of the block, in either order unless praise meets a complaint."""
        parts = block.split(" + ")
        contrast = parts == ["satisfaction", "frustration"]
        if not contrast or self.rng.random() < 0.3:
            self.rng.shuffle(parts)
        text = self.line(parts[0])
        for part in parts[1:]:
            text += self.line("contrasts" if contrast else "joins").replace("{b}", self.line(part))
        return text

    def typed(self, text: str, calm: bool) -> str:
        """The way people type: greetings, abbreviations, lower case, full stops left out."""
        draw, pick = self.rng.random, self.rng.choice
        if draw() < GREETING:
            text = f"{pick(_items(self.grammar['openers']))}{pick((', ', ' ', '. '))}{text}"
        if calm and draw() < CLOSING:
            text = f"{text}{pick((', ', ' '))}{pick(_items(self.grammar['closers']))}"
        if draw() < SLANG:
            for plain, short in self.grammar["slang"].items():
                text = re.sub(rf"\b{plain}\b", lambda _, s=short: pick(s), text, flags=re.I)
        if draw() < 0.12:
            text = text.replace("'", "")
        text = text.lower() if draw() < 0.5 else text[:1].upper() + text[1:]
        if draw() < SHOUTED and not calm:
            text = text.upper()
        asks = re.match(r"(do|does|is|are|can|could|which|what|when|who|how|where|why)\b", text, re.I)
        ends = ("?", "?", "??", "") if asks else ("", "", "", ".", "." if calm else "!", "")
        return text + pick(ends) if text[-1].isalnum() else text

    def misspelt(self, text: str) -> str:
        """One or two slips of the fingers: letters swapped, dropped, doubled or missed."""
        for _ in range(self.rng.choice((1, 1, 2))):
            if words := list(re.finditer(r"\b[a-z]{4,}\b", text)):
                place = self.rng.choice(words)
                text = text[: place.start()] + self._slip(place[0]) + text[place.end() :]
        return text

    def _slip(self, word: str) -> str:
        i = self.rng.randrange(1, len(word) - 1)
        middle = (word[i + 1] + word[i], word[i + 1], word[i] * 2 + word[i + 1],
                  NEIGHBOURS.get(word[i], word[i]) + word[i + 1])  # fmt: skip
        return word[:i] + self.rng.choice(middle) + word[i + 2 :]

    def slices(self, text: str, block: str, typo: bool) -> str:
        """Slices of a turn: what its block says, the styles its words show, its length."""
        kinds = {"negative": "neutral_negative"}
        found = {kinds.get(kind, kind) for kind in re.findall(r"/(\w+)", block)}
        if block == "satisfaction + frustration":
            found.add("mixed")
        words = {word.strip(".,?!:;()\"'") for word in text.lower().split()}
        found |= {style for style, marks in self.words.items() if words & marks}
        found |= ({"jp_mix"} if CJK.search(text) else set()) | ({"typo"} if typo else set())
        length = len(text.split())
        found |= {"short"} if length <= SHORT else {"long"} if length >= LONG else set()
        return ";".join(sorted(found or {"plain"}, key=sentiment.SLICES.index))

    def turn(self, block: str) -> tuple[str, bool]:
        """One turn of a block, and whether it got a typo."""
        calm = "frustration" not in block and "enthusiastic" not in block
        text = self.typed(self.joined(block), calm)
        slipped = self.misspelt(text) if self.rng.random() < TYPOS else text
        return slipped, slipped != text


def _items(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[;\n]", text.strip()) if part.strip()]


def hand_written() -> list[str]:
    """Turns of validation and test that are long enough to be somebody's own words."""
    turns = [turn for split in sentiment.HAND_WRITTEN for turn in sentiment.load(split)]
    return [turn.text for turn in turns if len(turn.text.split()) > 3]


def labels_of(block: str) -> str:
    """Labels of a block, in their usual order, as the file has them."""
    states = {part.split("/")[0] for part in block.split(" + ")}
    return ";".join(label for label in sentiment.LABELS if label in states)


def make() -> str:
    """Content of the training file."""
    grammar = yaml.safe_load(read_text("sentiment_grammar.yml"))
    maker, mine = Maker(grammar, random.Random(SEED)), hand_written()
    seeds = read_rows("sentiment_seeds.tsv")
    rows: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    for block, share in grammar["shares"].items():
        found = [(seed["text"], False) for seed in seeds if seed["block"] == block]
        while len(found) < share:
            drawn = dict(maker.turn(block) for _ in range(share - len(found) + SPARE))
            copies = {pair.right for pair in leakage.near_duplicates(mine, drawn, ALIKE)}
            for text, typo in drawn.items():
                if text not in copies and leakage.normalise(text) not in seen:
                    seen.add(leakage.normalise(text))
                    found.append((text, typo))
        labels = labels_of(block)
        rows += [(text, labels, maker.slices(text, block, typo)) for text, typo in found[:share]]
    maker.rng.shuffle(rows)
    lines = [
        "\t".join((f"sr-{i:04d}", "", "1", "0", text, "", labels, slices, "train"))
        for i, (text, labels, slices) in enumerate(rows, start=1)
    ]
    return "\n".join(("\t".join(COLUMNS), *lines)) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the training turns")
    made = make()
    if parser.parse_args().write:
        (TEXT / FILE).write_text(made, encoding="utf8", newline="\n")
        return 0
    if stale := not (TEXT / FILE).is_file() or read_text(FILE) != made:
        print(f"{FILE} is not what the grammar makes; if that is meant: --write")
    return int(stale)


if __name__ == "__main__":
    raise SystemExit(main())
