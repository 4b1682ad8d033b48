"""Decision points: five engineers argue from measured values, a stated rule resolves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

PERSONAS = {
    "Priya": "senior ML engineer",
    "Marcus": "staff architect",
    "Aiko": "data scientist",
    "Jordan": "MLOps engineer",
    "Sam": "product manager",
}


class DecisionError(ValueError):
    """A decision that cannot be resolved as stated."""


@dataclass(frozen=True)
class Option:
    """One way to decide, with the measured metrics and costs that the rule reads."""

    name: str
    metrics: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """How a decision is made: a sentence for the reader and a function that does what it says."""

    text: str
    choose: Callable[[Sequence[Option]], str]


def require(metric: str, at_least: float | None = None, at_most: float | None = None):
    """A filter on options for :func:`first_passing`: keeps those whose metric is in range."""

    def passes(option: Option) -> bool:
        value = option.metrics[metric]
        return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)

    return passes


def resolve(question: str, options: Sequence[Option], rule: Rule) -> str:
    """Name of the chosen option; the rule must name one of the options or raise."""
    names = [option.name for option in options]
    if len(options) < 2 or len(set(names)) != len(names):
        raise DecisionError(f"{question!r}: need two or more options with different names, got {names}")
    chosen = rule.choose(options)
    if chosen not in names:
        raise DecisionError(f"{question!r}: the rule chose {chosen!r}, which is none of {names}")
    return chosen


def options_table(options: Sequence[Option], chosen: str) -> str:
    """Markdown table of options and their metrics; the chosen row is bold."""
    columns = list(dict.fromkeys(key for option in options for key in option.metrics))
    rows = [f"| option | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for option in options:
        cells = [option.texts.get(key) or _short(option.metrics.get(key)) for key in columns]
        if option.name == chosen:
            cells, name = [f"**{cell}**" for cell in cells], f"**{option.name}**"
        else:
            name = option.name
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def dialogue(lines: dict[str, str]) -> str:
    """The argument as Markdown, one paragraph a speaker."""
    unknown = sorted(set(lines) - set(PERSONAS))
    if unknown:
        raise DecisionError(f"unknown persona {unknown}: choose from {list(PERSONAS)}")
    return "\n\n".join(f"**{who}** ({PERSONAS[who]}): {line}" for who, line in lines.items())


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
