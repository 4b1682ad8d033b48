"""Encoders that wait in processes of their own, as separate services would."""

import multiprocessing
from collections.abc import Sequence
from types import TracebackType

BERT = "transformers.models.bert.modeling_bert"


def _serve(pipe, width: int, layers: int, heads: int) -> None:
    """One process: a BERT of this shape with random weights on one thread; answers until told to stop.

    Time does not depend on the values of weights, so none have to travel.
    """
    import torch
    from transformers import BertConfig, BertModel

    from ..training.encoder import LeanEncoder, Packed

    torch.set_num_threads(1)
    shape = BertConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
                       intermediate_size=4 * width, max_position_embeddings=512)  # fmt: skip
    encoder = LeanEncoder(BertModel(shape, add_pooling_layer=False).eval(), layers)
    with torch.no_grad():
        while (ids := pipe.recv()) is not None:
            pipe.send(float(encoder(Packed.of([ids])).sum()))


def _context() -> multiprocessing.context.BaseContext:
    """Processes apart from this one; where the system can, libraries are imported once for all."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__package__.split(".")[0] + ".training.encoder", BERT])
    return context


class Workers:
    """``count`` processes with an encoder each; a call sends token ids to all and waits for all."""

    def __init__(self, count: int, width: int = 384, layers: int = 6, heads: int = 12):
        context = _context()
        ends = [context.Pipe() for _ in range(count)]
        self.pipes = [mine for mine, _ in ends]
        shape = (width, layers, heads)
        self.processes = [
            context.Process(target=_serve, args=(theirs, *shape), daemon=True) for _, theirs in ends
        ]
        for process in self.processes:
            process.start()

    def __call__(self, ids: Sequence[int]) -> list[float]:
        """One number from each worker, when the last one is ready."""
        for pipe in self.pipes:
            pipe.send(list(ids))
        return [pipe.recv() for pipe in self.pipes]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type | None, error: Exception | None, trace: TracebackType | None) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(timeout=10)
