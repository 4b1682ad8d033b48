"""Five months of messages to the router: what changed in each of them, and what is right when.

January is chapter 01's data. February is a sale, March brings a new intent, April new words, and from
May on a person deals with goods that arrive damaged or wrong (`mangalab/data/cards/continual.md`).
"""

from dataclasses import dataclass
from functools import cache

from mangalab.data import intents
from mangalab.data._files import read_rows

MONTHS = ("January", "February", "March", "April", "May")
NEW = "gift_recommendation"
LABELS = (*intents.INTENTS, NEW)
GOLDEN = 30  # test messages of each old intent that form the golden set


@dataclass(frozen=True)
class Message:
    """One message; ``labels`` holds the right answer in each of the five months."""

    id: str
    text: str
    labels: tuple[str, ...]

    def target(self, month: int) -> int:
        """The right answer in ``month`` (0 is January) as a number, an index into `LABELS`."""
        return LABELS.index(self.labels[month])


@cache
def old(split: str) -> tuple[Message, ...]:
    """Chapter 01's "train", "validation" or "test", with later answers where these changed."""
    changed = {r["id"]: (int(r["month"]), r["label"]) for r in read_rows("continual_relabels.tsv")}
    return tuple(
        Message(u.id, u.text, _answers(u.intents[0], *changed.get(u.id, (len(MONTHS), ""))))
        for u in intents.load(split)
    )


@cache
def news(split: str, month: int) -> tuple[Message, ...]:
    """Hand-written lines of a month's news; February has only "test" lines, January none."""
    return tuple(
        Message(r["id"], r["text"], _answers(r["before"] or r["label"], month, r["label"]))
        for r in read_rows("continual_news.tsv")
        if (r["split"], r["month"]) == (split, str(month))
    )


@cache
def ordinary(month: int) -> tuple[Message, ...]:
    """Test messages of old kinds: the golden set in January, a quarter of the others later."""
    ranks = dict.fromkeys(intents.INTENTS, -1)
    found = []
    for message in old("test"):
        ranks[message.labels[0]] = rank = ranks[message.labels[0]] + 1
        if month == (0 if rank < GOLDEN else 1 + (rank - GOLDEN) % (len(MONTHS) - 1)):
            found.append(message)
    return tuple(found)


def _answers(before: str, month: int, label: str) -> tuple[str, ...]:
    """The answer ``before`` until ``month``, then ``label``."""
    return tuple(before if m < month else label for m in range(len(MONTHS)))
