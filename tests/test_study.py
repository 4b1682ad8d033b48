"""Studies hand the base model back as it came, and their cached states change nothing."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import mangalab  # noqa: F401  (sets the OpenMP policy before torch starts)
from mangalab.evaluation.retention import answers, choice_examples
from mangalab.training.pace import _stepper, step_times
from mangalab.training.sft import ALL_LINEAR, Example, LoRA, Scores, SFTConfig, attach
from mangalab.training.study import Study

CONFIG = SFTConfig(lr=1e-2, epochs=2, batch_size=4, seed=0)


@pytest.fixture
def model():
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
    return LlamaForCausalLM(shape).eval()


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(1)
    draw = lambda n: torch.randint(3, 61, (n,), generator=generator).tolist()  # noqa: E731
    return {"train": [Example(draw(9 + i % 3), 5) for i in range(8)],
            "test": [Example(draw(8), 4) for _ in range(3)]}


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_a_run_learns_and_restores_the_model(model, sets):
    before = weights(model)
    study = Study(model, sets, torch.float32)
    base = study.score(model)
    run = study.lora(LoRA(4, 8, ALL_LINEAR, layers=(1, 2)), CONFIG)
    full = study.full((1, 2), CONFIG)
    assert run.nll("train") < base["train"].mean_nll > full.nll("train")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert set(run.updates) == set(full.updates) and len(full.updates) == 14


def test_cached_states_change_no_value(model, sets):
    lora = LoRA(4, 8, ("q_proj", "v_proj"), layers=(2,))
    cached = Study(model, sets, torch.float32).lora(lora, CONFIG)
    study = Study(model, sets, torch.float32)
    study.prepared = lambda first, names: {n: sets[n] for n in names}  # nothing is kept
    fresh = study.lora(lora, CONFIG)
    assert cached.history.losses == pytest.approx(fresh.history.losses, rel=1e-5)
    assert cached.scores["test"].nll == pytest.approx(fresh.scores["test"].nll, rel=1e-5)


def test_a_run_continues_from_an_earlier_one(model, sets):
    study, lora = Study(model, sets, torch.float32), LoRA(4, 8, ("o_proj",), layers=(1, 2))
    first = study.lora(lora, CONFIG)
    second = study.lora(lora, CONFIG, start=first.updates)
    assert second.history.losses[0] < first.history.losses[0]
    with pytest.raises(ValueError, match="continue with the targets and layers"):
        study.lora(LoRA(4, 8, ("q_proj",), layers=(1, 2)), CONFIG, start=first.updates)


def test_the_same_seed_gives_the_same_run(model, sets):
    study, lora = Study(model, sets, torch.float32), LoRA(4, 8, ALL_LINEAR, layers=(2,))
    one, two = study.lora(lora, CONFIG), study.lora(lora, CONFIG)
    assert one.history.losses == two.history.losses and one.scores == two.scores


def test_general_questions_take_the_likeliest_option():
    class Choice:
        question, options, answer = "q", ("a", "b b"), 1

    class Words:
        def __call__(self, text):
            return type("Ids", (), {"input_ids": [3 + len(w) for w in text.split()]})

    examples = choice_examples(Words(), [Choice])
    assert [len(e.ids) for e in examples] == [2, 3]
    # summed, not mean: 1.0 nats in one token against 2 x 0.4 in two
    assert answers([Choice], examples, Scores([1.0, 0.4], [False, False])) == [True]
    assert answers([Choice], examples, Scores([0.7, 0.4], [False, False])) == [False]


def test_paces_of_two_adapters_are_taken_in_turns_and_leave_nothing(model, sets):
    before = weights(model)
    study = Study(model, sets, torch.float32)
    thin, wide = (LoRA(r, 8, t, layers=(2,)) for r, t in ((1, ("q_proj",)), (64, ALL_LINEAR)))
    found = step_times({"wide": (study, wide), "thin": (study, thin)}, CONFIG, rounds=4, block=2)
    assert {name: len(t.milliseconds) for name, t in found.items()} == {"wide": 4, "thin": 4}
    assert min(t.milliseconds.min() for t in found.values()) > 0
    assert all(torch.equal(p, before[name]) for name, p in study.model.named_parameters())
    assert not any("lora" in name for name, _ in study.model.named_parameters())


def test_each_adapter_keeps_its_own_step(model, sets):
    study = Study(model, sets, torch.float32)
    both = attach(study.model, LoRA(2, 4, ("q_proj",), layers=(2,)), name="a")
    first = _stepper(both, study, CONFIG)
    both = attach(both, LoRA(2, 4, ("o_proj",), layers=(2,)), name="b")
    old = {n: p.detach().clone() for n, p in both.named_parameters() if "lora_" in n}
    first([0, 1])
    moved = {n for n, p in both.named_parameters() if n in old and not torch.equal(p, old[n])}
    assert moved and all(".a." in name for name in moved)  # b is active, a is trained
    both.unload()
