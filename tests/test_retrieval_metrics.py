"""Ranking measures equal trec_eval's (through pytrec_eval) on the same run, and hand arithmetic."""

import numpy as np
import pytest

from mangalab.evaluation import retrieval

pytrec_eval = pytest.importorskip("pytrec_eval")

MEASURES = {
    "ndcg_cut_10": lambda s, g: retrieval.ndcg(s, g, 10, gain="linear"),
    "ndcg_cut_3": lambda s, g: retrieval.ndcg(s, g, 3, gain="linear"),
    "recip_rank": retrieval.reciprocal_rank,
    "recall_5": lambda s, g: retrieval.recall(s, g, 5),
    "recall_100": lambda s, g: retrieval.recall(s, g, 100),
    "map": retrieval.average_precision,
}


def a_run(queries=40, titles=60, seed=0):
    """Scores that know something of the grades; half of the titles graded 0, some not retrieved."""
    rng = np.random.default_rng(seed)
    grades = rng.choice(4, (queries, titles), p=[0.85, 0.06, 0.05, 0.04])
    scores = (0.5 * grades + rng.normal(size=grades.shape)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    return scores, grades


def trec(scores, grades, measure, gains=None):
    """pytrec_eval's value per query of a run given as arrays; ids ascend with the columns."""
    names = [f"t{i:03}" for i in range(grades.shape[1])]
    gains = grades if gains is None else gains
    judged = {f"q{q:03}": dict(zip(names, map(int, row), strict=True)) for q, row in enumerate(gains)}
    run = {
        f"q{q:03}": {n: float(s) for n, s in zip(names, row, strict=True) if np.isfinite(s)}
        for q, row in enumerate(scores)
    }
    level = 1 if measure.startswith("ndcg") else retrieval.RELEVANT
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {measure}, relevance_level=level)
    found = evaluator.evaluate(run)
    return np.array([found[name][measure] for name in judged])


@pytest.mark.parametrize("name", MEASURES)
def test_equal_to_trec_eval(name):
    scores, grades = a_run()
    ours = MEASURES[name](scores, grades)
    np.testing.assert_allclose(ours, trec(scores, grades, name), atol=1e-9)
    assert 0.05 < ours.mean() < 0.95  # else the equality would say little


def test_exponential_gain_is_trec_eval_with_the_gains_as_grades():
    scores, grades = a_run(seed=1)
    theirs = trec(scores, grades, "ndcg_cut_10", gains=2**grades - 1)
    ours = retrieval.ndcg(scores, grades, 10)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert np.abs(ours - retrieval.ndcg(scores, grades, 10, gain="linear")).max() > 0.05


@pytest.mark.parametrize("name", MEASURES)
def test_ties_agree_when_columns_descend_by_id(name):
    scores, grades = a_run(seed=2)
    scores = np.round(scores)  # many ties
    theirs = trec(scores, grades, name)
    ours = MEASURES[name](scores[:, ::-1], grades[:, ::-1])
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_the_other_order_of_ties_is_another_result():
    scores, grades = a_run(seed=2)
    scores = np.round(scores)
    ours = retrieval.ndcg(scores, grades, gain="linear")
    assert np.abs(ours - trec(scores, grades, "ndcg_cut_10")).max() > 0.05


def test_trec_eval_rounds_scores_to_single_precision():
    scores = np.array([[1.0, 1.0 + 1e-12]])
    grades = np.array([[3, 0]])
    assert retrieval.reciprocal_rank(scores, grades)[0] == 0.5
    swapped = scores.astype(np.float32)
    assert retrieval.reciprocal_rank(swapped, grades)[0] == 1.0
    assert trec(scores[:, ::-1], grades[:, ::-1], "recip_rank")[0] == 1.0


def test_hand_arithmetic():
    scores, grades = [[4, 3, 2, 1]], [[1, 0, 3, 2]]
    ideal = 7 + 3 / np.log2(3) + 1 / 2
    expected = (1 + 7 / 2 + 3 / np.log2(5)) / ideal
    assert retrieval.ndcg(scores, grades, 10)[0] == pytest.approx(expected)
    assert retrieval.reciprocal_rank(scores, grades)[0] == pytest.approx(1 / 3)
    assert retrieval.recall(scores, grades, 3)[0] == 0.5
    assert retrieval.average_precision(scores, grades)[0] == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert retrieval.top_grade(scores, grades)[0] == 1


def test_a_query_without_relevant_titles_counts_nothing():
    empty = np.zeros((1, 3), int)
    for measure in MEASURES.values():
        assert measure(np.arange(3.0)[None], empty).tolist() == [0.0]


def test_not_retrieved_is_not_found():
    scores, grades = np.array([[1.0, -np.inf]]), np.array([[0, 3]])
    assert retrieval.ndcg(scores, grades)[0] == retrieval.recall(scores, grades)[0] == 0


def test_bad_input_is_refused():
    good = np.zeros((2, 3))
    with pytest.raises(ValueError, match="need the same shape"):
        retrieval.ndcg(good, np.zeros((3, 2), int))
    with pytest.raises(ValueError, match="1 queries have NaN scores"):
        retrieval.ndcg([[np.nan, 1.0]], [[0, 1]])
    with pytest.raises(ValueError, match="lowest allowed is 0"):
        retrieval.recall([[1.0]], [[-1]])
    with pytest.raises(ValueError, match="gain 'cubic'"):
        retrieval.ndcg(good, np.zeros((2, 3), int), gain="cubic")
    with pytest.raises(ValueError, match="cut-off 0"):
        retrieval.recall(good, np.zeros((2, 3), int), k=0)
