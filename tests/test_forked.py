"""Replies that share a prompt give the values and gradients of rows of their own."""

import pytest
import torch
import torch.nn.functional as F
from test_llama_engine import assert_same_gradients, gradients, tiny

from mangalab.training.forked import ForkedLlama, collate, fork, prepare
from mangalab.training.frozen import Frozen, LabelNLL
from mangalab.training.llama import LeanLlama, pack
from mangalab.training.sft import ALL_LINEAR, Example, LoRA, attach, trainable_linears

ADAPTERS = {
    "all layers": LoRA(r=4, alpha=2, targets=ALL_LINEAR, init="random"),
    "top layer": LoRA(r=4, alpha=2, targets=ALL_LINEAR, layers=(2,), init="random"),
    "below the top": LoRA(r=4, alpha=2, targets=ALL_LINEAR, layers=(1,), init="random")}


def talk(seed=1):
    """Six replies to three prompts, interleaved; the last repeats the first."""
    draw = torch.Generator().manual_seed(seed)
    ids = lambda n: torch.randint(3, 97, (n,), generator=draw).tolist()  # noqa: E731
    prompts = [ids(n) for n in (5, 11, 3)]
    shapes = [(0, 4), (1, 6), (0, 7), (2, 2), (1, 1)]
    rows = [Example(prompts[k] + ids(n), len(prompts[k])) for k, n in shapes]
    return [*rows, rows[0]]


def separate(engine, rows):
    """Log-probabilities from the engine that gives each reply a row of its own."""
    batch = pack([(e.ids, e.prompt) for e in rows])
    losses = F.cross_entropy(engine.logits(batch), batch.targets, reduction="none")
    lengths = [len(e.ids) - e.prompt for e in rows]
    return -torch.stack([part.sum() for part in losses.split(lengths)])


@pytest.mark.parametrize("lora", ADAPTERS.values(), ids=ADAPTERS)
def test_shared_prompts_change_neither_log_probabilities_nor_gradients(lora):
    model, rows = attach(tiny(), lora, seed=5), talk()
    weights = torch.linspace(-1, 2, len(rows))  # a loss that treats every reply differently
    theirs = separate(LeanLlama(model, torch.float32), rows)
    engine = ForkedLlama(model, torch.float32)
    data = prepare(engine, rows, size=4)
    batch, states = collate(data, range(len(rows)))
    assert len(batch.ids) < sum(len(e.ids) for e in rows) - 15 and batch.shape[0] == 3
    mine = engine.logps(batch, states)
    assert torch.allclose(mine, theirs, atol=1e-4)
    assert torch.allclose(engine.logps(batch), theirs, atol=1e-4)
    assert_same_gradients(gradients(model, weights @ mine), gradients(model, weights @ theirs))


def test_a_reply_sees_no_other_reply():
    model, rows = tiny(), talk()
    engine = ForkedLlama(model, torch.float32, training=False)
    alone = engine.logps(fork(rows[2:3]))
    other = Example([*rows[0].ids[:-2], 50, 60], rows[0].prompt)
    for company in (rows[:3], [other, rows[1], rows[2]]):
        assert engine.logps(fork(company))[2].item() == pytest.approx(alone.item(), abs=1e-4)


def test_cached_states_are_those_of_separate_rows():
    model, rows = attach(tiny(), ADAPTERS["top layer"], seed=5), talk()
    engine = ForkedLlama(model, torch.float32)
    data = prepare(engine, rows, size=3)
    assert data.first == 2
    for example, states in zip(rows, data.bottoms, strict=True):
        right = LeanLlama(model, torch.float32).bottom(pack([(example.ids, example.prompt)]))
        assert torch.allclose(states, right, atol=1e-4)


def test_the_mean_loss_trains_full_weights_too():
    model, rows = trainable_linears(tiny(), (1, 2)), talk()
    mine = ForkedLlama(model, torch.float32).loss(fork(rows))
    theirs = LeanLlama(model, torch.float32).loss(pack([(e.ids, e.prompt) for e in rows]))
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert_same_gradients(gradients(model, mine), gradients(model, theirs))


def test_without_adapters_it_is_the_reference():
    base, rows = tiny(), talk()
    right = ForkedLlama(base, torch.float32, training=False).logps(fork(rows))
    model = attach(base, ADAPTERS["all layers"], seed=5)
    engine = ForkedLlama(model, torch.float32)
    assert torch.allclose(engine.without_adapters().logps(fork(rows)), right, atol=1e-4)
    assert not torch.allclose(engine.logps(fork(rows)), right, atol=1e-2)


def test_last_states_are_read_at_the_ends():
    model, rows = tiny(), talk()
    engine, batch = ForkedLlama(model, torch.float32, training=False), fork(rows)
    for row, state in zip(rows, engine.read(batch, batch.ends), strict=True):
        plain = LeanLlama(model, torch.float32, training=False)
        assert torch.allclose(state, plain.hidden(pack([(row.ids, row.prompt)]))[-1], atol=1e-4)


@pytest.mark.parametrize("count", [1, 128, 300])
def test_label_nll_is_cross_entropy(count):
    draw = torch.Generator().manual_seed(0)
    states, W = torch.randn(count, 16, generator=draw), torch.randn(97, 16, generator=draw)
    targets = torch.randint(0, 97, (count,), generator=draw)
    weights = torch.rand(count, generator=draw)
    found = []
    for loss in (lambda h: LabelNLL.apply(h, Frozen(W), targets),
                 lambda h: F.cross_entropy(h @ W.T, targets, reduction="none")):
        h = states.clone().requires_grad_()
        values = loss(h)
        (weights * values).sum().backward()
        found.append((values.detach(), h.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)


def test_an_example_without_a_label_is_refused():
    with pytest.raises(ValueError, match="leaves no label"):
        fork([Example([5, 6], 2)])
