"""A training run in a process of its own, which may be killed at any step."""

import time
from dataclasses import dataclass
from pathlib import Path

from ..models import load_encoder
from ..training.classify import bottoms
from ..training.encoder import LeanEncoder
from ..training.resumable import Data, Recipe, Run
from .group import GroupError, context, single_thread, stop


@dataclass(frozen=True)
class Task:
    """What the child trains on, and where and how often it writes checkpoints."""

    messages: list[list[int]]
    targets: list[int]
    recipe: Recipe
    folder: Path
    every: int
    classes: int = 10


def build(task: Task) -> Run:
    """The run of a task from its start; bottoms are computed here, in this process."""
    import torch

    bert = load_encoder()[0].cpu()
    encoder = LeanEncoder(bert, len(bert.encoder.layer) - 1)
    data = Data(task.messages, bottoms(encoder, task.messages), torch.tensor(task.targets))
    return Run(encoder, data, task.recipe, classes=task.classes)


def work(task: Task, resume: bool, pipe) -> None:
    """Train; after each step save if it is time, tell the parent and wait for its word to go on."""
    single_thread()
    run = build(task)
    if resume:
        run.restore(task.folder)

    def told(step: int) -> None:
        if step % task.every == 0:
            run.save(task.folder)
        pipe.send(("step", step))
        pipe.recv()

    run.advance(on_step=told)
    pipe.send(("done", {"digest": run.digest(), "losses": run.losses}))


def train(task: Task, resume: bool = False, kill_at: int = 0, limit: float = 120) -> dict | None:
    """Run ``task`` in a child; with ``kill_at`` it is killed (SIGKILL) right after that step.

    Returns the child's result, or None if it was killed. The child waits for a word after every step,
    so the step at which it dies is exact. Raises GroupError if it dies by itself or is too slow.
    """
    started = context()
    mine, theirs = started.Pipe()
    process = started.Process(target=work, args=(task, resume, theirs), daemon=True)
    process.start()
    theirs.close()
    deadline = time.monotonic() + limit
    try:
        while mine.poll(max(0.0, deadline - time.monotonic())):
            kind, value = mine.recv()
            if kind == "done":
                return value
            if value == kill_at:
                process.kill()
                process.join(timeout=10)
                return None
            mine.send("go on")
        raise GroupError(f"the child gave no sign of life within {limit:.0f} s")
    except EOFError:
        raise GroupError(f"the child died with code {process.exitcode}") from None
    finally:
        mine.close()
        stop([process])
