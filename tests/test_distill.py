"""Distillation: losses by hand and against TRL, layers copied, the loop against ``classify``."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from mangalab.training import classify, distill, distill_lm
from mangalab.training.distill import Lessons, Recipe, evenly, listen, student_from
from mangalab.training.llama import LeanLlama
from mangalab.training.sft import Example, SFTConfig, prepare, score, trainable_linears
from mangalab.training.sft import train as sft_train

MESSAGES = [[2, 5, 9, 3], [2, 7, 3], [2, 8, 8, 8, 11, 3], [2, 30, 3], [2, 14, 15, 3], [2, 6, 6, 3]]
LABELS = torch.tensor([0, 1, 2, 1, 0, 2])
CONFIG = classify.ClassifyConfig(layers=3, lr=1e-3, epochs=2, batch_size=3)


@pytest.fixture(scope="module")
def bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=16,
    )
    return BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def teacher(bert) -> classify.Classifier:
    return classify.train(bert, MESSAGES, LABELS, CONFIG).model


def logits(seed: int, rows: int = 7, classes: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)


# ---------------------------------------------------------------------------- losses
def test_forward_kl_by_hand():
    p, q, T = (0.7, 0.2, 0.1), (0.5, 0.25, 0.25), 2.0
    # logits whose softmax at T = 2 are p and q
    teacher, student = (T * torch.tensor(x, dtype=torch.float64).log()[None] for x in (p, q))
    by_hand = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert distill.forward_kl(student, teacher, T).item() == pytest.approx(by_hand, rel=1e-6)
    assert distill.soft_loss(student, teacher, T).item() == pytest.approx(4 * by_hand, rel=1e-6)
    backwards = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert distill.reverse_kl(student, teacher, T).item() == pytest.approx(backwards, rel=1e-6)
    assert abs(by_hand - backwards) > 0.01


def test_soft_loss_is_the_torch_expression():
    s, t, T = logits(0), logits(1), 3.0
    expected = T * T * F.kl_div((s / T).log_softmax(-1), (t / T).softmax(-1), reduction="batchmean")
    assert torch.allclose(distill.soft_loss(s, t, T).double(), expected, rtol=1e-5)


@pytest.mark.parametrize("T", [1.0, 2.0, 8.0])
def test_gradient_is_the_difference_of_probabilities_over_t(T):
    s, t = logits(2).requires_grad_(), logits(3)
    distill.forward_kl(s, t, T).backward()
    expected = ((s.detach() / T).softmax(-1) - (t / T).softmax(-1)) / T / len(s)
    assert torch.allclose(s.grad, expected, atol=1e-6)


def test_gradient_falls_as_one_over_t_squared_and_the_factor_undoes_it():
    def size(loss, T):
        s = logits(4).requires_grad_()
        loss(s, logits(5), T).backward()
        return s.grad.norm().item()

    assert size(distill.forward_kl, 40.0) / size(distill.forward_kl, 80.0) == pytest.approx(4, rel=0.05)
    assert size(distill.soft_loss, 40.0) / size(distill.soft_loss, 80.0) == pytest.approx(1, rel=0.05)


def test_both_directions_equal_trl():
    gkd = pytest.importorskip("trl.experimental.gkd")
    jsd = gkd.GKDTrainer.generalized_jsd_loss
    s, t = logits(6).float(), logits(7).float()
    for beta, mine in ((0.0, distill.forward_kl), (1.0, distill.reverse_kl)):
        theirs = jsd(s[None], t[None], labels=torch.zeros(1, len(s)), beta=beta, temperature=2.0)
        assert torch.allclose(mine(s, t, 2.0), theirs, rtol=1e-5)


def test_losses_refuse_other_vocabularies_and_cold_temperatures():
    with pytest.raises(ValueError, match="share their classes"):
        distill.forward_kl(logits(0, classes=4), logits(0, classes=5))
    with pytest.raises(ValueError, match="temperature 0"):
        distill.reverse_kl(logits(0), logits(1), 0)


def test_t_squared_is_not_on_the_hard_term():
    """The error that the scenario's formula invites: scaling the whole sum."""
    s, t, labels = logits(8), logits(9), torch.tensor([0, 1, 2, 3, 4, 0, 1])
    both = Recipe(hard=0.5, soft=0.5, temperature=4.0).loss(s, labels, t)
    soft = distill.soft_loss(s, t, 4.0)
    assert both.item() == pytest.approx(0.5 * F.cross_entropy(s, labels).item() + 0.5 * soft.item())
    bare = Recipe(soft=1.0, temperature=4.0, squared=False).loss(s, labels, t)
    assert bare.item() == pytest.approx(soft.item() / 16)


def test_unlabelled_messages_have_no_hard_term():
    s, labels = logits(10), torch.tensor([0, -1, 2, -1, -1, -1, -1])
    hard = Recipe(hard=1.0).loss(s, labels, None)
    assert hard.item() == pytest.approx(F.cross_entropy(s[[0, 2]], labels[[0, 2]]).item() * 2 / 7)
    nobody = Recipe(hard=1.0).loss(s.requires_grad_(), torch.full((7,), -1), None)
    assert nobody.item() == 0 and nobody.requires_grad


def test_hidden_loss_is_a_mean_over_layers():
    a, b = torch.ones(4, 3), torch.zeros(4, 3)
    assert distill.hidden_loss([a, a], [b, a]).item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="one to one"):
        distill.hidden_loss([a], [a, b])


def test_recipe_refuses_nothing_and_negative_weights():
    for wrong in ({}, {"hard": -1.0, "soft": 2.0}, {"soft": 1.0, "temperature": 0.0}):
        with pytest.raises(ValueError):
            Recipe(**wrong)


def test_ensemble_is_the_product_of_experts():
    a, b = logits(11), logits(12)
    product = (a.softmax(-1) * b.softmax(-1)).sqrt()
    expected = product / product.sum(-1, keepdim=True)
    assert torch.allclose(distill.ensemble([a, b]).softmax(-1), expected)


# ---------------------------------------------------------------------------- students
def test_layers_are_spread_evenly():
    for keep, expected in ((1, (5,)), (2, (2, 5)), (3, (1, 3, 5)), (6, (0, 1, 2, 3, 4, 5))):
        assert evenly(6, keep) == expected


def test_student_has_the_named_layers_and_shares_nothing(bert):
    student = student_from(bert, (0, 2))
    assert student.config.num_hidden_layers == 2 and bert.config.num_hidden_layers == 3
    for mine, source in zip(student.encoder.layer, (0, 2), strict=True):
        theirs = dict(bert.encoder.layer[source].named_parameters())
        for name, weight in mine.named_parameters():
            assert torch.equal(weight, theirs[name]) and weight.data_ptr() != theirs[name].data_ptr()
    assert len(bert.encoder.layer) == 3
    with pytest.raises(ValueError, match="0 to 2"):
        student_from(bert, (0, 3))


def test_pruned_llama_runs_with_its_cache():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=4,
                         num_attention_heads=2, num_key_value_heads=1)
    model = LlamaForCausalLM(config).eval()
    student = student_from(model, (0, 3)).eval()
    ids = torch.tensor([[1, 2, 3, 4]])
    whole = student(ids).logits
    step = student(ids[:, :3], use_cache=True)
    last = student(ids[:, 3:], past_key_values=step.past_key_values).logits
    assert torch.allclose(last[:, 0], whole[:, 3], atol=1e-5)
    assert len(model.model.layers) == 4 and not torch.allclose(whole, model(ids).logits)


# ---------------------------------------------------------------------------- the loop
def test_stored_words_equal_live_ones(teacher):
    stored, states = listen(teacher, MESSAGES, layers=(0, 2))
    assert torch.allclose(stored, classify.predict(teacher, MESSAGES).logits, atol=1e-5)
    for message, logit, state in zip(MESSAGES, stored, states, strict=True):
        batch = classify.Packed.of([message])
        assert torch.allclose(teacher(batch)[0], logit, atol=1e-5)
        assert state.shape == (2, len(message), 32)
        assert torch.allclose(state[1], teacher.encoder.hidden(batch), atol=1e-5)
        assert torch.allclose(state[0], teacher.encoder.hidden(batch, stop=1), atol=1e-5)


def test_hard_labels_alone_are_plain_training(bert):
    plain = classify.train(bert, MESSAGES, LABELS, CONFIG)
    mine = distill.train(bert, MESSAGES, Lessons(LABELS), Recipe(hard=1.0), CONFIG, 3)
    assert mine.losses == pytest.approx(plain.losses, abs=1e-6)
    assert torch.equal(mine.model.head.weight, plain.model.head.weight)


def test_student_comes_closer_to_its_teacher(bert, teacher):
    told, states = listen(teacher, MESSAGES, (0, 2))
    lessons = Lessons(torch.full((6,), -1), told, states)
    body = student_from(bert, (0, 2))
    for recipe in (Recipe(soft=1.0, temperature=2.0), Recipe(hidden=1.0)):
        found = distill.train(body, MESSAGES, lessons, recipe, CONFIG, 3, steps=30)
        assert len(found.losses) == 30
        assert sum(found.losses[-3:]) < 0.5 * sum(found.losses[:3])


def test_matched_layers_get_their_own_rows(bert, teacher):
    """A student that is the teacher has nothing to learn; with the rows swapped it would."""
    _, states = listen(teacher, MESSAGES, (0, 1, 2))
    whole = teacher.encoder.write_to(student_from(bert, (0, 1, 2)))
    for order, small in (((0, 1, 2), True), ((2, 1, 0), False)):
        swapped = [s[list(order)] for s in states]
        first = distill.train(whole, MESSAGES, Lessons(LABELS, None, swapped), Recipe(hidden=1.0),
                              CONFIG, 3, steps=1).losses[0]
        assert (first < 1e-8) == small


def test_head_of_the_teacher_is_taken_over(bert, teacher):
    whole = teacher.encoder.write_to(student_from(bert, (0, 1, 2)))
    lessons = Lessons(LABELS, listen(teacher, MESSAGES)[0])
    same, fresh = (
        distill.train(whole, MESSAGES, lessons, Recipe(soft=1.0), CONFIG, 3, head=head, steps=1)
        for head in (teacher.head, None))
    assert same.losses[0] < 1e-8 < fresh.losses[0]


def test_training_refuses_what_the_teacher_never_said(bert):
    with pytest.raises(ValueError, match=r"recipe\.soft > 0 needs the teacher on 6 messages"):
        distill.train(bert, MESSAGES, Lessons(LABELS), Recipe(soft=1.0), CONFIG, 3)
    with pytest.raises(ValueError, match=r"recipe\.hidden"):
        distill.train(bert, MESSAGES, Lessons(LABELS, states=[]), Recipe(hidden=1.0), CONFIG, 3)
    with pytest.raises(ValueError, match="2 labels for 6"):
        distill.train(bert, MESSAGES, Lessons(LABELS[:2]), Recipe(hard=1.0), CONFIG, 3)


# ---------------------------------------------------------------------------- the causal LM
@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=4, hidden_act="silu",
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


TURNS = [Example([1, 4, 5, 6, 7], 2), Example([1, 9, 8], 1), Example([3, 3, 3, 10, 11, 12], 3)]


def test_told_logits_equal_hugging_face(llama):
    for example, told in zip(TURNS, distill_lm.tell(llama, TURNS, torch.float32), strict=True):
        live = llama(torch.tensor([example.ids])).logits[0, example.prompt - 1 : -1]
        assert told.dtype == torch.bfloat16 and torch.allclose(told.float(), live, atol=0.02)


def test_shared_bottoms_change_nothing(llama):
    student = trainable_linears(student_from(llama, (0, 1, 3)), (2,))
    below = prepare(LeanLlama(student, torch.float32), TURNS)
    assert below.first == 2 and below.bottoms is not None
    for one, other in zip(distill_lm.tell(student, below, torch.float32, chunk=2),
                          distill_lm.tell(student, TURNS, torch.float32), strict=True):
        assert torch.allclose(one.float(), other.float(), atol=0.02)
    told = distill_lm.tell(llama, TURNS, torch.float32)
    assert distill_lm.examine(student, below, told, torch.float32).nll == pytest.approx(
        distill_lm.examine(student, TURNS, told, torch.float32).nll, abs=0.02)


def test_another_student_trains_alone_and_shares_what_is_frozen(llama):
    template = trainable_linears(student_from(llama, (0, 3)), (1,))
    before = {name: p.clone() for name, p in template.named_parameters()}
    student = distill_lm.another(template)
    assert [p.requires_grad for p in student.parameters()] == [
        p.requires_grad for p in template.parameters()]
    sft_train(student, TURNS, SFTConfig(lr=1e-2, epochs=2, batch_size=3), torch.float32)
    own = dict(student.named_parameters())
    for name, p in template.named_parameters():
        assert torch.equal(p, before[name])
        assert (own[name] is p) != p.requires_grad
        assert torch.equal(own[name], p) != p.requires_grad


def test_examined_is_scored_and_near_itself(llama):
    told = distill_lm.tell(llama, TURNS, torch.float32)
    found = distill_lm.examine(llama, TURNS, told, torch.float32)
    scores = score(llama, TURNS, torch.float32)
    assert found.kl == pytest.approx([0, 0, 0], abs=1e-4)
    assert found.nll == pytest.approx(scores.nll, abs=0.02) and found.exact == scores.exact
    other = student_from(llama, (0, 3))
    assert min(distill_lm.examine(other, TURNS, told, torch.float32).kl) > 1e-4


@pytest.mark.parametrize("loss", [distill.forward_kl, distill.reverse_kl])
def test_pruned_llama_comes_closer_to_its_teacher(llama, loss):
    told = distill_lm.tell(llama, TURNS, torch.float32)
    student = trainable_linears(student_from(llama, (0, 3)), (0, 1))
    before = sum(distill_lm.examine(student, TURNS, told, torch.float32).kl)
    config = SFTConfig(lr=3e-3, epochs=20, batch_size=3)
    history = distill_lm.train(student, TURNS, told, config, loss, torch.float32)
    assert sum(distill_lm.examine(student, TURNS, told, torch.float32).kl) < 0.5 * before
    assert len(history.losses) == 20


def test_one_hot_teacher_is_supervised_training(llama):
    """A teacher that is certain of the golden answer teaches what ``sft.train`` teaches."""
    certain = [50.0 * F.one_hot(torch.tensor(e.ids[e.prompt :]), 60).float() for e in TURNS]
    config = SFTConfig(lr=1e-3, epochs=3, batch_size=2)
    runs = []
    for call in (lambda m: distill_lm.train(m, TURNS, certain, config, dtype=torch.float32),
                 lambda m: sft_train(m, TURNS, config, torch.float32)):
        runs.append(call(trainable_linears(student_from(llama, (0, 3)), (0, 1))).losses)
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)


def test_cheapest_cut_scores_every_start_and_puts_the_layers_back(llama):
    best, found = distill_lm.cheapest_cut(llama, 2, TURNS, (0, 1, 2), torch.float32)
    assert len(llama.model.layers) == llama.config.num_hidden_layers == 4
    assert set(found) == {0, 1, 2} and found[best] == min(found.values())
    pruned = student_from(llama, (0, 3))  # without layers 1 and 2
    assert score(pruned, TURNS, torch.float32).mean_nll == pytest.approx(found[1], rel=1e-5)
