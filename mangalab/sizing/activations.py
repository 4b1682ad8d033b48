"""Bytes that autograd keeps for the backward pass, tensor by tensor, of one layer.

Counted from the operations of transformers 5 (`LlamaDecoderLayer`, `BertLayer`, `TransformerBlock` of
DistilBERT) and equal to what `torch.autograd.graph.saved_tensors_hooks` sees (tests/test_sizing.py).
Korthikanti et al. (2205.05198) count the same for a GPT layer with dropout: 34 bytes a token and width.
"""

from .plan import Plan


def layer_activations(plan: Plan) -> float:
    """Bytes that one layer keeps on one device, without checkpointing."""
    per_token = norms(plan) + attention(plan) + feed_forward(plan) + adapters(plan) + dropouts(plan)
    return plan.tokens * per_token


def boundary(plan: Plan) -> float:
    """Bytes of a layer's input, all that a checkpointed layer keeps."""
    return plan.tokens * plan.shape.hidden * stream(plan)


def stream(plan: Plan) -> int:
    """Bytes of a number of the residual stream: autocast leaves it in the embeddings' 32 bits."""
    return 4 if plan.precision == "autocast" else plan.compute_bytes


def norms(plan: Plan) -> float:
    """Bytes a token of both norms and of what the linears behind them keep of their outputs.

    RMSNorm works in 32 bits: it keeps its 32-bit input and one number a token, and where weights are
    trained also the normalised input. LayerNorm keeps its input and two numbers a token. Linears whose
    weights are trained keep their input: one for all of them, but under autocast a cast for each.
    """
    d, a, llama = plan.shape.hidden, plan.compute_bytes, plan.shape.family == "llama"
    own = 2 * (4 * d + 4) if llama else 2 * (stream(plan) * d + 8)
    if not plan.full:
        return own
    readers = (3 + (2 if llama else 1)) if plan.precision == "autocast" else 2
    return own + (2 * stream(plan) * d if llama else 0) + readers * a * d


def attention(plan: Plan) -> float:
    """Bytes a token of queries, keys, values, the output and, unless fused, the attention maps.

    Fused kernels keep one 32-bit number a head and token instead of the maps. With a padding mask
    PyTorch repeats keys and values for all heads and makes the mask a number a pair of positions.
    """
    s, a = plan.shape, plan.compute_bytes
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    if plan.method == "prefix":
        kv *= 1 + plan.virtual_tokens / plan.length
    if dropped_maps(plan):
        return 3 * q * 4 + q * a + maps(plan)
    if plan.attention == "eager":
        return 4 * q * a + maps(plan)
    if plan.padded:
        return 4 * q * a + 4 * s.heads + a * plan.positions
    return 2 * (q + kv) * a + 4 * s.heads


def dropped_maps(plan: Plan) -> bool:
    """Whether dropout takes PyTorch off its fused kernel, to 32 bits (on CPUs: masks are not bytes)."""
    return plan.dropout and plan.shape.family != "llama" and plan.mask_bytes > 1


def maps(plan: Plan) -> float:
    """Bytes a token of the attention maps: softmax (in 32 bits, cast where computed in 16), dropped."""
    a = plan.compute_bytes
    each = 4 + (a if a < 4 else 0) if plan.shape.family == "llama" else a
    if dropped_maps(plan):
        each = 12
    elif plan.dropout and plan.shape.family != "llama":
        each += a + plan.mask_bytes
    return plan.shape.heads * plan.positions * each


def feed_forward(plan: Plan) -> float:
    """Bytes a token: gate, its SiLU, up (and their product where trained); or GELU's input (output)."""
    f, a = plan.shape.intermediate, plan.compute_bytes
    kept = 3 if plan.shape.family == "llama" else 1
    return (kept + (1 if plan.full else 0)) * f * a


def adapters(plan: Plan) -> float:
    """Bytes a token of LoRA: the input of A and of B for each adapted linear, in 32 bits.

    In a 32-bit base linears with the same input share it, and o_proj's is there already. In a 16-bit
    base PEFT casts it anew for each; dropout makes it anew for each, with a mask.
    """
    adapted = plan.adapted
    if not adapted:
        return 0
    inner = 4 * plan.rank * len(adapted)
    if plan.compute_bytes < 4 or plan.adapter_dropout:
        mask = plan.mask_bytes if plan.adapter_dropout else 0
        return inner + sum((4 + mask) * n_in for n_in, _ in adapted.values())
    return inner + 4 * sum(shared_inputs(plan).values())


def shared_inputs(plan: Plan) -> dict[int, int]:
    """Place among a layer's inputs -> width, for adapted linears of a 32-bit base.

    Places: 0 the attention's input, 2 the feed-forward's, 3 the last linear's; the attention output
    (1) is kept by the attention itself.
    """
    names = list(plan.shape.linears)
    places = [0, 0, 0, 1, *([2] * (len(names) - 5)), 3]
    chosen = {places[names.index(name)]: n_in for name, (n_in, _) in plan.adapted.items()}
    chosen.pop(1, None)
    return chosen


def dropouts(plan: Plan) -> float:
    """Bytes a token of the masks behind attention (BERT) and feed-forward (BERT, DistilBERT)."""
    if not plan.dropout or plan.shape.family == "llama":
        return 0
    return {"bert": 2, "distilbert": 1}[plan.shape.family] * plan.shape.hidden * plan.mask_bytes
