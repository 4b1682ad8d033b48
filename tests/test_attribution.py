"""Attribution of chapter 17: completeness, erasure, controls, masks."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from mangalab.evaluation import attribution as look
from mangalab.training.classify import Classifier, LeanEncoder, predict

MESSAGES = [[5, 11, 12, 13, 6], [5, 14, 6], [5, 15, 16, 17, 18, 19, 20, 6]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=16)  # fmt: skip
    bert = BertModel(config, add_pooling_layer=False).eval()
    for p in bert.parameters():
        if p.ndim == 2:
            p.data *= 20  # far from linear, so that one step is not enough
    router = Classifier(LeanEncoder(bert, 2), 3)
    router.head.weight.data.normal_()
    return bert, router


def test_reader_says_what_the_classifier_says(model):
    bert, router = model
    reader = look.Reader(router, bert)
    ids = look._grid(MESSAGES)
    mask = look._grid([[1] * len(m) for m in MESSAGES]).float()
    ours = reader(bert.embeddings.word_embeddings(ids), mask)
    assert torch.allclose(ours, predict(router, MESSAGES).logits.log_softmax(1), atol=1e-5)


def test_credit_is_complete_and_padding_gets_none(model):
    bert, router = model
    reader = look.Reader(router, bert)
    scores, gaps = look.integrated_gradients(reader, MESSAGES, [0, 1, 2], steps=64)
    coarse = look.integrated_gradients(reader, MESSAGES, [0, 1, 2], steps=2)[1]
    empty = [[m[0], *[0] * (len(m) - 2), m[-1]] for m in MESSAGES]
    p = [predict(router, some).logits.log_softmax(1) for some in (MESSAGES, empty)]
    for i, (score, message) in enumerate(zip(scores, MESSAGES, strict=True)):
        assert len(score) == len(message)
        assert score.sum() == pytest.approx(float(p[0][i, i] - p[1][i, i]), abs=0.02)
        assert score[0] == score[-1] == 0  # the same at the baseline
    assert np.abs(gaps).max() < np.abs(coarse).max()


def test_erasing_goes_by_score_and_keeps_the_ends():
    ids, scores = [5, 11, 12, 13, 6], np.array([9.0, 0.1, 0.3, 0.2, 9.0])
    assert look.erased(ids, scores, 0) == ids
    assert look.erased(ids, scores, 1 / 3) == [5, 11, 0, 13, 6]
    assert look.erased(ids, scores, 1) == [5, 0, 0, 0, 6]
    assert look.erased(ids, scores, 1 / 3, keep=True) == [5, 0, 12, 0, 6]
    assert look.erased(ids, scores, 1, keep=True) == ids


def test_erasure_curves_start_and_end_where_they_must(model):
    _, router = model
    scores = [np.arange(len(m), dtype=float) for m in MESSAGES]
    shares = (0, 0.5, 1)
    gone = look.erasure_curves(router, MESSAGES, scores, [0, 1, 2], shares)
    back = look.erasure_curves(router, MESSAGES, scores, [0, 1, 2], shares, keep=True)
    assert np.allclose(gone[:, 0], back[:, -1]) and np.allclose(gone[:, -1], back[:, 0])
    p = predict(router, MESSAGES).logits.softmax(1)
    assert gone[1, 0] == pytest.approx(float(p[1, 1]), abs=1e-5)


def test_scrambling_keeps_values_and_spares_lower_layers(model):
    _, router = model
    other = look.scrambled(router, 1)
    for part, same in ((0, True), (1, False)):
        old, new = (m.encoder.layers[part].up_weight.detach() for m in (router, other))
        assert torch.equal(old, new) == same
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
    assert not torch.equal(router.head.weight, other.head.weight)
    assert torch.equal(look.scrambled(router, 1).head.weight, other.head.weight)


def test_received_attention_is_a_distribution(model):
    bert, router = model
    for weights in look.Reader(router, bert).received(MESSAGES):
        assert weights.sum() == pytest.approx(1, abs=1e-5)


class Words:
    """A tokenizer that splits at spaces, with offsets."""

    def __call__(self, text, **_):
        places, start = [(0, 0)], 0
        for word in text.split(" "):
            places.append((start, start + len(word)))
            start += len(word) + 1
        return {"offset_mapping": [*places, (0, 0)]}


def test_masks_find_phrases_and_punctuation():
    text = "about Red River, nobody answers ?"
    assert look.span_mask(Words(), text, "red river").tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert look.span_mask(Words(), text).tolist() == [0, 0, 0, 1, 0, 0, 1, 0]


def test_mass_counts_sizes_and_ignores_the_ends():
    scores, mask = [np.array([8.0, 1.0, -3.0, 0.0, 8.0])], [np.array([1, 0, 1, 0, 1])]
    assert look.mass(scores, mask) == pytest.approx([0.75])


def test_rank_agreement_reads_ranks():
    a = [np.array([0, 1.0, 2.0, 3.0, 0])]
    assert look.rank_agreement(a, [np.array([9, 1.0, 20.0, 300.0, 9])]) == pytest.approx([1])
    assert look.rank_agreement(a, [np.array([0, 3.0, 2.0, 1.0, 0])]) == pytest.approx([-1])
    assert look.rank_agreement(a, [np.array([0, 1.0, 1.0, 1.0, 0])]) == pytest.approx([0])
