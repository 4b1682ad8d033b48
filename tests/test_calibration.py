"""Calibration by hand computation and by simulation."""

import numpy as np
import pytest

from mangalab.evaluation.calibration import (
    crossfit_temperatures,
    ece,
    fit_temperature,
    nll,
    probabilities,
    reliability,
)


def test_ece_by_hand():
    # bins (0.2, 0.4]: one message, 0.3, wrong; (0.8, 1]: 0.9 right, 1.0 wrong
    found = reliability(np.array([0.3, 0.9, 1.0]), np.array([False, True, False]), bins=5)
    assert found.counts.tolist() == [0, 1, 0, 0, 2]
    assert found.ece == pytest.approx(1 / 3 * 0.3 + 2 / 3 * abs(0.5 - 0.95))


def test_bins_are_closed_on_the_right():
    found = reliability(np.array([0.0, 0.5, 0.5000001]), np.ones(3), bins=2)
    assert found.counts.tolist() == [2, 1]


def test_calibrated_confidences_have_small_ece_and_the_number_of_bins_matters():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 1, 20_000)
    right = rng.random(20_000) < p
    assert ece(p, right) < 0.02
    # few messages, many bins: sampling noise alone makes a gap
    assert ece(p[:200], right[:200], bins=50) > 3 * ece(p, right, bins=50)


def test_temperature_is_recovered():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 5))
    p = probabilities(logits)
    labels = np.array([rng.choice(5, p=row) for row in p])
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.06)
    T = crossfit_temperatures(3 * logits, labels)
    assert len(set(T.round(9))) == 2
    assert T.mean() == pytest.approx(3, rel=0.1)
    assert nll(3 * logits, labels, 3.0) < nll(3 * logits, labels)


def test_logits_are_refused_as_confidences():
    with pytest.raises(ValueError, match="pass probabilities"):
        reliability(np.array([3.0, 0.2]), np.array([True, False]))
