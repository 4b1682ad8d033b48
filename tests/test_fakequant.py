"""Grids against torch's own fake quantisation and integer products; the encoder that runs on them."""

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

from mangalab.training.classify import Classifier, ClassifyConfig, predict, train
from mangalab.training.encoder import LeanEncoder, Packed
from mangalab.training.fakequant import Scheme, Spec, fake_quantize, observe, quantized, train_on

MESSAGES = [[2, 5, 9, 3], [2, 7, 3], [2, 8, 8, 8, 11, 3], [2, 30, 3], [2, 14, 15, 3], [2, 6, 6, 3]]
LABELS = torch.tensor([0, 1, 2, 1, 0, 2])
W8, A8 = Spec(8, "channel"), Spec(8, "tensor", symmetric=False)


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=16,
    )
    return Classifier(LeanEncoder(BertModel(config, add_pooling_layer=False).eval()), 3)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_per_channel_symmetric_is_torchs(bits):
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(bits), requires_grad=True)
    spec, ours = Spec(bits, "channel"), None
    grid = spec.fit(x.detach())
    ours = fake_quantize(x, spec)
    ours.square().sum().backward()
    mine, x.grad = x.grad.clone(), None
    other = torch.fake_quantize_per_channel_affine(
        x, grid.scale[:, 0], torch.zeros(5, dtype=torch.int32), 0, grid.low, grid.high)
    other.square().sum().backward()
    torch.testing.assert_close(ours, other)
    torch.testing.assert_close(mine, x.grad)


@pytest.mark.parametrize("clip", [1.0, 0.5])
def test_per_tensor_affine_is_torchs_also_where_it_clips(clip):
    x = torch.randn(6, 64, generator=torch.Generator().manual_seed(3)).add(0.7).requires_grad_()
    spec = Spec(4, "tensor", symmetric=False)
    grid = spec.grid(clip * x.detach().min(), clip * x.detach().max())
    ours = fake_quantize(x, spec, grid)
    (ours * torch.arange(1, 65)).sum().backward()
    mine, x.grad = x.grad.clone(), None
    other = torch.fake_quantize_per_tensor_affine(
        x, float(grid.scale), int(grid.zero_point), grid.low, grid.high)
    (other * torch.arange(1, 65)).sum().backward()
    torch.testing.assert_close(ours, other)
    torch.testing.assert_close(mine, x.grad)
    assert (mine == 0).any() == (clip < 1)


def test_zero_stays_zero_and_the_error_is_half_a_step():
    x = torch.linspace(0.3, 5, 64)[None]  # all positive: the grid must still hold 0.0
    for spec in (Spec(4, "group", False, 32), Spec(4, "tensor", False), Spec(4, "channel")):
        grid = spec.fit(x)
        assert (grid.values(torch.zeros_like(spec.cut(x))) == 0).all()
        gap = (grid.values(spec.cut(x)) - spec.cut(x)).abs()
        assert bool((gap <= grid.scale / 2 + 1e-6).all())


def test_smaller_pieces_round_better():
    x = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    x[3] *= 20
    gap = {s.per: float((fake_quantize(x, s) - x).square().mean())
           for s in (Spec(4, "tensor"), Spec(4, "channel"), Spec(4, "group", group=32))}
    assert gap["group"] < gap["channel"] < gap["tensor"]


def test_integer_product_is_the_fake_one():
    g = torch.Generator().manual_seed(1)
    x, w = torch.randn(7, 32, generator=g), torch.randn(5, 32, generator=g)
    sx, sw = A8.fit(x), W8.fit(w)
    whole = (sx.codes(x) - sx.zero_point).int() @ sw.codes(w).int().T
    real = whole.float() * sx.scale * sw.scale[:, 0]
    torch.testing.assert_close(real, F.linear(fake_quantize(x, A8), fake_quantize(w, W8)))


def test_sixteen_bits_change_nothing_and_two_bits_do(model):
    base = predict(model, MESSAGES).logits
    fine = quantized(model, Scheme(Spec(16, "channel"), Spec(16, "channel")))
    coarse = quantized(model, Scheme(Spec(2, "channel")))
    torch.testing.assert_close(predict(fine, MESSAGES).logits, base, atol=1e-4, rtol=1e-3)
    gap = [float((predict(m, MESSAGES).logits - base).abs().max()) for m in (fine, coarse)]
    assert gap[1] > 50 * gap[0]


def test_skipped_linears_and_layers_are_untouched(model):
    base = predict(model, MESSAGES).logits
    scheme = Scheme(Spec(2, "channel"), skip=("0", "1.qkv", "1.out", "1.up", "1.down"))
    torch.testing.assert_close(predict(quantized(model, scheme), MESSAGES).logits, base)


def test_observed_ranges_hold_what_was_seen_and_clip_the_rest(model):
    ranges = observe(model, MESSAGES)
    x = model.encoder.embed(Packed.of(MESSAGES))
    low, high = ranges["0.qkv"]
    torch.testing.assert_close((low, high), (x.amin(0), x.amax(0)))
    assert len(ranges) == 8
    static = quantized(model, Scheme(None, Spec(8, "tensor", False), ranges))
    tight = {key: (low / 50, high / 50) for key, (low, high) in ranges.items()}
    narrow = quantized(model, Scheme(None, Spec(8, "tensor", False), tight))
    base = predict(model, MESSAGES).logits
    gap = [(predict(m, MESSAGES).logits - base).abs().max() for m in (static, narrow)]
    assert gap[0] < gap[1] / 3


def test_training_a_quantised_copy_moves_masters_and_helps(model):
    student = quantized(model, Scheme(Spec(3, "channel"), A8))
    kept = student.encoder.layers[0].qkv_weight.detach().clone()
    config = ClassifyConfig(2, 5e-3, 5e-3, epochs=15, batch_size=6)
    run = train_on(student, MESSAGES, LABELS, config)
    assert run.model is student and run.losses[-1] < 0.5 * run.losses[0]
    assert not torch.equal(kept, student.encoder.layers[0].qkv_weight)
    assert predict(student, MESSAGES).logits.argmax(1).tolist() == LABELS.tolist()


def test_without_rounding_it_is_the_loop_of_the_classifier():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=16,
    )
    bert = BertModel(config, add_pooling_layer=False).eval()
    how = ClassifyConfig(2, 1e-3, 1e-3, epochs=2, batch_size=3)
    plain = train(bert, MESSAGES, LABELS, how)
    fresh = quantized(Classifier(LeanEncoder(bert), 3, how.seed), Scheme(weight=None))
    assert train_on(fresh, MESSAGES, LABELS, how).losses == pytest.approx(plain.losses)


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="rows of 30"):
        Spec(4, "group", group=16).fit(torch.randn(2, 30))
    with pytest.raises(ValueError, match="bits"):
        Spec(1)
