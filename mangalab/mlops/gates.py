"""Release gates as code: each compares a candidate with the champion and answers by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.calibration import ece, probabilities
from ..evaluation.classification import harms, macro_weights
from ..evaluation.intervals import mcnemar, paired_bootstrap
from ..evaluation.latency import Latency, time_ratio


@dataclass(frozen=True)
class Evidence:
    """What one model did on the gate's messages: ``labels`` (n,), ``logits`` (n, classes), times."""

    name: str
    labels: np.ndarray
    logits: np.ndarray
    latency: Latency | None = None

    @property
    def predicted(self) -> np.ndarray:
        """Answer to each message, (n,)."""
        return self.logits.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        """Which messages it answers rightly, (n,)."""
        return self.predicted == self.labels

    @property
    def macro(self) -> np.ndarray:
        """Correctness weighed so that its mean is the macro recall, (n,)."""
        return self.correct * macro_weights(self.labels, self.logits.shape[1])


@dataclass(frozen=True)
class Outcome:
    """A gate's answer: its name, whether it lets pass, what it measured and what it allows."""

    gate: str
    passed: bool
    measured: str
    allowed: str


@dataclass(frozen=True)
class Report:
    """Answers of all gates on one candidate against one champion."""

    candidate: str
    champion: str
    outcomes: tuple[Outcome, ...]

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Names of the gates that refuse."""
        return tuple(o.gate for o in self.outcomes if not o.passed)

    @property
    def passed(self) -> bool:
        """Whether every gate lets pass."""
        return not self.refused_by


Gate = Callable[[Evidence, Evidence], Outcome]


def not_worse(margin: float) -> Gate:
    """Macro recall: the lower end of the paired interval must lie above minus ``margin``."""

    def gate(candidate: Evidence, champion: Evidence) -> Outcome:
        found = paired_bootstrap(candidate.macro, champion.macro)
        limit = f"lower end above {-100 * margin:+.1f}"
        return Outcome("macro recall", found.low > -margin, _points(found), limit)

    return gate


def floor(least: float) -> Gate:
    """Macro recall of the candidate itself, whatever the champion does."""

    def gate(candidate: Evidence, champion: Evidence) -> Outcome:
        found = float(candidate.macro.mean())
        return Outcome("absolute floor", found >= least, f"{found:.1%}", f"at least {least:.1%}")

    return gate


def rare_classes(names: dict[str, int], level: float = 0.05) -> Gate:
    """No McNemar test against the candidate below ``level`` on any of the rare classes."""

    def gate(candidate: Evidence, champion: Evidence) -> Outcome:
        worst, p_worst, lost = "none", 1.0, 0
        for name, label in names.items():
            rows = candidate.labels == label
            gained, missed, p = mcnemar(candidate.correct[rows], champion.correct[rows])
            if missed > gained and p < p_worst:
                worst, p_worst, lost = name, p, missed - gained
        says = f"{worst}: {lost} fewer, p = {p_worst:.3g}" if lost else "none lost"
        return Outcome("rare classes", p_worst >= level, says, f"no p below {level} against it")

    return gate


def harm(cost: np.ndarray, margin: float) -> Gate:
    """Mean harm a message: the upper end of the paired interval must lie below ``margin``."""

    def gate(candidate: Evidence, champion: Evidence) -> Outcome:
        a, b = (harms(e.labels, e.predicted, cost) for e in (candidate, champion))
        found = paired_bootstrap(a, b)
        return Outcome("harm", found.high < margin, f"{found:+.3f} a message",
                       f"upper end below {margin:+.3f}")

    return gate


def calibration(most: float) -> Gate:
    """Expected calibration error of the candidate."""

    def gate(candidate: Evidence, champion: Evidence) -> Outcome:
        found = ece(probabilities(candidate.logits).max(1), candidate.correct)
        return Outcome("calibration", found <= most, f"ECE {found:.3f}", f"at most {most:.3f}")

    return gate


def latency(most: float) -> Gate:
    """Paired ratio of times: refused once the *lower* end of its interval is above ``most``."""

    def gate(candidate: Evidence, champion: Evidence) -> Outcome:
        if candidate.latency is None or champion.latency is None:
            return Outcome("latency", False, "not measured", f"at most {most:.2f} times")
        found = time_ratio(candidate.latency, champion.latency)
        return Outcome("latency", found.low <= most, f"{found:.2f} times", f"at most {most:.2f} times")

    return gate


def judge(candidate: Evidence, champion: Evidence, gates: Sequence[Gate]) -> Report:
    """Ask every gate; none is skipped because another refused."""
    if not np.array_equal(candidate.labels, champion.labels):
        raise ValueError(
            f"{candidate.name} and {champion.name} were judged on different messages: gates need pairs"
        )
    outcomes = tuple(gate(candidate, champion) for gate in gates)
    return Report(candidate.name, champion.name, outcomes)


def _points(found) -> str:
    return f"{100 * found.value:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}] points"
