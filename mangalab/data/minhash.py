"""Near-duplicates by MinHash (Broder 1997), for sets too large to compare every pair.

A text is a set of character 5-grams, as in `mangalab.data.leakage`, which compares exactly. A signature
of 128 numbers replaces the set; two signatures agree in a place with probability of the Jaccard index.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .leakage import Pair, ngrams

if TYPE_CHECKING:
    from datasketch import MinHash

NUMBERS = 128  # of a signature: the standard error of an estimated index is at most 0.5 / sqrt(128)


def signature(text: str, numbers: int = NUMBERS) -> "MinHash":
    """MinHash of the text's character 5-grams."""
    from datasketch import MinHash

    found = MinHash(num_perm=numbers)
    found.update_batch([gram.encode("utf8") for gram in sorted(ngrams(text))])
    return found


def near_duplicates(
    left: Iterable[str], right: Iterable[str], threshold: float = 0.7, numbers: int = NUMBERS
) -> tuple[Pair, ...]:
    """Pairs across two splits whose *estimated* index is at or above the threshold, likest first.

    Only pairs that share a band of their signatures are looked at, so a pair near the threshold may
    be missed; :func:`mangalab.data.leakage.near_duplicates` misses none.
    """
    from datasketch import MinHashLSH

    index, signed = MinHashLSH(threshold=threshold, num_perm=numbers), {}
    for text in dict.fromkeys(left):
        signed[text] = signature(text, numbers)
        index.insert(text, signed[text])
    pairs = []
    for text in dict.fromkeys(right):
        own = signature(text, numbers)
        for other in index.query(own):
            similarity = signed[other].jaccard(own)
            if similarity >= threshold:
                pairs.append(Pair(other, text, similarity))
    return tuple(sorted(pairs, key=lambda pair: (-pair.similarity, pair.left, pair.right)))


def catch_rate(similarity: float, bands: int, rows: int) -> float:
    """Probability that a pair of this index shares a band: 1 - (1 - s^rows)^bands."""
    return 1 - (1 - similarity**rows) ** bands


def bands(threshold: float, numbers: int = NUMBERS) -> tuple[int, int]:
    """(bands, rows of each) that datasketch chooses for a threshold."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=numbers)
    return index.b, index.r


def without_leaks(train: Sequence[str], held_out: Iterable[str], threshold: float = 0.7) -> list[int]:
    """Indices of the training texts that resemble no held-out text."""
    leaks = {pair.left for pair in near_duplicates(train, held_out, threshold)}
    return [i for i, text in enumerate(train) if text not in leaks]
