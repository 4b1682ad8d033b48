"""What a router's choices have to do with labels: mutual information and its permutation control."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import entropy

FUNCTION_WORDS = frozenset(
    "a an the of to in on at by for with and or but not is are was were be been it its i you we my "
    "your me this that what which who how when do does did can could will would have has had from as "
    "if".split()
)


@dataclass(frozen=True)
class Association:
    """Mutual information in bits, the label's entropy, and the information of permuted labels."""

    bits: float
    entropy: float
    permuted: np.ndarray

    @property
    def excess(self) -> float:
        """Bits above the mean of the permutations: what chance and small counts do not explain."""
        return self.bits - float(self.permuted.mean())

    @property
    def p(self) -> float:
        """Share of permutations that reach ``bits``, itself counted (never zero)."""
        return float((1 + (self.permuted >= self.bits).sum()) / (1 + len(self.permuted)))


def mutual_information(table: np.ndarray) -> float:
    """Mutual information in bits of a table of counts (labels, experts)."""
    joint = table / table.sum()
    free = joint.sum(1, keepdims=True) * joint.sum(0)
    seen = joint > 0
    return float((joint[seen] * np.log2(joint[seen] / free[seen])).sum())


def association(choices: np.ndarray, labels: Sequence[str], permutations: int = 500,
                seed: int = 0) -> Association:
    """Information between label and expert; ``choices`` (groups, E) counts, one label a group.

    Labels are permuted over groups: tokens of one text are not independent, so a text is the unit.
    """
    choices = np.asarray(choices, float)
    if len(choices) != len(labels):
        raise ValueError(f"{len(choices)} rows of choices and {len(labels)} labels: need one each")
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    member = np.eye(len(names))[codes]
    rng = np.random.default_rng(seed)
    drawn = [mutual_information(member[rng.permutation(len(codes))].T @ choices)
             for _ in range(permutations)]
    counted = member.T @ choices
    whole = float(entropy(counted.sum(1), base=2))
    return Association(mutual_information(counted), whole, np.array(drawn))


def token_type(piece: str) -> str:
    """Kind of a byte-level BPE token by its spelling ("Ġ" marks a space before it)."""
    word = piece.lstrip("Ġ ")
    if not any(c.isalnum() for c in word):
        return "punctuation"
    if any(c.isdigit() for c in word):
        return "number"
    if word.lower() in FUNCTION_WORDS and (piece != word or word[0].isupper()):
        return "function word"
    if piece == word and word[0].islower():
        return "inside a word"
    return "capital" if word[0].isupper() else "content word"
