"""Trained things that outlive a chapter: made once, found again by what they were made from.

An artifact is a folder of safetensors and JSON files, written by a function of this package. Its
key follows the rule of run keys: the parameters, the source files of the function and of all that
they import from this package, the data files read, the pinned packages, the models, the device and
its precision. An edited sentence never retrains; an edited line of training code does.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .data import _files
from .record import file_hash, imported_packages, plain, write_json

PACKAGE = Path(__file__).resolve().parent
ALLOWED = (".safetensors", ".json", ".txt")  # nothing that unpickles
_outer: ContextVar[list[dict] | None] = ContextVar("artifacts used by the one being made", default=None)


class ArtifactError(RuntimeError):
    """An artifact that cannot be made or stored."""


@dataclass(frozen=True)
class Artifact:
    """A folder of trained weights; ``made`` says whether this call trained them."""

    name: str
    path: Path
    key: str
    meta: dict[str, Any]
    made: bool
    seconds: float  # that its training took, whenever that was

    def file(self, name: str) -> Path:
        """Path of one of its files; FileNotFoundError names those that are there."""
        path = self.path / name
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in self.path.iterdir()))
            raise FileNotFoundError(f"artifact {self.name} has no file {name!r}; it has: {there}")
        return path


def cached(name: str, build: Callable[..., dict | None], **parameters: Any) -> Artifact:
    """The artifact that ``build(folder, **parameters)`` writes, from the store when it still holds.

    ``build`` must be a function of this package (a notebook's own function has no file whose
    change could be seen); it writes .safetensors, .json or .txt files into ``folder`` and may
    return a dictionary that is kept as ``meta`` (``seconds`` of the training are added). Another
    process that wants the same artifact waits for the first one. Raises ArtifactError.
    """
    import filelock

    _check(name, build)
    given = plain({**parameters, **_machine()})
    home = store() / name
    home.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(home / f"{_digest(given)[:16]}.lock"):
        manifest = _find(home, build, given)
        made = manifest is None
        if made:
            manifest = _make(home, name, build, parameters, given)
    _count_as_used(manifest)
    key = manifest["key"]
    return Artifact(name, home / key, key, manifest["meta"], made, manifest["seconds"])


def store() -> Path:
    """Where artifacts lie: ``artifacts/trained`` of the project, or the user's cache outside one."""
    from .lab import find_root
    from .models import cache_dir

    try:
        return find_root() / "artifacts" / "trained"
    except FileNotFoundError:
        return cache_dir() / "trained"


def sources(module: str) -> dict[str, str]:
    """Hashes of a module's file and of every file of this package that it imports, at any depth.

    Imports inside functions count; keys are paths from the project's root (``mangalab/lab.py``).
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or path == Path(__file__).resolve():  # the store has no part in a result
            continue
        if (key := path.relative_to(PACKAGE.parent).as_posix()) in found:
            continue
        found[key] = file_hash(path)
        is_package = path.name == "__init__.py"
        waiting += _imports(path, name if is_package else name.rpartition(".")[0])
    return dict(sorted(found.items()))


def _check(name: str, build: Callable[..., Any]) -> None:
    if not name or any(c not in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in name):
        raise ArtifactError(f"artifact name {name!r}: use lower-case letters, digits and hyphens")
    module = getattr(build, "__module__", "") or ""
    if _file(module) is None or module.partition(".")[0] != PACKAGE.name:
        raise ArtifactError(
            f"artifact {name!r} would be made by {module}.{getattr(build, '__qualname__', build)}, "
            f"which is no function of {PACKAGE.name}: move it to {PACKAGE.name}/training, so that a "
            "change of its code is seen"
        )


def _file(module: str) -> Path | None:
    """File of a module of this package; None for other modules and for plain names."""
    top, *rest = module.split(".")
    if top != PACKAGE.name:
        return None
    base = PACKAGE.joinpath(*rest)
    for path in (base / "__init__.py", base.with_suffix(".py") if rest else base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(path: Path, package: str) -> list[str]:
    """Names that a file imports and that may be modules of this package; relative ones resolved."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.partition(".")[0] == PACKAGE.name]


def _machine() -> dict[str, str]:
    """What the numbers depend on besides code and data: device, precision, models."""
    from .profiles import from_environment

    profile = from_environment()
    return {"device": profile.device, "dtype": str(profile.dtype), "models": profile.models}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _find(home: Path, build: Callable[..., Any], given: dict) -> dict | None:
    """The manifest of a stored artifact that still holds; damaged and half-made ones do not."""
    code = sources(build.__module__)
    for path in sorted(home.glob("*/manifest.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf8"))
            same = (
                manifest["build"] == build.__qualname__
                and manifest["parameters"] == given
                and manifest["modules"] == code
                and all(_now(name) == sha for name, sha in manifest["used_modules"].items())
                and all(_data_now(name) == sha for name, sha in manifest["data"].items())
                and manifest["packages"] == _versions(manifest["packages"])
                and all(_sha(path.parent / file) == sha for file, sha in manifest["files"].items())
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same:
            return manifest
    return None


def _make(home: Path, name: str, build: Callable, parameters: dict, given: dict) -> dict:
    """Run ``build`` in a scratch folder, describe what it wrote, and move it to its place."""
    code, start = sources(build.__module__), time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="making-", dir=home))
    used: list[dict] = []
    token = _outer.set(used)
    try:
        meta = plain(build(scratch, **parameters) or {})
        files = _describe(scratch, name)
        manifest = {
            "name": name,
            "build": build.__qualname__,
            "module": build.__module__,
            "parameters": given,
            "modules": code,
            "used_modules": _merged(used, "modules", "used_modules"),
            # all that this process read so far: a cached loader does not read its file again
            "data": {**_merged(used, "data"), **_files.opened()},
            "packages": _versions(imported_packages()),
            "files": files,
            "meta": meta,
            "seconds": round(time.monotonic() - start, 2),
        }
        identity = {k: v for k, v in manifest.items() if k not in ("seconds", "meta")}
        manifest["key"] = _digest(identity)[:16]
        write_json(scratch / "manifest.json", manifest)
        _replace_older(home, manifest)
        scratch.rename(home / manifest["key"])
        return manifest
    finally:
        _outer.reset(token)
        shutil.rmtree(scratch, ignore_errors=True)


def _merged(manifests: list[dict], *fields: str) -> dict[str, str]:
    return {k: v for one in manifests for name in fields for k, v in one[name].items()}


def _describe(folder: Path, name: str) -> dict[str, str]:
    """Checksums of the files that a build wrote; anything that could hold code is refused."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    bad = [path.name for path in paths if path.suffix not in ALLOWED]
    if bad or not paths:
        wrote = ", ".join(bad) or "nothing"
        allowed = ", ".join(ALLOWED)
        raise ArtifactError(f"artifact {name!r}: its build wrote {wrote}; allowed: {allowed}")
    return {path.relative_to(folder).as_posix(): _sha(path) for path in paths}


def _replace_older(home: Path, manifest: dict) -> None:
    """Remove artifacts of the same parameters that older code or data made, and broken ones."""
    for folder in [p for p in home.iterdir() if p.is_dir() and not p.name.startswith("making-")]:
        try:
            old = json.loads((folder / "manifest.json").read_text(encoding="utf8"))
            keep = (old["parameters"], old["build"]) != (manifest["parameters"], manifest["build"])
        except (OSError, ValueError, KeyError):
            keep = False
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _count_as_used(manifest: dict) -> None:
    """Make this process's run depend on what the artifact was made from.

    Modules are imported and data files read, because that is what a run record is made of.
    """
    outer = _outer.get()
    if outer is not None:
        outer.append(manifest)
    for path in manifest["modules"] | manifest["used_modules"]:
        importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    for name in manifest["data"]:
        _files.read_text(name)


def _now(path: str) -> str | None:
    file = PACKAGE.parent / path
    return file_hash(file) if file.is_file() else None


def _data_now(name: str) -> str | None:
    file = _files.TEXT / name
    return hashlib.sha256(_files._content(file)).hexdigest() if file.is_file() else None


def _sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions(names: Iterable[str]) -> dict[str, str | None]:
    """Installed version of each package; None for one that is gone."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
