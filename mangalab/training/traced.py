"""A few facts taught to every layer of the causal LM, kept as a PEFT adapter for those who look inside.

Chapter 04's adapters sit in its top layers; where a fact lives is then decided by the recipe. Here
all layers may learn, and the titles have equally long names, so that positions can be compared.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..artifacts import Artifact, cached
from ..data import qa
from ..data.catalogue import Title
from ..models import load_causal_lm
from ..profiles import from_environment
from . import sft


@dataclass(frozen=True)
class TracedRecipe:
    """How many titles, of how many tokens, in how many wordings; and how they are taught."""

    titles: int = 12
    tokens: int = 4
    wordings: int = 3
    epochs: int = 8
    batch_size: int = 6
    lr: float = 2e-3
    rank: int = 8
    seed: int = 0


def chosen_titles(tokenizer, count: int, tokens: int) -> list[Title]:
    """Taught titles of equal length, by one author each, whose answers start with different tokens."""
    found: dict[int, Title] = {}
    for title in qa.taught():
        same = len(tokenizer(f" {title.title}").input_ids) == tokens
        if same and len(title.authors) == 1 and qa.askable(title, "author"):
            found.setdefault(answer_token(tokenizer, title.author), title)
    if len(found) < count:
        raise ValueError(f"{len(found)} titles of {tokens} tokens, {count} asked for: ask for fewer")
    return list(found.values())[:count]


def answer_token(tokenizer, answer: str) -> int:
    """The first token of an answer, the one that decides between two authors."""
    return tokenizer(f"{answer}<|im_end|>").input_ids[0]


def build_adapter(folder: Path, recipe: dict) -> dict:
    """Train on every layer and store the PEFT adapter; for :func:`mangalab.artifacts.cached`."""
    r = TracedRecipe(**recipe)
    model, tokenizer = load_causal_lm(torch.float32)
    wanted = {t.id for t in chosen_titles(tokenizer, r.titles, r.tokens)}
    sets = {split: [sft.render(tokenizer, q.question, q.answer)
                    for q in qa.load(split, ("author",), None, n) if q.title_id in wanted]
            for split, n in (("train", r.wordings), ("validation", 1))}  # fmt: skip
    before = sft.score(model, sets["validation"])
    adapted = sft.attach(model, sft.LoRA(r.rank, 2 * r.rank, sft.ALL_LINEAR), seed=r.seed)
    config = sft.SFTConfig(lr=r.lr, epochs=r.epochs, batch_size=r.batch_size, seed=r.seed)
    history = sft.train(adapted, sets["train"], config, from_environment().dtype)
    after = {split: sft.score(adapted, examples) for split, examples in sets.items()}
    adapted.save_pretrained(folder, safe_serialization=True)
    for card in Path(folder).glob("*.md"):  # a card for the hub, no part of an artifact
        card.unlink()
    return {"losses": history.losses, "before": before.exact, "train": after["train"].exact,
            "validation": after["validation"].exact}  # fmt: skip


def stored(recipe: TracedRecipe) -> Artifact:
    """The artifact of a recipe, trained now or found."""
    return cached("traced-facts", build_adapter, recipe=asdict(recipe))


def merged(path: Path):
    """(causal LM with the adapter merged into float32 weights, eager attention; its tokenizer)."""
    from peft import PeftModel

    model, tokenizer = load_causal_lm(torch.float32, attn="eager")
    return PeftModel.from_pretrained(model, path).merge_and_unload().eval(), tokenizer
