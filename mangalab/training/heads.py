"""Linear heads on frozen sentence vectors: a router that trains in a tenth of a second.

Cheap enough to train for every noise level, seed and share of synthetic rows that a page asks for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.intents import INTENTS, Utterance, load

CLASSES = len(INTENTS)
FOLDS = 5


@dataclass(frozen=True)
class Rows:
    """Messages of a split: ``x`` (n, 384), frozen unit vectors, ``y`` (n,), intents, and the texts."""

    x: np.ndarray
    y: np.ndarray
    texts: tuple[str, ...]


def store_vectors(folder: Path, limits: dict[str, int]) -> None:
    """Write the vectors of at most so many messages a split; for :func:`mangalab.artifacts.cached`."""
    from safetensors.numpy import save_file

    embed = embedder()
    for split, limit in limits.items():
        texts = [u.text for u in evenly(split, limit)]
        save_file({"x": embed(texts)}, Path(folder) / f"{split}.safetensors")


def evenly(split: str, limit: int) -> list[Utterance]:
    """At most ``limit`` messages of a split, evenly spaced in the order of the file."""
    rows = load(split)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]


def vectors(**limits: int) -> dict[str, Rows]:
    """Messages with vectors, at most so many a split (``train=2600``), kept in the store."""
    from safetensors.numpy import load_file

    from ..artifacts import cached

    kept = cached("frozen-vectors", store_vectors, limits=limits)
    found = {}
    for split, limit in limits.items():
        rows = evenly(split, limit)
        y = np.array([INTENTS.index(u.intents[0]) for u in rows])
        x = load_file(kept.file(f"{split}.safetensors"))["x"]
        found[split] = Rows(x, y, tuple(u.text for u in rows))
    return found


def embedder() -> Callable[[Sequence[str]], np.ndarray]:
    """A function from texts to unit vectors (n, 384) float32 of the frozen encoder."""
    import torch

    from ..models import load_encoder
    from ..profiles import from_environment
    from .classify import Classifier, predict, tokenize
    from .encoder import LeanEncoder

    profile = from_environment()
    bert, tokenizer = load_encoder()
    encoder = LeanEncoder(bert.to(profile.device), len(bert.encoder.layer), profile.dtype)
    model = Classifier(encoder, 2)

    def embed(texts: Sequence[str]) -> np.ndarray:
        found = predict(model, tokenize(tokenizer, texts)).features
        return torch.nn.functional.normalize(found).numpy()

    return embed


def fit(x: np.ndarray, y: Sequence[int], c: float, weight: np.ndarray | None = None) -> Callable:
    """Multinomial logistic regression of inverse penalty ``c``; returns x (n, d) -> p (n, CLASSES).

    Classes without a row have probability zero. ``weight`` (n,) weighs the rows. One thread: on two
    cores the many small products of this solver were 14 times slower with two.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        model = LogisticRegression(C=c, tol=1e-3, max_iter=200).fit(x, y, weight)

    def probabilities(rows: np.ndarray) -> np.ndarray:
        p = np.zeros((len(rows), CLASSES))
        p[:, model.classes_] = model.predict_proba(rows)
        return p

    return probabilities


def out_of_sample(x: np.ndarray, y: np.ndarray, c: float, seed: int = 0) -> np.ndarray:
    """Probabilities (n, CLASSES) of each row from heads that did not see it, by five folds."""
    order = np.random.default_rng([seed, FOLDS]).permutation(len(y))
    fold = np.empty(len(y), int)
    fold[order] = np.arange(len(y)) % FOLDS
    p = np.zeros((len(y), CLASSES))
    for k in range(FOLDS):
        p[fold == k] = fit(x[fold != k], y[fold != k], c)(x[fold == k])
    return p
