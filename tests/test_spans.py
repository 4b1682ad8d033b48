"""Span labels, decoding and F1, against examples worked out by hand."""

import numpy as np
import pytest

from mangalab.evaluation import spans

PIECES = [(0, 0), (0, 3), (4, 7), (8, 10), (10, 12), (13, 15), (0, 0)]


def test_labels_and_back():
    marked = [(4, 12, 1), (13, 15, 0)]
    labels = spans.bio_labels(marked, PIECES, -100)
    assert labels == [-100, 0, 3, 4, 4, 1, -100]
    assert spans.decode_bio(labels, PIECES) == marked


def test_neighbours_of_one_kind_stay_apart_and_a_stray_inside_begins():
    assert spans.decode_bio([0, 1, 1, 2, 0, 0, 0], PIECES) == [(0, 3, 0), (4, 10, 0)]
    assert spans.decode_bio([0, 2, 4, 4, 0, 0, 0], PIECES) == [(0, 3, 0), (4, 10, 1)]


def test_f1_by_exact_span_is_the_one_counted_by_hand():
    truth = [[(0, 3, 0), (4, 10, 1)], [(0, 3, 0)], []]
    found = [[(0, 3, 0), (4, 7, 1)], [(0, 3, 1)], [(4, 7, 0)]]  # right; short; wrong kind; invented
    counts = spans.span_counts(truth, found)
    assert counts.tolist() == [[1, 2, 2], [0, 1, 1], [0, 1, 0]]
    assert spans.f1(counts) == pytest.approx(2 * 1 / (4 + 3))
    assert spans.f1(np.zeros((2, 3))) == 0


def test_influence_has_the_mean_and_the_spread_of_f1():
    rng = np.random.default_rng(0)
    there = rng.integers(0, 4, 400)
    right = rng.binomial(there, 0.7)
    counts = np.stack([right, right + rng.binomial(1, 0.3, 400), there], 1).astype(float)
    values = spans.f1_influence(counts)
    assert values.mean() == pytest.approx(spans.f1(counts))
    rows = rng.integers(0, 400, (2000, 400))
    true_spread = np.std([spans.f1(counts[r]) for r in rows])
    assert values[rows].mean(1).std() == pytest.approx(true_spread, rel=0.1)
    assert np.abs(values.std() - (counts[:, 0] / 2).std()) > 0.01  # not a mean of hits in disguise
