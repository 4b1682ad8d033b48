"""Exercise 6: the DPO loss, also where it is large.

Write ``dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)``.
NumPy arrays of sequence log probabilities, one entry a pair. Return the mean loss as a float
(Rafailov et al. 2023, equation 7). It must stay finite for margins of thousands of nats on either
side.
"""


def dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    raise NotImplementedError("write dpo_loss() in this file")
