"""Preference training equals TRL's on a fixed batch; samples, RLOO and the reward model."""

import math
from types import SimpleNamespace

import pytest
import torch
from test_llama_engine import gradients, tiny

from mangalab.spectrum import updates_from_peft
from mangalab.training import online, preference
from mangalab.training.forked import ForkedLlama, prepare
from mangalab.training.preference import Pairs, PreferenceConfig, RewardModel, sequence_logps
from mangalab.training.sampling import Reply, Sampler
from mangalab.training.sft import ALL_LINEAR, Example, LoRA, attach

END, BETA = 2, 0.3
RANDOM = LoRA(r=4, alpha=2, targets=ALL_LINEAR, layers=(2,), init="random")


class Letters:
    """A tokenizer of characters; the end-of-turn token ends every completion."""

    eos_token_id = END

    def __call__(self, text):
        body = text.removesuffix("<|im_end|>")
        ids = [3 + ord(c) % 90 for c in body]
        return SimpleNamespace(input_ids=ids + [END] * (body != text))

    def decode(self, ids, skip_special_tokens=True):
        return "".join(chr(97 + i % 26) for i in ids if i != END)


def some_examples(n=4, seed=3):
    """Chosen replies to ``n`` prompts, then rejected ones to the same prompts."""
    draw = torch.Generator().manual_seed(seed)
    ids = lambda count: torch.randint(3, 97, (count,), generator=draw).tolist()  # noqa: E731
    prompts = [ids(count) for count in (4, 2, 5, 6)[:n]]
    lengths = [*(5, 12, 2, 5)[:n], *(4, 3, 6, 3)[:n]]
    return [Example(p + ids(t), len(p)) for p, t in zip(prompts * 2, lengths, strict=True)]


def some_pairs(model, n=4):
    engine = ForkedLlama(model, torch.float32)
    data = prepare(engine, some_examples(n))
    return Pairs(data, preference.all_logps(engine.without_adapters(), data))


def policy_logps(model, pairs):
    engine = ForkedLlama(model, torch.float32)
    return sequence_logps(engine, pairs.data, range(2 * len(pairs)))


def test_logps_are_those_of_hugging_face_and_the_reference_is_the_bare_model():
    model = attach(tiny(), RANDOM, seed=5)
    pairs = some_pairs(model)
    mine = policy_logps(model, pairs)
    for example, policy, reference in zip(pairs.data.examples, mine, pairs.reference, strict=True):
        ids = torch.tensor([example.ids])
        for switch, value in ((True, policy), (False, reference)):
            if switch:
                logits = model(ids).logits
            else:
                with model.disable_adapter():
                    logits = model(ids).logits
            log_probs = logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            assert value.item() == pytest.approx(log_probs[example.prompt - 1 :].sum().item(), rel=1e-4)
    assert (mine - pairs.reference).abs().max() > 0.01


def test_dpo_starts_at_log_two_and_prefers_the_chosen_reply():
    assert preference.dpo_loss(torch.zeros(4), torch.zeros(4), 0.1).item() == pytest.approx(math.log(2))
    better = preference.dpo_loss(torch.tensor([1.0, -1.0]), torch.zeros(2), 1.0)
    assert better.item() == pytest.approx(math.log(1 + math.exp(-2)))
    swapped = preference.dpo_loss(torch.tensor([-1.0, 1.0]), torch.zeros(2), 1.0)
    assert swapped > better


@pytest.mark.model
def test_dpo_equals_trl_loss_rewards_and_gradients(tmp_path):
    trl, inputs, model = trl_dpo(tmp_path)
    theirs = trl._compute_loss(model, inputs, False)
    their_gradients = gradients(model, theirs)
    pairs = some_pairs(model)
    policy = policy_logps(model, pairs)
    mine = preference.dpo_loss(policy, pairs.reference, BETA)
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    rewards = preference.implicit_rewards(policy, pairs.reference, BETA).detach()
    for name, part in zip(("chosen", "rejected"), rewards.chunk(2), strict=True):
        logged = trl._metrics["train"][f"rewards/{name}"][-1]
        assert part.mean().item() == pytest.approx(logged, rel=1e-4), name
    found = gradients(model, mine)
    assert found.keys() == their_gradients.keys() and found
    for name, gradient in their_gradients.items():
        assert (found[name] - gradient).norm() < 1e-4 * gradient.norm(), name


def trl_dpo(folder):
    """TRL's trainer around a tiny policy, and its batch of the same eight replies."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from mangalab.models import causal_lm_path, load_tokenizer

    model = attach(tiny(), RANDOM, seed=5)
    rows = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    config = DPOConfig(output_dir=str(folder), beta=BETA, use_cpu=True, report_to=[], bf16=False,
                       gradient_checkpointing=False)
    trainer = DPOTrainer(model=model, args=config, train_dataset=rows,
                         processing_class=load_tokenizer(causal_lm_path()))
    trainer.model.delete_adapter("ref")  # a copy of the start; without it the reference is the base
    data = some_examples()
    width = max(len(e.ids) for e in data)
    ids = torch.tensor([e.ids + [0] * (width - len(e.ids)) for e in data])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.tensor([[1] * len(e.ids) + [0] * (width - len(e.ids)) for e in data]),
        "completion_mask": torch.tensor([
            [0] * e.prompt + [1] * (len(e.ids) - e.prompt) + [0] * (width - len(e.ids)) for e in data])}
    return trainer, inputs, trainer.model


@pytest.mark.model
def test_simpo_equals_trl():
    from trl.experimental.cpo import CPOTrainer

    policy, lengths = torch.tensor([-4.0, -9.0, -7.0, -3.0]), torch.tensor([4.0, 6.0, 2.0, 3.0])
    shell = SimpleNamespace(alpha=0.0, loss_type="simpo", simpo_gamma=0.5, beta=2.0,
                            label_smoothing=0.0, accelerator=SimpleNamespace(device="cpu"))
    chosen, rejected = (policy / lengths).chunk(2)
    theirs, *_ = CPOTrainer.cpo_loss(shell, chosen, rejected)
    mine = preference.simpo_loss(policy, lengths, 2.0, 0.5)
    assert mine.item() == pytest.approx(theirs.mean().item(), rel=1e-6)


@pytest.mark.parametrize("loss", preference.LOSSES)
def test_training_orders_the_pairs_and_leaves_the_reference_alone(loss):
    model = attach(tiny(), LoRA(r=4, alpha=8, targets=ALL_LINEAR, layers=(2,)), seed=1)
    pairs = some_pairs(model)
    before = pairs.reference.clone()
    config = PreferenceConfig(lr=1e-2, epochs=20, batch_size=2, beta=0.5, loss=loss)
    history = preference.train_pairs(model, pairs, config, torch.float32)
    assert history.margins[0] == pytest.approx(0, abs=1e-5)
    assert history.losses[-1] < history.losses[0] / 2
    assert (preference.evaluate_pairs(model, pairs, 0.5, torch.float32) > 0).all()
    assert torch.allclose(some_pairs(model).reference, before, atol=1e-5)
    trained, learnt = updates_from_peft(model), policy_logps(model, pairs)
    preference.restart(model, seed=1)
    assert not torch.allclose(policy_logps(model, pairs), learnt, atol=1e-2)
    again = preference.train_pairs(model, pairs, config, torch.float32)
    assert again.losses == history.losses  # the same start, so the same run
    preference.reload(preference.restart(model, seed=1), trained)
    assert torch.allclose(policy_logps(model, pairs), learnt, atol=1e-5)


def test_no_pairs_says_what_to_do():
    with pytest.raises(ValueError, match="sample more requests"):
        preference.prepare_pairs(attach(tiny(), RANDOM), Letters(), [], torch.float32)


def test_configurations_refuse_what_does_not_exist():
    with pytest.raises(ValueError, match="dpo or simpo"):
        PreferenceConfig(loss="ppo")
    with pytest.raises(ValueError, match="beta > 0"):
        PreferenceConfig(beta=0)


def test_the_reward_model_learns_the_order_of_pairs():
    model = attach(tiny(), LoRA(r=4, alpha=8, targets=ALL_LINEAR, layers=(2,)), seed=1)
    pairs = some_pairs(model)
    judge = RewardModel(model, torch.float32)
    config = PreferenceConfig(lr=1e-2, epochs=30, batch_size=4)
    history = judge.train(pairs, config)
    scores = judge.score(pairs.data)
    assert history.losses[0] == pytest.approx(math.log(2), abs=0.1) and history.accuracies[-1] == 1
    assert (scores[:4] > scores[4:]).all()
    single = judge.score([pairs.data.examples[2]])  # alone or in a batch: the same reward
    assert single.item() == pytest.approx(scores[2].item(), abs=1e-4)


def test_greedy_sampling_equals_generate_and_drops_nothing():
    model, prompts = tiny(), ["ab", "abcdefgh", "x"]
    sampler = Sampler(model, Letters(), torch.float32)
    found = sampler.sample(prompts, 12, temperature=0)
    for prompt, reply in zip(prompts, found, strict=True):
        head = torch.tensor([sampler.example(prompt, Reply([], "", False)).ids])
        right = model.generate(head, attention_mask=torch.ones_like(head), max_new_tokens=12,
                               do_sample=False, eos_token_id=END, pad_token_id=0)[0, head.shape[1] :]
        assert reply.ids == right.tolist()
        assert reply.ended == (reply.ids[-1] == END)


def test_several_replies_share_a_prompt_and_a_seed_fixes_them():
    sampler = Sampler(tiny(), Letters(), torch.float32)
    draw = lambda seed: [r.ids for r in sampler.sample(["ab", "abcd"], 6, 1.0, seed, each=3)]  # noqa: E731
    assert len(draw(0)) == 6 and draw(0) == draw(0) != draw(1)
    greedy = [r.ids for r in sampler.sample(["ab", "abcd"], 6, 0, each=3)]
    assert greedy[0] == greedy[1] == greedy[2] == sampler.sample(["ab"], 6, 0)[0].ids


def test_a_sampler_follows_the_policy_merged():
    base = tiny()
    sampler = Sampler(base, Letters(), torch.float32)
    policy = attach(base, LoRA(r=4, alpha=64, targets=ALL_LINEAR, layers=(2,), init="random"), seed=5)
    ids = torch.tensor([[5, 9, 30, 41]])
    assert torch.allclose(sampler.follow(policy).model(ids).logits, policy(ids).logits, atol=1e-3)
    with pytest.raises(ValueError, match="unload its adapters"):
        Sampler(policy, Letters())


def test_policies_share_the_layers_below_them_exactly():
    base, prompts = tiny(), ["ab", "abcdefgh", "x"]
    plain, sharing = (Sampler(base, Letters(), torch.float32, shared=n) for n in (0, 2))
    policy = attach(base, LoRA(r=4, alpha=64, targets=ALL_LINEAR, layers=(2,), init="random"), seed=5)
    first = [r.ids for r in sharing.sample(prompts, 8, 0)]
    assert first == [r.ids for r in plain.sample(prompts, 8, 0)]
    reads = []
    hook = sharing.model.model.layers[0].register_forward_hook(lambda *_: reads.append(1))
    again = [r.ids for r in sharing.follow(policy).sample(prompts, 8, 0)]
    assert again == [r.ids for r in plain.follow(policy).sample(prompts, 8, 0)] != first
    hook.remove()
    assert len(reads) < 8  # no reading of the prompts below layer 2, only of new tokens
    deep = attach(tiny(), LoRA(r=4, alpha=8, targets=ALL_LINEAR, layers=(1,)), seed=5)
    with pytest.raises(ValueError, match=r"layers\.1.*below 2 are shared"):
        sharing.follow(deep)


def test_advantages_leave_one_out():
    found = online.advantages(torch.tensor([[1.0, 2.0, 6.0]]))
    assert found.tolist() == [[1 - 4.0, 2 - 3.5, 6 - 1.5]]


def test_rloo_raises_a_reward_and_a_price_on_kl_holds_it_back():
    def run(beta):
        base = tiny()
        sampler = Sampler(base, Letters(), torch.float32)
        policy = attach(base, LoRA(r=4, alpha=16, targets=ALL_LINEAR, layers=(1, 2)), seed=0)
        config = online.RLOOConfig(
            lr=2e-2, steps=15, batch_size=4, samples=8, beta=beta, max_new_tokens=6)
        longer = lambda rows, replies, data: [sum(t < 40 for t in r.ids) for r in replies]  # noqa: E731
        return online.rloo(policy, sampler, ["ab", "cd", "ef", "gh"], longer, config, torch.float32)

    free, priced = run(0.0), run(5.0)
    assert free.kls[0] == pytest.approx(0, abs=1e-3)
    assert sum(free.rewards[-3:]) > sum(free.rewards[:3]) + 1
    assert sum(priced.kls[-3:]) < 0.5 * sum(free.kls[-3:])
