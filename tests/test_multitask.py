"""Heads on one encoder: masks, weightings against their definitions, fair controls."""

import pytest
import torch
from transformers import BertConfig, BertModel

from mangalab.training import multitask as mt
from mangalab.training import weighing
from mangalab.training.classify import bottoms
from mangalab.training.encoder import LeanEncoder

TASKS = [
    mt.Task("which", "one", 3, "first"), mt.Task("some", "set", 2, "first"),
    mt.Task("words", "tags", 3, "second"),
]  # fmt: skip
SMALL = {"steps": 3, "rows": 4, "shared": 1, "lr": 1e-2, "head_lr": 1e-2}


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 50}
    return BertModel(BertConfig(num_hidden_layers=3, **shape)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def streams(bert):
    generator = torch.Generator().manual_seed(1)
    draw = lambda n, top: torch.randint(0, top, (n,), generator=generator)  # noqa: E731
    messages = [[1, *draw(3 + i % 4, 50).tolist()] for i in range(12)]
    cache = {depth: bottoms(LeanEncoder(bert, 3 - depth), messages) for depth in (1, 2)}
    tags = [torch.cat([torch.tensor([mt.IGNORED]), draw(len(m) - 1, 3)]) for m in messages]
    targets = {"which": draw(12, 3), "some": draw(24, 2).view(12, 2).float()}
    some = mt.Stream(messages, cache[1], targets, {"some": torch.arange(12) < 8})
    return {"first": some, "second": mt.Stream(messages, cache[1], {"words": tags}), "deep": cache[2]}


def test_a_message_without_label_has_no_part_in_the_loss():
    task, rows = mt.Task("t", "one", 3, "s"), torch.arange(4)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets, mask = torch.tensor([0, 1, -1, 2]), torch.tensor([True, True, False, False])
    loss = mt.masked_loss(task, logits, targets, mask, rows)
    assert torch.equal(loss, torch.nn.functional.cross_entropy(logits[:2], targets[:2]))
    loss.backward()
    assert logits.grad[2:].abs().max() == 0 < logits.grad[:2].abs().min()
    assert mt.masked_loss(task, logits, targets, torch.zeros(4, dtype=torch.bool), rows) == 0


def test_masked_tags_count_tokens_of_labelled_messages():
    task, rows = mt.Task("t", "tags", 2, "s"), torch.tensor([0, 0, 1, 1, 1])
    logits, targets = torch.randn(5, 2), torch.tensor([mt.IGNORED, 1, 0, 1, 0])
    both = mt.masked_loss(task, logits, targets, torch.tensor([True, True]), rows)
    assert torch.allclose(both, torch.nn.functional.cross_entropy(logits[1:], targets[1:]))
    first = mt.masked_loss(task, logits, targets, torch.tensor([True, False]), rows)
    assert torch.allclose(first, torch.nn.functional.cross_entropy(logits[1:2], targets[1:2]))


def test_messages_without_a_label_are_not_encoded_and_change_nothing(bert, streams):
    some = TASKS[1]  # the last four of twelve messages carry no label of it
    model = mt.MultiModel(bert, [some], mt.MultiConfig(**SMALL), torch.float32)
    seen, encode = [], model.states
    model.states = lambda batch, x: seen.append(len(batch.lengths)) or encode(batch, x)
    both = [mt.task_losses(model, streams, {"first": rows})[0] for rows in ([3, 9, 5, 11], [3, 5])]
    assert torch.allclose(*both) and both[0] > 0 and seen == [2, 2]
    nobody = mt.task_losses(model, streams, {"first": [9, 10]})[0]
    nobody.backward()  # a step without labels still has gradients, all zero
    assert nobody == 0 and all(p.grad.abs().max() == 0 for p in model.shared)


def project_by_the_paper(gradients, orders):
    """Algorithm 1 of PCGrad on the vectors themselves."""
    out = []
    for i, order in enumerate(orders):
        g = gradients[i].clone()
        for j in order.tolist():
            if j != i and g @ gradients[j] < 0:
                g -= (g @ gradients[j]) / gradients[j].norm() ** 2 * gradients[j]
        out.append(g)
    return torch.stack(out)


def test_projection_by_inner_products_is_the_papers():
    generator = torch.Generator().manual_seed(3)
    conflicts = 0
    for _ in range(50):
        g = torch.randn(5, 7, generator=generator, dtype=torch.float64)
        orders = [torch.randperm(5, generator=generator) for _ in range(5)]
        found = weighing.pcgrad_coefficients(g @ g.T, orders)
        assert torch.allclose(found @ g, project_by_the_paper(g, orders), atol=1e-10)
        assert (found >= torch.eye(5)).all()  # surgery adds weight; it never takes any away
        conflicts += int((g @ g.T < 0).any())
    assert conflicts > 40


def test_two_conflicting_gradients_end_orthogonal_and_friends_stay():
    order = [torch.tensor([0, 1]), torch.tensor([1, 0])]
    g = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
    found = weighing.pcgrad_coefficients(g @ g.T, order) @ g
    assert found[0] @ g[1] == 0 and found[1] @ g[0] == 0
    friends = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    assert torch.equal(weighing.pcgrad_coefficients(friends @ friends.T, order), torch.eye(2))


def test_gradnorm_slope_is_the_derivative():
    weights = torch.tensor([0.5, 1.0, 1.5], requires_grad=True)
    norms, ratios = torch.tensor([3.0, 1.0, 0.2]), torch.tensor([0.9, 0.5, 0.7])
    sizes = weights * norms
    target = (sizes.mean() * (ratios / ratios.mean()) ** 1.5).detach()
    (sizes - target).abs().sum().backward()
    assert torch.allclose(weighing.gradnorm_slope(weights.detach(), norms, ratios, 1.5), weights.grad)


def test_gradnorm_brings_norms_together():
    rule, norms = weighing.GradNorm(2, rate=0.02, alpha=0.0), torch.tensor([4.0, 1.0])
    for _ in range(300):
        weights = rule.weights(torch.ones(2), torch.diag(norms**2))
    assert weights.sum() == pytest.approx(2, abs=1e-4)
    assert weights[0] * 4 == pytest.approx(float(weights[1]), rel=0.15)


def test_uncertainty_settles_at_half_the_inverse_loss():
    rule, losses = weighing.Uncertainty(3, rate=0.5), torch.tensor([2.0, 0.5, 0.1])
    assert torch.equal(rule.weights(losses, None), torch.ones(3))
    for _ in range(200):
        weights = rule.weights(losses, None)
    assert torch.allclose(weights, 1 / (2 * losses), rtol=1e-3)


def test_batches_without_labels_of_a_task_leave_its_weight_and_stay_finite():
    norms = torch.tensor([1.0, 2.0, 3.0])
    uncertainty, gradnorm = weighing.Uncertainty(3), weighing.GradNorm(3, alpha=0.0)
    for losses in torch.tensor([[0.0, 1.0, 0.5], [2.0, 1.0, 0.5], [0.0, 1.0, 0.5]]):
        before = uncertainty.state
        uncertainty.weights(losses, None)
        assert (uncertainty.state[0] == before[0]) == (losses[0] == 0)
        gradnorm.weights(losses, torch.diag((norms * (losses > 0)) ** 2))
        assert gradnorm.state.isfinite().all() and gradnorm.state.sum() == pytest.approx(3)
    assert gradnorm.state[2] < gradnorm.state[1]  # the longest gradient is turned down


def test_gradient_path_and_backward_train_the_same(bert, streams, monkeypatch):
    plain = mt.train_multi(bert, TASKS, streams, mt.MultiConfig(**SMALL))

    class Slow(weighing.Equal):
        gradients = True

    monkeypatch.setitem(weighing.WEIGHTINGS, "equal", Slow)
    slow = mt.train_multi(bert, TASKS, streams, mt.MultiConfig(**SMALL))
    assert len(slow.grams) == 3 and not plain.grams
    for a, b in zip(plain.model.parameters(), slow.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert not torch.allclose(plain.losses[0], plain.losses[-1])


def test_a_watch_may_take_gradients_without_a_trace(bert, streams):
    seen = []

    def watch(step, model):
        seen.append(step)
        mt.task_gradients(model, mt.task_losses(model, streams, {"first": [0, 1], "second": [2, 3]}))

    watched, plain = (mt.train_multi(bert, TASKS, streams, mt.MultiConfig(**SMALL), watch=w)
                      for w in (watch, None))  # fmt: skip
    assert seen == [0, 1, 2, 3]
    assert torch.equal(watched.losses, plain.losses)


def test_heads_alone_learn_on_the_frozen_top(bert, streams):
    top = bottoms(LeanEncoder(bert, 3), streams["first"].messages)
    flat = {n: mt.Stream(s.messages, top, s.targets, s.masks)
            for n, s in streams.items() if n != "deep"}  # fmt: skip
    run = mt.train_multi(bert, TASKS, flat, mt.MultiConfig(**SMALL | {"shared": 0, "steps": 20}))
    assert run.model.shared == [] and (run.losses[-4:].mean(0) < run.losses[0]).all()


def test_a_control_meets_the_same_messages_from_the_same_start(bert, streams):
    config = mt.MultiConfig(**SMALL)
    together, alone = (mt.train_multi(bert, tasks, streams, config) for tasks in (TASKS, TASKS[:1]))
    assert torch.allclose(together.losses[0, 0], alone.losses[0, 0], atol=1e-6)
    assert not torch.allclose(together.losses[-1, 0], alone.losses[-1, 0], atol=1e-6)


def test_private_layers_belong_to_their_task(bert, streams):
    deep = {n: mt.Stream(s.messages, streams["deep"], s.targets, s.masks)
            for n, s in streams.items() if n != "deep"}  # fmt: skip
    model = mt.train_multi(bert, TASKS, deep, mt.MultiConfig(**SMALL | {"private": 1})).model
    tops = [model.private[t.name][0].up_weight for t in TASKS]
    assert not torch.equal(tops[0], tops[1])
    before = [layer.intermediate.dense.weight for layer in bert.encoder.layer]
    assert torch.equal(model.encoder.layers[2].up_weight, before[2])  # every task has a copy instead
    assert not torch.equal(model.encoder.layers[1].up_weight, before[1])


def test_predictions_come_in_the_order_of_the_messages(bert, streams):
    model = mt.train_multi(bert, TASKS, streams, mt.MultiConfig(**SMALL)).model
    found = mt.predict_multi(model, streams["second"], ["words"], size=5)["words"]
    assert [len(part) for part in found] == [len(m) for m in streams["second"].messages]
    one = mt.Stream(streams["second"].messages[4:5], streams["second"].cache[4:5])
    assert torch.allclose(mt.predict_multi(model, one, ["words"])["words"][0], found[4], atol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="pcgrad"):
        mt.MultiConfig(weighting="magic")
    with pytest.raises(ValueError, match="at least 1"):
        mt.MultiConfig(steps=0)
    with pytest.raises(ValueError, match="kind is one of"):
        mt.Task("t", "regression", 1, "s")
