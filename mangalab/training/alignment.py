"""The assistant of chapter 10: trained on the log, sampled, judged, and paired with itself.

Training and sampling are kept in the store by key (:mod:`mangalab.artifacts`), because sampling is
the dear part: the pairs that preference training learns from are the model's own replies.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ..artifacts import Artifact, cached
from ..data import assistant
from ..data.assistant import Request
from ..evaluation import rubric
from ..models import load_causal_lm
from ..profiles import from_environment
from ..spectrum import FactoredUpdate, updates_from_peft
from .decoding import LeanSampler
from .preference import Pair, train_replies
from .sft import ALL_LINEAR, LoRA, SFTConfig, attach, render


@dataclass(frozen=True)
class Recipe:
    """How the assistant is trained on the first ``rows`` of the log, in layers from ``first_layer``."""

    rows: int = 400
    first_layer: int = 20
    rank: int = 16
    lr: float = 1e-3
    epochs: int = 2
    batch_size: int = 16
    seed: int = 0

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that train, for a model of 30."""
        return tuple(range(self.first_layer, 30))


@dataclass(frozen=True)
class Sampled:
    """A sampled reply to request ``row`` of the training set, with the checks that object to it."""

    row: int
    text: str
    issues: tuple[str, ...]


def stored_sft(recipe: Recipe) -> Artifact:
    """The assistant's adapter, trained once for each recipe."""
    return cached("assistant-sft", build_sft, **asdict(recipe))


def build_sft(folder: Path, **recipe) -> dict:
    """Train on the log and write the adapter's factors."""
    from safetensors.torch import save_file

    recipe = Recipe(**recipe)
    model, tokenizer = load_causal_lm(torch.float32)
    requests, replies = assistant.load("train"), assistant.logged()
    data = [render(tokenizer, r.prompt(), a) for r, a in zip(requests, replies, strict=True)]
    policy = attach(model, LoRA(recipe.rank, 2 * recipe.rank, ALL_LINEAR, recipe.layers), recipe.seed)
    config = SFTConfig(lr=recipe.lr, epochs=recipe.epochs, batch_size=recipe.batch_size,
                       seed=recipe.seed)
    history = train_replies(policy, data[: recipe.rows], config, from_environment().dtype)
    factors = {}
    for name, update in updates_from_peft(policy).items():
        factors[f"{name}.A"], factors[f"{name}.B"] = update.A.contiguous(), update.B * update.scale
    save_file({k: v.detach().clone() for k, v in factors.items()}, folder / "adapter.safetensors")
    return {"losses": history.losses}


def sft_updates(artifact: Artifact) -> dict[str, FactoredUpdate]:
    """The stored adapter's updates by module."""
    from safetensors.torch import load_file

    tensors = load_file(artifact.file("adapter.safetensors"))
    names = sorted({key.rpartition(".")[0] for key in tensors})
    return {name: FactoredUpdate(tensors[f"{name}.B"], tensors[f"{name}.A"]) for name in names}


@torch.no_grad()
def assistant_model(artifact: Artifact) -> tuple[nn.Module, object]:
    """The assistant as a bare model in float32, its adapter merged, and the tokenizer."""
    model, tokenizer = load_causal_lm(torch.float32)
    for name, update in sft_updates(artifact).items():
        weight = model.get_submodule(name).weight
        weight.add_(update.matrix().to(weight.device))
    return model, tokenizer


def stored_samples(
    recipe: Recipe, start: int, stop: int, each: int, max_new_tokens: int
) -> list[Sampled]:
    """``each`` replies of the assistant to the training requests ``start`` to ``stop``, judged now."""
    found = cached("assistant-samples", build_samples, recipe=asdict(recipe), start=start, stop=stop,
                   each=each, max_new_tokens=max_new_tokens)
    rows = json.loads(found.file("samples.json").read_text(encoding="utf8"))
    requests = assistant.load("train")
    return [Sampled(i, text, issues(text, requests[i])) for i, text in rows]


def build_samples(
    folder: Path, recipe: dict, start: int, stop: int, each: int, max_new_tokens: int
) -> dict:
    """Sample at temperature 1 and write rows and texts."""
    model, tokenizer = assistant_model(stored_sft(Recipe(**recipe)))
    sampler = LeanSampler(model, tokenizer, from_environment().dtype, recipe["first_layer"])
    asked = assistant.load("train")[start:stop]
    replies = sampler.sample([r.prompt() for r in asked], max_new_tokens, 1.0, batch=100, each=each)
    rows = [[start + i // each, reply.text] for i, reply in enumerate(replies)]
    (folder / "samples.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf8")
    return {"tokens": sum(len(reply.ids) for reply in replies)}


def issues(text: str, request: Request) -> tuple[str, ...]:
    """Names of the checks that find something."""
    return tuple(finding.check for finding in rubric.judge(text, request))


def own_pairs(samples: Sequence[Sampled], grounded: bool = True) -> list[Pair]:
    """The reply with the fewest issues against each of its rivals that has more.

    Requests whose replies are equally good give no pair: a preference that was drawn from nothing
    would be noise.
    """
    pairs, groups = [], {}
    for sample in samples:
        groups.setdefault(sample.row, []).append(sample)
    for row, group in groups.items():
        best = min(group, key=lambda s: len(s.issues))
        worse = {s.text for s in group if len(s.issues) > len(best.issues) and s.text}
        prompt = assistant.load("train")[row].prompt(grounded)
        pairs += [Pair(prompt, best.text, text) for text in sorted(worse) if best.text]
    return pairs


def split_pairs(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """About ``share`` of the pairs, and those of the rest whose prompt is not among the first."""
    kept = list(pairs[: round(share * len(pairs))])
    known = {pair.prompt for pair in kept}
    return kept, [pair for pair in pairs[len(kept):] if pair.prompt not in known]


def longer_pairs(samples: Sequence[Sampled]) -> list[Pair]:
    """The planted flaw: annotators who like the longer of the first two replies, whatever it says."""
    pairs = []
    for a, b in zip(samples[::2], samples[1::2], strict=False):
        if a.row == b.row and a.text and b.text and rubric.words(a.text) != rubric.words(b.text):
            long, short = sorted((a.text, b.text), key=rubric.words, reverse=True)
            pairs.append(Pair(assistant.load("train")[a.row].prompt(), long, short))
    return pairs
