"""Which tokens a classifier's answer rests on: integrated gradients, erasure, and their controls.

Scores are lists of arrays, one value a token with [CLS] and [SEP]. The absent token is [PAD] for
attribution and for erasure alike, with the attention mask left on: both remove the same thing.
"""

import copy
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..training.classify import Classifier, predict

Messages = Sequence[Sequence[int]]
Scores = Sequence[np.ndarray]
PUNCTUATION = re.compile(r"[^\w\s]+")


class Reader(nn.Module):
    """A classifier as a Hugging Face encoder with its head, fed with word embeddings (n, L, d)."""

    def __init__(self, model: Classifier, bert: nn.Module):
        super().__init__()
        self.bert = model.encoder.write_to(copy.deepcopy(bert)).float().eval().requires_grad_(False)
        self.bert.set_attn_implementation("eager")  # the fused kernel returns no attention
        self.head = copy.deepcopy(model.head).requires_grad_(False)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities (n, classes) of word embeddings under an attention mask (n, L)."""
        states = self.bert(inputs_embeds=words, attention_mask=mask).last_hidden_state
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.head(pooled).log_softmax(-1)

    @torch.no_grad()
    def attention(self, ids: Sequence[int]) -> Tensor:
        """Attention weights (layers, heads, L, L) of one message, on CPU; rows sum to one."""
        ids = torch.tensor([list(ids)], device=self.head.weight.device)
        out = self.bert(input_ids=ids, output_attentions=True)
        return torch.stack(out.attentions)[:, 0].cpu()

    def received(self, messages: Messages) -> list[np.ndarray]:
        """Attention of the last layer that each token gets, mean over heads and asking tokens."""
        return [self.attention(ids)[-1].mean((0, 1)).numpy() for ids in messages]


def integrated_gradients(
    reader: Reader, messages: Messages, targets: Sequence[int], steps: int = 16, batch: int = 2
) -> tuple[list[np.ndarray], np.ndarray]:
    """(score of each token for log p of the target, completeness gap of each message).

    Sundararajan et al. (2017), by Captum with Gauss-Legendre steps, from a message of [PAD] between
    [CLS] and [SEP]. The gap is sum of scores - (log p - log p of the baseline): zero if complete.
    ``batch`` messages, ``steps`` rows each, go through the model at once: few, for a CPU's cache.
    """
    from captum.attr import IntegratedGradients

    words, explain = reader.bert.embeddings.word_embeddings, IntegratedGradients(reader)
    found, gaps = [np.empty(0)] * len(messages), np.empty(len(messages))
    order, device = sorted(range(len(messages)), key=lambda i: len(messages[i])), words.weight.device
    for rows in (order[start : start + batch] for start in range(0, len(order), batch)):
        chosen = [messages[i] for i in rows]
        blank = [[m[0], *[0] * (len(m) - 2), m[-1]] for m in chosen]
        ids, empty = _grid(chosen).to(device), _grid(blank).to(device)
        mask = _grid([[1] * len(m) for m in chosen]).float().to(device)
        scores, gap = explain.attribute(
            words(ids), words(empty),
            target=torch.tensor([int(targets[i]) for i in rows], device=device),
            additional_forward_args=(mask,), n_steps=steps, return_convergence_delta=True)  # fmt: skip
        for i, row, off in zip(rows, scores.sum(-1).cpu().numpy(), gap.cpu().numpy(), strict=True):
            found[i], gaps[i] = row[: len(messages[i])], off
    return found, gaps


def erased(ids: Sequence[int], scores: np.ndarray, share: float, keep: bool = False) -> list[int]:
    """Token ids with the ``share`` of highest scores replaced by [PAD], or with only those kept.

    [CLS] and [SEP] always stay; ties go to the earlier token.
    """
    inner = np.asarray(scores)[1:-1]
    chosen = set((1 + np.argsort(-inner, kind="stable")[: round(share * len(inner))]).tolist())
    ends = (0, len(ids) - 1)
    return [t if i in ends or ((i in chosen) == keep) else 0 for i, t in enumerate(ids)]


def erasure_curves(
    model: Classifier, messages: Messages, scores: Scores, targets: Sequence[int],
    shares: Sequence[float], keep: bool = False,
) -> np.ndarray:  # fmt: skip
    """Probability of the target (n, shares) while tokens go (or come, with ``keep``) by score."""
    pairs = list(zip(messages, scores, strict=True))
    grid = [erased(m, s, share, keep) for share in shares for m, s in pairs]
    p = predict(model, grid).logits.softmax(1).view(len(shares), len(messages), -1)
    return p[:, torch.arange(len(messages)), torch.as_tensor(np.asarray(targets))].T.numpy()


def scrambled(model: Classifier, layers: int, seed: int = 0) -> Classifier:
    """The classifier with its head and top ``layers`` shuffled, each tensor within itself.

    The cascade of Adebayo et al. (2018): sizes and distributions stay, what was learnt is gone.
    """
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    first = len(other.encoder.layers) - layers
    for part in (other.head, *other.encoder.layers[first:]):
        for weight in part.parameters():
            order = torch.randperm(weight.numel(), generator=generator)
            weight.data.copy_(weight.data.flatten()[order].view_as(weight))
    return other


def span_mask(tokenizer, text: str, phrase: str = "") -> np.ndarray:
    """Which tokens of ``text`` lie in the phrase, or in punctuation if none is given."""
    pattern = re.compile(re.escape(phrase), re.IGNORECASE) if phrase else PUNCTUATION
    found = [m.span() for m in pattern.finditer(text)]
    coded = tokenizer(text, truncation=True, max_length=64, return_offsets_mapping=True)
    return np.array([any(a < end and b > start for start, end in found)
                     for a, b in coded["offset_mapping"]])  # fmt: skip


def mass(scores: Scores, masks: Scores) -> np.ndarray:
    """Share (n,) of absolute attribution under each mask; [CLS] and [SEP] do not count."""
    sizes = [np.abs(np.asarray(s))[1:-1] for s in scores]
    pairs = zip(sizes, masks, strict=True)
    return np.array([(a * m[1:-1]).sum() / max(a.sum(), 1e-12) for a, m in pairs])


def rank_agreement(a: Scores, b: Scores) -> np.ndarray:
    """Spearman correlation (n,) of two scores over the inner tokens of each message."""
    from scipy.stats import spearmanr

    found = [spearmanr(x[1:-1], y[1:-1]).statistic if len(x) > 3 else 0.0
             for x, y in zip(a, b, strict=True)]  # fmt: skip
    return np.nan_to_num(np.array(found))  # constant scores order nothing


def _grid(rows: Messages) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([list(m) + [0] * (longest - len(m)) for m in rows])
