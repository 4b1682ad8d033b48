"""Text and questions outside the shop's domain, to measure what fine-tuning makes a model forget.

Both sets were written for this book and have nothing to do with manga: a rise in the loss on the
passages, or a fall in the share of questions answered, after a fine-tuning run is forgetting.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mangalab.data._files import read_rows

PASSAGE_SPLITS = ("validation", "test")
OPTIONS = 4
_ORDER_SEED = 20  # fixes where each right answer stands; changing it changes every prompt


@dataclass(frozen=True)
class Choice:
    """A sentence to complete, four possible endings, and the index of the right one."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: int
    topic: str


def passages(split: str = "test") -> tuple[str, ...]:
    """Return the general English passages of `split` ("validation" or "test").

    Each has 60 to 90 words. Raises ValueError for any other split.
    """
    if split not in PASSAGE_SPLITS:
        raise ValueError(f"no passage split {split!r}; use one of {', '.join(PASSAGE_SPLITS)}")
    rows = read_rows("retention_passages.tsv")
    return tuple(row["text"] for row in rows if row["split"] == split)


def questions() -> tuple[Choice, ...]:
    """Return the general-knowledge questions, in file order.

    Every question is the beginning of a sentence, so that an option can be scored as its
    continuation. The right answer stands at each of the four places equally often (to within one).
    """
    rows = read_rows("retention_questions.tsv")
    places = [i % OPTIONS for i in range(len(rows))]
    random.Random(_ORDER_SEED).shuffle(places)
    return tuple(_choice(row, place) for row, place in zip(rows, places, strict=True))


def _choice(row: dict[str, str], place: int) -> Choice:
    options = [row["wrong1"], row["wrong2"], row["wrong3"]]
    options.insert(place, row["answer"])
    return Choice(row["id"], row["question"], tuple(options), place, row["topic"])
