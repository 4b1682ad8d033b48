"""Customer messages with the intents they express, for the router of chapter 01.

`train`, `validation` and `train_multi` come from hand-written lines and a grammar
(`tools/make_intents.py`); the other splits were written by hand, apart from them.
"""

from dataclasses import dataclass

from mangalab.data._files import read_rows

INTENTS = (
    "product_discovery",
    "recommendation",
    "product_question",
    "order_tracking",
    "faq",
    "return_request",
    "chitchat",
    "promotion",
    "checkout_help",
    "escalation",
)
TRAFFIC = (0.22, 0.18, 0.15, 0.12, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03)  # share of messages

SPLITS = (
    "train",
    "train_multi",
    "validation",
    "test",
    "multi_validation",
    "multi",
    "ood_validation",
    "ood",
)


@dataclass(frozen=True)
class Utterance:
    """One message. `intents` is empty for a message outside the ten intents."""

    id: str
    text: str
    intents: tuple[str, ...]
    slices: tuple[str, ...]
    split: str


def load(split: str) -> tuple[Utterance, ...]:
    """Return the messages of one split, in file order.

    "train", "validation" and "test" have one intent each, the "multi" splits two or more, the
    "ood" splits none. Raises ValueError for an unknown split or a label outside `INTENTS`.
    """
    if split not in SPLITS:
        raise ValueError(f"no intent split {split!r}; use one of {', '.join(SPLITS)}")
    return tuple(_utterance(row, split) for row in read_rows(f"intents_{split}.tsv"))


def _utterance(row: dict[str, str], split: str) -> Utterance:
    intents, slices = (tuple(filter(None, row[key].split(";"))) for key in ("intents", "slices"))
    if unknown := set(intents) - set(INTENTS):
        raise ValueError(f"{row['id']} of {split} has unknown intents {sorted(unknown)}")
    return Utterance(row["id"], row["text"], intents, slices, split)
