"""Ranking losses against sentence-transformers and autograd; the pair encoder; late interaction."""

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

from mangalab.training import ranking, rerank
from mangalab.training.encoder import LeanEncoder, Packed
from mangalab.training.late import Tokens, maxsim, token_vectors
from mangalab.training.rerank import RerankConfig

LISTS, M = 3, 7


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def graded():
    return torch.randint(0, 4, (LISTS, M), generator=torch.Generator().manual_seed(1))


def library_loss(name, scores, grades):
    """The library's loss of the same name, on a model that returns ``scores``."""
    from sentence_transformers.cross_encoder import losses

    class Fixed(torch.nn.Module):
        num_labels, device = 1, torch.device("cpu")

        def preprocess(self, texts, **_):
            return {"n": torch.tensor(len(texts))}

        def forward(self, _):
            return {"scores": scores.flatten()[:, None]}

    model, whole = Fixed(), LISTS * M
    options = {"reduction_log": "natural", "mini_batch_size": whole}
    made = losses.RankNetLoss(model, **options) if name == "ranknet" else losses.LambdaLoss(
        model, weighting_scheme=losses.LambdaRankScheme(), **options)
    docs = [[f"d{i}" for i in range(M)]] * LISTS
    return made([["q"] * LISTS, docs], list(grades.float()))


@pytest.mark.parametrize("name", ["ranknet", "lambdarank"])
def test_loss_and_gradient_equal_sentence_transformers(name):
    ours, theirs = some(LISTS, M).requires_grad_(), some(LISTS, M).requires_grad_()
    loss = ranking.LOSSES[name](ours, graded())
    expected = library_loss(name, theirs, graded())
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_pointwise_is_the_librarys_criterion():
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    class One(CrossEncoder):
        num_labels = 1

        def __init__(self):
            torch.nn.Module.__init__(self)

    library = BinaryCrossEntropyLoss(One())
    scores, grades = some(LISTS, M), graded()
    expected = library.bce_with_logits_loss(scores.flatten(), grades.flatten() / 3)
    torch.testing.assert_close(ranking.pointwise(scores, grades), expected)


def test_lambdas_are_minus_the_gradient_of_the_written_loss():
    scores = some(LISTS, M).double().requires_grad_()
    ranking.lambdarank(scores, graded()).backward()
    pulls = ranking.lambdas(scores.detach(), graded())
    torch.testing.assert_close(pulls, -scores.grad)
    assert float(pulls.sum(1).abs().max()) < 1e-12  # each pull has a push
    without = ranking.ranknet(scores, graded())
    assert not torch.allclose(torch.autograd.grad(without, scores)[0], scores.grad)


def test_swap_gains_are_the_change_of_ndcg():
    from mangalab.evaluation.retrieval import ndcg

    scores, grades = some(1, M).double(), graded()[:1]
    weights = ranking.swap_gains(scores, grades)[0]
    before = ndcg(scores, grades, M)[0]
    for i in range(M):
        for j in range(M):
            swapped = scores.clone()
            swapped[0, [i, j]] = scores[0, [j, i]]
            assert abs(ndcg(swapped, grades, M)[0] - before) == pytest.approx(float(weights[i, j]))


def test_lists_without_a_difference_give_no_loss():
    for name in ("ranknet", "lambdarank"):
        scores = some(2, 4).requires_grad_()
        ranking.LOSSES[name](scores, torch.full((2, 4), 2)).backward()
        assert float(scores.grad.abs().max()) == 0


def test_pair_accuracy_counts_ties_as_wrong():
    found = ranking.pair_accuracy(torch.tensor([[3.0, 1.0, 1.0]]), torch.tensor([[3, 1, 0]]))
    assert found == {1: (0, 1), 2: (1, 1), 3: (1, 1)}


# ---------------------------------------------------------------- the pair encoder


@pytest.fixture(scope="module")
def bert():
    config = BertConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=32)
    torch.manual_seed(0)
    model = BertModel(config).eval()
    torch.nn.init.normal_(model.embeddings.token_type_embeddings.weight)  # segments must matter
    return model


QUERY, TITLES = [101, 7, 8, 102], ([101, 9, 7, 30, 102], [101, 55, 102], [101, 61, 62, 63, 64, 102])
PAIRS = [rerank.pair(QUERY, title) for title in TITLES]


def test_pairs_and_segments_equal_hugging_face(bert):
    assert PAIRS[1] == [101, 7, 8, 102, 55, 102]
    batch = Packed.of(PAIRS)
    ours = rerank.PairEncoder(bert).hidden(batch).split(batch.lengths.tolist())
    for ids, states in zip(PAIRS, ours, strict=True):
        types = torch.tensor([[0] * len(QUERY) + [1] * (len(ids) - len(QUERY))])
        theirs = bert(torch.tensor([ids]), token_type_ids=types).last_hidden_state[0]
        torch.testing.assert_close(states, theirs, atol=2e-5, rtol=1e-4)
    plain = LeanEncoder(bert).hidden(batch)  # without segments: another function
    assert (plain - torch.cat(ours)).abs().max() > 1e-2


def test_joint_maxsim_reads_words_of_the_query_against_the_title(bert):
    batch = Packed.of(PAIRS)
    hidden = rerank.PairEncoder(bert).hidden(batch)
    found = rerank.joint_maxsim(hidden, batch)
    for ids, states, value in zip(PAIRS, hidden.split(batch.lengths.tolist()), found, strict=True):
        unit, cut = F.normalize(states, dim=1), len(QUERY)
        assert len(unit) == len(ids)
        expected = (unit[1 : cut - 1] @ unit[cut:].T).amax(1).mean()
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("head", rerank.HEADS)
def test_scores_do_not_depend_on_the_batch_or_on_the_cache(bert, head):
    model = rerank.untrained(bert, RerankConfig(head=head), torch.float32)
    together = rerank.score(model, PAIRS)
    alone = torch.cat([rerank.score(model, [p]) for p in PAIRS])
    cached = rerank.score(model, PAIRS, rerank.states(bert, PAIRS, 1, torch.float32))
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, cached)


def test_serving_keeps_scores_and_holds_weights_in_the_products_precision(bert):
    model = rerank.untrained(bert, RerankConfig(), torch.bfloat16)
    served = rerank.serving(model)
    torch.testing.assert_close(rerank.score(served, PAIRS), rerank.score(model, PAIRS), rtol=0, atol=0)
    assert {p.dtype for p in served.encoder.layers.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.encoder.layers.parameters()} == {torch.float32}
    assert served.encoder.embeddings is model.encoder.embeddings
    encoder = rerank.serving(LeanEncoder(bert, 2, torch.bfloat16))
    assert encoder.layers[0].up_weight.dtype == torch.bfloat16


@pytest.mark.parametrize("loss", ranking.LOSSES)
@pytest.mark.parametrize("head", rerank.HEADS)
def test_training_orders_its_own_lists_and_repeats(bert, loss, head):
    grades = torch.tensor([[0, 3, 1]] * 4)
    config = RerankConfig(loss=loss, head=head, epochs=60, lr=1e-2, head_lr=3e-2, lists=2)
    runs = [rerank.train(bert, PAIRS * 4, grades, config) for _ in range(2)]
    assert rerank.score(runs[0].model, PAIRS).argsort().tolist() == [0, 2, 1]
    torch.testing.assert_close(runs[0].losses, runs[1].losses, rtol=0, atol=0)
    assert runs[0].losses[-1] < runs[0].losses[0]
    before = rerank.untrained(bert, config, torch.float32).encoder.matrices()
    after = runs[0].model.encoder.matrices()
    moved = {name.split(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"1"}  # the frozen layer stays


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="listnet"):
        RerankConfig(loss="listnet")
    with pytest.raises(ValueError, match="positive"):
        RerankConfig(lr=0)


# ---------------------------------------------------------------- late interaction


def test_maxsim_by_hand_and_padding_never_wins():
    query = Tokens(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[True, True]]))
    vectors = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]], [[0.6, 0.8], [1.0, 0.0]]])
    titles = Tokens(vectors, torch.tensor([[True, False], [True, True]]))
    torch.testing.assert_close(maxsim(query, titles), torch.tensor([[-0.5, 0.9]]))


def test_token_vectors_keep_order_and_drop_the_marks(bert):
    encoder = LeanEncoder(bert, 2)
    whole, inner = token_vectors(encoder, TITLES), token_vectors(encoder, TITLES, inner=True)
    assert whole.mask.sum(1).tolist() == [5, 3, 6]
    assert inner.mask.sum(1).tolist() == [3, 1, 4]
    torch.testing.assert_close(inner.vectors[2, :4], whole.vectors[2, 1:5])
    expected = F.normalize(encoder.hidden(Packed.of([TITLES[1]])), dim=1)
    torch.testing.assert_close(whole.vectors[1, :3], expected, atol=1e-5, rtol=1e-4)
    assert whole.take([1]).vectors.shape == (1, 3, 32)
