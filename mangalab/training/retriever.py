"""The retriever of chapter 02 as later chapters find it: frozen, with an adapter, and fine-tuned.

A chapter that needs candidates asks the store, which trains only if nothing fits:

    from mangalab.training.retriever import Recipe, stored

    found = stored(Recipe(seed=seed))                  # artifacts.cached("retriever", ...) inside
    scores = found.scores("tuned", "test")             # (queries, titles of the catalogue)
    vectors = found.embed("adapter", ["quiet manga"])  # new text, as a query

Another recipe makes another artifact: chapters that are to share one pass the same parameters.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import catalogue, retrieval
from ..models import load_encoder
from ..profiles import from_environment
from . import biencoder, contrastive
from .classify import bottoms, tokenize
from .contrastive import Adapter, ContrastiveConfig, cosine
from .encoder import LeanEncoder

STAGES = ("frozen", "adapter", "tuned")
RELEVANT = 2  # a positive of training has this grade or a better one
LONGEST = 128  # tokens of a title's text; none of the catalogue is longer


@dataclass(frozen=True)
class Recipe:
    """How the stored retriever is trained; the values are those of the cpu profile of chapter 02.

    ``n_train`` queries, evenly spaced; ``adapter_*`` of the adapter on frozen vectors, the rest of
    the fine-tuning of the upper ``layers``. Chosen on validation queries in chapter 02. Texts of
    titles are cut at ``longest`` tokens.
    """

    seed: int = 0
    n_train: int = 2629
    adapter_lr: float = 3e-4
    adapter_steps: int = 240
    lr: float = 1e-4
    steps: int = 24
    batch_size: int = 48
    layers: int = 2
    longest: int = LONGEST


@dataclass(frozen=True)
class Corpus:
    """Token ids and grades: ``documents`` of every title, ``queries`` and ``grades`` by split.

    ``open`` (titles,) is true for titles that training may use, as positive or as negative; the
    held-out fifth is not even a negative, or it would be pushed away from every query.
    """

    documents: list[list[int]]
    queries: Mapping[str, list[list[int]]]
    grades: Mapping[str, Tensor]
    open: Tensor

    @classmethod
    def load(cls, tokenizer, n_train: int | None = None, longest: int = LONGEST) -> "Corpus":
        """Read the judged queries; ``n_train`` keeps an evenly spaced part of the training set."""
        titles = catalogue.load()
        texts = tokenize(tokenizer, [retrieval.document(t) for t in titles], longest)
        queries, grades = {}, {}
        for split in retrieval.SPLITS:
            found, judged = retrieval.queries(split), torch.tensor(retrieval.grades(split))
            keep = torch.arange(len(found))
            if split == "train" and n_train and n_train < len(found):
                keep = torch.linspace(0, len(found) - 1, n_train).long()
            queries[split] = tokenize(tokenizer, [found[i].text for i in keep.tolist()])
            grades[split] = judged[keep]
        held = retrieval.held_out()
        return cls(texts, queries, grades, torch.tensor([t.id not in held for t in titles]))

    @property
    def judged(self) -> Tensor:
        """Grades of the training queries over the open titles, (n, open titles)."""
        return self.grades["train"][:, self.open]

    @property
    def positives(self) -> Tensor:
        """Weights 2^grade - 1 of the relevant open titles, (n, open titles): what a step draws."""
        grades = self.judged
        return torch.where(grades >= RELEVANT, 2.0**grades - 1, torch.zeros(()))

    @property
    def texts(self) -> dict[str, list[list[int]]]:
        """Documents and queries by one name each."""
        return {"documents": self.documents, **self.queries}

    def open_of(self, values: Sequence) -> list:
        """Those of a list over all titles that training may use."""
        return [value for value, free in zip(values, self.open.tolist(), strict=True) if free]


@dataclass(frozen=True)
class Prepared:
    """What every training run starts from: the model, its texts and the cached lower layers.

    ``start`` has gradients in the upper layers only; ``below`` is as from :func:`states`.
    """

    bert: nn.Module
    tokenizer: object
    corpus: Corpus
    start: LeanEncoder
    below: Mapping[str, list[Tensor]]


@lru_cache(maxsize=1)
def prepared(n_train: int, layers: int, longest: int = LONGEST) -> Prepared:
    """Model, texts and states below the upper ``layers``; the last answer is kept for this process."""
    bert, tokenizer = load_encoder()
    bert = bert.to(from_environment().device)
    corpus = Corpus.load(tokenizer, n_train, longest)
    start = LeanEncoder(bert, len(bert.encoder.layer) - layers, _dtype())
    return Prepared(bert, tokenizer, corpus, start, states(start, corpus))


def states(encoder: LeanEncoder, corpus: Corpus) -> dict[str, list[Tensor]]:
    """Inputs of the first trained layer for every text, by name: computed once for many runs."""
    return {name: bottoms(encoder, texts) for name, texts in corpus.texts.items()}


def embed(
    encoder: LeanEncoder, corpus: Corpus, below: Mapping | None = None,
    names: Sequence[str] = ("documents", *retrieval.SPLITS),
) -> dict[str, Tensor]:
    """Vectors (n, d) of documents and queries by name; ``below`` as from :func:`states`."""
    return {
        name: biencoder.vectors(encoder, texts, below[name] if below else None)
        for name, texts in corpus.texts.items() if name in names
    }


def adapt(adapter: Adapter, vectors: Mapping[str, Tensor], side: str = "both") -> dict[str, Tensor]:
    """Vectors after the adapter; with ``side="query"`` documents keep theirs."""
    return {
        name: x if side == "query" and name == "documents" else adapter(x)
        for name, x in vectors.items()
    }


def scores(vectors: Mapping[str, Tensor], split: str) -> Tensor:
    """Cosines of the queries of ``split`` with every title, (queries, titles)."""
    return cosine(vectors[split], vectors["documents"])


@dataclass(frozen=True)
class Retriever:
    """A stored retriever: vectors by stage and name, and what is needed to embed new text."""

    folder: Path
    vectors: Mapping[str, Mapping[str, Tensor]]
    layers: int

    def scores(self, stage: str, split: str) -> Tensor:
        """Cosines (queries, titles) of one of ``STAGES`` for "train", "validation" or "test"."""
        return scores(self._stage(stage), split)

    def embed(self, stage: str, texts: Sequence[str]) -> Tensor:
        """Vectors (n, d) of new texts, queries or documents alike."""
        from safetensors.torch import load_file

        self._stage(stage)
        bert, tokenizer = load_encoder()
        encoder = LeanEncoder(bert, len(bert.encoder.layer) - self.layers, _dtype())
        if stage == "tuned":
            encoder.layers.load_state_dict(load_file(self.folder / "encoder.safetensors"), strict=False)
        found = biencoder.vectors(encoder.requires_grad_(False), tokenize(tokenizer, texts, LONGEST))
        if stage != "adapter":
            return found
        adapter = Adapter(encoder.width)
        adapter.load_state_dict(load_file(self.folder / "adapter.safetensors"))
        return adapter.requires_grad_(False)(found)

    def _stage(self, stage: str) -> Mapping[str, Tensor]:
        if stage not in self.vectors:
            raise ValueError(f"no stage {stage!r} of the retriever; use one of {', '.join(STAGES)}")
        return self.vectors[stage]


def stored(recipe: Recipe = Recipe()) -> "Retriever":
    """The retriever of this recipe from the store of artifacts; trained (about 20 s) if not there."""
    from ..artifacts import cached

    return load(cached("retriever", contrastive.build_retriever, **asdict(recipe)).path)


def build(folder: Path, **recipe) -> dict:
    """Train adapter and encoder by a :class:`Recipe`; write weights and all vectors into ``folder``."""
    from safetensors.torch import save_file

    r = Recipe(**recipe)
    base = prepared(r.n_train, r.layers, r.longest)
    corpus, below = base.corpus, base.below
    vectors = {"frozen": embed(base.start, corpus, below)}
    config = ContrastiveConfig(lr=r.adapter_lr, steps=r.adapter_steps, seed=r.seed)
    adapter = contrastive.train_adapter(
        vectors["frozen"]["train"], vectors["frozen"]["documents"][corpus.open], corpus.positives,
        config, excluded=corpus.judged > 0)
    vectors["adapter"] = adapt(adapter, vectors["frozen"])
    config = ContrastiveConfig(lr=r.lr, steps=r.steps, batch_size=r.batch_size, seed=r.seed)
    tuned = fine_tune(base.bert, corpus, config, below, r.layers)
    vectors["tuned"] = embed(tuned.encoder, corpus, below)
    flat = {f"{stage}.{n}": x.contiguous() for stage, part in vectors.items() for n, x in part.items()}
    trained = {n: p.detach().contiguous() for n, p in tuned.encoder.cpu().layers.named_parameters()
               if int(n.partition(".")[0]) >= tuned.encoder.first}
    for name, part in (("vectors", flat), ("adapter", adapter.state_dict()), ("encoder", trained)):
        save_file(part, folder / f"{name}.safetensors")
    meta = {"layers": r.layers, "losses": tuned.losses, "parameters": tuned.parameters}
    (folder / "retriever.json").write_text(json.dumps(meta), encoding="utf8")
    return meta


def fine_tune(
    bert, corpus: Corpus, config: ContrastiveConfig, below: Mapping, layers: int,
    rank: int | None = None,
) -> biencoder.Tuned:
    """Fine-tune on the judged training queries; ``below`` as from :func:`states`."""
    return biencoder.tune(
        bert, corpus.queries["train"], corpus.open_of(corpus.documents), corpus.positives, config,
        layers, rank, excluded=corpus.judged > 0, dtype=_dtype(),
        caches=(below["train"], corpus.open_of(below["documents"])))


def side_by_side(run: Callable, jobs: Sequence) -> list:
    """``run(job)`` of every job, in their order: one thread each, as many at once as torch may use.

    Matrices this small gain less from a second thread than from a second run. Runs that draw from
    generators of their own give what they give alone. On a GPU one follows the other.
    """
    workers = 1 if from_environment().device == "cuda" else torch.get_num_threads()
    if workers == 1:
        return [run(job) for job in jobs]
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(run, jobs))


def load(folder: Path) -> Retriever:
    """Read what :func:`build` wrote."""
    from safetensors.torch import load_file

    vectors: dict[str, dict[str, Tensor]] = {stage: {} for stage in STAGES}
    for name, x in load_file(folder / "vectors.safetensors").items():
        stage, _, part = name.partition(".")
        vectors[stage][part] = x
    meta = json.loads((folder / "retriever.json").read_text(encoding="utf8"))
    return Retriever(folder, vectors, meta["layers"])


def _dtype() -> torch.dtype:
    return from_environment().dtype
