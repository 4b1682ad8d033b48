"""What a chapter leaves behind: one JSON fragment, rewritten atomically at every call of the lab."""

import hashlib
import json
import math
import os
import re
import sys
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

SCHEMA = 1
# Values that differ from run to run on the same machine are told by their names: step_ms, time_ratio
TIMED = re.compile(r"(^|_)(time|ms|seconds|latency|speed|speedup|p50|p95)(_|$)")


class RecordError(ValueError):
    """A value that cannot be recorded: not finite, or recorded twice with different contents."""


@dataclass
class Fragment:
    """The kernel's part of a run record; the runner adds status, times and memory."""

    chapter: str
    profile: str
    seed: int
    schema: int = SCHEMA
    parameters: dict = field(default_factory=dict)
    device: str = ""
    dtype: str = ""
    versions: dict = field(default_factory=dict)
    values: dict = field(default_factory=dict)
    comparisons: list = field(default_factory=list)
    claims: list = field(default_factory=list)
    decisions: list = field(default_factory=list)
    figures: list = field(default_factory=list)
    spectra: list = field(default_factory=list)
    seeds: list = field(default_factory=list)
    modules: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    packages: list = field(default_factory=list)
    complete: bool = False

    def add(self, section: str, entry: dict) -> None:
        """Append ``entry`` to a list section; the same id twice must carry the same contents."""
        entries, entry = getattr(self, section), plain(entry)
        for old in entries:
            if old["id"] == entry["id"]:
                if old != entry:
                    raise RecordError(f"{section} {entry['id']!r} was recorded twice; rename one")
                return
        entries.append(entry)

    def put(self, key: str, entry: dict) -> None:
        """Record a value under ``key``; another value under the same key is an error."""
        entry = plain(entry)
        old = self.values.get(key)
        if old is not None and old["value"] != entry["value"]:
            raise RecordError(
                f"value {key!r} is {old['value']!r} already and now {entry['value']!r}: use another key"
            )
        if TIMED.search(key):
            entry["kind"] = "time"
        self.values[key] = {**(old or {}), **{k: v for k, v in entry.items() if v is not None}}

    def write(self) -> None:
        """Write to ``MANGALAB_FRAGMENT``; without it (JupyterLab) nothing is written."""
        target = os.environ.get("MANGALAB_FRAGMENT")
        if not target:
            return
        from .data import _files

        self.modules, self.data = imported_modules(), dict(_files.opened())
        self.packages = imported_packages()
        write_json(Path(target), asdict(self))


def plain(value: object) -> object:
    """``value`` as JSON types; NumPy and torch scalars become numbers, nan and infinities None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    raise RecordError(f"cannot record a {type(value).__name__}: {value!r}; pass numbers or text")


_hashes: dict[tuple[str, int, int], str] = {}
_first: dict[str, str] = {}


def file_hash(path: Path) -> str:
    """SHA-256 of a file with line ends as on Unix; remembered while size and time stay the same."""
    state = path.stat()
    key = (str(path), state.st_mtime_ns, state.st_size)
    if key not in _hashes:
        contents = path.read_bytes().replace(b"\r\n", b"\n")
        _hashes[key] = hashlib.sha256(contents).hexdigest()
    return _hashes[key]


def imported_modules() -> dict[str, str]:
    """Files of this package that this process imported, relative to its parent, with SHA-256.

    The hash is that of the first call: an edit made while a chapter runs is not what it ran.
    The press (`mangalab.book`) is left out: it shows results and has no part in any of them.
    """
    package = Path(__file__).resolve().parent
    found = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.split(".")[0] == "mangalab" and file and Path(file).exists():
            path = Path(file).resolve()
            if path.is_relative_to(package) and not path.is_relative_to(package / "book"):
                name = path.relative_to(package.parent).as_posix()
                found[name] = _first.setdefault(str(path), file_hash(path))
    return found


def imported_packages() -> list[str]:
    """Names of the installed distributions that this process imported, as in requirements.lock."""
    owners = _owners()
    tops = {name.partition(".")[0] for name in sys.modules}
    return sorted({canonical(owner) for top in tops for owner in owners.get(top, ())})


@cache
def _owners() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())  # a quarter of a second: once a process


def canonical(name: str) -> str:
    """A distribution's name in the one spelling that comparisons use (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def write_json(path: Path, contents: object) -> None:
    """Write JSON atomically: a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    scratch.write_text(json.dumps(contents, indent=1, ensure_ascii=False), encoding="utf8")
    scratch.replace(path)
