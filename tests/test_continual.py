"""Continual learning: Fisher against autograd, EWC, LoRA, buffers, metrics, drift, data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mangalab.data import continual as story
from mangalab.data import leakage
from mangalab.data._files import CARDS, read_rows
from mangalab.data.intents import INTENTS
from mangalab.evaluation import shift
from mangalab.training.classify import Classifier, bottoms, predict
from mangalab.training.continual import (
    Anchor,
    Plan,
    Rows,
    _cycle,
    adapt,
    distillation,
    fisher,
    grown,
    log_likelihood,
    trained,
)
from mangalab.training.encoder import LeanEncoder, Packed

SPLITS = ("train", "validation", "test")
MESSAGES = [[101, 7 + i % 50, 9 + i % 31, 40, 102][: 3 + i % 3] for i in range(24)]


@pytest.fixture(scope="module")
def old():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32,
    )  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)
    model = Classifier(LeanEncoder(bert, 1), 3, seed=1)
    model.head.weight.data.mul_(20)
    return model


@pytest.fixture(scope="module")
def rows(old):
    return Rows(MESSAGES, bottoms(old.encoder, MESSAGES), torch.arange(24) % 3)


@pytest.fixture(scope="module")
def new(rows):
    return Rows(rows.messages[:8], rows.states[:8], torch.full((8,), 3))


def weights(model):
    return torch.cat([p.detach().flatten() for p in trained(model).values()])


# ------------------------------------------------------------------ Fisher information
def test_pure_likelihood_is_the_models(old, rows):
    params = {n: p.detach() for n, p in trained(old).items()}
    z = predict(old, rows.messages, rows.states).logits.log_softmax(1)
    layer = old.encoder.layers[0]
    for i in range(6):
        found = log_likelihood(params, rows.states[i], rows.targets[i], layer.heads, layer.eps)
        assert float(found) == pytest.approx(float(z[i, rows.targets[i]]), abs=1e-5)


def test_empirical_fisher_is_the_loop_of_autograd(old, rows):
    found = fisher(old, rows, seed=None, chunk=5)
    expected = {n: torch.zeros_like(p) for n, p in trained(old).items()}
    for i, (ids, x) in enumerate(zip(rows.messages, rows.states, strict=True)):
        loss = F.cross_entropy(old(Packed.of([ids]), x), rows.targets[i : i + 1])
        for n, g in zip(expected, torch.autograd.grad(loss, list(trained(old).values())), strict=True):
            expected[n] += g.square() / len(rows.messages)
    assert set(found) == set(expected)
    for n, value in expected.items():
        assert torch.allclose(found[n], value, rtol=1e-3, atol=1e-7 * float(value.max() + 1)), n
    batch = F.cross_entropy(old(Packed.of(rows.messages), torch.cat(list(rows.states))), rows.targets)
    mean = torch.autograd.grad(batch, old.head.bias)[0].square()
    assert not torch.allclose(found["head.bias"], mean, rtol=0.2)  # squaring the mean is another thing


def test_fisher_of_the_head_bias_follows_the_models_own_answers(old, rows):
    p = predict(old, rows.messages, rows.states).logits.softmax(1)
    expected = (p * (1 - p)).mean(0)  # E_y (p_k - [k = y])^2
    draws = torch.stack([fisher(old, rows, seed=s)["head.bias"] for s in range(60)]).mean(0)
    assert torch.allclose(draws, expected, atol=0.03)


# ------------------------------------------------------------------ growing, EWC, LoRA, buffers
def test_growing_keeps_the_old_answers_and_the_old_model(old, rows):
    model = grown(old, 4)
    z = [predict(m, rows.messages, rows.states).logits for m in (old, model)]
    assert z[0].shape[1] == 3 and torch.allclose(z[0], z[1][:, :3], atol=1e-5)
    assert model.encoder.layers[0] is old.encoder.layers[0]  # frozen: shared
    assert model.encoder.layers[1] is not old.encoder.layers[1]


def test_penalty_is_the_formula_and_leaves_new_rows_free(old):
    theta = {n: p.detach().clone() for n, p in trained(old).items()}
    anchor = Anchor(theta, {n: torch.full_like(p, 2.0) for n, p in theta.items()})
    model = grown(old, 4)
    model.head.bias.data[3] = 100.0
    assert float(anchor.penalty(model)) == 0.0
    model.head.bias.data[1] += 3.0
    assert float(anchor.penalty(model)) == pytest.approx(2.0 / 2 * 9.0, rel=1e-5)


def test_a_large_penalty_holds_the_weights_where_fisher_is(old, rows, new):
    theta = {n: p.detach().clone() for n, p in trained(old).items()}
    ones = {n: torch.ones_like(p) for n, p in theta.items()}
    gone = []
    for penalty in (0.0, 1e6):
        plan = Plan(steps=6, batch_size=8, penalty=penalty)
        model = adapt(old, new, plan, 4, anchor=Anchor(theta, ones))
        moved = model.encoder.layers[2].up_weight - theta["encoder.layers.2.up_weight"]
        gone.append(float(moved.norm()))
    assert gone[1] < 0.6 * gone[0]


def test_adapting_learns_is_deterministic_and_does_not_touch_the_old_model(old, rows, new):
    before = weights(old).clone()
    plan = Plan(steps=12, batch_size=8, lr=1e-3, head_lr=3e-2)
    first, second = (adapt(old, new, plan, 4) for _ in range(2))
    assert torch.equal(weights(first), weights(second)) and torch.equal(weights(old), before)
    assert (predict(first, new.messages, new.states).logits.argmax(1) == 3).all()
    other = adapt(old, new, Plan(steps=12, batch_size=8, lr=1e-3, head_lr=3e-2, seed=1), 4)
    assert not torch.equal(weights(other), weights(first))


def test_lora_changes_every_matrix_by_its_rank_and_nothing_else(old, new):
    model = adapt(old, new, Plan(steps=4, batch_size=8, lr=1e-2, rank=2), 4)
    for a, b in zip(old.encoder.layers[1:], model.encoder.layers[1:], strict=True):
        for name, p in a.named_parameters():
            change = getattr(b, name) - p
            assert getattr(b, name).requires_grad
            if name.endswith("weight") and "norm" not in name:
                assert int(torch.linalg.matrix_rank(change, rtol=1e-4)) in (1, 2), name
            else:
                assert not change.any(), name


def test_a_buffer_fills_half_of_each_batch_and_holds_the_old_classes(old, rows, new):
    answers = predict(old, rows.messages, rows.states).logits.argmax(1)
    plan = Plan(steps=30, batch_size=8, lr=1e-3, head_lr=3e-2)
    kept = Rows(rows.messages[12:], rows.states[12:], answers[12:])
    agree = []
    for buffer in (None, kept):
        model = adapt(old, new, plan, 4, buffer=buffer)
        found = predict(model, kept.messages, kept.states).logits.argmax(1)
        agree.append(float((found == kept.targets).float().mean()))
    assert agree[1] > agree[0]


def test_cycles_visit_all_rows_equally_often():
    found = _cycle(5, 4, 10, torch.Generator().manual_seed(0))
    assert len(found) == 10 and {len(b) for b in found} == {4}
    assert sorted(i for batch in found for i in batch) == sorted(list(range(5)) * 8)


def test_distillation_is_zero_at_the_old_answers_and_blind_to_the_new_logit():
    z = torch.tensor([[1.0, -1.0, 0.3]], requires_grad=True)
    same = distillation(z, torch.tensor([[1.0, -1.0]]), 2.0)
    other = distillation(z, torch.tensor([[-1.0, 1.0]]), 2.0)
    assert float(same) == pytest.approx(0, abs=1e-6) and float(other) > 0.1
    assert torch.autograd.grad(other, z)[0][0, 2] == 0


def test_plans_refuse_nonsense():
    with pytest.raises(ValueError, match="steps and batch_size"):
        Plan(steps=0)
    with pytest.raises(ValueError, match="penalty"):
        Plan(penalty=-1.0)


# ------------------------------------------------------------------ metrics and drift
def test_transfer_metrics_by_hand():
    R = np.array([[0.8, 0.3, 0.2], [0.9, 0.9, 0.3], [0.7, 0.5, 0.9]])
    assert shift.backward_transfer(R) == pytest.approx(((0.7 - 0.8) + (0.5 - 0.9)) / 2)
    assert shift.forward_transfer(R, [0.0, 0.1, 0.2]) == pytest.approx(((0.3 - 0.1) + (0.3 - 0.2)) / 2)
    assert shift.forgetting(R) == pytest.approx(((0.9 - 0.7) + (0.9 - 0.5)) / 2)


def test_psi_is_kl_in_both_directions_and_grows_with_small_windows():
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
    assert shift.psi(p, q) == pytest.approx(shift.kl(p, q) + shift.kl(q, p))
    assert shift.kl(p, p) == 0 and shift.kl(p, q) != pytest.approx(shift.kl(q, p))
    rng = np.random.default_rng(0)
    draw = lambda n: shift.shares(rng.integers(0, 10, n), 10)  # noqa: E731
    null = np.mean([shift.psi(draw(1000), draw(200)) for _ in range(300)])
    assert null == pytest.approx(9 * (1 / 200 + 1 / 1000), rel=0.15)


def test_shares_are_never_zero():
    found = shift.shares(np.array([0, 0, 2]), 4)
    assert found.sum() == pytest.approx(1) and found.min() > 0 and found.argmax() == 0


def test_mmd_is_the_double_loop_and_zero_on_average_without_drift():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    kernel = shift.rbf(x)
    a, b = np.arange(10), np.arange(10, 25)
    pairs = lambda rows: np.mean([kernel[i, j] for i in rows for j in rows if i != j])  # noqa: E731
    cross = np.mean([kernel[i, j] for i in a for j in b])
    assert shift.mmd(kernel, a, b) == pytest.approx(pairs(a) + pairs(b) - 2 * cross)
    null = [shift.mmd(kernel, *np.split(rng.permutation(40)[:30], 2)) for _ in range(400)]
    assert abs(np.mean(null)) < 0.005
    moved = shift.rbf(np.concatenate([x, x + 2]))
    assert shift.mmd(moved, np.arange(40), np.arange(40, 80)) > max(null)


# ------------------------------------------------------------------ the five months
def test_sizes_are_those_of_the_card():
    card = (CARDS / "continual.md").read_text(encoding="utf8")
    for month in range(5):
        counts = [len(story.news(s, month)) for s in ("train", "validation", "test")]
        row = " | ".join(map(str, (story.MONTHS[month], len(story.ordinary(month)), *counts)))
        assert f"| {row} |" in card
    assert len(story.ordinary(0)) == story.GOLDEN * len(INTENTS)
    gifts = [m for m in story.news("test", 2) if m.labels[2] == story.NEW]
    assert len(gifts) >= 60
    assert all(len(story.ordinary(m)) + len(story.news("test", m)) >= 200 for m in range(5))


def test_months_share_the_old_test_messages_without_overlap():
    parts = [m.id for month in range(5) for m in story.ordinary(month)]
    assert sorted(parts) == sorted(m.id for m in story.old("test"))


def test_answers_change_only_when_the_month_says_so():
    for month, label, before in ((2, story.NEW, "recommendation"), (4, "escalation", "return_request")):
        known = [m for s in SPLITS for m in (*story.old(s), *story.news(s, month))]
        found = [m for m in known if m.labels[month - 1] != m.labels[month]]
        assert len(found) > 80
        for m in found:
            assert set(m.labels[:month]) == {before} and set(m.labels[month:]) == {label}
    assert story.news("test", 3)[0].target(0) == story.LABELS.index("product_discovery")


def test_labels_are_known_and_ids_unique():
    rows = read_rows("continual_news.tsv")
    assert {r["label"] for r in rows} <= set(story.LABELS) and len({r["id"] for r in rows}) == len(rows)
    known = {m.id for s in ("train", "validation", "test") for m in story.old(s)}
    assert {r["id"] for r in read_rows("continual_relabels.tsv")} <= known


def test_no_split_repeats_another():
    lines = {s: [r["text"] for r in read_rows("continual_news.tsv") if r["split"] == s]
             for s in ("train", "validation", "test")}
    taught = lines["train"] + [m.text for m in story.old("train")]
    held = lines["validation"] + [m.text for m in story.old("validation")]
    asked = lines["test"] + [m.text for m in story.old("test")]
    for left, right in ((taught, lines["test"]), (held, lines["test"]), (lines["train"], asked),
                        (lines["train"], lines["validation"]), (lines["validation"], asked)):
        assert not leakage.exact_duplicates(left, right)
        assert not leakage.near_duplicates(left, right, threshold=0.5)
