"""Many fine-tuning runs on one base model: same data, same evaluation, base restored in between."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..spectrum import DenseUpdate, updates_from_peft
from .llama import LeanLlama
from .sft import (
    Example,
    History,
    LoRA,
    Prepared,
    Scores,
    SFTConfig,
    attach,
    prepare,
    score,
    train,
    trainable_linears,
)


@dataclass(frozen=True)
class Run:
    """A finished run: scores by evaluation set, its updates by module, and what it cost."""

    scores: Mapping[str, Scores]
    updates: Mapping
    history: History
    parameters: int

    def recall(self, name: str) -> float:
        """Share of set ``name`` answered exactly."""
        return self.scores[name].recall

    def nll(self, name: str) -> float:
        """Mean NLL a label token on set ``name``, nats."""
        return self.scores[name].mean_nll

    @property
    def step_seconds(self) -> float:
        """Mean wall time of an optimisation step."""
        return self.history.seconds / len(self.history.losses)


class Study:
    """Runs on ``model`` with sets of examples by name; the set ``"train"`` is trained on.

    States below the lowest trained layer are computed once for each such layer and shared by all
    runs; this is exact, because nothing below it changes. The model is handed back as it came.
    """

    def __init__(self, model: nn.Module, sets: Mapping[str, Sequence[Example]], dtype: torch.dtype):
        self.model, self.sets, self.dtype = model, dict(sets), dtype
        self._prepared: dict[int, dict[str, Prepared]] = {}

    def lora(
        self, lora: LoRA, config: SFTConfig, evaluate: Sequence[str] | None = None,
        data: str = "train", start: Mapping | None = None,
    ) -> Run:
        """Train an adapter on set ``data``, score it, take its updates, and remove it.

        ``start`` continues from the updates of an earlier run with the same ``lora``.
        """
        with self._adapted(lora, config, data, start) as (model, history):
            parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
            scores = self.score(model, evaluate)
            updates = {
                name: replace(update, B=update.B.detach().clone(), A=update.A.detach().clone())
                for name, update in updates_from_peft(model).items()}
        return Run(scores, updates, history, parameters)

    @contextmanager
    def _adapted(
        self, lora: LoRA, config: SFTConfig, data: str, start: Mapping | None
    ) -> Iterator[tuple[nn.Module, History]]:
        """A trained PEFT model inside the block; the bare base model after it."""
        model = attach(self.model, lora, seed=config.seed, start=start)
        try:
            first = LeanLlama(model, self.dtype).first
            yield model, train(model, self.prepared(first, [data])[data], config, self.dtype)
        finally:
            self.model = model.unload()

    def full(
        self, layers: Sequence[int], config: SFTConfig, evaluate: Sequence[str] | None = None
    ) -> Run:
        """Train every linear weight of ``layers`` (float32 masters), then restore the weights."""
        trainable_linears(self.model, layers)
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        before = {name: p.detach().clone() for name, p in trained.items()}
        try:
            data = self.prepared(min(layers), ["train"])["train"]
            history = train(self.model, data, config, self.dtype)
            scores = self.score(self.model, evaluate, first=min(layers))
            updates = {
                name.removesuffix(".weight"): DenseUpdate.between(before[name], p.detach())
                for name, p in trained.items()}
        finally:
            for name, p in trained.items():
                p.data.copy_(before[name])
            self.model.requires_grad_(False)
        return Run(scores, updates, history, sum(p.numel() for p in trained.values()))

    def score(
        self, model: nn.Module, names: Sequence[str] | None = None, first: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> dict[str, Scores]:
        """Scores by set; ``first`` is the lowest layer that differs from the base, if known."""
        if first is None:
            first = LeanLlama(model, self.dtype, training=False).first
        names = list(self.sets) if names is None else list(names)
        data = self.sets
        if 0 < first < model.config.num_hidden_layers:
            data = self.prepared(first, names)
        return {name: score(model, data[name], dtype or self.dtype) for name in names}

    def prepared(self, first: int, names: Sequence[str]) -> dict[str, Prepared]:
        """The named sets with cached states below layer ``first``, computed on first use."""
        known = self._prepared.setdefault(first, {})
        if missing := [name for name in names if name not in known]:
            engine = LeanLlama(self.model, self.dtype, training=False)
            engine.first = first
            known |= {name: prepare(engine, self.sets[name]) for name in missing}
        return known
