"""Simulated annotators err as their model says, and as nothing else."""

import numpy as np
import pytest

from mangalab.data import sentiment
from mangalab.data.annotators import (
    DIFFICULTY,
    PLAIN,
    NoiseModel,
    annotate,
    difficulty,
    majority,
    marking,
    skills,
)
from mangalab.evaluation import agreement

TURNS = sentiment.load("test")
TRUTH = sentiment.label_matrix(TURNS)
HARD = difficulty(TURNS)


def test_shapes_types_and_seeds():
    marks = annotate(TRUTH, HARD, 4, seed=3)
    assert marks.shape == (len(TURNS), 4, 6) and marks.dtype == bool
    assert (marks == annotate(TRUTH, HARD, 4, seed=3)).all()
    assert (marks != annotate(TRUTH, HARD, 4, seed=4)).any()


def test_sarcasm_is_hardest_and_every_named_slice_exists():
    assert set(DIFFICULTY) <= set(sentiment.SLICES)
    by_slice = {s: HARD[[s in t.slices for t in TURNS]].mean() for s in DIFFICULTY}
    assert max(by_slice, key=by_slice.get) == "sarcasm"
    assert HARD.min() == PLAIN and HARD.max() == DIFFICULTY["sarcasm"]


def test_annotators_without_spread_meet_their_stated_rates():
    model = NoiseModel(spread=0)
    truth = np.zeros((20_000, 6), int)
    truth[:10_000] = 1
    marks = annotate(truth, np.zeros(20_000), 1, 0, model, derive_neutral=False)[:, 0]
    assert marks[:10_000].mean(axis=0) == pytest.approx(model.sensitivity, abs=0.015)
    assert 1 - marks[10_000:].mean(axis=0) == pytest.approx(model.specificity, abs=0.015)


def test_an_item_of_full_difficulty_is_a_guess_whatever_its_label():
    model = NoiseModel()
    chance = marking(np.eye(6, dtype=int), np.ones(6), 3, 0, model)
    assert chance == pytest.approx(np.broadcast_to(model.guess, chance.shape))


def test_spread_makes_annotators_differ_around_the_mean():
    flat, _ = skills(5, 0, NoiseModel(spread=0))
    assert np.ptp(flat, axis=0).max() == pytest.approx(0)
    sensitivity, specificity = skills(2_000, 0)
    assert sensitivity.std(axis=0).min() > 0.01
    assert np.median(sensitivity, axis=0) == pytest.approx(NoiseModel().sensitivity, abs=0.01)
    assert np.median(specificity, axis=0) == pytest.approx(NoiseModel().specificity, abs=0.01)


def test_neutral_follows_from_the_other_labels_unless_it_is_judged_apart():
    marks = annotate(TRUTH, HARD, 3, seed=1)
    assert (marks[..., 5] == ~marks[..., :5].any(axis=-1)).all()
    apart = annotate(TRUTH, HARD, 3, seed=1, derive_neutral=False)
    assert (apart[..., 5] & apart[..., :5].any(axis=-1)).any()


def test_majority_needs_more_than_half():
    marks = np.zeros((3, 4, 6), bool)
    marks[0, :3, 0] = marks[1, :2, 0] = True
    found = majority(marks)
    assert found[:, 0].tolist() == [True, False, False]
    assert found[:, 5].tolist() == [False, True, True]


def test_more_annotators_come_nearer_the_truth():
    right = [
        agreement.exact_match(TRUTH, majority(annotate(TRUTH, HARD, n, seed=0))) for n in (1, 3, 9)
    ]
    assert right[0] < right[1] < right[2] < 1


def test_agreement_is_moderate_and_lower_on_sarcasm():
    marks = annotate(TRUTH, HARD, 3, seed=0)
    kappas = [k.value for k in agreement.fleiss_kappas(marks, resamples=2)]
    assert min(kappas) > 0.4 and max(kappas) < 0.85, kappas
    sarcasm = np.array(["sarcasm" in t.slices for t in TURNS])
    same = (marks == marks[:, :1]).all(axis=(1, 2))
    assert same[sarcasm].mean() < same[~sarcasm].mean() - 0.1


@pytest.mark.parametrize(
    ("truth", "hard"),
    [
        (np.zeros((3, 5)), np.zeros(3)),
        (np.zeros((3, 6)), np.zeros(2)),
        (np.full((3, 6), 2), np.zeros(3)),
        (np.zeros((3, 6)), np.full(3, 1.5)),
    ],
)
def test_what_does_not_fit_is_refused(truth, hard):
    with pytest.raises(ValueError, match="truth"):
        annotate(truth, hard)


def test_impossible_rates_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        NoiseModel(sensitivity=(1.0,) * 6)
    with pytest.raises(ValueError, match="spread"):
        NoiseModel(spread=-1)
