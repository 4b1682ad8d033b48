"""`reference/tolerances.yml`: how far a value may move before it counts as drift."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .project import BookError, Project

Kind = Literal["exact", "seed", "time"]


class Rule(BaseModel):
    """What holds for the values whose `chapter:key` matches one pattern."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Kind
    relative: float | None = Field(default=None, gt=0, description="instead of the kind's own")
    why: str = Field(min_length=10, description="a tolerance without a reason is a hole")


class Tolerances(BaseModel):
    """Limits of each kind, and exceptions by `chapter:key` pattern (the first that matches)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    family_error: float = Field(gt=0, lt=0.5)
    exact: float = Field(ge=0, le=1e-6)
    seed: float = Field(gt=0, lt=1)
    floor: float = Field(ge=0)
    time: float = Field(gt=1)
    seconds: float = Field(ge=0)
    repeatable: tuple[str, ...] = ()
    overrides: dict[str, Rule] = {}

    def bit_equal(self, device_class: str | None) -> bool:
        """Whether two runs of the same inputs on such a device must agree to the last bit."""
        return any(fnmatchcase(device_class or "", pattern) for pattern in self.repeatable)

    def rule(self, chapter: str, key: str) -> Rule | None:
        """The exception for one value, if there is one."""
        name = f"{chapter}:{key}"
        return next((r for p, r in self.overrides.items() if fnmatchcase(name, p)), None)

    def kind(self, chapter: str, key: str, entry: dict[str, Any]) -> Kind:
        """How a recorded value is compared.

        A timing is told by its record; text, truth values and whole numbers are exact unless they
        carry an interval or an n; everything else was measured and has noise.
        """
        if rule := self.rule(chapter, key):
            return rule.kind
        if entry.get("kind") == "time":
            return "time"
        number = isinstance(entry.get("value"), int | float)
        counted = entry.get("low") is not None or entry.get("n") is not None
        return "seed" if isinstance(entry.get("value"), float) or (number and counted) else "exact"

    def relative(self, chapter: str, key: str, kind: Kind) -> float:
        """Relative limit of a value of that kind; for times the largest ratio."""
        rule = self.rule(chapter, key)
        return rule.relative if rule and rule.relative else getattr(self, kind)


def load(project: Project) -> Tolerances:
    """Read and check the file; BookError names the first field that is wrong."""
    path = project.root / "reference" / "tolerances.yml"
    try:
        return Tolerances(**(yaml.safe_load(path.read_text(encoding="utf8")) or {}))
    except FileNotFoundError:
        raise BookError(
            f"{path} is missing; restore it (git checkout -- reference/tolerances.yml)"
        ) from None
    except yaml.YAMLError as error:
        first = " ".join(str(error).split())
        raise BookError(f"reference/tolerances.yml is no valid YAML: {first}") from None
    except TypeError:
        raise BookError("reference/tolerances.yml must map names to limits") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BookError(f"reference/tolerances.yml, {where}: {first['msg'].lower()}") from None
