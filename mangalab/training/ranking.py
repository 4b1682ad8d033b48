"""Losses of learning to rank on graded lists, and the gradients that they hand to each score.

All take ``scores`` and ``grades`` of shape (queries, candidates). Each is the loss of the same name
in sentence-transformers (natural logarithm), on scores instead of texts, so that any scorer can be
trained with it; ``tests/test_rerank.py`` holds values and gradients to the library's.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TOP = 3  # the highest grade
Loss = Callable[[Tensor, Tensor], Tensor]


def pointwise(scores: Tensor, grades: Tensor) -> Tensor:
    """Binary cross-entropy with the grade over ``TOP`` as target, mean over all candidates."""
    return F.binary_cross_entropy_with_logits(scores, grades.to(scores.dtype) / TOP)


def ranknet(scores: Tensor, grades: Tensor) -> Tensor:
    """Mean of log(1 + exp(-(s_i - s_j))) over pairs with grade_i > grade_j (Burges et al. 2005)."""
    return _pairs(scores, grades, torch.ones_like(_better(grades), dtype=scores.dtype))


def lambdarank(scores: Tensor, grades: Tensor) -> Tensor:
    """RankNet with each pair weighted by what exchanging the two would change in nDCG.

    The weights depend on the present ranking and are constants of the gradient (Burges 2010,
    section 4; as a loss: Wang et al. 2018, equation 16).
    """
    return _pairs(scores, grades, swap_gains(scores, grades))


LOSSES: dict[str, Loss] = {"pointwise": pointwise, "ranknet": ranknet, "lambdarank": lambdarank}


@torch.no_grad()
def swap_gains(scores: Tensor, grades: Tensor) -> Tensor:
    """|change of nDCG| if candidates i and j exchanged their ranks, (queries, m, m)."""
    grades = grades.to(scores.dtype)
    place = torch.arange(scores.shape[1], device=scores.device)
    discount = torch.log2(2.0 + place).reciprocal()
    gains = torch.exp2(grades) - 1
    ideal = (gains.sort(1, descending=True).values * discount).sum(1).clamp_min(1e-10)
    ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    gains, discounts = gains / ideal[:, None], discount[ranks]
    return (gains[:, :, None] - gains[:, None]).abs() * (
        discounts[:, :, None] - discounts[:, None]).abs()


@torch.no_grad()
def lambdas(scores: Tensor, grades: Tensor) -> Tensor:
    """What :func:`lambdarank` pulls at each score, -dL/ds (queries, m), written out by hand.

    A pair with grade_i > grade_j lifts i and sinks j by its weight times 1 / (1 + exp(s_i - s_j)).
    """
    better = _better(grades)
    push = swap_gains(scores, grades) * torch.sigmoid(scores[:, None] - scores[:, :, None]) * better
    return (push.sum(2) - push.sum(1)) / better.sum().clamp_min(1)


def pair_accuracy(scores: Tensor, grades: Tensor) -> dict[int, tuple[int, int]]:
    """(pairs in the right order, pairs) by difference of grade; tied scores count as wrong."""
    gap = grades[:, :, None] - grades[:, None]
    right = scores[:, :, None] > scores[:, None]
    return {d: (int((right & (gap == d)).sum()), int((gap == d).sum())) for d in range(1, TOP + 1)}


def _better(grades: Tensor) -> Tensor:
    return grades[:, :, None] > grades[:, None]


def _pairs(scores: Tensor, grades: Tensor, weights: Tensor) -> Tensor:
    """Mean of the weighted pair losses; 0 for a batch in which no two grades differ."""
    better = _better(grades)
    losses = F.softplus(scores[:, None] - scores[:, :, None])
    return (weights * losses * better).sum() / better.sum().clamp_min(1)
