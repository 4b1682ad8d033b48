"""Schedules of ULMFiT: against the paper's formula, torch's optimiser and the plain loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mangalab.training.classify import Classifier, ClassifyConfig, LeanEncoder, predict, train
from mangalab.training.unfreeze import (
    DECAY,
    Schedule,
    all_states,
    fit,
    optimizer_of,
    slanted_triangular,
    thaw,
)  # fmt: skip

MESSAGES = [[101, 7 + i % 50, 9 + i % 31, 102][: 3 + i % 2] for i in range(24)]
TARGETS = torch.tensor([[i % 2, i % 3 == 0] for i in range(24)]).float()


def bce(z, t):
    return F.binary_cross_entropy_with_logits(z, t)


@pytest.fixture(scope="module")
def bert():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)


def paper(t, T, cut_frac, ratio):
    """Equation 3 of Howard & Ruder (2018), letter for letter."""
    cut = int(T * cut_frac)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
    return (1 + p * (ratio - 1)) / ratio


@pytest.mark.parametrize(("steps", "cut_fraction"), [(100, 0.1), (40, 0.25), (1000, 0.05)])
def test_triangle_is_the_papers_formula_where_the_cut_is_whole(steps, cut_fraction):
    ours = [slanted_triangular(t, steps, cut_fraction) for t in range(steps)]
    assert np.allclose(ours, [paper(t, steps, cut_fraction, 32) for t in range(steps)])
    assert max(ours) == 1.0 and ours.index(1.0) == int(steps * cut_fraction)


def test_triangle_stays_above_zero_where_the_paper_does_not():
    assert paper(18, 19, 0.1, 32) < 0  # cut is 1, so the paper's descent is over after 10 steps
    ours = [slanted_triangular(t, 19) for t in range(19)]
    assert min(ours) >= 1 / 32 and ours == sorted(ours[:1]) + sorted(ours[1:], reverse=True)


def test_triangle_of_very_few_steps_and_of_nonsense():
    assert [slanted_triangular(t, 2) for t in range(2)] == [1 / 32, 1.0]
    for wrong in ((5, 5), (-1, 5)):
        with pytest.raises(ValueError, match="need 0 <= step < steps"):
            slanted_triangular(*wrong)


def test_rates_fall_by_the_papers_factor_from_layer_to_layer(bert):
    model = Classifier(LeanEncoder(bert, 0), 2)
    schedule = Schedule(layers=3, lr=1e-3, layer_decay=DECAY, epochs=1)
    rate = {id(p): g["lr"] for g in optimizer_of(model, schedule).param_groups for p in g["params"]}
    rates = [{rate[id(p)] for p in layer.parameters()} for layer in model.encoder.layers]
    assert all(len(found) == 1 for found in rates)
    bottom, middle, top = (found.pop() for found in rates)
    assert top == 1e-3 and top / middle == pytest.approx(2.6) == middle / bottom


def test_every_trained_parameter_is_in_the_optimiser_once(bert):
    model = Classifier(LeanEncoder(bert, 0), 2)
    groups = optimizer_of(model, Schedule(layers=2, epochs=1)).param_groups
    held = [p for group in groups for p in group["params"]]
    expected = [*model.head.parameters(), *model.encoder.layers[1:].parameters()]
    assert len(held) == len({id(p) for p in held}) and {*map(id, held)} == {*map(id, expected)}


def test_a_frozen_layer_does_not_move_and_a_thawed_one_does(bert):
    schedule = Schedule(layers=3, epochs=2, stages=(0, 1), batch_size=8)
    old = LeanEncoder(bert, 0).matrices()
    new = fit(bert, MESSAGES, TARGETS, schedule, bce).model.encoder.matrices()
    moved = {int(name.split(".")[2]) for name in old if not torch.equal(old[name], new[name])}
    assert moved == {2}


def test_head_alone_trains_where_a_stage_is_zero(bert):
    schedule = Schedule(layers=3, epochs=1, stages=(0,), batch_size=8)
    found = fit(bert, MESSAGES, TARGETS, schedule, bce)
    assert found.layer_tokens == 0
    assert not torch.equal(found.model.head.weight, Classifier(LeanEncoder(bert, 0), 2).head.weight)


def test_all_at_once_is_the_loop_of_chapter_01(bert):
    config = dict(layers=2, epochs=2, batch_size=8, seed=3, lr=1e-3)
    plain = train(bert, MESSAGES, TARGETS, ClassifyConfig(**config), bce)
    ours = fit(bert, MESSAGES, TARGETS, Schedule(**config), bce)
    assert ours.losses == plain.losses
    assert torch.equal(predict(ours.model, MESSAGES).logits, predict(plain.model, MESSAGES).logits)


def test_states_are_exact_at_every_depth(bert):
    encoder = LeanEncoder(bert, 0)
    states = all_states(encoder, MESSAGES)
    model = Classifier(encoder, 2)
    expected = predict(model, MESSAGES).features
    for layers in range(4):
        thaw(model, layers)
        cached = predict(model, MESSAGES, states[encoder.first]).features
        assert torch.allclose(cached, expected, atol=1e-6), layers


def test_work_counts_layers_times_tokens(bert):
    tokens = sum(map(len, MESSAGES))
    schedule = Schedule(layers=3, epochs=3, stages=(0, 1, 3), batch_size=8)
    assert fit(bert, MESSAGES, TARGETS, schedule, bce).layer_tokens == 4 * tokens


def test_watch_sees_the_start_every_few_steps_and_the_end(bert):
    schedule = Schedule(layers=3, epochs=2, stages=(0, 2), batch_size=8)  # 3 steps an epoch
    found = fit(bert, MESSAGES, TARGETS, schedule, bce, watch=lambda m: m.encoder.first, watch_every=2)
    assert [(step, layers) for step, layers, _ in found.seen] == [(0, 0), (2, 0), (4, 2), (6, 2)]


def test_same_seed_same_weights(bert):
    schedule = Schedule(epochs=2, stages=(1, 3), batch_size=8, slanted=True, layer_decay=DECAY)
    a, b = (fit(bert, MESSAGES, TARGETS, schedule, bce).model for _ in range(2))
    assert torch.equal(predict(a, MESSAGES).logits, predict(b, MESSAGES).logits)


@pytest.mark.parametrize("stages", [(0, 2, 1), (0, 1), (-1, 0, 1)])
def test_impossible_stages_are_refused(stages):
    with pytest.raises(ValueError, match="stages"):
        Schedule(epochs=3, stages=stages)
