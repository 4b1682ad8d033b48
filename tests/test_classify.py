"""The engine against Hugging Face, its losses against torch, its runs against themselves."""

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

from mangalab.training.classify import (
    Classifier,
    ClassifyConfig,
    balanced_weights,
    bottoms,
    focal_loss,
    layer_features,
    predict,
    train,
)
from mangalab.training.encoder import LINEARS, NORMS, LeanEncoder, Packed

MESSAGES = [[2, 5, 9, 3], [2, 7, 3], [2, 8, 8, 8, 11, 3], [2, 30, 3], [2, 14, 15, 3], [2, 6, 6, 3]]
LABELS = torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.fixture
def bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=16,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def hf_vectors(bert: BertModel, messages: list[list[int]]) -> torch.Tensor:
    length = max(map(len, messages))
    ids = torch.tensor([m + [0] * (length - len(m)) for m in messages])
    mask = torch.tensor([[1] * len(m) + [0] * (length - len(m)) for m in messages])
    hidden = bert(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    return hidden.sum(1) / mask.sum(1, keepdim=True)


def gradients(layer: torch.nn.Module, block: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    mine, theirs = [], []
    for name, sources in (LINEARS | {k: (v,) for k, v in NORMS.items()}).items():
        for kind in ("weight", "bias"):
            mine.append(getattr(layer, f"{name}_{kind}").grad.flatten())
            found = [getattr(block.get_submodule(s), kind).grad.flatten() for s in sources]
            theirs.append(torch.cat(found))
    return torch.cat(mine), torch.cat(theirs)


def compare_with_hf(bert, messages, dtype, head):
    encoder = LeanEncoder(bert, 0, dtype)
    labels = torch.arange(len(messages)) % head.out_features
    mine = F.cross_entropy(head(encoder(Packed.of(messages))), labels)
    bert.requires_grad_(True)
    theirs = F.cross_entropy(head(hf_vectors(bert, messages)), labels)
    mine.backward()
    theirs.backward()
    pairs = [gradients(a, b) for a, b in zip(encoder.layers, bert.encoder.layer, strict=True)]
    return mine.item(), theirs.item(), [torch.cat(side) for side in zip(*pairs, strict=True)]


def test_forward_and_gradients_equal_hugging_face(bert):
    mine, theirs, (g, h) = compare_with_hf(bert, MESSAGES, torch.float32, torch.nn.Linear(32, 3))
    assert mine == pytest.approx(theirs, abs=1e-6)
    assert torch.allclose(g, h, atol=1e-6)


@pytest.mark.model
def test_minilm_in_bfloat16_stays_close_to_float32():
    from mangalab.models import load_encoder

    bert, tokenizer = load_encoder()
    texts = ["where is my order", "anything like Monster but lighter?", "hi", "refund vol 3 please"]
    mine, theirs, (g, h) = compare_with_hf(
        bert, tokenizer(texts)["input_ids"], torch.bfloat16, torch.nn.Linear(384, 4)
    )
    assert mine == pytest.approx(theirs, abs=0.01)
    # float64: over ten million terms a float32 dot product is off by a thousandth
    assert F.cosine_similarity(g.double(), h.double(), dim=0) > 0.998


def test_cached_bottom_gives_the_same_training(bert):
    config = ClassifyConfig(layers=1, epochs=2, batch_size=4, lr=1e-3)
    cache = bottoms(LeanEncoder(bert, 2), MESSAGES)
    cached = train(bert, MESSAGES, LABELS, config, cache=cache)
    # the same top layer trained with everything computed anew at every step
    model = Classifier(LeanEncoder(bert, 2), 3, seed=0)
    whole = model(Packed.of(MESSAGES))
    assert torch.allclose(whole, model(Packed.of(MESSAGES), torch.cat(cache)), atol=1e-6)
    assert cached.losses == train(bert, MESSAGES, LABELS, config).losses
    whole, stored = (predict(cached.model, MESSAGES, c).logits for c in (None, cache))
    assert torch.allclose(whole, stored, atol=1e-6)


def test_training_learns_and_is_repeatable_and_leaves_the_source_alone(bert):
    before = {k: v.clone() for k, v in bert.state_dict().items()}
    config = ClassifyConfig(layers=3, epochs=60, batch_size=3, lr=1e-3, head_lr=1e-2)
    first, second = (train(bert, MESSAGES, LABELS, config) for _ in range(2))
    assert first.losses == second.losses
    assert first.losses[-1] < 0.1 < first.losses[0]
    assert torch.equal(predict(first.model, MESSAGES).logits.argmax(1), LABELS)
    assert all(torch.equal(v, before[k]) for k, v in bert.state_dict().items())
    other = train(bert, MESSAGES, LABELS, ClassifyConfig(layers=3, epochs=1, seed=1))
    assert other.losses[0] != first.losses[0]


def test_only_the_asked_layers_move(bert):
    config = ClassifyConfig(layers=1, epochs=1, batch_size=3, lr=1e-2)
    moved = train(bert, MESSAGES, LABELS, config).model.encoder.matrices()
    still = LeanEncoder(bert).matrices()
    assert set(moved) == {n.removesuffix(".weight") for n, p in bert.named_parameters()
                          if p.dim() == 2 and n.startswith("encoder")}
    assert {int(n.split(".")[2]) for n in moved if not torch.equal(moved[n], still[n])} == {2}
    other = LeanEncoder(bert)
    other.set_matrices(moved)
    assert all(torch.equal(w, moved[n]) for n, w in other.matrices().items())


def test_predict_keeps_the_order_and_layer_features_end_in_its_features(bert):
    model = Classifier(LeanEncoder(bert, 3), 3)
    together = predict(model, MESSAGES)
    for row, message in enumerate(MESSAGES):
        assert torch.allclose(predict(model, [message]).logits[0], together.logits[row], atol=1e-6)
    assert torch.allclose(layer_features(model.encoder, MESSAGES)[-1], together.features, atol=1e-6)


def test_weights_written_to_hugging_face_give_the_same_vectors(bert):
    trained = train(bert, MESSAGES, LABELS, ClassifyConfig(layers=3, epochs=2, lr=1e-3)).model
    expected = predict(trained, MESSAGES).features
    assert not torch.allclose(hf_vectors(bert, MESSAGES), expected, atol=1e-3)
    trained.encoder.write_to(bert)
    assert torch.allclose(hf_vectors(bert, MESSAGES), expected, atol=1e-5)


def test_focal_loss_at_gamma_zero_is_cross_entropy():
    logits, weight = torch.randn(50, 3) * 8, torch.tensor([0.2, 1.0, 3.0])
    labels = torch.arange(50) % 3
    assert torch.allclose(focal_loss(logits, labels, 0.0), F.cross_entropy(logits, labels))
    expected = F.cross_entropy(logits, labels, weight=weight)
    assert torch.allclose(focal_loss(logits, labels, 0.0, weight), expected)


def test_focal_loss_by_hand_and_finite_gradient_when_certain():
    logits = torch.tensor([[0.75, 0.25]]).log()
    expected = -(0.25**2) * torch.tensor(0.75).log()
    assert focal_loss(logits, torch.tensor([0]), 2.0) == pytest.approx(expected.item(), abs=1e-7)
    for gamma in (0.5, 1.0, 2.0):
        certain = torch.tensor([[60.0, -60.0]], requires_grad=True)
        focal_loss(certain, torch.tensor([0]), gamma).backward()
        assert torch.isfinite(certain.grad).all()
    with pytest.raises(ValueError, match="gamma"):
        focal_loss(logits, torch.tensor([0]), -1.0)


def test_balanced_weights_by_hand_and_empty_class():
    assert torch.allclose(balanced_weights([0, 0, 0, 1], 2), torch.tensor([4 / 6, 2.0]))
    with pytest.raises(ValueError, match=r"\[2\]"):
        balanced_weights([0, 1], 3)


def test_layer_decay_gives_each_layer_its_rate(bert):
    from mangalab.training.classify import _optimizer

    model = Classifier(LeanEncoder(bert), 3)
    config = ClassifyConfig(layers=3, lr=1e-3, head_lr=5e-3, layer_decay=0.5, warmup=0.0)
    optimizer, _ = _optimizer(model, config, 10)
    rates = [group["initial_lr"] for group in optimizer.param_groups]
    assert rates == [5e-3, 2.5e-4, 2.5e-4, 5e-4, 5e-4, 1e-3, 1e-3]


def test_bad_input_is_named(bert):
    with pytest.raises(ValueError, match="layer_decay"):
        ClassifyConfig(layer_decay=0)
    with pytest.raises(ValueError, match="3 layers"):
        train(bert, MESSAGES, LABELS, ClassifyConfig(layers=6))
    with pytest.raises(ValueError, match="at least one message"):
        Packed.of([])
