"""Ranking measures with graded relevance, one value a query, so that rankers compare in pairs.

Every function takes ``scores`` and ``grades`` of shape (queries, titles), the columns in the same
order. A score of ``-inf`` means "not retrieved" (a reranker that saw ten candidates). Judgments are
taken as complete: a grade of 0 is a judged 0. A query without any relevant title counts 0, as in
trec_eval.

Ties: equal scores keep the order of the columns. trec_eval puts the *later* id first instead, after
rounding scores to float32; with columns in descending order of id and float32 scores both agree.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

RELEVANT = 2  # a grade from here on counts as relevant where a measure knows only yes and no
GAINS = ("exponential", "linear")
Values = NDArray[np.float64]


def ranking(scores: ArrayLike) -> NDArray[np.intp]:
    """Column indices, best first, shape (queries, titles); equal scores keep the column order."""
    return np.argsort(-np.atleast_2d(np.asarray(scores, float)), axis=1, kind="stable")


def ranked(scores: ArrayLike, grades: ArrayLike) -> NDArray[np.int64]:
    """Grades in the order of the ranking, shape (queries, titles); 0 where nothing was retrieved.

    Raises ValueError for shapes that differ, NaN scores, and grades that are negative.
    """
    scores, grades = np.atleast_2d(np.asarray(scores, float)), np.atleast_2d(np.asarray(grades))
    if scores.shape != grades.shape:
        raise ValueError(f"scores {scores.shape} and grades {grades.shape}: need the same shape")
    if np.isnan(scores).any():
        rows = np.flatnonzero(np.isnan(scores).any(axis=1))
        raise ValueError(f"{len(rows)} queries have NaN scores (first row {rows[0]}); unranked is -inf")
    if (grades < 0).any():
        raise ValueError(f"grades go down to {grades.min()}; the lowest allowed is 0")
    seen = np.where(np.isneginf(scores), 0, grades)
    return np.take_along_axis(seen, ranking(scores), axis=1).astype(np.int64)


def ndcg(scores: ArrayLike, grades: ArrayLike, k: int = 10, gain: str = "exponential") -> Values:
    """Normalised discounted cumulative gain of the first ``k``, shape (queries,), 0 to 1.

    Discount 1 / log2(1 + rank). Gain 2^grade - 1 ("exponential", Burges et al. 2005, LambdaRank's)
    or the grade itself ("linear", Järvelin and Kekäläinen 2002, trec_eval's ``ndcg_cut``).
    """
    if gain not in GAINS:
        raise ValueError(f"ndcg: gain {gain!r}; use one of {', '.join(GAINS)}")
    found, best = ranked(scores, grades), -np.sort(-np.atleast_2d(np.asarray(grades)), axis=1)
    return _ratio(_discounted(found, k, gain), _discounted(best, k, gain))


def reciprocal_rank(scores: ArrayLike, grades: ArrayLike, relevant: int = RELEVANT) -> Values:
    """1 / rank of the first title graded ``relevant`` or better, 0 without one; mean of it is MRR."""
    hits = ranked(scores, grades) >= relevant
    return np.where(hits.any(axis=1), 1.0 / (1 + hits.argmax(axis=1)), 0.0)


def recall(scores: ArrayLike, grades: ArrayLike, k: int = 10, relevant: int = RELEVANT) -> Values:
    """Share of the titles graded ``relevant`` or better that are among the first ``k``."""
    found = (ranked(scores, grades)[:, : _depth(k)] >= relevant).sum(axis=1)
    return _ratio(found, (np.atleast_2d(np.asarray(grades)) >= relevant).sum(axis=1))


def average_precision(scores: ArrayLike, grades: ArrayLike, relevant: int = RELEVANT) -> Values:
    """Mean of the precision at each relevant title, those never retrieved counting 0; mean is MAP."""
    hits = ranked(scores, grades) >= relevant
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    total = (np.atleast_2d(np.asarray(grades)) >= relevant).sum(axis=1)
    return _ratio((precision * hits).sum(axis=1), total)


def top_grade(scores: ArrayLike, grades: ArrayLike) -> NDArray[np.int64]:
    """Grade of the first title of each ranking; ``(top_grade(...) == 0).mean()`` is "bad top-1"."""
    return ranked(scores, grades)[:, 0]


def _discounted(grades: NDArray[np.int64], k: int, gain: str) -> Values:
    top = grades[:, : _depth(k)].astype(float)
    gains = np.exp2(top) - 1 if gain == "exponential" else top
    return (gains / np.log2(np.arange(2, top.shape[1] + 2))).sum(axis=1)


def _depth(k: int) -> int:
    if k < 1:
        raise ValueError(f"cut-off {k}; need at least 1")
    return k


def _ratio(above: ArrayLike, below: ArrayLike) -> Values:
    """Quotient, 0 where the denominator is 0."""
    above, below = np.asarray(above, float), np.asarray(below, float)
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
