"""Router scores by hand."""

import numpy as np
import pytest
import torch

from mangalab.evaluation import classification as c
from mangalab.evaluation.latency import Latency, measure, threads
from mangalab.evaluation.similarity import linear_cka


def test_confusion_and_recalls():
    labels, predicted = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    assert c.confusion(labels, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    found = [recall.value for recall in c.class_recalls(labels, predicted, 3)]
    assert found == pytest.approx([0.5, 1, 2 / 3])


def test_weights_restore_the_traffic():
    labels = np.array([0, 0, 0, 1])
    weights = c.class_weights(labels, [0.5, 0.5])
    assert weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    correct = np.array([1, 1, 0, 1])
    assert (c.macro_weights(labels, 2) * correct).mean() == pytest.approx((2 / 3 + 1) / 2)
    with pytest.raises(ValueError, match="no example"):
        c.class_weights(np.array([0, 0]), [0.5, 0.5])


def test_fallback_curve_equals_brute_force():
    rng = np.random.default_rng(0)
    harm, confidence = rng.choice([0.0, 2, 10], 60), rng.random(60)
    weights = rng.random(60)
    thresholds, expected = c.fallback_curve(harm, confidence, weights, 1.5)
    for t, e in zip(thresholds, expected, strict=True):
        paid = c.with_fallback(harm, confidence, t, 1.5)
        assert e == pytest.approx((weights * paid).sum() / weights.sum())
    assert expected[-1] == pytest.approx(1.5)


def test_harms_read_true_class_by_row():
    cost = np.array([[0, 1], [10, 0]])
    assert c.harms([0, 1, 1], [1, 0, 1], cost).tolist() == [1, 10, 0]


def test_risk_coverage():
    coverage, risk = c.risk_coverage(np.array([True, False, True]), np.array([0.9, 0.8, 0.7]))
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3])


def test_sets():
    truth, found = np.array([[1, 1, 0], [0, 1, 0]]), np.array([[1, 0, 0], [0, 1, 0]])
    assert c.exact_sets(truth, found).tolist() == [False, True]
    assert c.set_recall(truth, found).tolist() == [0.5, 1]


def test_cka_of_a_rotation_is_one_and_of_noise_is_small():
    torch.manual_seed(0)
    x = torch.randn(500, 8)
    rotation = torch.linalg.qr(torch.randn(8, 8))[0]
    assert linear_cka(x, 3 * x @ rotation + 1) == pytest.approx(1)
    assert linear_cka(x, torch.randn(500, 8)) < 0.1
    with pytest.raises(ValueError, match="same messages"):
        linear_cka(x, x[:9])


def test_latency_warms_up_and_restores_threads():
    seen, before = [], torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
        found = measure(seen.append, ["a", "b", "c"], warm=2)
    assert torch.get_num_threads() == before
    assert seen == ["a", "b", "a", "b", "c"]
    assert found.milliseconds.shape == (3,)
    assert Latency(np.array([1.0, 2, 3])).at(0.5) == 2


def test_stream_restores_shares_and_takes_the_cheapest_action():
    cost = np.array([[0.0, 2.0], [10.0, 0.0]])
    known = np.array([[0.95, 0.05], [0.8, 0.2], [0.1, 0.9]])
    stream = c.mixed_stream(known, np.array([0, 1, 1]), np.array([[0.6, 0.4]]), cost,
                            [0.7, 0.3], stranger_share=0.2, stranger_cost=3.0)
    assert stream.weights.tolist() == pytest.approx([0.56 * 4, 0.12 * 4, 0.12 * 4, 0.2 * 4])
    assert stream.routed.tolist() == [0, 10, 0, 3]
    # expected costs 0.5, then 1.6 and 2.4: only the first and third are cheaper than asking
    assert stream.cheapest(cost, 1.0).tolist() == [0, 1, 0, 1]


def test_sets_at_never_leaves_a_message_without_an_intent():
    p = np.array([[0.6, 0.7, 0.1], [0.3, 0.2, 0.1]])
    assert c.sets_at(p, 0.5).tolist() == [[True, True, False], [True, False, False]]


def test_every_plot_draws():
    from mangalab.evaluation import plots
    from mangalab.evaluation.calibration import reliability
    from mangalab.evaluation.intervals import wilson
    from mangalab.figures import png

    r, line = wilson(3, 10), ([0.0, 0.5, 1.0], [1.0, 0.5, 0.7])
    figures = [
        plots.smooth_losses({"a": [3.0, 2.0]}), plots.dots({"a": [0.1, 0.2]}, "x"),
        plots.intervals(["a"], [r], "x"), plots.bands([10, 20], {"a": [r, r]}, "x", "y"),
        plots.confusion_grid(np.array([[3, 1], [0, 4]]), ["a", "b"]),
        plots.reliability_diagram({"a": reliability(np.full(20, 0.7), np.ones(20))}),
        plots.harm_and_risk({"a": line}, {"b": line}, 0.4),
        plots.latency_curves({"a": Latency(np.array([1.0, 2.0]))}),
        plots.movement({"a": [0.1, 0.2]}, [1.0, 0.9, 0.8]),
        plots.energy_curves([1, 2], {"a": [0.5, 1.0]}, [0.4, 1.0]),
    ]
    assert all(png(figure, dpi=40)[:4] == b"\x89PNG" for figure in figures)
