"""The mixture layer against transformers' Mixtral; balance loss, capacity, counts, information."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.mixtral.configuration_mixtral import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

from mangalab.data import labelled, retrieval
from mangalab.data.catalogue import load as titles
from mangalab.evaluation.routing import association, mutual_information, token_type
from mangalab.shapes import SHAPES, Shape
from mangalab.training import moe
from mangalab.training.frozen import Frozen

D, WIDTH = 16, 24


class Block(nn.Module):
    """A gated feed-forward block with the names of Llama's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gate_proj, self.up_proj = (nn.Linear(D, WIDTH, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(WIDTH, D, bias=False)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


@pytest.fixture
def mlp():
    return Block().requires_grad_(False)


@pytest.fixture
def x():
    return torch.randn(40, D, generator=torch.Generator().manual_seed(1))


def scattered(mlp, k, experts=4):
    """A mixture whose experts differ."""
    block = moe.upcycle(mlp, experts, k, std=1.0)
    with torch.no_grad():
        for w in (block.gate_up, block.down):
            w += 0.3 * torch.randn(w.shape, generator=torch.Generator().manual_seed(2))
    return block


@pytest.mark.parametrize("k", [1, 2, 4])
def test_layer_equals_mixtral_on_the_same_weights(mlp, x, k):
    ours = scattered(mlp, k)
    config = MixtralConfig(
        hidden_size=D, intermediate_size=WIDTH, num_local_experts=4, num_experts_per_tok=k
    )
    theirs = MixtralSparseMoeBlock(config).eval()
    with torch.no_grad():
        theirs.experts.gate_up_proj.copy_(ours.gate_up)
        theirs.experts.down_proj.copy_(ours.down)
        theirs.gate.weight.copy_(ours.router)
        assert torch.allclose(ours(x), theirs(x[None])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("experts", "k", "width"), [(4, 1, 1), (4, 2, 1), (8, 3, 1), (1, 1, 2), (1, 1, 3)]
)
def test_identical_experts_are_the_dense_block(mlp, x, experts, k, width):
    block = moe.upcycle(mlp, experts, k, width=width, seed=3)
    assert torch.allclose(block(x), mlp(x), atol=1e-6)


def test_copies_of_a_wide_block_can_part(mlp, x):
    block = moe.upcycle(mlp, 1, 1, width=2, seed=3)
    halves = block.down[0].split(WIDTH, 1)
    assert not torch.allclose(halves[0], halves[1], atol=1e-3)


@pytest.mark.parametrize("k", [1, 2])
def test_balance_loss_is_the_library_s_and_k_when_even(mlp, x, k):
    block = scattered(mlp, k)
    theirs = load_balancing_loss_func((x @ block.router.T,), 4, k)
    assert float(moe.balance_loss(block.route(x))) == pytest.approx(float(theirs), rel=1e-5)
    even = moe.Routing(torch.full((8, 4), 0.25), torch.arange(16).reshape(8, 2) % 4, torch.ones(8, 2))
    assert float(moe.balance_loss(even)) == pytest.approx(2.0)


def test_balance_loss_pushes_the_crowded_expert_down(mlp, x):
    block = moe.upcycle(mlp, 4, 1)
    probs = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).repeat(6, 1).requires_grad_()
    moe.balance_loss(
        moe.Routing(probs, torch.zeros(6, 1, dtype=torch.long), torch.ones(6, 1))
    ).backward()
    assert (probs.grad[:, 0] > 0).all() and (probs.grad[:, 1:] == 0).all()
    assert len(block.router) == 4


def test_top1_router_has_a_gradient_although_its_weight_is_one(mlp, x):
    block = scattered(mlp, 1)
    routing = block.route(x)
    assert torch.equal(routing.weights, torch.ones_like(routing.weights))
    block(x, routing).square().sum().backward()
    assert float(block.router.grad.abs().max()) > 0


def test_noise_is_drawn_in_training_only(mlp, x):
    block = moe.upcycle(mlp, 4, 1, noise=5.0)
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(block.route(x).chosen, block.route(x).chosen)
    assert not torch.equal(block.route(x, draw).chosen, block.route(x, draw).chosen)


def test_capacity_seats_first_choices_and_early_tokens_first():
    chosen = torch.tensor([[0, 1], [0, 1], [1, 0], [0, 1]])
    assert moe.kept(chosen, 2, 2).tolist() == [
        [True, True],
        [True, False],
        [True, False],
        [False, False],
    ]
    assert moe.kept(chosen, 2, 4).all()


def test_a_dropped_token_gets_nothing_from_the_block(mlp, x):
    block = moe.upcycle(mlp, 2, 1)
    with torch.no_grad():
        block.router.zero_()
        block.router[0] = 0.0
    out = block(x, capacity=3)
    first = block.route(x).chosen[0, 0]
    seated = (block.route(x).chosen[:, 0] == first).nonzero()[:3, 0]
    assert torch.allclose(out[seated], mlp(x)[seated], atol=1e-6)
    assert float(out.abs().sum(1).gt(0).sum()) <= 6


def test_more_chosen_than_experts_is_refused(mlp):
    with pytest.raises(ValueError, match="k=3"):
        moe.upcycle(mlp, 2, 3)


def test_counts_are_those_of_the_published_mixtral():
    found = moe.counts(Shape("Mixtral-8x7B", 32, 4096, 32, 8, 128, 14336, 32000), 8, 2)
    assert found["total"] == 46_702_792_704
    assert found["active"] / 1e9 == pytest.approx(12.88, abs=0.01)
    dense = moe.counts(SHAPES["Llama-3-8B"], 1, 1)
    assert dense["total"] == dense["active"] == SHAPES["Llama-3-8B"].parameters


def test_adapter_starts_as_the_block_and_freezes_it(mlp, x):
    adapter = moe.Adapter(moe.upcycle(mlp, 1, 1), 4)
    assert torch.allclose(adapter(x), mlp(x), atol=1e-6)
    assert {n for n, p in adapter.named_parameters() if p.requires_grad} == {"into", "out"}


def test_mean_by_text():
    data = moe.Tokens(torch.zeros(4, 1), torch.zeros(4), torch.zeros(4), torch.tensor([1, 0, 1, 1]))
    assert moe.by_text(torch.tensor([3.0, 5.0, 6.0, 0.0]), data).tolist() == [5.0, 3.0]


def test_mutual_information_of_known_tables():
    assert mutual_information(np.eye(4) * 7) == pytest.approx(2.0)
    assert mutual_information(np.outer([1, 2, 3], [4, 5])) == pytest.approx(0.0, abs=1e-12)


def test_association_tells_chance_from_structure():
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b"] * 30)
    noise = rng.multinomial(20, [0.25] * 4, size=60)
    told = np.where((labels == "a")[:, None], [18, 1, 1, 0], [0, 1, 1, 18])
    assert association(told, labels, 200).p < 0.01 and association(told, labels, 200).excess > 0.5
    assert (
        association(noise, labels, 200).p > 0.01 and abs(association(noise, labels, 200).excess) < 0.01
    )
    with pytest.raises(ValueError, match="one each"):
        association(noise, labels[:-1])


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        ("Ġthe", "function word"),
        ("ing", "inside a word"),
        ("ĠTokyo", "capital"),
        ("Ġghost", "content word"),
        ("19", "number"),
        (".", "punctuation"),
    ],
)
def test_token_types(piece, kind):
    assert token_type(piece) == kind


def test_texts_have_kinds_and_described_titles_do_not_leak():
    sets = {s: labelled.load(s, 400) for s in labelled.SPLITS}
    names = {
        s: {t.text.split(".")[0] for t in found if t.kind == "description"} for s, found in sets.items()
    }
    assert not names["train"] & names["test"] and not names["train"] & names["validation"]
    assert len(names["test"]) > 50 and retrieval.held_out()
    assert {t.genre for t in sets["test"]} <= {"", *labelled.genres()}
    assert labelled.load("test", 5) == labelled.load("test", 5)
    with pytest.raises(ValueError, match="no split"):
        labelled.load("dev", 5)


def test_genre_is_the_rarest_common_one():
    order = labelled.genres()
    title = next(t for t in titles() if len(set(t.genres) & set(order)) > 2)
    assert order.index(labelled.genre(title)) == max(order.index(g) for g in title.genres if g in order)


class Engine:
    """What Top needs of an engine: identity norms, a head of six words."""

    def __init__(self):
        torch.manual_seed(0)
        layer = type("L", (), {"post_attention_layernorm": None})()
        self.layers, self.head = [layer], torch.randn(6, D)
        self.words = Frozen(self.head)
        self.core = type("C", (), {"norm": None})()

    def _norm(self, x, norm):
        return x


def test_training_lowers_the_loss_and_depends_on_the_seed_alone(mlp, x):
    targets = torch.randint(0, 6, (40,), generator=torch.Generator().manual_seed(0))
    data = moe.Tokens(x, targets, targets, torch.arange(40))
    top = moe.Top(Engine(), targets, every=1)
    results = []
    for _ in range(2):
        block = moe.upcycle(mlp, 4, 2)
        before = moe.score(top, block, data).mean()
        trace = moe.fit(top, block, data, moe.MoEConfig(lr=1e-2, steps=30, batch=16, balance=0.01))
        results.append(moe.score(top, block, data).mean())
        assert results[-1] < before - 0.1 and len(trace.loads) == 30
    assert results[0] == results[1]


def test_weighted_words_stand_for_those_left_out():
    top = moe.Top(Engine(), torch.tensor([1, 4]), every=2)
    assert top.rows.tolist() == [1, 4, 0, 3]
    assert top.bias.exp().tolist() == pytest.approx([1, 1, 2, 2])
    assert top.place.tolist() == [2, 0, -1, 3, 1, -1]
