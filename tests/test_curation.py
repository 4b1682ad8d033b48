"""Planted noise, confident learning against cleanlab, MinHash, active learning, synthetic text."""

import numpy as np
import pytest

from mangalab.data import leakage, minhash, noise
from mangalab.data.intents import INTENTS
from mangalab.evaluation import confident as cl
from mangalab.training import active, synthetic

K = len(INTENTS)


@pytest.fixture(scope="module")
def noisy():
    """Labels with planted errors, truth and probabilities of a fallible model, 900 rows."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, K, 900)
    labels, wrong = noise.plant(truth, 0.2, "pairs", 3)
    logits = rng.normal(0, 1, (900, K)) + 2.5 * np.eye(K)[truth]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, truth, wrong, p


@pytest.mark.parametrize("kind", noise.KINDS)
def test_noise_is_exact_repeatable_and_nested(kind):
    truth = np.arange(500) % K
    labels, wrong = noise.plant(truth, 0.1, kind, 7)
    more, wrong_more = noise.plant(truth, 0.3, kind, 7)
    assert wrong.sum() == 50 and ((labels != truth) == wrong).all()
    assert (noise.plant(truth, 0.1, kind, 7)[0] == labels).all()
    assert (wrong <= wrong_more).all() and (labels[wrong] == more[wrong]).all()
    assert (noise.plant(truth, 0.1, kind, 8)[1] != wrong).any()


def test_pairs_go_to_the_partner_and_the_kernel_says_so():
    truth = np.repeat(np.arange(K), 50)
    labels, wrong = noise.plant(truth, 0.2, "pairs", 0)
    gone = zip(labels[wrong], truth[wrong], strict=True)
    assert all(INTENTS[a] == noise.CONFUSED[INTENTS[t]] for a, t in gone)
    for kind in noise.KINDS:
        assert noise.kernel(0.2, kind).sum(1) == pytest.approx(np.ones(K))
        assert cl.ceiling(noise.kernel(0.2, kind), np.full(K, 0.1)) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="kind='typos'"):
        noise.plant(truth, 0.1, "typos")


def test_measured_accuracy_is_what_planting_measures():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, K, 40_000)
    said = np.where(rng.random(40_000) < 0.7, truth, (truth + rng.integers(1, K, 40_000)) % K)
    got = (said == noise.plant(truth, 0.25, "uniform", 2)[0]).mean()
    assert got == pytest.approx(cl.measured_accuracy((said == truth).mean(), 0.25, K), abs=0.006)


def test_confident_learning_equals_cleanlab(noisy):
    from cleanlab.count import compute_confident_joint, estimate_joint, get_confident_thresholds
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    labels, _, _, p = noisy
    assert cl.thresholds(labels, p) == pytest.approx(get_confident_thresholds(labels, p))
    assert (cl.confident_joint(labels, p) == compute_confident_joint(labels, p, calibrate=False)).all()
    rounding = 1.0 / len(labels)
    assert np.abs(cl.estimate_joint(labels, p) - estimate_joint(labels, p)).max() <= rounding
    theirs = find_label_issues(labels, p, filter_by="confident_learning", n_jobs=1)
    assert (cl.issues(labels, p) == theirs).all() and theirs.any()
    scores = get_label_quality_scores(labels, p, method="normalized_margin")
    assert (cl.normalized_margin(labels, p) + 1) / 2 == pytest.approx(scores)


def test_confident_learning_finds_planted_errors_and_its_joint_is_one(noisy):
    labels, truth, wrong, p = noisy
    flagged = cl.issues(labels, p)
    assert wrong[flagged].mean() > 0.7 and flagged[wrong].mean() > 0.6
    assert cl.estimate_joint(labels, p).sum() == pytest.approx(1)
    assert cl.estimate_joint(labels, p).sum(1) == pytest.approx(np.bincount(labels) / len(labels))
    assert cl.noise_rate(cl.true_joint(labels, truth, K)) == pytest.approx(0.2)


def test_a_model_that_agrees_with_every_label_sees_no_noise(noisy):
    labels = noisy[0]
    memorised = np.full((len(labels), K), 0.01) + 0.9 * np.eye(K)[labels]
    assert cl.noise_rate(cl.estimate_joint(labels, memorised)) == 0
    assert not cl.issues(labels, memorised).any()


def test_published_rule_stays_among_the_confident():
    """Two classes reach their low thresholds; the likeliest one is below its own, high one."""
    p = np.array([[0.3, 0.2, 0.5]] * 2 + [[0.2, 0.3, 0.5]] * 2 + [[0.05, 0.05, 0.9]] * 2
                 + [[0.32, 0.31, 0.37]])  # fmt: skip
    labels = np.array([0, 0, 1, 1, 2, 2, 0])
    assert cl.confident_class(labels, p)[-1] == 2
    assert cl.confident_class(labels, p, as_published=True)[-1] == 0
    with pytest.raises(ValueError, match="no row"):
        cl.thresholds(np.zeros(7, int), p)


TEXTS = ("where is my order 1234 please", "do you have horror manga", "can I return volume 3")


def test_minhash_finds_what_the_exact_search_finds():
    right = ["where is my order 1234, please?", "do you have some horror manga", "gift cards?"]
    exact = leakage.near_duplicates(TEXTS, right, 0.6)
    found = minhash.near_duplicates(TEXTS, right, 0.6)
    assert {(p.left, p.right) for p in found} == {(p.left, p.right) for p in exact} != set()
    for pair in found:
        true = next(p.similarity for p in exact if p.right == pair.right)
        assert abs(pair.similarity - true) < 4 * 0.5 / np.sqrt(minhash.NUMBERS)


def test_leaks_are_removed_and_nothing_else():
    train = [*TEXTS, "Where is my order 1234 please!"]
    assert minhash.without_leaks(train, ["where is my order 1234 please"]) == [1, 2]


def test_catch_rate_is_what_random_signatures_do():
    b, r = minhash.bands(0.7)
    assert b * r <= minhash.NUMBERS and minhash.catch_rate(1, b, r) == 1
    rng = np.random.default_rng(0)
    equal = rng.random((4000, b, r)) < 0.65
    assert equal.all(2).any(1).mean() == pytest.approx(minhash.catch_rate(0.65, b, r), abs=0.03)


def blobs(n=400, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, n)
    x = rng.normal(0, 0.4, (n, 24)) + 2 * np.eye(24)[y]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


@pytest.mark.parametrize("strategy", active.STRATEGIES)
def test_active_learning_buys_each_row_once_from_one_start(strategy):
    x, y = blobs()
    found = active.learn(x, y, x[:5], strategy, 30, 20, 3, 10.0, 1)
    assert [len(r.rows) for r in found] == [30, 50, 70, 90]
    assert len(set(found[-1].rows.tolist())) == 90
    plain = active.learn(x, y, x[:5], "random", 30, 20, 0, 10.0, 1)
    assert found[0].rows.tolist() == plain[0].rows.tolist()


def test_core_set_takes_the_farthest_and_margin_the_closest():
    x = np.array([[1, 0], [0.99, 0.14], [0, 1], [-1, 0]], np.float32)
    assert active.core_set(x, np.array([0]), 2) == [3, 2]
    p = np.array([[0.5, 0.49, 0.01], [0.9, 0.05, 0.05]])
    assert active.margin(p).argmin() == 0 and active.entropy(p).argmax() == 0
    with pytest.raises(ValueError, match="no strategy"):
        active.learn(x, [0, 1, 0, 1], x, "best", 2, 1, 1, 1.0)


def test_out_of_sample_never_trains_on_the_row_it_judges():
    from mangalab.training.heads import fit, out_of_sample

    x, _ = blobs()
    y = np.random.default_rng(5).integers(0, K, len(x))  # labels without any pattern
    assert (fit(x, y, 1e4)(x).argmax(1) == y).mean() > 0.25
    assert (out_of_sample(x, y, 1e4).argmax(1) == y).mean() < 0.18


def test_prompts_show_only_the_first_half_of_the_lines():
    lines = synthetic.by_hand()
    for name, prompt in synthetic.prompts(2, seed=4):
        half = len(lines[name]) // 2
        shown = [line.removeprefix("- ") for line in prompt.split("\n") if line.startswith("- ")]
        assert len(shown) == synthetic.SHOTS and set(shown) <= set(lines[name][:half])
    assert len(synthetic.prompts(2)) == 2 * K


def test_lines_lengths_and_leaking_answers():
    found = synthetic.lines(" where is it\n- 20% off?\n1. second\n\ncut of")
    assert found == ["where is it", "20% off?", "second"]
    assert synthetic.length_ok("where is my parcel") and not synthetic.length_ok("ok then")
    assert not synthetic.length_ok("this is a joke, " * 5)
    assert synthetic.leaks_answer("Who is Kentarou Miura?", "Kentaro Miura")


def test_reviewed_drafts_are_ten_intents_and_no_line_twice():
    reviewed = synthetic.reviewed()
    assert {intent for intent, _ in reviewed} == set(INTENTS)
    assert len(reviewed) == 320 and 0.2 < np.mean(list(reviewed.values())) < 0.5
