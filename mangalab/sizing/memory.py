"""Peak memory of one device in a training step: states, activations and logits, by phase.

The causes do not all peak at once. While the loss is computed all activations are there but no
gradient; when the optimizer steps all gradients are there but no activation. The largest counts.
"""

from dataclasses import dataclass

from ..estimate import bits_per_parameter, lora_parameters
from . import activations as act
from .plan import Plan

PHASES = ("loss", "head", "first layer", "last layer", "step")
Parts = dict[str, float]


@dataclass(frozen=True)
class Memory:
    """Bytes on one device: `phases` maps a phase of the step to its bytes by cause."""

    plan: Plan
    phases: dict[str, Parts]

    @property
    def peak(self) -> str:
        """The phase with the most bytes; the earlier one where two are equal."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def parts(self) -> Parts:
        """Bytes by cause in the peak phase, without causes that are zero there."""
        return {name: size for name, size in self.phases[self.peak].items() if size}

    @property
    def total(self) -> float:
        """Bytes of the peak phase."""
        return sum(self.parts.values())


def trained_parameters(plan: Plan) -> int:
    """Parameters that receive gradients."""
    s, tokens = plan.shape, plan.virtual_tokens
    if plan.generates:
        return 0
    if plan.full:
        return s.parameters
    if plan.method == "prompt":
        return tokens * s.hidden
    if plan.method == "prefix":
        return 2 * s.layers * tokens * s.kv_heads * s.head_dim
    return lora_parameters(s, plan.rank, tuple(plan.adapted))


def base_bytes(plan: Plan) -> float:
    """Bytes of the base's weights; in 4 bits only the linears of the layers are quantised."""
    s = plan.shape
    if plan.full:
        return s.parameters * plan.kept.weight
    if not plan.quantised:
        return s.parameters * plan.compute_bytes
    rest = s.parameters - s.linear_parameters
    bits = bits_per_parameter(4, plan.block, plan.double)
    return s.linear_parameters * bits / 8 + rest * plan.compute_bytes


def optimizer_bytes(plan: Plan) -> float:
    """Bytes of the optimizer's states for everything that is trained, on one device unsharded.

    AdamW two moments; 8-bit AdamW (2110.02861) a byte and 4/256 for the scale of each; SGD with
    momentum one moment; Adafactor (1804.04235, no momentum) a row and a column a matrix.
    """
    trained, moment = trained_parameters(plan), plan.kept.moment
    if plan.optimizer == "adafactor":
        return 4 * factored(plan)
    each = {"adamw": 2 * moment, "adamw-8bit": 2 * (1 + 4 / 256), "sgd": 0, "sgd-momentum": moment}
    return trained * each[plan.optimizer]


def factored(plan: Plan) -> int:
    """Numbers that Adafactor keeps: rows plus columns of matrices, all entries of vectors."""
    s, r = plan.shape, plan.rank
    if plan.method == "prompt":
        return plan.virtual_tokens + s.hidden
    if plan.method == "prefix":
        return plan.virtual_tokens + 2 * s.layers * s.kv_heads * s.head_dim
    if not plan.full:
        return s.layers * sum(n_in + n_out + 2 * r for n_in, n_out in plan.adapted.values())
    matrices = s.layers * sum(n_in + n_out for n_in, n_out in s.linears.values())
    tables = [n for n in (s.vocab, s.positions, s.segments) if n]
    tables += [s.vocab] if s.head_parameters else []
    tables += [s.hidden] if s.pooler_parameters else []
    pooler_bias = s.hidden if s.pooler_parameters else 0
    vectors = s.norm_parameters + s.bias_parameters + pooler_bias
    return matrices + sum(n + s.hidden for n in tables) + vectors


def layer_parameters(plan: Plan) -> float:
    """Weights of one layer's linears."""
    return plan.shape.linear_parameters / plan.shape.layers


def casts(plan: Plan) -> float:
    """Bytes of autocast's 16-bit copies of the linears' weights, the output projection's too.

    They go with the layer's activations: a checkpointed layer has them only while it is computed anew.
    """
    if plan.precision != "autocast":
        return 0
    s = plan.shape
    layers = layer_parameters(plan) if plan.checkpointing else s.linear_parameters
    return 2 * (layers + (s.vocab * s.hidden if s.family == "llama" else 0))


def states(plan: Plan) -> Parts:
    """Bytes that are there in every phase, sharded over the devices (ZeRO, 1910.02054)."""
    n, trained = plan.devices, trained_parameters(plan)
    stage = {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3}[plan.sharding]
    states_share, weights_share = n if stage >= 1 else 1, n if stage >= 3 else 1
    return {
        "overhead": plan.overhead_bytes,
        "weights": base_bytes(plan) / weights_share,
        "adapters": 0 if plan.full else trained * plan.kept.weight,
        "casts": casts(plan),
        "gathered": gathered(plan) if stage >= 3 and n > 1 else 0,
        "masters": trained * plan.kept.master / states_share,
        "optimizer": optimizer_bytes(plan) / states_share,
    }


def gathered(plan: Plan) -> float:
    """Bytes of the weights that stage 3 holds whole at a time: one layer, embedding and head."""
    s = plan.shape
    outside = s.parameters - s.linear_parameters - s.bias_parameters
    layer = layer_parameters(plan)
    bits = bits_per_parameter(4, plan.block, plan.double) if plan.quantised else 0
    return layer * (bits / 8 or plan.compute_bytes) + outside * plan.compute_bytes


def gradients(plan: Plan) -> float:
    """Bytes of all gradients on one device; stages 2 and 3 keep a share and one whole layer."""
    trained, each = trained_parameters(plan), plan.kept.gradient
    if plan.devices == 1 or plan.sharding in ("none", "zero1"):
        return trained * each
    layer = layer_parameters(plan) if plan.full else trained / plan.shape.layers
    return trained * each / plan.devices + layer * each


def logits(plan: Plan) -> tuple[float, float]:
    """Bytes of logits while the loss is differentiated, and of their gradient behind it.

    Three 32-bit numbers a token and word: the kept log-softmax, the gradient that the negative
    log-likelihood makes and the one that log-softmax makes of it. Encoders have no logits.
    """
    if plan.shape.family != "llama":
        return 0, 0
    a, rows = plan.compute_bytes, plan.batch * plan.length
    each = plan.shape.vocab * (min(plan.loss_tokens, rows) or rows)
    return each * 12, each * (4 + (a if a < 4 else 0))


def memory(plan: Plan) -> Memory:
    """Memory of one training step, or of generation, by phase and cause."""
    if plan.generates:
        return inference(plan)
    s, fixed, layer = plan.shape, states(plan), act.layer_activations(plan)
    loss, loss_gradient = logits(plan)
    kept = act.boundary(plan) if plan.checkpointing else layer
    everything, again = kept * s.layers, 0.0
    if plan.checkpointing:  # a layer computed anew; in 32 bits its input is the one that was kept
        again = layer - (kept if act.stream(plan) == 4 else 0)
    head = s.vocab * s.hidden * plan.kept.gradient if plan.full and s.family == "llama" else 0
    every_gradient, work = gradients(plan), workspace(plan)
    phases = {
        "loss": {"activations": everything + stem(plan), "logits": loss},
        "head": {"activations": everything + stem(plan), "logits": loss_gradient, "gradients": head},
        "first layer": {"activations": everything + again, "workspace": work, "gradients": head},
        "last layer": {"activations": layer, "workspace": work, "gradients": every_gradient},
        "step": {"gradients": every_gradient, "temporaries": temporaries(plan)},
    }
    return Memory(plan, {phase: fixed | own for phase, own in phases.items()})


def stem(plan: Plan) -> float:
    """Bytes kept outside the layers: the final norm of Llama, the embeddings' norm of BERT."""
    d, a = plan.shape.hidden, plan.compute_bytes
    if plan.shape.family == "llama":
        return plan.tokens * (4 * d + 4 + ((act.stream(plan) + a) * d if plan.full else 0))
    if not plan.full:
        return 0
    mask = plan.mask_bytes * d if plan.dropout else 0
    return plan.tokens * (act.stream(plan) * d + 8 + mask)


def workspace(plan: Plan) -> float:
    """Bytes of gradients in flight inside a layer; in 4 bits also its largest weight, unpacked."""
    s, a = plan.shape, plan.compute_bytes
    flying = plan.tokens * (2 * s.intermediate + 2 * s.hidden) * a
    unpacked = max(n_in * n_out for n_in, n_out in s.linears.values()) * a
    return flying + (unpacked if plan.quantised else 0)


def temporaries(plan: Plan) -> float:
    """Bytes that AdamW's arithmetic makes on the way: foreach takes a root of all second moments at
    once; loop, tensor by tensor, has a root and its quotient."""
    if plan.step == "fused" or plan.optimizer != "adamw":
        return 0
    if plan.step == "foreach":
        share = plan.devices if plan.sharding != "none" else 1
        return trained_parameters(plan) * plan.kept.moment / share
    return 2 * largest_trained(plan) * plan.kept.moment


def largest_trained(plan: Plan) -> int:
    """Elements of the largest tensor that is trained."""
    s = plan.shape
    if plan.full:
        return max(s.vocab * s.hidden, *(n_in * n_out for n_in, n_out in s.linears.values()))
    if plan.adapted:
        return plan.rank * max(max(pair) for pair in plan.adapted.values())
    return trained_parameters(plan)


def kv_cache(plan: Plan, tokens: int, bytes_per_number: float = 2) -> float:
    """Bytes of keys and values of `tokens` positions of each of `batch` sequences, all layers."""
    s = plan.shape
    return 2 * s.layers * s.kv_heads * s.head_dim * plan.batch * tokens * bytes_per_number


def inference(plan: Plan) -> Memory:
    """Memory of generation: weights, the cache of prompt and new tokens, one layer at work, logits.

    Prefill has the widest tensors of one layer; only the last position's logits are made, in 32 bits.
    """
    s, a = plan.shape, plan.compute_bytes
    causal = s.family == "llama"
    work = plan.batch * plan.length * (3 * s.intermediate + 2 * s.hidden) * a
    parts = {
        "overhead": plan.overhead_bytes,
        "weights": base_bytes(plan),
        "cache": kv_cache(plan, plan.length + plan.new_tokens, a) if causal else 0,
        "workspace": work,
        "logits": 4 * plan.batch * s.vocab if causal else 0,
    }
    return Memory(plan, {"generation": parts})
