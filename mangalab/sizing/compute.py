"""Floating-point operations, hours and dollars of a fine-tuning run."""

from dataclasses import dataclass

from ..estimate import Device, hours
from .memory import trained_parameters
from .plan import Plan, PlanError


@dataclass(frozen=True)
class Bill:
    """What a run costs: FLOP a token and in all, hours on all devices, dollars (None: no price)."""

    tokens: float
    flops_per_token: float
    flops: float
    hours: float
    device_hours: float
    dollars: float | None


def matrix_parameters(plan: Plan) -> int:
    """Weights that multiply every token: the layers' linears and the output projection.

    A look-up in the embedding table costs nothing; a tied table counts once, as the projection.
    """
    s = plan.shape
    return s.linear_parameters + (s.vocab * s.hidden if s.family == "llama" else 0)


def forward_flops(plan: Plan) -> float:
    """FLOP of one token's forward pass: 2 a weight, and the attention's two products.

    Scores and their product with the values cost 2 x 2 x length x width a layer (Kaplan et al.,
    2001.08361, table 1); a causal model needs half of the pairs.
    """
    s = plan.shape
    pairs = plan.positions * (0.5 if s.family == "llama" else 1)
    return 2 * matrix_parameters(plan) + 4 * pairs * s.heads * s.head_dim * s.layers


def flops_per_token(plan: Plan) -> float:
    """FLOP to train on one token: forward 1, gradients of activations 1, of weights 1 passes.

    Known as 6 N (2001.08361); a frozen base needs no weights' gradients (4 N) but those of its
    adapters, which cost 6 a parameter; checkpointing computes the layers' forward pass again.
    """
    s, forward = plan.shape, forward_flops(plan)
    if plan.generates:
        return forward
    head = 2 * s.vocab * s.hidden if s.family == "llama" else 0
    total = (3 if plan.full else 2) * forward
    total += forward - head if plan.checkpointing else 0
    if plan.adapted:
        total += (8 if plan.checkpointing else 6) * trained_parameters(plan)
    return total


def bill(
    plan: Plan, tokens: float, device: Device, mfu: float, price_per_device_hour: float | None = None
) -> Bill:
    """Time and money to train on `tokens` (of all devices together) at the share `mfu` of peak.

    `price_per_device_hour` in dollars is the caller's: prices change, none is known here.
    """
    if tokens < 0:
        raise PlanError(f"tokens={tokens} is below 0: pass the number of training tokens")
    if price_per_device_hour is not None and price_per_device_hour < 0:
        raise PlanError(f"price={price_per_device_hour} is below 0: pass dollars an hour and device")
    each = flops_per_token(plan)
    try:
        wall = hours(each * tokens, device, mfu, plan.devices)
    except ValueError as error:
        raise PlanError(str(error)) from None
    spent = wall * plan.devices
    dollars = None if price_per_device_hour is None else spent * price_per_device_hour
    return Bill(tokens, each, each * tokens, wall, spent, dollars)
