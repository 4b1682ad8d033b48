"""Mixture of experts in the causal LM's last feed-forward block, by sparse upcycling.

Everything below that block, its layer's attention included, is frozen, so its input is computed once
for each token and a training step touches the block and the softmax alone. Experts lie in memory as
in transformers' Mixtral: gate and up rows stacked, one matrix an expert.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..shapes import Shape
from .llama import LeanLlama, pack
from .llama_ops import Attention
from .parallel import side_by_side


@dataclass(frozen=True)
class Routing:
    """Router probabilities (T, E), the chosen experts (T, k) and their combine weights (T, k)."""

    probs: Tensor
    chosen: Tensor
    weights: Tensor

    @property
    def load(self) -> Tensor:
        """Share of the assignments that each expert gets, (E,); sums to one."""
        counted = torch.bincount(self.chosen.flatten(), minlength=self.probs.shape[1])
        return counted / self.chosen.numel()


class MoE(nn.Module):
    """k of E gated experts a token, combine weights renormalised over the chosen (Mixtral).

    ``gate_up`` (E, 2 I, d), ``down`` (E, d, I), ``router`` (E, d). With k = 1 the weight is one by
    value but keeps the gradient of log p, otherwise the router would learn nothing from the loss.
    ``noise`` is the standard deviation of Gaussian noise on the router's logits in training.
    """

    def __init__(self, gate_up: Tensor, down: Tensor, router: Tensor, k: int, noise: float = 0.0):
        super().__init__()
        if not 1 <= k <= len(router) or len(router) != len(gate_up):
            raise ValueError(
                f"k={k}, {len(router)} router rows, {len(gate_up)} experts: need 1 <= k <= E")
        self.gate_up, self.down = nn.Parameter(gate_up), nn.Parameter(down)
        self.router, self.k, self.noise = nn.Parameter(router), k, noise

    def route(self, x: Tensor, generator: torch.Generator | None = None) -> Routing:
        """Routing of x (T, d); a ``generator`` means training, and draws the noise."""
        logits = F.linear(x.float(), self.router)
        noisy = logits
        if generator is not None and self.noise:
            noisy = logits + self.noise * torch.randn(logits.shape, generator=generator).to(logits)
        probs = noisy.softmax(-1)
        top, chosen = probs.topk(self.k, -1)
        total = top.detach() if self.k == 1 else top.sum(-1, keepdim=True)
        return Routing(probs, chosen, top / total)

    def forward(self, x: Tensor, routing: Routing | None = None, capacity: int | None = None) -> Tensor:
        """Output (T, d) for x (T, d); ``capacity`` tokens an expert at most, the others are dropped."""
        routing = routing or self.route(x)
        weights = routing.weights
        if capacity is not None:
            weights = weights * kept(routing.chosen, len(self.router), capacity)
        out = torch.zeros_like(x)
        # unbind once: the gradient of self.down[e] would be a zero tensor of all experts, E times
        for e, (first, last) in enumerate(zip(self.gate_up.unbind(), self.down.unbind(), strict=True)):
            rows, choice = torch.where(routing.chosen == e)
            if len(rows):
                gate, up = F.linear(x[rows], first.to(x.dtype)).chunk(2, -1)
                y = F.linear(F.silu(gate) * up, last.to(x.dtype))
                out = out.index_add(0, rows, y * weights[rows, choice, None].to(x.dtype))
        return out


class Adapter(nn.Module):
    """The frozen block with a small trained one beside it (a parallel adapter, He et al. 2021)."""

    def __init__(self, block: MoE, units: int, seed: int = 0):
        super().__init__()
        self.block, d = block.requires_grad_(False), block.down.shape[1]
        draw = torch.randn(units, d, generator=torch.Generator().manual_seed(seed)) * d**-0.5
        self.into, self.out = nn.Parameter(draw), nn.Parameter(torch.zeros(d, units))

    def forward(self, x: Tensor) -> Tensor:
        """Output (T, d) for x (T, d)."""
        y = F.linear(F.silu(F.linear(x, self.into.to(x.dtype))), self.out.to(x.dtype))
        return self.block(x) + y


def upcycle(mlp: nn.Module, experts: int, k: int, noise: float = 0.0, seed: int = 0, width: int = 1,
            std: float = 0.02) -> MoE:
    """E copies of a dense gated block under a fresh router (Komatsuzaki et al. 2022).

    ``width`` makes each expert that many times as wide: copies of all units whose outputs are split
    in random shares that sum to one. The function is the dense block's either way, whatever the
    router says, and one expert of width 2 is the dense control of top-2's operations.
    """
    draw = torch.Generator().manual_seed(seed)
    gate, up, down = (linear.weight.detach().float().cpu()
                      for linear in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    shares = torch.randn(width, gate.shape[0], generator=draw) * 0.5 * (width > 1)
    shares = shares - shares.mean(0) + 1 / width
    gate_up = torch.cat([gate.repeat(width, 1), up.repeat(width, 1)])
    down = torch.cat([down * share for share in shares], 1)
    router = torch.randn(experts, gate.shape[1], generator=draw) * std
    copies = lambda w: w.repeat(experts, 1, 1)  # noqa: E731
    return MoE(copies(gate_up), copies(down), router, k, noise)


def balance_loss(routing: Routing) -> Tensor:
    """E sum_i f_i P_i (Fedus et al. 2021, equations 4 to 6), f counted over all k choices.

    k at perfect balance; at most E where everything goes to the same experts with certainty.
    """
    experts = routing.probs.shape[1]
    share = routing.load * routing.chosen.shape[1]
    return experts * (share * routing.probs.mean(0)).sum()


def kept(chosen: Tensor, experts: int, capacity: int) -> Tensor:
    """Which assignments (T, k) fit: first choices before second ones, earlier tokens before later."""
    queue = F.one_hot(chosen.T.flatten(), experts)
    place = (queue.cumsum(0) * queue).sum(1) - 1
    return (place < capacity).reshape(chosen.T.shape).T


def counts(shape: Shape, experts: int, k: int) -> dict[str, int]:
    """Parameters with every feed-forward block upcycled: total, active a token, shared by all."""
    block = shape.layers * 3 * shape.hidden * shape.intermediate
    router = shape.layers * shape.hidden * experts if experts > 1 else 0
    shared = shape.parameters - block + router
    return {"total": shared + experts * block, "active": shared + k * block, "shared": shared}


# ---------------------------------------------------------------------------- the frozen rest
@dataclass(frozen=True)
class Tokens:
    """T positions: states x (T, d) before the last block's norm, token read, token to predict, text."""

    x: Tensor
    ids: Tensor
    targets: Tensor
    text: Tensor


@torch.no_grad()
def states(engine: LeanLlama, texts: Sequence[Sequence[int]], chunk: int = 64) -> Tokens:
    """Run the frozen part once over token ids ``texts``; every token but the first is predicted."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    engine.first = len(engine.layers) - 1
    for layer in range(len(engine.layers)):
        engine._products(layer)  # shared by the parts below, so built before them
    parts = [order[start : start + chunk] for start in range(0, len(order), chunk)]
    found = side_by_side(lambda rows: _states(engine, texts, rows), parts[::-1])[::-1]
    x, ids, targets, text = (torch.cat(part) for part in zip(*found, strict=True))
    return Tokens(x, ids, targets, text)


@torch.no_grad()
def _states(engine: LeanLlama, texts: Sequence[Sequence[int]], rows: list[int]) -> tuple[Tensor, ...]:
    """Stream after the last attention, tokens, targets and text of every predicted place."""
    batch = pack([(texts[i], 1) for i in rows], device=engine.head.device)
    last, product = engine.layers[engine.first], engine.products[engine.first]
    x = engine.bottom(batch)
    qkv = product["qkv"](engine._norm(x, last.input_layernorm))
    x = x + product["o"](Attention.apply(qkv, engine._grid(batch)))
    text = torch.cat([torch.full((len(texts[i]) - 1,), i) for i in rows])
    return x[batch.sources], batch.ids[batch.sources], batch.targets, text


class Top:
    """What follows: norm, the block under study, final norm, softmax over ``rows`` of the vocabulary.

    A full softmax would cost more than the block. Training uses the tokens of ``seen`` and every
    ``every``-th of the rest, weighted ``every``-fold in the normaliser; :func:`score` uses all.
    """

    def __init__(self, engine: LeanLlama, seen: Tensor, every: int = 8):
        self.engine, self.norm = engine, engine.layers[-1].post_attention_layernorm
        size, device = len(engine.head), engine.head.device
        rest = torch.ones(size, dtype=torch.bool, device=device)
        rest[seen.unique()] = False
        sample = torch.where(rest)[0][::every]
        self.rows = torch.cat([seen.unique(), sample])
        self.place = torch.full((size,), -1, device=device)
        self.place[self.rows] = torch.arange(len(self.rows), device=device)
        self.bias = torch.zeros(len(self.rows), device=device)
        self.bias[len(self.rows) - len(sample) :] = torch.tensor(float(every)).log()
        self.head = engine.head[self.rows]

    def inputs(self, x: Tensor) -> Tensor:
        """What the block reads, (T, d)."""
        return self.engine._norm(x, self.norm)

    def out(self, x: Tensor, y: Tensor) -> Tensor:
        """Final normalised states for stream x and block output y."""
        return self.engine._norm(x + y, self.engine.core.norm)


# ---------------------------------------------------------------------------- training
@dataclass(frozen=True)
class MoEConfig:
    """``steps`` of ``batch`` tokens with AdamW, linear warm-up over a tenth, cosine to zero."""

    lr: float = 1e-3
    steps: int = 40
    batch: int = 256
    balance: float = 0.0
    seed: int = 0


@dataclass
class Trace:
    """Loss, balance loss and expert loads (E,) of every step, and the seconds of all."""

    losses: list[float] = field(default_factory=list)
    balance: list[float] = field(default_factory=list)
    loads: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0


def fit(top: Top, block: nn.Module, data: Tokens, config: MoEConfig) -> Trace:
    """Train ``block`` in place on ``data``; the order of tokens depends on the seed alone."""
    draw, started, trace = torch.Generator().manual_seed(config.seed), time.perf_counter(), Trace()
    parameters = [p for p in block.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0, fused=True)
    warm = max(1, config.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _rate(s, warm, config.steps))
    passes = -(-config.steps * config.batch // len(data.ids))
    order = torch.cat([torch.randperm(len(data.ids), generator=draw) for _ in range(passes)])
    for rows in order[: config.steps * config.batch].split(config.batch):
        x, targets = data.x[rows], top.place[data.targets[rows]]
        h = top.inputs(x)
        routing = block.route(h, draw) if isinstance(block, MoE) else None
        y = block(h, routing) if routing else block(h)
        logits = (top.out(x, y) @ top.head.T).float() + top.bias
        loss = F.cross_entropy(logits, targets)
        extra = balance_loss(routing) if routing else loss.new_zeros(())
        (loss + config.balance * extra).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        trace.losses.append(loss.item())
        trace.balance.append(extra.item())
        trace.loads.append(routing.load.tolist() if routing else [1.0])
    trace.seconds = time.perf_counter() - started
    return trace


def _rate(step: int, warm: int, steps: int) -> float:
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.no_grad()
def score(top: Top, block: nn.Module, data: Tokens, capacity: int | None = None,
          chunk: int = 128) -> Tensor:
    """Negative log-likelihood (T,) of every token in nats, softmax over the whole vocabulary."""
    h = top.inputs(data.x)
    y = block(h, capacity=capacity) if isinstance(block, MoE) else block(h)
    z = top.out(data.x, y)
    found = []  # small pieces: their logits stay in the processor's cache
    for a, b in zip(z.split(chunk), data.targets.split(chunk), strict=True):
        found.append(F.cross_entropy(top.engine.words.times(a).float(), b, reduction="none"))
    return torch.cat(found)


def by_text(values: Tensor, data: Tokens) -> Tensor:
    """Mean of ``values`` (T,) over the tokens of each text, (texts,)."""
    n = torch.bincount(data.text)
    return torch.zeros(len(n)).index_add(0, data.text, values.float().cpu()) / n
