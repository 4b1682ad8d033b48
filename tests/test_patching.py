"""Patching of chapter 17 on a tiny Llama: exact where it must be, zero where it must be."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mangalab.evaluation import patching
from mangalab.training.traced import TracedRecipe, answer_token, chosen_titles

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def lens():
    from mangalab.models import causal_lm_path, load_tokenizer

    torch.manual_seed(0)
    tokenizer = load_tokenizer(causal_lm_path())
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, attn_implementation="eager")  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    return patching.bridge(LlamaForCausalLM(config).eval(), tokenizer)


IDS = torch.tensor([[3, 4, 5, 6], [3, 9, 5, 6]])


def test_streams_have_every_layer_and_read_like_the_model(lens):
    states, looks, logits = patching.streams(lens, IDS)
    assert states.shape == (4, 2, 4, 16) and looks.shape == (3, 2, 2, 4)
    assert torch.allclose(looks.sum(-1), torch.ones(3, 2, 2), atol=1e-5)
    with torch.inference_mode():
        assert torch.allclose(lens.unembed(lens.ln_final(states[-1][:, -1])), logits, atol=1e-5)


def test_patching_with_oneself_changes_nothing_and_with_all_of_another_everything(lens):
    states, _, logits = patching.streams(lens, IDS)
    swapped = states[:, [1, 0]]
    for layer in range(3):
        assert torch.allclose(patching.patched(lens, IDS, states, layer, [1]), logits, atol=1e-5)
        whole = patching.patched(lens, IDS, swapped, layer, range(4))
        assert torch.allclose(whole, logits[[1, 0]], atol=1e-5)


def test_only_the_patched_position_counts(lens):
    states, _, logits = patching.streams(lens, IDS)
    swapped = states[:, [1, 0]]
    # position 0 is before the difference: the same state in both prompts
    assert torch.allclose(patching.patched(lens, IDS, swapped, 1, [0]), logits, atol=1e-5)
    assert not torch.allclose(patching.patched(lens, IDS, swapped, 1, [1]), logits, atol=1e-5)
    # before layer 0 the differing token is all that differs
    assert torch.allclose(patching.patched(lens, IDS, swapped, 0, [1]), logits[[1, 0]], atol=1e-5)


def test_margin_is_a_difference_of_logits():
    logits = torch.tensor([[1.0, 4.0, 2.0], [0.0, 1.0, 5.0]])
    assert np.array_equal(patching.margin(logits, [1, 0], [2, 2]), np.array([2.0, -5.0], np.float32))


def test_chosen_titles_are_alike_and_answers_differ():
    from mangalab.models import causal_lm_path, load_tokenizer

    tokenizer, recipe = load_tokenizer(causal_lm_path()), TracedRecipe()
    found = chosen_titles(tokenizer, recipe.titles, recipe.tokens)
    assert {len(tokenizer(f" {t.title}").input_ids) for t in found} == {recipe.tokens}
    assert len({answer_token(tokenizer, t.author) for t in found}) == recipe.titles
    with pytest.raises(ValueError, match="ask for fewer"):
        chosen_titles(tokenizer, 500, recipe.tokens)


def test_positions_in_one_pass_are_those_one_by_one(lens):
    states, _, _ = patching.streams(lens, IDS)
    swapped = states[:, [1, 0]]
    for p, found in zip((1, 3), patching.patched_each(lens, IDS, swapped, 1, [1, 3]), strict=True):
        assert torch.allclose(found, patching.patched(lens, IDS, swapped, 1, [p]), atol=1e-5)
