"""Reading a notebook and judging parameters before any kernel starts."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from .project import BookError

UNKNOWN = object()  # a default that is an expression: its type is not known before the run
INJECTED = "injected-parameters"


def read(path: Path) -> NotebookNode:
    """Read a notebook; BookError when it is missing, no JSON, or no notebook of format 4."""
    try:
        text = path.read_text(encoding="utf8")
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise BookError(f"{path.name} is not there; expected at {path}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, nbformat.reader.NotJSONError):
        raise BookError(
            f"{path.name} is not JSON; restore it (git checkout -- notebooks/{path.name})"
        ) from None
    except (nbformat.ValidationError, AttributeError, KeyError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise BookError(f"{path.name} is JSON but no notebook of format 4: {first}") from None
    return notebook


def tags(cell: NotebookNode) -> list[str]:
    """Tags of a cell."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Code cells with something in them, without papermill's injected one; cell k is number k-1."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.source.strip() and INJECTED not in tags(cell)
    ]


def parameters(notebook: NotebookNode, name: str) -> dict[str, Any]:
    """Parameters and defaults of the one cell tagged `parameters`, without running it.

    Literal defaults are returned as values, others as `UNKNOWN`.
    """
    tagged = [cell for cell in code_cells(notebook) if "parameters" in tags(cell)]
    if len(tagged) != 1:
        raise BookError(
            f"{name} has {len(tagged) or 'no'} cells tagged `parameters`; exactly one code cell "
            "must carry the tag, or parameters would have no effect"
        )
    try:
        body = ast.parse(tagged[0].source).body
    except SyntaxError as error:
        raise BookError(f"{name}: the parameters cell is no Python: {error.msg}") from None
    found: dict[str, Any] = {}
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            found |= {t.id: _literal(node.value) for t in targets if isinstance(t, ast.Name)}
    return found


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


def effective(defaults: dict[str, Any], given: dict[str, Any], name: str) -> dict[str, Any]:
    """Defaults with `given` on top, after checking names and types; expressions become None."""
    for key, value in given.items():
        if key not in defaults:
            known = ", ".join(f"{k} ({_kind(v)})" for k, v in defaults.items())
            raise BookError(f"{name} has no parameter {key!r}; known: {known or 'none'}")
        if not _fits(value, defaults[key]):
            raise BookError(
                f"{name}: parameter {key} = {value!r} is {_kind(value)}, "
                f"but the notebook's {defaults[key]!r} is {_kind(defaults[key])}"
            )
    merged = {**defaults, **given}
    return {k: None if v is UNKNOWN else v for k, v in merged.items()}


def _kind(value: Any) -> str:
    if value is UNKNOWN:
        return "an expression"
    if isinstance(value, list | tuple):
        inner = sorted({_kind(item) for item in value})
        return f"list of {' or '.join(inner)}" if inner else "list"
    return "nothing" if value is None else type(value).__name__


def _fits(value: Any, default: Any) -> bool:
    """Whether `value` may replace `default`: same type, int for float, list for tuple."""
    if default is UNKNOWN or default is None:
        return True
    if isinstance(default, list | tuple):
        if not isinstance(value, list | tuple):
            return False
        return not default or all(any(_fits(x, d) for d in default) for x in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))
