"""How much each task's gradient counts on the layers that the tasks share.

Constant, from uncertainties (Kendall et al. 2018), from gradient norms (Chen et al. 2018), or from
projections (Yu et al. 2020). All end in one weight a task: a sum of projected gradients is a
re-weighted sum of the gradients themselves.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Equal:
    """All weights 1. ``gradients`` says whether a weighting reads the tasks' gradients."""

    gradients = False

    def __init__(self, tasks: int, rate: float = 0.1, alpha: float = 1.5, seed: int = 0):
        self.rate, self.alpha, self.state = rate, alpha, torch.ones(tasks)
        self.generator = torch.Generator().manual_seed(seed)

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """(tasks,) from the losses (tasks,) and the inner products of gradients (tasks, tasks)."""
        return self.state


class Uncertainty(Equal):
    """exp(-s), s = log sigma^2 learned by gradient descent on the sum of exp(-s) L + s / 2."""

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """The weights of this step, all 1 at first; moves s of the tasks that had labels afterwards."""
        now = self.state
        moved = torch.exp(now.log() + self.rate * (0.5 - now * losses))
        self.state = torch.where(losses > 0, moved, now)
        return now


class GradNorm(Equal):
    """Weights w, mean 1, moved until w_i |g_i| is near the mean norm times (relative rate)^alpha."""

    gradients = True
    first: Tensor | None = None

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """The weights of this step; moves w of the tasks that had labels afterwards."""
        now, norms, had = self.state, gram.diagonal().sqrt(), losses > 0
        first = torch.zeros_like(losses) if self.first is None else self.first
        self.first = torch.where(first > 0, first, losses)
        slope = gradnorm_slope(now[had], norms[had], (losses / self.first)[had], self.alpha)
        moved = now.clone()
        moved[had] = (now[had] - self.rate * slope / norms[had].mean()).clamp_min(0.01)
        self.state = moved * len(moved) / moved.sum()
        return now


class PCGrad(Equal):
    """Each gradient is projected off those it conflicts with, in random order; then they are added."""

    gradients = True

    def weights(self, losses: Tensor, gram: Tensor | None) -> Tensor:
        """Column sums of the projected gradients' coefficients."""
        orders = [torch.randperm(len(gram), generator=self.generator) for _ in gram]
        return pcgrad_coefficients(gram, orders).sum(0)


WEIGHTINGS = {"equal": Equal, "uncertainty": Uncertainty, "gradnorm": GradNorm, "pcgrad": PCGrad}


def gradnorm_slope(weights: Tensor, norms: Tensor, ratios: Tensor, alpha: float) -> Tensor:
    """Derivative by w of GradNorm's loss, the sum of |w_i n_i - mean(w n) r_i^alpha|, means constant.

    ``ratios`` are losses over first losses; r_i is a ratio over the mean ratio (equations 1 and 2).
    """
    sizes = weights * norms
    target = sizes.mean() * (ratios / ratios.mean()) ** alpha
    return torch.sign(sizes - target) * norms


def pcgrad_coefficients(gram: Tensor, orders: Sequence[Tensor]) -> Tensor:
    """Projected gradient i as a sum over k of C[i, k] g_k, (tasks, tasks), from inner products alone.

    Algorithm 1 of the paper: for j in ``orders[i]``, where g_i' g_j < 0, take (g_i' g_j / |g_j|^2) g_j
    away from g_i'. What is taken away is a negative multiple, so C is the identity or more.
    """
    found = torch.eye(len(gram), dtype=gram.dtype)
    for i, order in enumerate(orders):
        for j in (int(j) for j in order if int(j) != i):
            dot = found[i] @ gram[:, j]
            if dot < 0:
                found[i, j] -= dot / gram[j, j]
    return found
