"""Fine-tuning to answer from sheets: what the rows of chapter 14's runs look like, and their judging.

RAFT (Zhang et al. 2024) keeps the oracle in a share ``p`` of the rows and shows only distractors in
the others. The paper's target for those is the answer itself, from memory; ours is an abstention
unless a recipe says otherwise.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data import raft
from ..data.raft import Case, Question
from ..evaluation.raft import NAMES, Candidate, candidates
from .parallel import side_by_side
from .raft import Choice, Tree, tree
from .sft import Example, Prepared, render
from .trunk import TrunkLlama, gather, pack, plain, scatter

CHUNK = 16  # rows of one pass through the frozen layers


@dataclass(frozen=True)
class Recipe:
    """How training rows are made.

    ``p`` of them have their oracle among ``k`` distractors; the others lack it in the ways of
    ``lacking``, in turn. ``memory`` teaches those the value of training time instead of an
    abstention, ``quoted`` puts the sheet's words before each answer, and ``context=False`` shows no
    sheets at all (closed book: every row is answered).
    """

    p: float = 0.8
    k: int = 2
    lacking: tuple[str, ...] = ("missing_sheet",)
    memory: bool = False
    quoted: bool = False
    context: bool = True

    def __post_init__(self):
        if not 0 <= self.p <= 1 or not self.lacking or set(self.lacking) - set(raft.KINDS[1:]):
            kinds = ", ".join(raft.KINDS[1:])
            raise ValueError(
                f"p={self.p}, lacking={self.lacking}: need 0 <= p <= 1 and some of {kinds}")


@dataclass(frozen=True)
class Row:
    """A training row: what is asked with which sheets, the prompt, and the completion."""

    case: Case
    prompt: str
    completion: str


def rows(recipe: Recipe, questions: Sequence[Question], seed: int = 0) -> list[Row]:
    """One row a question, as sheets were at training time.

    The share ``p`` is met exactly, and with one seed a row that keeps its oracle at some ``p`` keeps
    it at every higher one, so that recipes differ in nothing else.
    """
    order = random.Random(seed).sample(range(len(questions)), len(questions))
    lacks = {i: recipe.lacking[turn % len(recipe.lacking)]
             for turn, i in enumerate(order[round(recipe.p * len(questions)) :])}
    return [_row(recipe, q, lacks.get(i, "answerable")) for i, q in enumerate(questions)]


def examples(tokenizer, made: Sequence[Row]) -> list[Example]:
    """Rows as token ids; the completion's are the labels."""
    return [render(tokenizer, row.prompt, row.completion) for row in made]


class Bottoms:
    """States of training examples below layer ``first``, computed once for all runs that share them.

    ``below`` are the states below a lower layer, from which these are continued.
    """

    def __init__(self, model: nn.Module, first: int, dtype: torch.dtype,
                 below: "Bottoms | None" = None):
        self.engine, self.dtype = TrunkLlama(model, dtype, training=False), dtype
        if self.engine.first < first:
            raise ValueError(f"layer {self.engine.first} is adapted, below first={first}")
        self.engine.first, self.below = first, below
        self._known: dict[tuple[int, ...], Tensor] = {}

    def prepared(self, wanted: Sequence[Example]) -> Prepared:
        """The examples with their states; those seen before cost nothing."""
        keys = [tuple(example.ids) for example in wanted]
        new = {key: e for key, e in zip(keys, wanted, strict=True) if key not in self._known}
        order = sorted(new, key=len)
        chunks = [[new[key] for key in order[start : start + CHUNK]]
                  for start in range(0, len(order), CHUNK)]
        if self.below:
            self.below.prepared(list(new.values()))
        self.engine.build(range(self.below.engine.first if self.below else 0, self.engine.first))
        for chunk, states in zip(chunks, side_by_side(self._states, chunks), strict=True):
            self._known.update(zip((tuple(e.ids) for e in chunk), states, strict=True))
        return Prepared(list(wanted), self.engine.first, [self._known[key] for key in keys])

    def _states(self, examples: Sequence[Example]) -> list[Tensor]:
        made = [plain(example) for example in examples]
        batch = pack(made, self.dtype, self.engine.head.device)
        if self.below:
            low = gather([self.below._known[tuple(e.ids)] for e in examples], batch.trunk)
            states = self.engine.between(low, batch, self.below.engine.first, self.engine.first)
        else:
            states = self.engine.bottom(batch)
        return [one.clone() for one in scatter(states, made, batch.trunk)]


def trees(tokenizer, cases: Sequence[Case], context: bool = True) -> list[Tree]:
    """Cases with their candidate answers, to be scored; without ``context`` the question alone."""
    return [tree(tokenizer, case.prompt if context else case.question.text,
                 [candidate.text for candidate in candidates(case)]) for case in cases]


def picked(case: Case, choice: Choice, abstaining: bool = True) -> Candidate:
    """The candidate of the highest log-probability; without ``abstaining`` the best real answer."""
    found = candidates(case)
    kept = [i for i, c in enumerate(found) if abstaining or c.role != "abstain"]
    return found[max(kept, key=choice.logprobs.__getitem__)]


def confidences(case: Case, choice: Choice) -> dict[str, float]:
    """Scores of the best real answer, higher for surer: its log-probability, that a token (the
    negative log of its perplexity), its lead over the next real answer and over abstaining."""
    found = candidates(case)
    real = sorted((i for i, c in enumerate(found) if c.role != "abstain"),
                  key=choice.logprobs.__getitem__, reverse=True)
    best, silent = real[0], next(i for i, c in enumerate(found) if c.role == "abstain")
    total = choice.logprobs[best]
    return {"log-probability": total, "a token": total / choice.tokens[best],
            "lead over the next": total - choice.logprobs[real[1]] if len(real) > 1 else total,
            "lead over abstaining": total - choice.logprobs[silent]}


@torch.no_grad()
def attention_to_sheets(model: nn.Module, tokenizer, case: Case) -> Tensor:
    """Share of the attention of the last prompt token that falls on each sheet, (layers, sheets).

    Mean over heads, a share of what goes to any sheet; the model must have eager attention.
    """
    example = render(tokenizer, case.prompt)
    ids = torch.tensor([example.ids], device=next(model.parameters()).device)
    maps = model(input_ids=ids, output_attentions=True).attentions
    if maps is None or maps[0] is None:
        raise ValueError("this model returns no attentions: load it with attn='eager'")
    weights = torch.stack([layer[0, :, -1].float().mean(0) for layer in maps])
    text = tokenizer.decode(example.ids)
    spans = tokenizer(text, return_offsets_mapping=True)
    if spans.input_ids != example.ids:
        raise ValueError("decoding the prompt does not give its tokens back")
    found, start = [], 0
    for sheet in case.sheets:
        start = text.index(sheet.text, start)
        end = start + len(sheet.text)
        inside = [a < end and b > start for a, b in spans.offset_mapping]
        found.append(weights[:, torch.tensor(inside, device=weights.device)].sum(1))
        start = end
    return torch.stack(found, 1) / torch.stack(found, 1).sum(1, keepdim=True)


def _row(recipe: Recipe, question: Question, kind: str) -> Row:
    if kind == "contradiction" and set(question.fields) & set(NAMES):
        kind = "missing_fact"  # a second author would be a made-up name
    if not recipe.context:
        case = raft.case(question, "then", recipe.k, "answerable")
        return Row(case, question.text, case.answer)
    case = raft.case(question, "then", recipe.k, kind)
    if kind != "answerable":
        return Row(case, case.prompt, case.then if recipe.memory else case.answer)
    return Row(case, case.prompt, case.quoted if recipe.quoted else case.answer)
