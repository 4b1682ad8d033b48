"""Ranking by shared words: the baseline that every trained retriever has to beat."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mangalab.data.leakage import normalise

K1, B = 1.2, 0.75  # the usual constants (Robertson and Zaragoza 2009)


def words(text: str) -> list[str]:
    """Lower-case words without accents; a run of Japanese script is one word for each two letters."""
    found = []
    for word in normalise(text).split():
        for part in re.findall(r"[぀-ヿ一-鿿]+|[^぀-ヿ一-鿿]+", word):
            pairs = [part[i : i + 2] for i in range(max(1, len(part) - 1))]
            found += pairs if re.match(r"[぀-ヿ一-鿿]", part) else [part]
    return found


def bm25(queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """Okapi BM25 scores, shape (queries, documents), 0 where no word is shared."""
    counts = [Counter(words(document)) for document in documents]
    lengths = np.array([sum(count.values()) for count in counts], float)
    norms = K1 * (1 - B + B * lengths / lengths.mean())
    column: dict[str, np.ndarray] = {}

    def weights(word: str) -> np.ndarray:
        if word not in column:
            tf = np.array([count[word] for count in counts], float)
            seen = (tf > 0).sum()
            idf = np.log(1 + (len(documents) - seen + 0.5) / (seen + 0.5))
            column[word] = idf * tf * (K1 + 1) / (tf + norms)
        return column[word]

    zero = np.zeros(len(documents))
    return np.stack([sum((weights(word) for word in words(query)), zero) for query in queries])
