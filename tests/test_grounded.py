"""Rows of the grounded runs: shares, targets, nesting; confidences; attention on sheets."""

import pytest

torch = pytest.importorskip("torch")

from mangalab.data import raft  # noqa: E402
from mangalab.evaluation.raft import candidates  # noqa: E402
from mangalab.training import grounded  # noqa: E402
from mangalab.training.grounded import Recipe  # noqa: E402
from mangalab.training.raft import Choice  # noqa: E402

QUESTIONS = raft.questions("train", 100)


@pytest.mark.parametrize("p", [0.0, 0.4, 0.8, 1.0])
def test_the_share_of_oracles_is_exact(p):
    made = grounded.rows(Recipe(p=p), QUESTIONS)
    assert sum(row.case.kind == "answerable" for row in made) == round(100 * p)
    for row in made:
        settled = row.case.kind == "answerable"
        assert row.completion == (row.case.then if settled else raft.ABSTAIN)
        assert (row.case.question.title.title in [s.title.title for s in row.case.sheets]) == settled


def test_rows_of_a_higher_share_keep_the_oracles_of_a_lower_one():
    kept = [{row.prompt for row in grounded.rows(Recipe(p=p), QUESTIONS)
             if row.case.kind == "answerable"} for p in (0.4, 0.6, 0.8)]
    assert kept[0] < kept[1] < kept[2]
    other = grounded.rows(Recipe(p=0.4), QUESTIONS, seed=1)
    assert {r.prompt for r in other if r.case.kind == "answerable"} != kept[0]


def test_memory_rows_teach_the_value_of_training_time():
    plain = grounded.rows(Recipe(p=0.6), QUESTIONS)
    memory = grounded.rows(Recipe(p=0.6, memory=True), QUESTIONS)
    for a, b in zip(plain, memory, strict=True):
        assert a.prompt == b.prompt
        assert b.completion == b.case.then
        if a.case.kind != "answerable":
            assert a.completion == raft.ABSTAIN


def test_every_way_of_lacking_is_used_and_names_are_never_contradicted():
    made = grounded.rows(Recipe(p=0.4, lacking=raft.KINDS[1:]), QUESTIONS)
    kinds = [row.case.kind for row in made]
    assert all(kinds.count(kind) >= 10 for kind in raft.KINDS[1:])
    for row in made:
        if row.case.kind == "contradiction":
            assert not {"author", "magazine"} & set(row.case.question.fields)


def test_closed_book_and_quoted_rows():
    closed = grounded.rows(Recipe(context=False), QUESTIONS[:20])
    assert all(row.prompt == row.case.question.text for row in closed)
    assert all(row.completion == row.case.then for row in closed)
    quoted = grounded.rows(Recipe(p=1.0, quoted=True), QUESTIONS[:20])
    assert all('"' in row.completion and row.completion.endswith(row.case.answer) for row in quoted)


def test_recipes_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match=r"p=1.2"):
        Recipe(p=1.2)
    with pytest.raises(ValueError, match="need 0 <= p"):
        Recipe(lacking=("answerable",))


def test_confidences_and_picks_by_hand():
    case = raft.case(raft.questions("test")[0])
    roles = [c.role for c in candidates(case)]
    logprobs = [-9.0] * len(roles)
    logprobs[roles.index("abstain")] = -1.0
    logprobs[roles.index("right")], logprobs[roles.index("stale")] = -2.0, -5.0
    choice = Choice(logprobs, [4] * len(roles), torch.zeros(2))
    assert grounded.picked(case, choice).role == "abstain"
    assert grounded.picked(case, choice, abstaining=False).role == "right"
    assert grounded.confidences(case, choice) == {
        "log-probability": -2.0, "a token": -0.5, "lead over the next": 3.0,
        "lead over abstaining": -1.0}


class _Pointing(torch.nn.Module):
    """A model whose last token looks at given places only."""

    def __init__(self, places, layers=2):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.places, self.layers = places, layers

    def forward(self, input_ids, output_attentions):
        length = input_ids.shape[1]
        one = torch.zeros(1, 3, length, length)
        for place, share in self.places(input_ids[0].tolist()).items():
            one[0, :, -1, place] = share
        return type("Out", (), {"attentions": [one] * self.layers if output_attentions else None})()


class _Letters:
    """One token a character."""

    def __call__(self, text, return_offsets_mapping=False):
        ids = [ord(c) for c in text]
        offsets = [(i, i + 1) for i in range(len(ids))]
        return type("Ids", (), {"input_ids": ids, "offset_mapping": offsets})

    def decode(self, ids):
        return "".join(map(chr, ids))


def test_attention_is_counted_on_the_sheet_where_it_falls():
    case = raft.case(raft.questions("test")[0])

    def places(ids):
        text = "".join(map(chr, ids))
        first, third = (text.index(case.sheets[i].text) for i in (0, 2))
        return {first: 0.1, first + 5: 0.2, third + 3: 0.1, 0: 0.6}

    found = grounded.attention_to_sheets(_Pointing(places), _Letters(), case)
    assert found.shape == (2, 3)
    assert found[0].tolist() == pytest.approx([0.75, 0.0, 0.25])


def test_shared_states_train_like_fresh_ones():
    from transformers import LlamaConfig, LlamaForCausalLM

    from mangalab.training import sft

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, hidden_act="silu"))
    made = [sft.Example([(7 * i + j) % 60 for j in range(9 + i)], 5) for i in range(6)]
    bottoms = grounded.Bottoms(model, 2, torch.float32)
    first, again = bottoms.prepared(made[:4]), bottoms.prepared(made)
    assert all(a is b for a, b in zip(first.bottoms, again.bottoms, strict=False))
    config, lora = sft.SFTConfig(lr=1e-2, epochs=1, batch_size=3), sft.LoRA(2, 4, layers=(2,))
    losses = []
    for data in (again, made):
        adapted = sft.attach(model, lora, seed=0)
        losses.append(sft.train(adapted, data, config, torch.float32).losses)
        model = adapted.unload()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    with pytest.raises(ValueError, match="layer 2 is adapted, below first=3"):
        adapted = sft.attach(model, sft.LoRA(2, 4, layers=(2,), init="random"))
        grounded.Bottoms(adapted, 3, torch.float32)
