"""What a fine-tuned causal LM still knows: loss on general text, answers to general questions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..training.sft import Example, Scores

if TYPE_CHECKING:
    from ..data.retention import Choice


def choice_examples(tokenizer, questions: "Sequence[Choice]") -> list[Example]:
    """One example per option, in order: the question as plain text, then the option as labels."""
    examples = []
    for question in questions:
        head = tokenizer(question.question).input_ids
        examples += [
            Example(head + tokenizer(" " + option).input_ids, len(head)) for option in question.options
        ]
    return examples


def answers(questions: "Sequence[Choice]", examples: Sequence[Example], scores: Scores) -> list[bool]:
    """For each question: is the right option the likeliest (highest summed log-probability)?"""
    totals = [nll * (len(e.ids) - e.prompt) for nll, e in zip(scores.nll, examples, strict=True)]
    right, start = [], 0
    for question in questions:
        block = totals[start : start + len(question.options)]
        right.append(block.index(min(block)) == question.answer)
        start += len(question.options)
    return right
