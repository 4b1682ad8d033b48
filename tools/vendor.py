"""Fetch browser libraries from npm, with licences and checksums: the book's two into ``_vendor/``,
the accessibility checker of the tests (never part of a page) into ``tests/vendor/``.

Run ``python tools/vendor.py`` only to change a version: the files are committed, so that neither
building nor reading the book needs npm or a network. ``--check`` compares them with SHA256SUMS.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MATHJAX = "package/es5"
# package -> {path inside the npm package: path under the folder}
SHIPPED = {
    "mermaid@11.17.2": {
        "package/dist/mermaid.min.js": "mermaid/mermaid.min.js",
        "package/LICENSE": "mermaid/LICENSE",
    },
    "mathjax@3.2.2": {
        f"{MATHJAX}/tex-mml-chtml.js": "mathjax/tex-mml-chtml.js",
        f"{MATHJAX}/output/chtml/fonts/woff-v2": "mathjax/output/chtml/fonts/woff-v2",
        # without the TeX extensions one \boldsymbol leaves a whole page untypeset
        f"{MATHJAX}/input/tex/extensions": "mathjax/input/tex/extensions",
        "package/LICENSE": "mathjax/LICENSE",
    },
}
TESTED_WITH = {
    "axe-core@4.14.1": {
        "package/axe.min.js": "axe/axe.min.js",
        "package/LICENSE": "axe/LICENSE",
        "package/LICENSE-3RD-PARTY.txt": "axe/LICENSE-3RD-PARTY.txt",
    },
}
FOLDERS = {ROOT / "_vendor": SHIPPED, ROOT / "tests" / "vendor": TESTED_WITH}


def fetch(package: str, files: dict[str, str], folder: Path, scratch: Path) -> None:
    """Download one npm package (npm verifies its integrity) and copy the named files."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm was not found: it is needed to change a vendored version, not to build")
    command = [npm, "pack", package, "--silent"]
    name = subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True).stdout
    with tarfile.open(scratch / name.strip()) as archive:
        archive.extractall(scratch / package, filter="data")
    for source, target in files.items():
        origin, destination = scratch / package / source, folder / target
        destination.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if origin.is_dir() else shutil.copyfile
        copy(origin, destination)


def checksums(folder: Path) -> str:
    """``sha256  path`` lines of every vendored file, in the format of ``sha256sum``."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name[0] != ".")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}"
        for path in files
        if path.name != "SHA256SUMS"
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Fetch everything, or with ``--check`` only compare; returns the exit code."""
    sums = {folder: folder / "SHA256SUMS" for folder in FOLDERS}
    if arguments == ["--check"]:
        differ = [f for f, path in sums.items() if path.read_text("utf8") != checksums(f)]
        print(f"vendored files differ from SHA256SUMS in {differ}" if differ else "vendored: the same")
        return 1 if differ else 0
    for folder, packages in FOLDERS.items():
        for old in folder.glob("*/"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory() as scratch:
            for package, files in packages.items():
                fetch(package, files, folder, Path(scratch))
        sums[folder].write_text(checksums(folder), encoding="utf8", newline="\n")
        print(f"vendored {', '.join(packages)} into {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
