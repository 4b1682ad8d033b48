"""Checks of a batch of labelled messages before anything trains on it; each finding has a name."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..data.leakage import ngrams, normalise

COLUMNS = ("id", "text", "intents")
Row = Mapping[str, str]


@dataclass(frozen=True)
class Contract:
    """What a batch must keep.

    ``shares`` is the label mix it should resemble: a chi-square test at ``level`` refuses it only if
    the mix also moved by more than ``moved`` (total variation, 0..1), since a large batch makes any
    difference significant. ``least`` messages of every label must be there. A message whose character
    5-grams overlap a held-out one by ``near`` (Jaccard) or more is a leak.
    """

    labels: tuple[str, ...]
    shares: tuple[float, ...]
    longest: int = 500
    level: float = 1e-3
    moved: float = 0.1
    least: int = 1
    near: float = 0.8

    def __post_init__(self):
        if len(self.labels) != len(self.shares) or min(self.shares) <= 0:
            raise ValueError(f"{len(self.labels)} labels and {len(self.shares)} shares, all above 0")


@dataclass(frozen=True)
class Finding:
    """One broken rule: the check's name, the rows (or file) it concerns, and a sentence."""

    check: str
    where: tuple[str, ...]
    says: str


@dataclass(frozen=True)
class HeldOut:
    """Messages that no training batch may contain, indexed once by their character 5-grams."""

    grams: tuple[frozenset[str], ...]
    holders: Mapping[str, tuple[int, ...]] = field(repr=False)
    seen: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, texts: Iterable[str]) -> "HeldOut":
        """Index ``texts`` (validation and test messages)."""
        grams, holders = tuple(ngrams(text) for text in texts), defaultdict(list)
        for index, found in enumerate(grams):
            for gram in found:
                holders[gram].append(index)
        return cls(grams, {gram: tuple(held) for gram, held in holders.items()})

    def nearest(self, text: str) -> float:
        """Largest Jaccard index of ``text`` with any held-out message, 0..1; each text once."""
        if text not in self.seen:
            grams = ngrams(text)
            shared = Counter(i for gram in grams for i in self.holders.get(gram, ()))
            self.seen[text] = max(
                (n / (len(grams) + len(self.grams[i]) - n) for i, n in shared.items()), default=0.0)
        return self.seen[text]


def schema(rows: Sequence[Row], contract: Contract) -> list[Finding]:
    """Columns, empty or overlong texts, unknown labels, ids that come twice."""
    if missing := [c for c in COLUMNS if any(c not in row for row in rows)]:
        return [Finding("columns", tuple(missing), f"columns {missing} are missing")]
    found = {
        "text": [r["id"] for r in rows if not 0 < len(r["text"].strip()) <= contract.longest],
        "label": [r["id"] for r in rows if r["intents"] not in contract.labels],
        "id": [i for i, n in Counter(r["id"] for r in rows).items() if n > 1],
    }
    says = {
        "text": f"empty, or longer than {contract.longest} characters",
        "label": f"label is none of the {len(contract.labels)} of the contract",
        "id": "the same id twice",
    }
    return [Finding(name, tuple(where), says[name]) for name, where in found.items() if where]


def label_mix(rows: Sequence[Row], contract: Contract) -> list[Finding]:
    """Label counts against the contract's shares: chi-square, with a floor on the effect."""
    from scipy.stats import chisquare

    counts = np.array([sum(r["intents"] == label for r in rows) for label in contract.labels])
    n, shares = counts.sum(), np.asarray(contract.shares) / sum(contract.shares)
    if n == 0:
        return [Finding("mix", (), "no row has a label of the contract")]
    rare = [label for label, c in zip(contract.labels, counts, strict=True) if c < contract.least]
    moved = 0.5 * float(np.abs(counts / n - shares).sum())
    p = float(chisquare(counts, n * shares).pvalue)
    found = [Finding("rare", tuple(rare), f"fewer than {contract.least} messages")] if rare else []
    if p < contract.level and moved > contract.moved:
        most = contract.labels[int(np.argmax(np.abs(counts / n - shares)))]
        found.append(Finding("mix", (most,), f"{moved:.0%} of the labels moved (p = {p:.1e})"))
    return found


def conflicts(rows: Sequence[Row]) -> list[Finding]:
    """The same message (apart from case, accents, punctuation) under two labels."""
    labels = defaultdict(set)
    for row in rows:
        labels[normalise(row["text"])].add(row["intents"])
    twice = [r["id"] for r in rows if len(labels[normalise(r["text"])]) > 1]
    return [Finding("conflict", tuple(twice), "one message under two labels")] if twice else []


def leaks(rows: Sequence[Row], held_out: HeldOut, contract: Contract) -> list[Finding]:
    """Messages that are, or nearly are, in a held-out split."""
    where = tuple(r["id"] for r in rows if held_out.nearest(r["text"]) >= contract.near)
    says = f"overlaps a held-out message by {contract.near:.0%} or more"
    return [Finding("leak", where, says)] if where else []


def checksum(path: Path, expected: str) -> list[Finding]:
    """The file's SHA-256 against the manifest's."""
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual == expected:
        return []
    return [Finding("checksum", (path.name,), f"{actual[:12]}, the manifest has {expected[:12]}")]


def validate(rows: Sequence[Row], contract: Contract, held_out: HeldOut) -> list[Finding]:
    """All findings on a batch, the schema's first; empty means that it may train."""
    found = schema(rows, contract)
    if any(finding.check == "columns" for finding in found):
        return found
    return [*found, *label_mix(rows, contract), *conflicts(rows), *leaks(rows, held_out, contract)]
