"""Losses for a model that answers several yes-or-no questions about one message."""

import torch
import torch.nn.functional as F
from torch import Tensor


def binary_focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of -(1 - p)^gamma log p over all (n, labels), p the probability of the right answer.

    Lin et al. (2017), equation 4, for each label by itself; ``gamma`` = 0 is binary cross-entropy.
    """
    if gamma < 0:
        raise ValueError(f"gamma must be 0 or more, got {gamma}")
    surprise = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # p = 1 would have no slope for gamma < 1: stay a hair away from it
    return ((-torch.expm1(-surprise)).clamp_min(1e-8) ** gamma * surprise).mean()


def positive_weights(targets: Tensor, power: float = 1.0) -> Tensor:
    """(negatives / positives) ** power of each label, (labels,): ``pos_weight`` of torch's BCE.

    1 makes both answers weigh the same, 0 leaves the loss as it is, 0.5 is the usual compromise.
    """
    positives = targets.sum(0)
    if int(positives.min()) == 0:
        empty = (positives == 0).nonzero().flatten().tolist()
        raise ValueError(f"labels {empty} are never positive: no weight can make up for that")
    return ((len(targets) - positives) / positives) ** power
