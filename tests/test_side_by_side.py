"""Parts side by side: order, threads, nesting, generators, models on shared weights."""

import random
import threading

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mangalab.evaluation.latency import threads
from mangalab.training import parallel
from mangalab.training.parallel import side_by_side, twin
from mangalab.training.sft import Example, LoRA, SFTConfig, attach, train


def tiny():
    """A random Llama with two layers, 32 wide, in float32."""
    torch.manual_seed(0)
    shape = {"vocab_size": 53, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(**shape)).eval()


@pytest.fixture
def two(monkeypatch):
    """A pool of two workers on any machine."""
    pool = parallel.ThreadPoolExecutor(2, "part", parallel._enter)
    monkeypatch.setattr(parallel, "_pool", lambda: pool)
    yield
    pool.shutdown()


def test_parts_meet_and_come_back_in_order(two):
    gate = threading.Barrier(2, timeout=10)  # passes only if two parts run at once

    def compute(part):
        gate.wait()
        return part, torch.get_num_threads()

    assert side_by_side(compute, [3, 1]) == [(3, 1), (1, 1)]


def test_a_part_does_not_wait_for_its_own_pool(two):
    inner = lambda part: side_by_side(lambda x: 10 * part + x, [1, 2, 3])  # noqa: E731
    assert side_by_side(inner, [1, 2, 3, 4]) == [[10 * p + x for x in (1, 2, 3)] for p in (1, 2, 3, 4)]


def test_the_caller_keeps_its_threads(two):
    before = torch.get_num_threads()
    side_by_side(lambda part: part, [1, 2])
    assert torch.get_num_threads() == before
    assert side_by_side(lambda part: threading.current_thread(), [1]) == [threading.current_thread()]


def test_an_error_in_a_part_is_the_caller_s(two):
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda part: 1 / part, [1, 0])


@pytest.mark.parametrize("draw, name", [
    (lambda part: torch.manual_seed(part), "torch's seed"),
    (lambda part: random.random(), "the state of random"),
    (lambda part: np.random.rand(), "numpy's state"),
])
def test_a_shared_generator_is_refused(two, draw, name):
    with pytest.raises(RuntimeError, match=name):
        side_by_side(draw, [11, 12])


def test_twins_share_weights_and_keep_their_adapters_apart(two):
    base = tiny()
    size = {id(weight) for weight in base.parameters()}
    one, other = (attach(twin(base), LoRA(4, 4, ("down_proj",), init="random"), seed=s) for s in (0, 1))
    kinds = [{n: p for n, p in m.named_parameters() if "lora_" in n} for m in (one, other)]
    assert all((a != b).any() for a, b in zip(kinds[0].values(), kinds[1].values(), strict=True))
    assert size <= {id(p) for p in one.parameters()} & {id(p) for p in other.parameters()}
    assert not any("lora_" in name for name, _ in base.named_parameters())


def test_seeds_side_by_side_train_as_one_after_the_other(two):
    base = tiny()
    rows = [Example([1, 2, 3, 4 + i], 2) for i in range(6)]

    def fit(seed):
        model = attach(twin(base), LoRA(4, 4, ("down_proj",)), seed=seed)
        return train(model, rows, SFTConfig(epochs=2, batch_size=2, seed=seed), torch.float32).losses

    together = side_by_side(fit, [0, 1, 2])
    with threads(1):
        assert together == [fit(seed) for seed in (0, 1, 2)]
