"""Spans in a text from a label for each token, and F1 over exact spans.

Labels are BIO: 0 is outside, 1 + 2 k begins a span of kind k, 2 + 2 k goes on with it. A span counts as
found when start, end and kind are all right; the rules are those of CoNLL 2003 (strict, an I without
its B begins a span).
"""

from collections.abc import Sequence

import numpy as np

Piece = tuple[int, int]  # characters of a token in its text; (0, 0) for special tokens


def bio_labels(
    spans: Sequence[tuple[int, int, int]], pieces: Sequence[Piece], ignored: int
) -> list[int]:
    """Label of each token from spans (start, end, kind); ``ignored`` for special tokens."""
    found = []
    for start, end in pieces:
        inside = next((s for s in spans if s[0] < end and start < s[1]), None)
        begins = inside is not None and start <= inside[0]
        label = 0 if inside is None else 1 + 2 * inside[2] + (not begins)
        found.append(ignored if start == end else label)
    return found


def decode_bio(labels: Sequence[int], pieces: Sequence[Piece]) -> list[tuple[int, int, int]]:
    """Spans (start, end, kind) in characters."""
    spans: list[list[int]] = []
    before = 0
    for label, (start, end) in zip(labels, pieces, strict=True):
        if start == end:
            continue
        kind, inside = (label - 1) // 2, label > 0 and label % 2 == 0
        if inside and before > 0 and (before - 1) // 2 == kind:
            spans[-1][1] = end
        elif label > 0:
            spans.append([start, end, kind])
        before = label
    return [tuple(span) for span in spans]


def span_counts(truth: Sequence[Sequence], found: Sequence[Sequence]) -> np.ndarray:
    """For each message: spans found rightly, spans found, spans there; (n, 3)."""
    rows = [(len(set(t) & set(f)), len(set(f)), len(set(t))) for t, f in zip(truth, found, strict=True)]
    return np.array(rows, dtype=float).reshape(-1, 3)


def f1(counts: np.ndarray) -> float:
    """Micro F1 = 2 right / (found + there) over all messages; ``counts`` (n, 3)."""
    right, found, there = counts.sum(0)
    return float(2 * right / (found + there)) if found + there else 0.0


def f1_influence(counts: np.ndarray) -> np.ndarray:
    """A number for each message, (n,), whose mean is F1 and whose bootstrap has F1's spread.

    F1 is a ratio of sums, so a plain mean over messages is not F1. Its linearisation is:
    F1 + (2 right - F1 (found + there)) / mean(found + there), the delta method of a ratio.
    """
    total = counts[:, 1] + counts[:, 2]
    value = f1(counts)
    return value + (2 * counts[:, 0] - value * total) / total.mean()
