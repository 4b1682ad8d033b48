"""The lean engine computes what Hugging Face and PEFT compute: loss, gradients, logits."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mangalab.training.llama import LeanLlama, pack
from mangalab.training.quantize import dequantized_copy, guard_4bit_training
from mangalab.training.sft import ALL_LINEAR, LoRA, attach, trainable_linears

SHAPES = [(9, 4), (14, 2), (5, 4), (23, 20), (11, 1), (2, 1), (17, 9), (6, 3)]  # tokens, prompt


def tiny(seed=0, **changes):
    """A random Llama with three layers and grouped keys, 64 wide, in float32."""
    torch.manual_seed(seed)
    shape = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1}
    return LlamaForCausalLM(LlamaConfig(**shape | changes)).eval()


def examples(shapes=SHAPES, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randint(0, 97, (n,), generator=generator).tolist(), k) for n, k in shapes]


def gradients(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def reference(model, data):
    """Loss of the library's own forward pass on the padded batch, prompts masked by hand."""
    rows = [torch.tensor(ids) for ids, _ in data]
    ids = pad_sequence(rows, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    labels = ids.masked_fill(mask == 0, -100)
    for row, (_, prompt) in enumerate(data):
        labels[row, :prompt] = -100
    return model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss


def assert_same(model, mine, theirs):
    """Equal losses; every gradient equal within 1e-5 of its norm (float32 rounding is 1e-6)."""
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert_same_gradients(gradients(model, mine), gradients(model, theirs))


def assert_same_gradients(mine, theirs):
    assert mine.keys() == theirs.keys() and mine
    for name, gradient in theirs.items():
        assert gradient.norm() > 0, name
        assert (mine[name] - gradient).norm() / gradient.norm() < 1e-5, name


LORA = {
    "query and value": LoRA(r=4, alpha=2, init="random"),
    "all linears": LoRA(r=4, alpha=2, targets=ALL_LINEAR, init="random"),
    "key and one MLP linear": LoRA(r=3, alpha=2, targets=("k_proj", "up_proj"), init="random"),
    "rank-stabilised": LoRA(r=16, alpha=2, targets=ALL_LINEAR, rslora=True, init="random"),
    "top layer": LoRA(r=4, alpha=2, targets=ALL_LINEAR, layers=(2,), init="random"),
}


@pytest.mark.parametrize("lora", LORA.values(), ids=LORA)
def test_lora_equals_peft(lora):
    model, data = attach(tiny(), lora, seed=5), examples()
    mine = LeanLlama(model, torch.float32).loss(pack(data))
    assert_same(model, mine, reference(model, data))


@pytest.mark.parametrize("layers", [(0, 1, 2), (2,)])
def test_full_fine_tuning_equals_hugging_face(layers):
    model, data = trainable_linears(tiny(), layers), examples()
    engine = LeanLlama(model, torch.float32)
    assert engine.first == layers[0]
    assert_same(model, engine.loss(pack(data)), reference(model, data))


@pytest.mark.parametrize("kv", [1, 4])
def test_multi_query_and_multi_head(kv):
    model, data = attach(tiny(num_key_value_heads=kv), LORA["all linears"]), examples()
    mine = LeanLlama(model, torch.float32).loss(pack(data))
    assert_same(model, mine, reference(model, data))


def test_untied_head_and_wide_heads():
    model = tiny(tie_word_embeddings=False, head_dim=32)
    model, data = attach(model, LORA["all linears"]), examples()
    mine = LeanLlama(model, torch.float32).loss(pack(data))
    assert_same(model, mine, reference(model, data))


@pytest.mark.parametrize("lora", [LORA["top layer"], None])
def test_cached_bottom_changes_nothing(lora):
    model = attach(tiny(), lora) if lora else trainable_linears(tiny(), [2])
    engine, batch = LeanLlama(model, torch.float32), pack(examples())
    bottom = engine.bottom(batch)
    assert engine.first == 2 and bottom.shape == (len(batch.ids), 64) and not bottom.requires_grad
    mine = engine.loss(batch, bottom)
    assert_same(model, mine, engine.loss(batch))


def test_adapters_that_are_switched_off_are_left_out():
    base = tiny()
    data = examples()
    plain = reference(base, data).item()
    model = attach(base, LORA["all linears"], seed=5)
    engine = LeanLlama(model, torch.float32)
    adapted = engine.loss(pack(data)).item()
    assert abs(adapted - plain) > 1e-3
    with model.disable_adapter():
        bare = LeanLlama(model, torch.float32, training=False)
        assert bare.loss(pack(data)).item() == pytest.approx(plain, abs=1e-5)


def test_the_active_one_of_two_adapters_counts():
    model = attach(tiny(), LORA["all linears"], seed=5, name="first")
    model, data = attach(model, LORA["query and value"], seed=6, name="second"), examples()
    for name in ("second", "first"):
        model.set_adapter(name)
        mine = LeanLlama(model, torch.float32).loss(pack(data))
        assert_same(model, mine, reference(model, data))


def test_a_batch_is_the_token_weighted_mean_of_its_examples():
    model, data = attach(tiny(), LORA["all linears"], seed=5), examples()
    engine = LeanLlama(model, torch.float32)
    labels = sum(len(ids) - prompt for ids, prompt in data)
    parts = [engine.loss(pack([one])) * (len(one[0]) - one[1]) for one in data]
    assert_same(model, engine.loss(pack(data)), sum(parts) / labels)


def test_neighbours_in_a_batch_do_not_see_each_other():
    engine, data = LeanLlama(tiny(), torch.float32, training=False), examples()
    alone = engine.logits(pack([data[2]]))
    changed = [*examples(SHAPES[:2], seed=9), data[2], *examples(SHAPES[3:], seed=9)]
    together = engine.logits(pack(changed))
    start = sum(len(ids) - prompt for ids, prompt in changed[:2])
    torch.testing.assert_close(together[start : start + len(alone)], alone, atol=1e-5, rtol=0)


def test_no_label_sees_its_own_future():
    engine = LeanLlama(tiny(), torch.float32, training=False)
    (ids, _), = examples([(12, 4)])
    other = [*ids[:8], *(97 - 1 - t for t in ids[8:])]
    a, b = (engine.logits(pack([(tokens, 4)])) for tokens in (ids, other))
    assert torch.equal(a[:4], b[:4]) and not torch.allclose(a[5:], b[5:])


def test_pack_places_every_token():
    batch = pack([([5, 6, 7], 1), ([8, 9], 1)])
    assert batch.ids.tolist() == [5, 6, 7, 8, 9] and batch.shape == (2, 3)
    assert batch.slots.tolist() == [0, 1, 2, 3, 4]
    assert batch.targets.tolist() == [6, 7, 9] and batch.sources.tolist() == [0, 1, 3]


@pytest.mark.parametrize("prompt", [0, 3, 4])
def test_an_example_without_label_or_prompt_is_refused(prompt):
    with pytest.raises(ValueError, match=f"example 1: a prompt of {prompt} in 3 tokens"):
        pack([([1, 2], 1), ([1, 2, 3], prompt)])


def _four_bit(model):
    import bitsandbytes as bnb

    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, linear in list(block.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    small = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False,
                                              compute_dtype=torch.float32, quant_type="nf4")
                    small.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False,
                                                     quant_type="nf4", compress_statistics=True)
                    setattr(block, name, small.to("cpu"))
    return model


def test_four_bit_base_equals_its_decoded_copy():
    model, data = _four_bit(tiny()), examples()
    assert guard_4bit_training(model) == 21
    decoded = attach(dequantized_copy(model), LORA["all linears"], seed=5)
    packed = attach(model, LORA["all linears"], seed=5)
    mine = LeanLlama(packed, torch.float32).loss(pack(data))
    theirs = reference(decoded, data)
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert_same_gradients(gradients(packed, mine), gradients(decoded, theirs))


def _peft(**options):
    return get_peft_model(
        tiny(), LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", **options))


def _two_active():
    model = attach(attach(tiny(), LORA["top layer"], name="a"), LORA["top layer"], name="b")
    model.base_model.set_adapter(["a", "b"])
    return model


def _embedding():
    model = attach(tiny(tie_word_embeddings=False), LORA["top layer"])
    model.get_input_embeddings().weight.requires_grad_(True)
    return model


def _norm():
    model = attach(tiny(), LORA["top layer"])
    model.get_base_model().model.norm.weight.requires_grad_(True)
    return model


def _both():
    model = attach(tiny(), LORA["top layer"])
    model.get_base_model().model.layers[2].mlp.up_proj.base_layer.weight.requires_grad_(True)
    return model


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: _peft(use_dora=True), "'default' uses DoRA or dropout"),
        (lambda: _peft(lora_dropout=0.1), "'default' uses DoRA or dropout"),
        (lambda: _peft(lora_bias=True), "bias"),
        (_both, "a trainable weight and an adapter"),
        (_two_active, r"\['a', 'b'\] are active together"),
        (_embedding, "embed_tokens.weight is trainable"),
        (_norm, "norm.weight is trainable"),
        (lambda: get_peft_model(tiny(), LoraConfig(r=4, target_modules=["embed_tokens"])),
         "embed_tokens.lora_embedding_A.default is trainable"),
        (lambda: _peft(modules_to_save=["lm_head"]), "is trainable"),
        (lambda: attach(tiny(attention_bias=True), LORA["top layer"]), "bias"),
        (lambda: tiny(hidden_act="gelu"), "'gelu': this engine computes Llama with SiLU only"),
        (lambda: GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9)),
         "'gpt2' model with .*: this engine computes Llama"),
    ],
    ids=["dora", "dropout", "lora-bias", "both", "two", "embedding", "norm", "embedding-lora",
         "saved-head", "bias", "activation", "gpt2"],
)
def test_what_it_cannot_compute_is_refused(build, says):
    model = build()
    with pytest.raises(ValueError, match=says):
        LeanLlama(model, torch.float32).loss(pack(examples()))
