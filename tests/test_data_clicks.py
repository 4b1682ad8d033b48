"""The click log follows its stated model, and only the corrected estimates find the true order."""

import numpy as np
import pytest
from scipy import stats

from mangalab.data import clicks
from mangalab.data.clicks import Behaviour

QUERIES, TITLES, SESSIONS = 10, 40, 30_000


@pytest.fixture(scope="module")
def world():
    """A bad ranking: scores know little of the grades, popular titles are pushed up."""
    rng = np.random.default_rng(3)
    grades = rng.choice(4, (QUERIES, TITLES), p=[0.5, 0.2, 0.15, 0.15])
    ranks = rng.permutation(TITLES) + 1
    scores = clicks.production(0.3 * grades + rng.normal(size=grades.shape), ranks)
    return scores, grades, ranks


@pytest.fixture(scope="module")
def log(world):
    return clicks.simulate(*world, sessions=SESSIONS, seed=1)


def order(estimate, truth):
    """Share of the pairs of different grade that an estimate puts in the true order, by query."""
    found = []
    for row, true in zip(estimate, truth, strict=True):
        seen = np.isfinite(row) & np.isfinite(true)
        higher = true[seen][:, None] > true[seen]
        found.append((row[seen][:, None] > row[seen])[higher].mean())
    return np.array(found)


def often(log, world, least=300):
    """Mask of the cells with enough impressions for their estimates to be steady."""
    shown = np.zeros(world[0].shape)
    np.add.at(shown, (log.query, log.title), 1)
    return shown >= least


def test_shape_and_reproduction(world, log):
    assert len(log) == SESSIONS * 10 and log.clicked.dtype == bool
    again = clicks.simulate(*world, sessions=SESSIONS, seed=1)
    assert (again.clicked == log.clicked).all() and (again.title == log.title).all()
    other = clicks.simulate(*world, sessions=SESSIONS, seed=2)
    assert (other.title != log.title).any()
    for session in (0, 77):  # one query and ten different titles in a session
        rows = log.session == session
        assert len(set(log.query[rows])) == 1 and len(set(log.title[rows])) == 10
        assert log.position[rows].tolist() == list(range(1, 11))


def test_clicks_come_at_the_stated_rates(log):
    """Observed minus expected clicks, in standard deviations, by position, grade and popularity."""
    b = log.behaviour
    chance = log.propensity * (b.noise + (1 - b.noise) * np.array(b.attraction)[log.grade] * log.appeal)
    popular = log.appeal > np.median(log.appeal)
    for group in (log.position, log.grade, popular, log.query):
        for value in np.unique(group):
            rows, p = group == value, chance[group == value]
            z = (log.clicked[rows].sum() - p.sum()) / np.sqrt((p * (1 - p)).sum())
            assert abs(z) < 4.5, (value, z)
    np.testing.assert_allclose(log.propensity, 1 / log.position)


@pytest.fixture(scope="module")
def fair(world):
    """A log without popularity bias in the clicks, its truth where a title was shown often enough."""
    scores, grades, ranks = world
    log = clicks.simulate(scores, grades, ranks, SESSIONS, Behaviour(popularity=0.0), seed=1)
    return log, np.where(often(log, world), grades, np.nan)


def test_the_known_position_bias_recovers_the_true_order(fair):
    """Corrected clicks order the titles by grade, raw click rates do not."""
    log, truth = fair
    raw = order(clicks.click_rate(log, truth.shape), truth)
    corrected = order(clicks.position_corrected(log, truth.shape), truth)
    assert np.isfinite(truth).sum() > 10 * QUERIES
    assert corrected.min() > 0.98
    assert raw.max() < 0.96
    gain = stats.ttest_1samp(corrected - raw, 0, alternative="greater")
    assert gain.pvalue < 1e-3


def test_a_wrong_eta_is_worse(fair):
    log, truth = fair
    right, none, over = (
        order(clicks.position_corrected(log, truth.shape, eta), truth).mean()
        for eta in (None, 0.0, 3.0)
    )
    assert right > none + 0.05 and right > over + 0.05


def test_position_correction_leaves_the_popularity_bias(world, log):
    """With both biases only the full correction is unbiased for the attraction of the grades."""
    _, grades, _ = world
    mask = often(log, world, least=2_000)
    truth = np.array(log.behaviour.attraction)[grades][mask]
    full = clicks.attraction(log, grades.shape)[mask] - truth
    position_only = clicks.position_corrected(log, grades.shape)[mask] - truth
    assert abs(full.mean()) < 0.02 and np.abs(full).max() < 0.15
    assert position_only.mean() < -0.03  # appeal lowers clicks on all but the most popular


def test_popular_titles_are_shown_more_than_they_deserve(world, log):
    _, grades, ranks = world
    shown = np.bincount(log.title, minlength=TITLES)
    assert stats.spearmanr(shown, ranks).statistic < -0.5
    assert abs(stats.spearmanr(grades.mean(axis=0), ranks).statistic) < 0.35
    none = clicks.production(np.ones((1, TITLES)), ranks, weight=0.0)
    assert not none.any()


def test_bad_arguments_are_refused(world):
    scores, grades, ranks = world
    with pytest.raises(ValueError, match="need 4 probabilities"):
        Behaviour(attraction=(0.1, 0.2))
    with pytest.raises(ValueError, match="need 0 <= x < 1"):
        Behaviour(popularity=1.0)
    with pytest.raises(ValueError, match="must fit"):
        clicks.simulate(scores, grades[:, :-1], ranks)
    with pytest.raises(ValueError, match="depth 50 of 40 titles"):
        clicks.simulate(scores, grades, ranks, behaviour=Behaviour(depth=50))
