"""The PEFT ladder: the lean engine equals PEFT and Hugging Face, and only the rung moves."""

import pytest
import torch
from test_llama_engine import assert_same_gradients, examples, gradients, reference, tiny

from mangalab.training.parallel import twin
from mangalab.training.peft_ladder import KINDS, Rung, Tuned, _batch, fit, score
from mangalab.training.sft import Example, SFTConfig
from mangalab.training.soft_prompt import EditedLlama, context
from mangalab.training.trunk import TrunkLlama

START = (5, 17, 33, 64)
RUNGS = {kind: Rung(kind, tokens=4, r=2, width=3) for kind in KINDS}
# d = 64, two key heads of 16, 128 wide feed-forward, three layers
COUNTS = {
    "prompt": 4 * 64,
    "p-tuning": 4 * 64 + (64 * 128 + 128) + (128 * 128 + 128) + (128 * 64 + 64),
    "prefix": 4 * 3 * 2 * 32,
    "ia3": 3 * (32 + 32 + 128),
    "bitfit": 3 * (64 + 32 + 32 + 64 + 128 + 128 + 64),
    "houlsby": 3 * 2 * (2 * 64 * 3 + 3 + 64),
    "lora": 3 * 2 * (128 + 96 + 96 + 128 + 192 + 192 + 192),
    "full": 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128),
}


def tuned(kind, rung=None):
    model = tiny()
    return Tuned(model, EditedLlama(model, torch.float32), rung or RUNGS[kind], seed=3)


def stir(one):
    """Move every trained number away from its start, so that no factor is zero."""
    generator = torch.Generator().manual_seed(7)
    for p in one.trained.values():
        p.data.add_(0.1 * torch.randn(p.shape, generator=generator))


def rows():
    return [Example(ids, prompt) for ids, prompt in examples()]


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_equal_the_library(kind):
    one = tuned(kind)
    stir(one)
    mine = one.engine.loss(_batch(one.engine, rows()))
    theirs = reference(one.model, examples())
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    found = gradients(one.model, mine)
    assert set(found) == set(one.trained)
    assert_same_gradients(found, gradients(one.model, theirs))


def test_lora_borrows_the_frozen_matrices_of_a_twin_and_of_no_other_model():
    model = tiny()
    frozen = EditedLlama(model, torch.float32)
    one = Tuned(twin(model), frozen, RUNGS["lora"], seed=3)
    one.engine.build(range(3))
    assert all(one.engine.products[i][group].frozen is product.frozen
               for i in range(3) for group, product in frozen.products[i].items())
    with pytest.raises(ValueError, match="twins"):
        TrunkLlama(tiny(), torch.float32, training=False, base=frozen).build(range(1))


@pytest.mark.parametrize("kind", KINDS)
def test_parameter_counts(kind):
    one = tuned(kind)
    assert one.parameters == COUNTS[kind]
    if hasattr(one.model, "get_nb_trainable_parameters"):
        assert one.model.get_nb_trainable_parameters()[0] == COUNTS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_close_gives_the_base_back(kind):
    model = tiny()
    before = {n: p.clone() for n, p in model.state_dict().items()}
    frozen = EditedLlama(model, torch.float32)
    plain = score(frozen, rows())
    one = Tuned(model, frozen, RUNGS[kind], seed=1)
    history = fit(one, rows(), SFTConfig(lr=2e-2 if kind != "full" else 2e-3, epochs=15, batch_size=4))
    assert sum(history.losses[-4:]) < sum(history.losses[:4]) and len(history.losses) == 30
    if kind != "full":  # everything but the rung is as it was
        inside = dict(one.base.named_parameters())
        kept = [n for n, p in inside.items() if n in before and not p.requires_grad]
        assert kept and all(torch.equal(inside[n], before[n]) for n in kept)
    one.close()
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)
    assert score(EditedLlama(model, torch.float32), rows()) == plain


@pytest.mark.parametrize("kind", ["ia3", "bitfit", "houlsby", "lora"])
def test_rungs_inside_the_layers_start_as_the_base(kind):
    model = tiny()
    frozen = EditedLlama(model, torch.float32)
    plain = score(frozen, rows())
    assert score(Tuned(model, frozen, RUNGS[kind]).engine, rows()) == pytest.approx(plain, rel=1e-5)


def test_text_before_an_example_is_a_prefix_and_a_soft_prompt():
    """Reading ids in the text, as their keys and values, and as their embeddings is the same."""
    model = tiny()
    frozen = EditedLlama(model, torch.float32)
    read = [Example([*START, *e.ids], len(START) + e.prompt) for e in rows()]
    wanted = pytest.approx(score(frozen, read), rel=1e-4)
    assert score(frozen.under(context(model, START)), rows()) == wanted
    for kind in ("prefix", "prompt"):
        one = Tuned(model, frozen, Rung(kind, tokens=4, start=START))
        assert score(one.engine, rows()) == wanted, kind
        one.close()


@pytest.mark.parametrize("kind", KINDS)
def test_saved_bytes_are_the_parameters_that_serve(kind, tmp_path):
    one = tuned(kind)
    serving = 4 * 64 if kind == "p-tuning" else one.parameters  # PEFT drops the encoder
    size = one.save(tmp_path / kind)
    assert 4 * serving <= size <= 4 * serving + 10_000


def test_seeds_differ_and_repeat():
    data, config = rows(), SFTConfig(lr=1e-2, epochs=1, batch_size=4)
    runs = []
    for seed in (0, 0, 1):
        model = tiny()
        one = Tuned(model, EditedLlama(model, torch.float32), RUNGS["prompt"], seed)
        runs.append(fit(one, data, config).losses)
    assert runs[0] == runs[1] != runs[2]


def test_bad_rungs_say_why():
    with pytest.raises(ValueError, match="choose from prompt"):
        Rung("soft")
    with pytest.raises(ValueError, match="4 ids for 20"):
        Rung("prompt", start=START)
