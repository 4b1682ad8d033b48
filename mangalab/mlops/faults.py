"""Faults to plant into a clean batch: an alarm that was never seen to ring is no alarm."""

from collections.abc import Callable, Sequence

import numpy as np

from .checks import Row

Rows = list[dict[str, str]]
Plant = Callable[[Rows, np.random.Generator, Sequence[str]], Rows]


def _copy(rows: Sequence[Row]) -> Rows:
    return [dict(row) for row in rows]


def _some(rows: Rows, rng: np.random.Generator, n: int) -> Rows:
    return [rows[i] for i in rng.choice(len(rows), min(n, len(rows)), replace=False)]


def unknown_label(rows: Rows, rng: np.random.Generator, held_out: Sequence[str]) -> Rows:
    """One label of a taxonomy that is not this one."""
    _some(rows, rng, 1)[0]["intents"] = "gift_recommendation"
    return rows


def empty_text(rows: Rows, rng: np.random.Generator, held_out: Sequence[str]) -> Rows:
    """Two messages whose text was lost."""
    for row in _some(rows, rng, 2):
        row["text"] = "  "
    return rows


def repeated_id(rows: Rows, rng: np.random.Generator, held_out: Sequence[str]) -> Rows:
    """A row that was appended twice."""
    return [*rows, dict(_some(rows, rng, 1)[0])]


def two_labels(rows: Rows, rng: np.random.Generator, held_out: Sequence[str]) -> Rows:
    """One message again, under another label."""
    found = dict(_some(rows, rng, 1)[0])
    other = next(r["intents"] for r in rows if r["intents"] != found["intents"])
    return [*rows, {**found, "id": found["id"] + "-again", "intents": other}]


def default_label(rows: Rows, rng: np.random.Generator, held_out: Sequence[str]) -> Rows:
    """A labelling tool that writes its first choice when nobody chooses: 30 % of the rows."""
    for row in _some(rows, rng, round(0.3 * len(rows))):
        row["intents"] = "faq"
    return rows


def lost_class(rows: Rows, rng: np.random.Generator, held_out: Sequence[str]) -> Rows:
    """An export that dropped a class."""
    return [row for row in rows if row["intents"] != "escalation"]


def test_message(rows: Rows, rng: np.random.Generator, held_out: Sequence[str]) -> Rows:
    """A held-out message, shouted."""
    row = _some(rows, rng, 1)[0]
    row["text"] = str(rng.choice(held_out)).upper() + " !"
    return rows


def nearly_test_message(rows: Rows, rng: np.random.Generator, held_out: Sequence[str]) -> Rows:
    """A held-out message with one more word."""
    row = _some(rows, rng, 1)[0]
    row["text"] = f"{rng.choice(held_out)} thanks"
    return rows


def swapped_labels(
    rows: Rows, rng: np.random.Generator, held_out: Sequence[str], share: float = 0.5,
    pair: tuple[str, str] = ("escalation", "chitchat"),
) -> Rows:
    """Two keys of a labelling tool that changed places for some annotators."""
    other = dict(zip(pair, reversed(pair), strict=True))
    for row in rows:
        if row["intents"] in other and rng.random() < share:
            row["intents"] = other[row["intents"]]
    return rows


PLANTS: dict[str, Plant] = {
    "unknown label": unknown_label,
    "empty text": empty_text,
    "row twice": repeated_id,
    "one message, two labels": two_labels,
    "default label, 30 %": default_label,
    "a class is lost": lost_class,
    "test message, shouted": test_message,
    "test message, one word more": nearly_test_message,
    "two labels swapped, 50 %": swapped_labels,
}


def planted(name: str, rows: Sequence[Row], seed: int, held_out: Sequence[str]) -> Rows:
    """A copy of ``rows`` with the fault ``name`` in it."""
    return PLANTS[name](_copy(rows), np.random.default_rng(seed), held_out)
