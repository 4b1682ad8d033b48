"""The faster loop writes what the library's writes."""

from collections import Counter

import pytest
import torch
from test_llama_engine import tiny
from test_preference import END, Letters

from mangalab.training import decoding
from mangalab.training.decoding import LeanSampler
from mangalab.training.sampling import Sampler
from mangalab.training.sft import ALL_LINEAR, LoRA, attach

PROMPTS = ["ab", "abcdefgh", "x", "hello there", "q"]
TOP = LoRA(r=4, alpha=64, targets=ALL_LINEAR, layers=(2,), init="random")


def texts(sampler, steps=12, **settings):
    return [r.ids for r in sampler.sample(PROMPTS, steps, **settings)]


@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize("batch", [2, 64])
def test_greedy_replies_are_the_library_s(shared, batch):
    lean, plain = (kind(tiny(), Letters(), torch.float32, shared) for kind in (LeanSampler, Sampler))
    right = texts(plain, temperature=0)
    assert texts(lean, temperature=0, batch=batch) == right
    assert texts(lean, temperature=0, batch=batch) == right  # from the kept states


def ending(kind, *given):
    """A sampler whose model ends replies at different times: the end takes a frequent token's place."""
    model = tiny()
    plain = Sampler(model, Letters(), torch.float32, *given)
    often = Counter(i for ids in texts(plain, steps=20, temperature=0) for i in ids[3:])
    head = model.lm_head.weight.detach().clone()
    head[END] = 1.001 * head[often.most_common(3)[-1][0]]
    model.lm_head.weight = torch.nn.Parameter(head)
    return kind(model, Letters(), torch.float32, *given)


def test_draws_follow_the_softmax():
    logits = torch.tensor([[0.0, 1.0, -40.0, 2.0]]).expand(4000, 4)
    found = decoding.draw(logits, 0.5, torch.Generator().manual_seed(0))
    shares = torch.bincount(found, minlength=4) / 4000
    assert shares[2] == 0
    assert torch.allclose(shares, (logits[0] / 0.5).softmax(0), atol=0.025)  # three standard errors
    assert decoding.draw(logits, 0, torch.Generator()).unique().tolist() == [3]


def test_replies_that_end_early_change_no_other(monkeypatch):
    right = texts(ending(Sampler), steps=20, temperature=0)
    assert len({len(ids) for ids in right}) > 1  # they end at different times
    for idle in (0.0, 0.5, 1.0):
        monkeypatch.setattr(decoding, "IDLE", idle)
        assert texts(ending(LeanSampler), steps=20, temperature=0) == right


def test_it_follows_a_policy_into_its_joint_matrices():
    base = tiny()
    lean, plain = (kind(base, Letters(), torch.float32, 2) for kind in (LeanSampler, Sampler))
    before = texts(lean, temperature=0)
    policy = attach(base, TOP, seed=5)
    after = texts(lean.follow(policy), temperature=0)
    assert after == texts(plain.follow(policy), temperature=0) != before


def test_a_seed_fixes_the_draws():
    lean = LeanSampler(tiny(), Letters(), torch.float32)
    draw = lambda seed: texts(lean, temperature=1.0, seed=seed, each=2)  # noqa: E731
    assert draw(0) == draw(0) != draw(1)


def test_a_twin_follows_another_policy_on_the_shared_layers():
    base = tiny()
    lean = LeanSampler(base, Letters(), torch.float32, 2)
    before, other = texts(lean, temperature=0), lean.twin()
    policy = attach(base, TOP, seed=5)
    after = texts(other.follow(policy), temperature=0)
    assert after == texts(Sampler(tiny(), Letters(), torch.float32).follow(policy), temperature=0)
    assert texts(lean, temperature=0) == before != after
    assert other.layers[0]["up"] is lean.layers[0]["up"] is not None


def test_draws_do_not_depend_on_the_number_of_threads():
    from mangalab.training import parallel

    found = []
    for inside in (False, True):
        parallel._here.inside = inside  # as if in a part: one batch after the other
        lean = LeanSampler(tiny(), Letters(), torch.float32)
        found.append(texts(lean, temperature=1.0, seed=3, batch=2))
    parallel._here.inside = False
    assert found[0] == found[1]
