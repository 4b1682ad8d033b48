"""Rows that start alike: the shared work changes no loss, no step, no state."""

import pytest

torch = pytest.importorskip("torch")

from mangalab.training import grounded, raft, sft, trunk  # noqa: E402

CONFIG = sft.SFTConfig(lr=1e-2, epochs=2, batch_size=3)


def _tiny():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
                         num_attention_heads=4, num_key_value_heads=2, hidden_act="silu")
    model = LlamaForCausalLM(config).eval()
    for p in model.parameters():  # the default start is too flat to tell two masks apart
        p.data.mul_(6 if p.ndim == 2 else 1)
    return model


def _rows(shared):
    """Examples of several lengths whose first ``shared`` tokens are the same."""
    return [sft.Example([*range(shared), *((7 * i + 3 * j + i * j) % 60 for j in range(8 + i))],
                        shared + 3) for i in range(6)]


@pytest.mark.parametrize("shared", [0, 5])
def test_training_takes_the_steps_of_the_plain_loop(shared):
    model, rows, lora, found = _tiny(), _rows(shared), sft.LoRA(2, 4, sft.ALL_LINEAR, (2, 3)), []
    for train in (sft.train, trunk.train):
        data = grounded.Bottoms(model, 2, torch.float32).prepared(rows)
        adapted = sft.attach(model, lora, seed=0)
        history = train(adapted, data, CONFIG, torch.float32)
        found.append((history.losses, history.grad_norms))
        model = adapted.unload()
    assert len(found[0][0]) == 4 and found[0][0][0] != pytest.approx(found[0][0][-1], abs=1e-2)
    assert found[1][0] == pytest.approx(found[0][0], abs=1e-4)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-3)


def test_the_trunk_ends_before_any_answer():
    rows = [trunk.plain(sft.Example([1, 2, 3, 4, 5], 4)), trunk.plain(sft.Example([1, 2, 3, 9], 2))]
    assert trunk.trunk_length(rows) == 1
    assert trunk.trunk_length(rows[:1]) == 3
    batch = trunk.pack(rows, torch.float32)
    assert batch.ids.tolist() == [1, 2, 3, 4, 5, 2, 3, 9]
    assert batch.ids[batch.kept][batch.sources].tolist() == [4, 2, 3]
    assert batch.targets.tolist() == [5, 3, 9]


def test_states_are_continued_from_a_lower_layer():
    model, rows = _tiny(), _rows(4)
    low = grounded.Bottoms(model, 1, torch.float32)
    direct = grounded.Bottoms(model, 3, torch.float32).prepared(rows).bottoms
    continued = grounded.Bottoms(model, 3, torch.float32, low).prepared(rows).bottoms
    for a, b, row in zip(direct, continued, rows, strict=True):
        assert a.shape == (len(row.ids), 32) and torch.allclose(a, b, atol=1e-4)


def test_bottoms_equal_those_of_the_plain_engine():
    from mangalab.training.llama import LeanLlama

    model, rows = _tiny(), _rows(4)
    engine = LeanLlama(model, torch.float32, training=False)
    engine.first = 2
    plain = sft.prepare(engine, rows).bottoms
    found = grounded.Bottoms(model, 2, torch.float32).prepared(rows).bottoms
    for a, b in zip(plain, found, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_subset_of_trees_at_a_higher_layer_scores_alike():
    model, rows = _tiny(), _rows(4)
    trees = [raft.Tree(row.ids, len(row.ids) - 4, (1, 3)) for row in rows]
    high = raft.Choices(model, trees, 1, torch.float32, chunk=4).above(model, 3, [5, 0, 2])
    whole = raft.Choices(model, trees, 3, torch.float32, chunk=4).score(model)
    for i, found in zip([5, 0, 2], high.score(model), strict=True):
        assert found.logprobs == pytest.approx(whole[i].logprobs, abs=1e-4)


def test_a_layer_below_the_prepared_ones_is_refused():
    model, rows = _tiny(), _rows(4)
    data = grounded.Bottoms(model, 3, torch.float32).prepared(rows)
    with pytest.raises(ValueError, match="layer 1 trains, below the prepared first=3"):
        trunk.train(sft.attach(model, sft.LoRA(2, 4, layers=(1,))), data, CONFIG, torch.float32)


@pytest.mark.parametrize(("keys", "rows"), [(9, 3), (6, 1)])
def test_attention_and_its_gradients_are_those_of_torch(keys, rows):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator).requires_grad_()  # noqa: E731
    q, k, v = draw(3, 4, 6, 8), draw(3, 2, keys, 8), draw(3, 2, keys, 8)
    mask = torch.zeros(rows, 1, 6, keys)
    mask[:, :, torch.ones(6, keys).triu(keys - 5).bool()] = -torch.inf
    mask[-1, :, :, 1:3] = -torch.inf
    found = []
    for attend in (trunk.Attention.apply, lambda q, k, v, mask: torch.nn.functional
                   .scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)):
        out = attend(q, k, v, mask)
        found.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    assert found[1][1].abs().max() > 0.1
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
