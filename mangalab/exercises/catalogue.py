"""Which exercises there are, and where their unfinished files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Exercise:
    """One exercise: the ``function`` that the reader writes, and the page it belongs to."""

    number: int
    title: str
    function: str
    page: str

    @property
    def template(self) -> str:
        """The unfinished file: the task is its docstring."""
        return (TEMPLATES / f"exercise_{self.number}.py").read_text(encoding="utf8")

    @property
    def file(self) -> str:
        """Name of the reader's file."""
        return f"exercise_{self.number}.py"


EXERCISES = tuple(
    Exercise(number, title, function, f"book/projects/{page}")
    for number, title, function, page in (
        (1, "A report that no class can leave", "report", "1-classifier"),
        (2, "Count and merge a LoRA", "lora", "2-lora"),
        (3, "Gigabytes of four-bit weights", "gigabytes", "3-qlora"),
        (4, "Remove duplicates, and nothing else", "deduplicated", "4-dataset"),
        (5, "Choose without peeking", "choose", "5-sweep"),
        (6, "The DPO loss, also where it is large", "dpo_loss", "6-dpo"),
        (7, "Route a request, or refuse it clearly", "route", "7-serving"),
        (8, "A gate that does not creep", "gate", "8-pipeline"),
    )
)


def exercise(number: int) -> Exercise:
    """The exercise of that number; ValueError names those that there are."""
    for one in EXERCISES:
        if one.number == number:
            return one
    raise ValueError(f"there is no exercise {number}; choose one from 1 to {len(EXERCISES)}")
