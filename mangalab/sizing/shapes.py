"""Shapes by name or from a config.json: those of `mangalab.shapes` and more."""

import json
from collections.abc import Mapping
from pathlib import Path

from ..shapes import SHAPES as BASE
from ..shapes import Shape
from .plan import PlanError

# From the config.json that each publisher ships with the weights.
SHAPES: Mapping[str, Shape] = {
    **BASE,
    **{
        shape.name: shape
        for shape in (
            Shape("Mistral-7B", 32, 4096, 32, 8, 128, 14336, 32000),
            Shape("Llama-3.2-1B", 16, 2048, 32, 8, 64, 8192, 128256, tied=True),
            Shape("Llama-3.2-3B", 28, 3072, 24, 8, 128, 8192, 128256, tied=True),
            Shape("SmolLM2-1.7B", 24, 2048, 32, 32, 64, 8192, 49152, tied=True),
        )
    },
}


def shape_of(name: str) -> Shape:
    """A known shape by name, whatever its case, or that of a config.json (or of its folder)."""
    by_name = {known.lower(): shape for known, shape in SHAPES.items()}
    if name.lower() in by_name:
        return by_name[name.lower()]
    path = Path(name) / "config.json" if Path(name).is_dir() else Path(name)
    if not name or not path.is_file():
        raise PlanError(
            f"{name!r} is no known shape and no path of a config.json; known: {', '.join(SHAPES)}"
        )
    try:
        return Shape.from_config(json.loads(path.read_text(encoding="utf8")), path.parent.name)
    except (ValueError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"{path} is no model configuration: {error} is missing or wrong") from None
