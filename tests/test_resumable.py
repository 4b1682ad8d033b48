"""A run resumes to the same bits; scaling, accumulation and the range test do what they say."""

import numpy as np
import pytest
import torch

from mangalab.training.encoder import LeanEncoder
from mangalab.training.rates import range_test, smoothed
from mangalab.training.resumable import PARTS, CheckpointError, Data, Recipe, Run

MESSAGES = [[101, 7 + i % 50, 9 + i % 31, 102][: 3 + i % 2] for i in range(24)]
RECIPE = Recipe(steps=8, batch_size=6, lr=1e-3, head_lr=1e-2, warm=2, dropout=0.2)


@pytest.fixture(scope="module")
def encoder():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                       vocab_size=200, max_position_embeddings=16)  # fmt: skip
    return LeanEncoder(BertModel(shape, add_pooling_layer=False).eval(), 1)


@pytest.fixture(scope="module")
def data(encoder):
    from mangalab.training.classify import bottoms

    return Data(MESSAGES, bottoms(encoder, MESSAGES), torch.tensor([i % 3 for i in range(24)]))


@pytest.fixture
def half(encoder, data, tmp_path):
    """A folder with the checkpoint of step 5, and the digest of the uninterrupted run."""
    Run(encoder, data, RECIPE).advance(5).save(tmp_path)
    return tmp_path, Run(encoder, data, RECIPE).advance().digest()


def test_resumed_run_has_the_same_bits(encoder, data, half):
    folder, digest = half
    resumed = Run(encoder, data, RECIPE).restore(folder)
    assert resumed.step == 5 and len(resumed.losses) == 5
    assert resumed.advance().digest() == digest


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_a_checkpoint_matters(part, encoder, data, half):
    folder, digest = half
    run = Run(encoder, data, RECIPE).restore(folder, [p for p in PARTS if p != part])
    assert run.advance().digest() != digest


def test_torn_or_foreign_checkpoints_are_refused(encoder, data, half):
    folder, _ = half
    with pytest.raises(CheckpointError, match="another recipe"):
        Run(encoder, data, Recipe(steps=9, batch_size=6)).restore(folder)
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="not the file"):
        Run(encoder, data, RECIPE).restore(folder)


def test_runs_share_frozen_layers_and_leave_the_encoder_alone(encoder, data):
    before = encoder.layers[1].up_weight.detach().clone()
    run = Run(encoder, data, RECIPE).advance(2)
    assert run.model.encoder.layers[0] is encoder.layers[0]
    assert torch.equal(encoder.layers[1].up_weight, before)
    assert not torch.equal(run.model.encoder.layers[1].up_weight, before)


def gradient(encoder, data, **changes):
    run = Run(encoder, data, Recipe(steps=1, batch_size=24, **changes))
    run.backward(range(24))
    return torch.cat([p.grad.flatten() for p in run.trained().values()])


def test_equal_micro_batches_and_a_fixed_scale_change_nothing(encoder, data):
    whole = gradient(encoder, data)
    assert torch.allclose(gradient(encoder, data, accumulate=4), whole, atol=1e-6)
    assert torch.allclose(gradient(encoder, data, scale=1024.0), whole, atol=1e-6)
    with pytest.raises(ValueError, match="accumulate must divide"):
        Recipe(steps=1, batch_size=24, accumulate=5)


def test_adaptive_scale_skips_what_overflows(encoder, data):
    run = Run(encoder, data, Recipe(steps=4, batch_size=6, scale=-(2.0**40)), dtype=torch.float16)
    start = run.digest()
    run.advance(1)
    assert run.skipped == 1 and run.digest() == start


# ---------------------------------------------------------------------------- range test
def test_range_test_finds_the_edge_of_a_parabola():
    state = {"x": 1.0}

    def step(rate):  # gradient descent on 5 x^2 diverges above a rate of 0.2
        loss = 5 * state["x"] ** 2
        state["x"] -= rate * 10 * state["x"]
        return loss

    found = range_test(step, 1e-4, 10.0, 200)
    assert len(found.rates) < 200  # it stopped when the loss left all bounds
    assert 0.2 <= found.spike() <= 2.0
    assert found.steepest < 0.2 and found.valley < found.rates[int(found.smooth.argmin())]


def test_smoothing_is_unbiased_at_the_start():
    assert smoothed([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    with pytest.raises(ValueError, match="need 0 < low < high"):
        range_test(lambda r: 1.0, 1.0, 0.1, 10)
    with pytest.raises(ValueError, match="start lower"):
        range_test(lambda r: np.nan, 0.1, 1.0, 10)
