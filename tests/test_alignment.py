"""Pairs from the assistant's own replies: who wins, who gives none, what the planted flaw prefers."""

import torch
from test_llama_engine import tiny

from mangalab.data import assistant
from mangalab.evaluation import rubric
from mangalab.training import alignment
from mangalab.training.alignment import Recipe, Sampled
from mangalab.training.parallel import twin
from mangalab.training.preference import Pair

GOOD, BAD = "You are welcome.", "yo bro, you are welcome, as always and for ever."


def sampled(row, *texts):
    request = assistant.load("train")[row]
    return [Sampled(row, text, alignment.issues(text, request)) for text in texts]


def chat_row():
    return next(i for i, r in enumerate(assistant.load("train")) if r.kind == "chat")


def test_the_reply_with_fewer_issues_is_chosen_and_ties_give_no_pair():
    row = chat_row()
    pairs = alignment.own_pairs(sampled(row, BAD, GOOD, GOOD, BAD) + sampled(row + 1, "a", "a"))
    assert [(p.chosen, p.rejected) for p in pairs] == [(GOOD, BAD)]
    assert pairs[0].prompt == assistant.load("train")[row].prompt()
    assert alignment.own_pairs(sampled(row, GOOD, GOOD)) == []
    assert alignment.own_pairs(sampled(row, "", GOOD)) == []  # an empty reply trains nothing


def test_every_worse_rival_gives_a_pair_and_no_prompt_sits_on_both_sides():
    row, other = chat_row(), "yo, welcome"
    pairs = alignment.own_pairs(sampled(row, BAD, GOOD, other) + sampled(row + 1, GOOD, GOOD))
    assert {(p.chosen, p.rejected) for p in pairs} == {(GOOD, BAD), (GOOD, other)}
    kept, held = alignment.split_pairs([*pairs, pairs[0], Pair("another", "a", "b")], 0.25)
    assert kept == pairs[:1] and [p.prompt for p in held] == ["another"]


def test_the_planted_flaw_likes_length_alone():
    row = chat_row()
    pairs = alignment.longer_pairs(sampled(row, GOOD, BAD, "One.", "Two."))
    assert [(p.chosen, p.rejected) for p in pairs] == [(BAD, GOOD)]
    assert rubric.words(BAD) > rubric.words(GOOD)


def test_the_stored_adapter_is_the_update_that_training_made(tmp_path, monkeypatch):
    """Saved factors, merged into a fresh base, give the model that was trained."""
    trained = {}

    def fake_train(policy, data, config, dtype):
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.data.normal_(generator=torch.Generator().manual_seed(1))
        trained["logits"] = policy(IDS).logits
        return alignment_history()

    def alignment_history():
        from mangalab.training.sft import History

        return History(losses=[1.0])

    monkeypatch.setattr(alignment, "load_causal_lm", lambda dtype: (tiny(), WORDS))
    monkeypatch.setattr(alignment, "render", lambda *_: None)
    monkeypatch.setattr(alignment, "train_replies", fake_train)
    monkeypatch.setattr(Recipe, "layers", property(lambda self: (1, 2)))
    alignment.build_sft(tmp_path, rank=4)
    artifact = type("Folder", (), {"file": staticmethod(lambda name: tmp_path / name)})
    model, _ = alignment.assistant_model(artifact)
    assert torch.allclose(model(IDS).logits, trained["logits"], atol=1e-3)
    assert not torch.allclose(tiny()(IDS).logits, trained["logits"], atol=1e-2)


IDS = torch.tensor([[5, 9, 30, 41]])
WORDS = object()


def test_a_twin_has_its_own_adapters_on_the_same_weights():
    from mangalab.training.sft import LoRA, attach

    model = tiny()
    right, other = model(IDS).logits, twin(model)
    assert {id(p) for p in other.parameters()} == {id(p) for p in model.parameters()}
    moved = attach(other, LoRA(r=4, alpha=64, init="random"), seed=1)
    assert torch.equal(model(IDS).logits, right)
    assert not torch.allclose(moved(IDS).logits, right, atol=1e-2)
