"""Scoring answers as branches of a tree equals scoring each alone."""

import pytest

torch = pytest.importorskip("torch")

from mangalab.training import raft, sft  # noqa: E402


def _tiny():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=97, hidden_size=48, intermediate_size=96, num_hidden_layers=4,
                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
                         hidden_act="silu")
    model = LlamaForCausalLM(config).eval()
    for p in model.parameters():  # the default start is too flat to tell two masks apart
        p.data.mul_(6 if p.ndim == 2 else 1)
    return model


def _trees():
    draw = torch.Generator().manual_seed(1)
    ids = lambda n: torch.randint(0, 97, (n,), generator=draw).tolist()  # noqa: E731
    return [raft.Tree(ids(9 + sum(lengths)), 9, lengths) for lengths in ((3, 1, 4), (2,), (5, 2))]


def _alone(model, tree):
    """Log-probability of each answer by Hugging Face's own forward pass."""
    start, found = tree.prompt, []
    for n in tree.lengths:
        ids = torch.tensor([tree.ids[: tree.prompt] + tree.ids[start : start + n]])
        with torch.no_grad():
            logprobs = model(ids).logits[0].log_softmax(-1)
        places = range(tree.prompt, tree.prompt + n)
        found.append(sum(logprobs[i - 1, ids[0, i]].item() for i in places))
        start += n
    return found


@pytest.mark.parametrize("first", [0, 2, 4])
def test_branches_score_as_if_alone(first):
    model, trees = _tiny(), _trees()
    found = raft.Choices(model, trees, first, torch.float32, chunk=2).score(model)
    for tree, choice in zip(trees, found, strict=True):
        assert choice.tokens == list(tree.lengths)
        assert choice.logprobs == pytest.approx(_alone(model, tree), abs=1e-3)


def test_the_state_is_that_of_the_last_prompt_token():
    model, trees = _tiny(), _trees()
    found = raft.Choices(model, trees, 2, torch.float32).score(model)
    for tree, choice in zip(trees, found, strict=True):
        with torch.no_grad():
            ids = torch.tensor([tree.ids[: tree.prompt]])
            expected = model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        assert torch.allclose(choice.state, expected, atol=1e-3)


def test_adapters_count_and_must_lie_above_the_cached_states():
    model, trees = _tiny(), _trees()
    choices = raft.Choices(model, trees, 3, torch.float32)
    bare = [c.logprobs for c in choices.score(model)]
    adapted = sft.attach(model, sft.LoRA(2, 4, ("q_proj", "v_proj"), (3,), init="random"))
    merged = [c.logprobs for c in choices.score(adapted)]
    expected = [_alone(adapted, tree) for tree in trees]
    assert merged != bare
    for a, b in zip(merged, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-3)
    low = sft.attach(adapted.unload(), sft.LoRA(2, 4, ("q_proj",), (1,), init="random"))
    with pytest.raises(ValueError, match="layer 1 is adapted, below first=3"):
        choices.score(low)


def test_a_prompt_without_answers_is_refused():
    class Words:
        def __call__(self, text):
            return type("Ids", (), {"input_ids": [1, 2]})()

    assert raft.tree(Words(), "a", ["b"]).lengths == (2,)
    with pytest.raises(ValueError, match="no answers to score"):
        raft.tree(Words(), "a", [])
