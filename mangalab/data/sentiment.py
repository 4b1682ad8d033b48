"""Customer turns with what they show of the customer's state, and conversations that need a person.

Turns of "train" come from a grammar (`tools/make_sentiment.py`), those of "validation" and "test"
were written by hand. A turn shows any of five states, or none of them: "neutral" is exactly the
absence of the other five, never a sixth state beside them. `mangalab/data/cards/sentiment.md` holds
the labelling guide. NumPy is imported by `label_matrix` alone.
"""

from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

from mangalab.data._files import read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

LABELS = ("frustration", "satisfaction", "urgency", "confusion", "churn_risk", "neutral")
SPLITS = ("train", "validation", "test")
HAND_WRITTEN = ("validation", "test")
SLICES = (
    "sarcasm", "indirect", "polite", "enthusiastic", "negation", "mixed", "urgency_calm",
    "confusion_complaint", "churn_hint", "neutral_negative", "direct", "repeat", "reformulation",
    "jargon", "slang", "jp_mix", "typo", "plain", "short", "long",
)  # fmt: skip
ESCALATED = ("repeated", "asks_human", "leaving", "deadline", "money", "harm")
SETTLED = ("solved", "venting_solved", "patient", "confused", "browsing", "story", "chat")
PREVALENCE = 0.03  # share of real conversations that should reach a person, as the scenario has it


@dataclass(frozen=True)
class Turn:
    """One message of a customer, with the assistant's answer to it.

    ``conversation`` and ``reply`` are empty for a message that stands alone; ``turn`` starts at 1.
    ``minutes`` have passed since the customer first raised the issue, earlier contacts counted.
    """

    id: str
    conversation: str
    turn: int
    minutes: int
    text: str
    reply: str
    labels: tuple[str, ...]
    slices: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Conversation:
    """Turns in order. A person should take over from turn ``escalate_from``; 0 means never.

    ``kind`` is the rule that calls for a person (one of `ESCALATED`) or what happens instead (one of
    `SETTLED`).
    """

    id: str
    kind: str
    escalate_from: int
    turns: tuple[Turn, ...]
    split: str

    @property
    def escalate(self) -> bool:
        """Whether a person should take over at all."""
        return self.escalate_from > 0


@cache
def load(split: str) -> tuple[Turn, ...]:
    """All turns of "train", "validation" or "test", those of conversations last, in file order.

    Raises ValueError for another split, a label outside `LABELS` or "neutral" beside another label.
    """
    if split not in SPLITS:
        raise ValueError(f"no sentiment split {split!r}; use one of {', '.join(SPLITS)}")
    return tuple(_turn(row) for row in read_rows(f"sentiment_{split}.tsv"))


@cache
def hand_written_lines() -> frozenset[str]:
    """Texts of the training turns that were written by hand; a grammar made the others."""
    return frozenset(row["text"] for row in read_rows("sentiment_seeds.tsv"))


@cache
def conversations(split: str) -> tuple[Conversation, ...]:
    """The conversations of "validation" or "test"; their turns are in `load(split)` as well."""
    if split not in HAND_WRITTEN:
        raise ValueError(f"no conversations in {split!r}; use one of {', '.join(HAND_WRITTEN)}")
    inside = [turn for turn in load(split) if turn.conversation]
    turns = {name: tuple(rows) for name, rows in groupby(inside, key=lambda turn: turn.conversation)}
    rows = [row for row in read_rows("sentiment_conversations.tsv") if row["split"] == split]
    return tuple(
        Conversation(row["id"], row["kind"], int(row["escalate_from"]), turns[row["id"]], split)
        for row in rows
    )


def label_matrix(turns: "Sequence[Turn]") -> "NDArray[np.int8]":
    """Zeros and ones of shape (turns, 6), columns in the order of `LABELS`."""
    import numpy as np

    rows = [[label in turn.labels for label in LABELS] for turn in turns]
    return np.array(rows, dtype=np.int8).reshape(len(rows), len(LABELS))


def conversation_weights(
    found: "Sequence[Conversation]", prevalence: float = PREVALENCE
) -> "NDArray[np.float64]":
    """Weights, one a conversation with mean 1, under which escalations have the given prevalence.

    The set holds far more escalations than real traffic. Rates within a class (recall, false
    positive rate) need no weights; precision, accuracy and cost do. Raises ValueError where one of
    the classes is missing.
    """
    import numpy as np

    escalate = np.array([conversation.escalate for conversation in found])
    share = escalate.mean() if len(escalate) else 0.0
    if not 0 < share < 1 or not 0 < prevalence < 1:
        raise ValueError(
            f"{share:.0%} of {len(escalate)} conversations escalate, prevalence {prevalence}: "
            "weights need both classes and a prevalence between 0 and 1"
        )
    return np.where(escalate, prevalence / share, (1 - prevalence) / (1 - share))


def _turn(row: dict[str, str]) -> Turn:
    labels, slices = (tuple(filter(None, row[key].split(";"))) for key in ("labels", "slices"))
    if unknown := set(labels) - set(LABELS):
        raise ValueError(f"{row['id']} has unknown labels {sorted(unknown)}")
    if not labels or ("neutral" in labels and len(labels) > 1):
        raise ValueError(f"{row['id']} has labels {labels}; neutral stands alone, and for no label")
    number, minutes = int(row["turn"]), int(row["minutes"])
    return Turn(
        row["id"], row["conversation"], number, minutes, row["text"], row["reply"], labels, slices,
        row["split"],
    )  # fmt: skip
