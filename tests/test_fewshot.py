"""Few-shot learning: against the papers' formulas, scikit-learn, torch.func and the library's loss."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mangalab.training import fewshot as fs
from mangalab.training.classify import bottoms
from mangalab.training.encoder import LeanEncoder

LABELS = torch.arange(40) % 4
SMALL = fs.MetaConfig(ways=3, shots=3, queries=5)
MESSAGES = [[101, 10 + 20 * (i % 4) + i % 7, 9 + i % 31, 102][: 3 + i % 2] for i in range(40)]


@pytest.fixture(scope="module")
def bert():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)


@pytest.fixture
def model(bert):
    return fs.TopLayers(LeanEncoder(bert, 2), 4)


@pytest.fixture(scope="module")
def states(bert):
    return fs.States(MESSAGES, bottoms(LeanEncoder(bert, 2), MESSAGES))


@pytest.fixture
def cloud():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 6, generator=generator) + 1.5 * F.one_hot(LABELS, 6)


def zero_head():
    shapes = {"weight": (4, 6), "bias": (4,)}
    return {name: torch.zeros(shape, requires_grad=True) for name, shape in shapes.items()}


def test_draw_takes_k_of_every_class_and_the_seed_decides():
    a, b, c = fs.draw(LABELS, 3, 0), fs.draw(LABELS, 3, 0), fs.draw(LABELS, 3, 1)
    assert LABELS[a].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert len(set(a.tolist())) == 12 and a.equal(b) and not a.equal(c)
    with pytest.raises(ValueError, match=r"class 0 has 10 examples, 11 were asked for"):
        fs.draw(LABELS, 11, 0)


def test_nearest_prototype_is_scikits_nearest_centroid(cloud):
    from sklearn.neighbors import NearestCentroid

    centres = fs.prototypes(cloud, LABELS)
    logits = fs.distance_logits(cloud, centres)
    library = NearestCentroid().fit(cloud.numpy(), LABELS.numpy())
    assert np.allclose(centres.numpy(), library.centroids_, atol=1e-6)
    assert logits.argmax(1).numpy().tolist() == library.predict(cloud.numpy()).tolist()
    assert torch.allclose(logits, -torch.cdist(cloud, centres).square(), atol=1e-4)


def test_plain_distance_has_the_same_winner_and_another_softmax(cloud):
    centres = fs.prototypes(cloud, LABELS)
    plain, squared = (fs.distance_logits(cloud, centres, s) for s in (False, True))
    assert plain.argmax(1).equal(squared.argmax(1))
    assert not torch.allclose(plain.softmax(1), squared.softmax(1), atol=0.01)
    assert torch.allclose(plain.square(), -squared, atol=1e-4)


def test_episodes_hold_disjoint_supports_and_queries_of_the_named_classes():
    config = fs.MetaConfig(episodes=5, ways=3, shots=2, queries=4, seed=3)
    for supports, queries, ys, yq in fs.episodes(LABELS, config):
        assert not set(supports.tolist()) & set(queries.tolist())
        for c in range(3):
            kinds = set(LABELS[supports[ys == c]].tolist()) | set(LABELS[queries[yq == c]].tolist())
            assert len(kinds) == 1 and (ys == c).sum() == 2 and (yq == c).sum() == 4
    with pytest.raises(ValueError, match="has 10 examples: lower shots 5 or queries 8"):
        next(fs.episodes(LABELS, fs.MetaConfig(ways=3)))
    with pytest.raises(ValueError, match="2 or more ways"):
        fs.MetaConfig(ways=1)


def test_projection_starts_at_the_identity_and_learns(cloud):
    still, _ = fs.train_projection(cloud, LABELS, replace(SMALL, episodes=1, lr=1e-9))
    assert torch.allclose(still, torch.eye(6), atol=1e-6)
    _, losses = fs.train_projection(cloud, LABELS, replace(SMALL, episodes=80, lr=1e-2))
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])


def test_adapt_is_gradient_descent_with_torch_funcs_second_order(cloud):
    start = zero_head()
    inner, outer = fs.head_loss(cloud[:20], LABELS[:20]), fs.head_loss(cloud[20:], LABELS[20:])

    def after(params):
        for _ in range(3):
            grads = torch.func.grad(inner)(params)
            params = {n: p - 0.5 * grads[n] for n, p in params.items()}
        return outer(params)

    exact = torch.func.grad(after)(start)
    found = outer(fs.adapt(start, inner, 3, 0.5, second_order=True))
    grads = torch.autograd.grad(found, list(start.values()))
    assert torch.allclose(grads[0], exact["weight"], atol=1e-6)
    first = outer(fs.adapt(start, inner, 3, 0.5, second_order=False))
    assert torch.allclose(first, found)
    rough = torch.autograd.grad(first, list(start.values()))[0]
    assert not torch.allclose(rough, exact["weight"], atol=1e-3)


def test_first_order_gradient_is_the_one_at_the_adapted_point(cloud):
    start = zero_head()
    inner, outer = fs.head_loss(cloud[:20], LABELS[:20]), fs.head_loss(cloud[20:], LABELS[20:])
    moved = fs.adapt(start, inner, 3, 0.5, second_order=False)
    through = torch.autograd.grad(outer(moved), start["weight"])[0]
    there = {n: p.detach().requires_grad_() for n, p in moved.items()}
    assert torch.allclose(through, torch.autograd.grad(outer(there), there["weight"])[0])


@pytest.mark.parametrize("whole", [False, True])
def test_meta_training_moves_layers_and_lowers_the_query_loss(model, states, whole):
    before = copy.deepcopy(model.state_dict())
    config = fs.MetaConfig(30, ways=4, shots=3, queries=5, lr=3e-3, inner_lr=0.3, inner_steps=3)
    losses = fs.meta_train(model, states, LABELS, config, whole)
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
    moved = {n for n, p in model.state_dict().items() if not p.equal(before[n])}
    assert {"layers.0.qkv_weight", "head.weight"} <= moved


def test_states_map_keeps_the_order_and_equals_the_encoder(bert, model, states):
    from mangalab.training.classify import _in_order

    rows = torch.tensor([7, 0, 3, 39, 8])
    found = states.map(model.features, rows, size=2)
    encoder = LeanEncoder(bert, 2)
    whole = torch.empty(40, 32)
    for chosen, batch in _in_order(MESSAGES, encoder):
        whole[chosen] = encoder(batch)
    assert torch.allclose(found, whole[rows], atol=1e-5)


def test_pair_loss_is_the_librarys_on_balanced_pairs(cloud):
    z, y = cloud[:8], torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    i, j = torch.triu_indices(8, 8, 1)
    same = (y[i] == y[j]).float()
    copies = torch.where(same == 1, (same == 0).sum() // same.sum().long(), 1).long()
    assert copies[same == 1].unique().tolist() == [6]  # positives repeated until both kinds are equal
    i, j, target = (t.repeat_interleave(copies) for t in (i, j, same))
    library = F.mse_loss(torch.cosine_similarity(z[i], z[j]), target)
    assert torch.allclose(fs.pair_loss(z, y), library, atol=1e-6)


def test_setfit_pulls_classes_apart_and_leaves_the_head(model, states):
    rows = fs.draw(LABELS, 5, 0)
    losses = fs.setfit(model, states, rows, LABELS[rows], steps=25, lr=2e-3)
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    assert not model.head.weight.any()
    one = fs.draw(LABELS, 1, 0)  # a single message is its own positive pair
    assert np.isfinite(fs.setfit(model, states, one, LABELS[one], steps=1, lr=1e-4)).all()
