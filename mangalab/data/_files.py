"""Reading the data files, and remembering which of them a run has read."""

import hashlib
from pathlib import Path

TEXT = Path(__file__).parent / "text"
CARDS = Path(__file__).parent / "cards"
CHECKSUMS = "SHA256SUMS"

_opened: dict[str, str] = {}


def read_text(name: str) -> str:
    """Text of `text/<name>` with Unix line ends; its checksum is noted for the run record."""
    path = TEXT / name
    if not path.is_file():
        known = ", ".join(data_files()) or "none"
        raise FileNotFoundError(f"no data file {name!r} in {TEXT}; there are: {known}")
    content = _content(path)
    _opened[name] = hashlib.sha256(content).hexdigest()
    return content.decode("utf8")


def read_rows(name: str) -> list[dict[str, str]]:
    """Rows of a tab-separated file with a header line; quotes mean nothing, `#` lines are notes.

    Raises ValueError, naming file and line, where a row has more or fewer fields than the header.
    """
    numbered = [
        (number, line.split("\t"))
        for number, line in enumerate(read_text(name).split("\n"), start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not numbered:
        raise ValueError(f"{name} has no header line; restore it with `git checkout`")
    header = numbered[0][1]
    for number, fields in numbered[1:]:
        if len(fields) != len(header):
            raise ValueError(
                f"{name}, line {number}: {len(fields)} fields, the header has {len(header)} "
                f"({', '.join(header)}); fields are separated by single tabs"
            )
    return [dict(zip(header, fields, strict=True)) for _, fields in numbered[1:]]


def opened() -> dict[str, str]:
    """SHA-256 of each data file this process has read, as it was when read last."""
    return dict(sorted(_opened.items()))


def data_files() -> tuple[str, ...]:
    """Names of the data files that are there, the list of checksums left out."""
    return tuple(sorted(path.name for path in TEXT.iterdir() if path.name != CHECKSUMS))


def checksums() -> dict[str, str]:
    """SHA-256 of every data file as it lies on the disk now."""
    return {name: hashlib.sha256(_content(TEXT / name)).hexdigest() for name in data_files()}


def recorded_checksums() -> dict[str, str]:
    """SHA-256 of every data file as `SHA256SUMS` lists it."""
    path = TEXT / CHECKSUMS
    lines = path.read_text(encoding="utf8").splitlines() if path.is_file() else []
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def changed_files() -> tuple[str, ...]:
    """Data files that are new, gone or unlike their recorded checksum.

    Editing data is normal, so nothing is refused: the true checksum goes into the run record, and
    `python tools/data_checksums.py --write` records a change that is meant.
    """
    now, recorded = checksums(), recorded_checksums()
    return tuple(sorted(name for name in now | recorded if now.get(name) != recorded.get(name)))


def _content(path: Path) -> bytes:
    """Bytes of a file with Unix line ends, so that a Windows checkout has the same checksum."""
    return path.read_bytes().replace(b"\r\n", b"\n")
