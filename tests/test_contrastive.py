"""Our InfoNCE and miner against sentence-transformers; batches, adapter, fine-tuning, geometry."""

import logging

import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

from mangalab.evaluation.embedding import alignment, embedding_spectrum, popularity_of_top, uniformity
from mangalab.training import biencoder
from mangalab.training.contrastive import (
    Adapter,
    ContrastiveConfig,
    batches,
    below_margin,
    info_nce,
    mine,
    train_adapter,
)
from mangalab.training.encoder import LeanEncoder


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("hard", [0, 2])
def test_loss_and_gradients_equal_sentence_transformers(hard):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    mine_ = [some(6, 8, seed=s).requires_grad_() for s in range(2 + hard)]
    theirs = [x.detach().clone().requires_grad_() for x in mine_]
    loss = info_nce(mine_[0], torch.cat(mine_[1:]), torch.arange(6), temperature=0.05)
    empty = SentenceTransformer(modules=[torch.nn.Identity()])
    library = MultipleNegativesRankingLoss(empty, scale=20.0)
    expected = library.compute_loss_from_embeddings(theirs, None)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for a, b in zip(mine_, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_gradient_is_that_of_the_formula():
    q = some(3, 8).double().requires_grad_()
    d = some(5, 8, seed=1).double()
    assert torch.autograd.gradcheck(lambda x: info_nce(x, d, torch.tensor([0, 2, 4]), 0.1), (q,))
    logits = torch.linspace(-1, 1, 5, dtype=torch.float64).requires_grad_()
    F.cross_entropy(logits[None] / 0.1, torch.tensor([2])).backward()
    hot = F.one_hot(torch.tensor(2), 5)
    by_hand = (torch.softmax(logits.detach() / 0.1, 0) - hot) / 0.1
    torch.testing.assert_close(logits.grad, by_hand)


def test_a_forbidden_negative_has_no_part_and_the_positive_always_stays():
    q, d = some(2, 4), some(3, 4, seed=1)
    positive, allowed = torch.tensor([0, 1]), torch.ones(2, 3, dtype=torch.bool)
    allowed[:, 2] = False
    assert info_nce(q, d, positive, allowed=allowed) == info_nce(q, d[:2], positive)
    assert info_nce(q, d, positive, allowed=torch.zeros(2, 3, dtype=torch.bool)) == 0.0


def test_miner_equals_sentence_transformers():
    """Same negatives for the same vectors, ranks skipped and relative margin, one positive a query."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    n, m = 12, 20
    q, d = F.normalize(some(n, 6)), F.normalize(some(m, 6, seed=1))
    scores = q @ d.T
    positive = scores.argmax(1)
    known = F.one_hot(positive, m).bool()
    table = {f"q{i}": q[i] for i in range(n)} | {f"d{j}": d[j] for j in range(m)}

    class Stub:
        similarity_fn_name = "cosine"
        device = "cpu"

        def encode(self, texts, **_):
            return torch.stack([table[t] for t in texts]).numpy()

        encode_query = encode_document = encode

        def similarity(self, a, b):
            return torch.as_tensor(a) @ torch.as_tensor(b).T

        def similarity_pairwise(self, a, b):
            return (torch.as_tensor(a) * torch.as_tensor(b)).sum(-1)

    rows = {"query": [f"q{i}" for i in range(n)], "answer": [f"d{j}" for j in positive.tolist()]}
    logging.disable(logging.WARNING)
    try:
        found = mine_hard_negatives(
            Dataset.from_dict(rows), Stub(), corpus=[f"d{j}" for j in range(m)], range_min=2,
            range_max=15, relative_margin=0.3, num_negatives=3, verbose=False,
            output_format="labeled-pair")
    finally:
        logging.disable(logging.NOTSET)
    theirs = {(r["query"], r["answer"]) for r in found if r["label"] == 0}
    ours = mine(scores, known, count=3, skip=2, margin=0.3)
    assert theirs == {(f"q{i}", f"d{j}") for i, j in ours.nonzero().tolist()} and theirs


def test_mining_leaves_known_titles_out_and_skips_ranks():
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5]])
    known = torch.tensor([[True, False, False, False, False]])
    assert mine(scores, known, 2).tolist() == [[False, True, True, False, False]]
    assert mine(scores, known, 2, skip=1).tolist() == [[False, False, True, True, False]]
    assert mine(scores, known, 4, margin=0.3).tolist() == [[False, False, False, True, True]]
    assert below_margin(scores, known, 0.3).tolist() == [[False, False, False, True, True]]
    with pytest.raises(ValueError, match="count 0"):
        mine(scores, known, 0)


def test_adapter_starts_as_the_identity_and_has_the_stated_size():
    x = some(4, 32)
    assert torch.equal(Adapter(32)(x), x)
    assert sum(p.numel() for p in Adapter(1024).parameters()) == 2 * 1024 * 512 + 512 + 1024 + 2 * 512


POSITIVES = torch.zeros(30, 10).scatter(1, (torch.arange(30) % 10)[:, None], 1.0)


def test_batches_hold_distinct_titles_and_respect_what_is_excluded():
    excluded = torch.zeros(30, 10, dtype=torch.bool)
    excluded[:, 4] = True
    config = ContrastiveConfig(steps=5, batch_size=16)
    for batch in batches(POSITIVES, config, excluded=excluded):
        assert len(batch.titles.unique()) == len(batch.titles)
        chosen = batch.titles[batch.positive]
        assert torch.equal(chosen, batch.rows % 10)
        of_four = batch.allowed[:, batch.titles == 4]
        assert of_four.sum() == (chosen == 4).sum()  # there only as the positive


def test_batches_by_title_and_mined_negatives():
    config = ContrastiveConfig(steps=3, batch_size=12)
    for batch in batches(POSITIVES, config, per_title=4):
        assert len(batch.titles) == 3 and len(batch.rows) == 12
        assert torch.equal(batch.titles[batch.positive], batch.rows % 10)
    mined = torch.zeros(30, 10, dtype=torch.bool)
    mined[:, 7] = True
    for batch in batches(POSITIVES, ContrastiveConfig(steps=2, batch_size=8, negatives="mined"), mined):
        assert (batch.allowed.sum(1) == 1 + (batch.rows % 10 != 7)).all()
    with pytest.raises(ValueError, match="needs mined="):
        next(batches(POSITIVES, ContrastiveConfig(negatives="mined")))


def test_queries_without_a_positive_are_never_drawn():
    positives = POSITIVES.clone()
    positives[5:] = 0
    rows = torch.cat([b.rows for b in batches(positives, ContrastiveConfig(steps=4, batch_size=8))])
    assert int(rows.max()) < 5


def test_the_adapter_learns_repeats_itself_and_leaves_documents_alone():
    d, turn = some(10, 32), torch.linalg.qr(some(32, 32, seed=3)).Q
    q = d[torch.arange(30) % 10] @ turn + 0.05 * some(30, 32, seed=4)
    config = ContrastiveConfig(lr=3e-2, steps=150, batch_size=16)
    model = train_adapter(q, d, POSITIVES, config, side="query")
    again = train_adapter(q, d, POSITIVES, config, side="query")
    hits = lambda x: float((biencoder_cosine(x, d).argmax(1) == torch.arange(30) % 10).float().mean())  # noqa: E731
    assert hits(q) < 0.5 < 0.9 < hits(model(q))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(ValueError, match="side 'titles'"):
        train_adapter(q, d, POSITIVES, config, side="titles")


def biencoder_cosine(x, y):
    return F.normalize(x) @ F.normalize(y).T


@pytest.fixture
def bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=16,
    )
    return BertModel(config, add_pooling_layer=False).eval()


TITLES = [[2, 5 + j, 6 + j, 7 + j, 3] for j in range(10)]
ASKED = [[2, 20 + i % 10, 3] for i in range(30)]


@pytest.mark.parametrize("rank", [None, 2])
def test_fine_tuning_learns_and_moves_only_the_asked_layers(bert, rank):
    config = ContrastiveConfig(lr=5e-3 if rank is None else 3e-2, steps=60, batch_size=12)
    tuned = biencoder.tune(bert, ASKED, TITLES, POSITIVES, config, layers=1, rank=rank)
    assert sum(tuned.losses[-5:]) < 0.8 * sum(tuned.losses[:5])
    before, after = LeanEncoder(bert).matrices(), tuned.encoder.matrices()
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved and all(n.startswith("encoder.layer.2.") for n in moved)
    if rank:
        difference = after["encoder.layer.2.output.dense"] - before["encoder.layer.2.output.dense"]
        assert int(torch.linalg.matrix_rank(difference, atol=1e-5)) <= rank


def test_merged_lora_equals_the_adapted_encoder(bert):
    encoder = LeanEncoder(bert, 1)
    biencoder.add_lora(encoder, 2)
    for layer in encoder.layers[1:]:
        torch.nn.init.normal_(layer.parametrizations.qkv_weight[0].B, std=0.1)
    live = biencoder.vectors(encoder, TITLES)
    biencoder.merge_lora(encoder)
    torch.testing.assert_close(biencoder.vectors(encoder, TITLES), live)
    assert not torch.allclose(live, biencoder.vectors(LeanEncoder(bert), TITLES))


def test_runs_side_by_side_give_what_they_give_alone_in_their_order():
    from mangalab.training.retriever import side_by_side

    def run(job):
        seed, steps = job
        model = train_adapter(some(30, 32), some(10, 32, seed=1), POSITIVES,
                              ContrastiveConfig(steps=steps, batch_size=8, seed=seed))
        return model.up.weight

    before, jobs = torch.get_num_threads(), [(0, 30), (1, 3), (2, 10)]
    torch.set_num_threads(2)
    try:
        together = side_by_side(run, jobs)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(w, run(job)) for w, job in zip(together, jobs, strict=True))
    with pytest.raises(ValueError, match="must be positive"):
        side_by_side(run, [(0, 1), (0, 0)])


def test_geometry_by_hand():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert alignment(x, 3 * x) == pytest.approx(0)
    assert alignment(x, x.flip(0)) == pytest.approx(2)
    assert uniformity(x) == pytest.approx(-4)
    assert int((embedding_spectrum(torch.ones(5, 4)).values > 1e-9).sum()) == 0
    top = popularity_of_top(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([30, 10, 20]), k=2)
    assert top.tolist() == [15.0]
    with pytest.raises(ValueError, match="pairs"):
        alignment(x, x[:1])


def test_bad_configuration_is_named():
    with pytest.raises(ValueError, match="negatives 'random'"):
        ContrastiveConfig(negatives="random")
    with pytest.raises(ValueError, match="must be positive"):
        ContrastiveConfig(temperature=0)


def test_corpus_keeps_held_out_titles_out_of_training():
    from mangalab.data import catalogue, retrieval
    from mangalab.models import encoder_path, load_tokenizer
    from mangalab.training.retriever import Corpus

    corpus = Corpus.load(load_tokenizer(encoder_path()), n_train=50)
    closed = {t.id for t, free in zip(catalogue.load(), corpus.open.tolist(), strict=True) if not free}
    assert closed == retrieval.held_out() and len(corpus.queries["train"]) == 50
    assert corpus.positives.shape == (50, int(corpus.open.sum())) == corpus.judged.shape
    assert set(corpus.positives.unique().tolist()) <= {0.0, 3.0, 7.0}
    assert max(len(text) for text in corpus.documents) < 128  # nothing is cut


def test_stored_retriever_reads_what_was_written(tmp_path):
    from safetensors.torch import save_file

    from mangalab.training import retriever

    flat = {f"{s}.{n}": some(4, 3) for s in retriever.STAGES for n in ("documents", "test")}
    save_file(flat, tmp_path / "vectors.safetensors")
    (tmp_path / "retriever.json").write_text('{"layers": 2}', encoding="utf8")
    found = retriever.load(tmp_path)
    torch.testing.assert_close(found.scores("tuned", "test").diagonal(), torch.ones(4))
    with pytest.raises(ValueError, match="no stage 'best'"):
        found.scores("best", "test")


def test_measures_of_the_page_equal_trec_eval_on_the_real_queries():
    """The page's run format: a score for each title, as a torch tensor, against the real judgments."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    from mangalab.data import catalogue, retrieval
    from mangalab.evaluation import retrieval as metrics
    from mangalab.evaluation.lexical import bm25

    titles = sorted(catalogue.load(), key=lambda t: t.id, reverse=True)  # trec_eval's order of ties
    asked = retrieval.queries("validation")
    words = bm25([q.text for q in asked], [retrieval.document(t) for t in titles])
    judged = retrieval.judgments("validation")
    grades = torch.tensor([[judged[q.id].get(t.id, 0) for t in titles] for q in asked])
    for scores in (torch.tensor(words, dtype=torch.float32), some(*grades.shape) + grades):
        run = {q.id: {t.id: float(s) for t, s in zip(titles, row, strict=True)}
               for q, row in zip(asked, scores, strict=True)}
        gains = {q: {t: 2**g - 1 for t, g in found.items()} for q, found in judged.items()}
        ndcg = pytrec_eval.RelevanceEvaluator(gains, {"ndcg_cut.10"}).evaluate(run)
        recall = pytrec_eval.RelevanceEvaluator(judged, {"recall.3"}, relevance_level=2).evaluate(run)
        ours = metrics.ndcg(scores, grades), metrics.recall(scores, grades, 3)
        assert ours[0].tolist() == pytest.approx([ndcg[q.id]["ndcg_cut_10"] for q in asked])
        assert ours[1].tolist() == pytest.approx([recall[q.id]["recall_3"] for q in asked])
        assert 0.1 < ours[0].mean() < 0.9
