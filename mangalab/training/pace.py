"""Times of training steps, measured side by side on the same batches."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice

import torch
from torch import nn

from ..evaluation.latency import Latency, paired_times
from .llama import LeanLlama
from .sft import LoRA, Prepared, SFTConfig, _collate, _epochs, attach
from .study import Study


def step_times(
    setups: Mapping[str, tuple[Study, LoRA]], config: SFTConfig, rounds: int = 12, block: int = 3
) -> dict[str, Latency]:
    """Milliseconds of ``rounds`` optimisation steps of each (study, adapter) on the same batches.

    The setups take turns in blocks of ``block`` steps. Adapters start afresh and are removed again;
    the studies share their examples, so that step i of one is step i of all.
    """
    wrapped: dict[int, tuple[Study, nn.Module]] = {}
    try:
        calls = {}
        for number, (name, (study, lora)) in enumerate(setups.items()):
            model = wrapped.get(id(study), (study, study.model))[1]
            model = attach(model, lora, seed=config.seed, name=f"pace{number}")
            wrapped[id(study)] = study, model
            calls[name] = _stepper(model, study, config)
        batches = list(islice(cycle(_epochs(Prepared(study.sets["train"], 0), config)), rounds))
        for call in calls.values():
            call(batches[0])
        return paired_times(calls, batches, block)
    finally:
        for study, model in wrapped.values():
            study.model = model.unload()


def _stepper(
    model: nn.Module, study: Study, config: SFTConfig
) -> Callable[[Sequence[int]], None]:
    """One optimisation step on rows of the training set, bound to the adapter that is active now."""
    engine = LeanLlama(model, study.dtype)
    data = study.prepared(engine.first, ["train"])["train"]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, fused=True)
    for layer in range(engine.first, len(engine.layers)):
        engine._products(layer)  # now: later another adapter may be the active one

    def step(rows: Sequence[int]) -> None:
        for p in parameters:
            p.requires_grad_(True)  # PEFT switches off all but the adapter activated last
        engine.loss(*_collate(data, rows, engine)).backward()
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
