"""Late interaction: every token keeps its vector, and a query token looks for its best match.

The score of a title is the mean over the query's tokens of the highest cosine with any token of the
title (Khattab and Zaharia 2020, equation 3, with a mean for the sum: the ranking of one query is
the same). Titles are encoded before any query comes; what is left is one product per query.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .encoder import LeanEncoder, Packed

ABSENT = -2.0  # below every cosine: an empty place never is the best match


@dataclass(frozen=True)
class Tokens:
    """Unit vectors (n, L, d) of the tokens of n texts and ``mask`` (n, L), true where a token is."""

    vectors: Tensor
    mask: Tensor

    def take(self, rows: Sequence[int] | Tensor) -> "Tokens":
        """The texts ``rows``, cut at the longest of them."""
        longest = int(self.mask[rows].sum(1).max())
        return Tokens(self.vectors[rows][:, :longest], self.mask[rows][:, :longest])


@torch.no_grad()
def token_vectors(
    encoder: LeanEncoder, texts: Sequence[Sequence[int]], inner: bool = False
) -> Tokens:
    """Token vectors of token ids, in their order; ``inner`` leaves out the first and last token.

    The marks around a text are tokens too: a title may be matched at them, a query does not ask
    for them.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    device = encoder.embeddings.word_embeddings.weight.device.type
    cut = int(inner)
    lengths = torch.tensor([len(ids) - 2 * cut for ids in texts])
    found = torch.zeros(len(texts), int(lengths.max()), encoder.width)
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        batch = Packed.of([texts[i] for i in rows], device)
        states = F.normalize(encoder.hidden(batch).float(), dim=1).cpu()
        for row, part in zip(rows, states.split(batch.lengths.tolist()), strict=True):
            found[row, : lengths[row]] = part[cut : len(part) - cut]
    return Tokens(found, torch.arange(found.shape[1]) < lengths[:, None])


def maxsim(queries: Tokens, titles: Tokens) -> Tensor:
    """Scores (queries, titles), -1 to 1; one query at a time, so that memory stays small."""
    flat = titles.vectors.flatten(0, 1).T
    empty = ~titles.mask.flatten()
    found = []
    for x, mask in zip(queries.vectors, queries.mask, strict=True):
        cosines = (x[mask] @ flat).masked_fill(empty, ABSENT)
        found.append(cosines.view(len(cosines), *titles.mask.shape).amax(2).mean(0))
    return torch.stack(found)
