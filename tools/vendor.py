"""Fetch the book's two browser libraries from npm into ``_vendor/``, with licences and checksums.

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

VENDOR = Path(__file__).resolve().parents[1] / "_vendor"
MATHJAX = "package/es5"
SUMS = VENDOR / "SHA256SUMS"
# package -> {path inside the npm package: path under _vendor}
PACKAGES = {
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


def fetch(package: str, files: dict[str, str], scratch: Path) -> None:
    """Download one npm package (npm verifies its integrity) and copy the named files."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm was not found: it is needed to change a vendored version, not to build")
    command = [npm, "pack", package, "--silent"]
    name = subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True).stdout
    with tarfile.open(scratch / name.strip()) as archive:
        archive.extractall(scratch / package, filter="data")
    for source, target in files.items():
        origin, destination = scratch / package / source, VENDOR / target
        destination.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if origin.is_dir() else shutil.copyfile
        copy(origin, destination)


def checksums() -> str:
    """``sha256  path`` lines of every vendored file, in the format of ``sha256sum``."""
    files = sorted(p for p in VENDOR.rglob("*") if p.is_file() and p.name[0] != "." and p != SUMS)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(VENDOR).as_posix()}"
        for path in files
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Fetch everything, or with ``--check`` only compare; returns the exit code."""
    if arguments == ["--check"]:
        same = SUMS.read_text(encoding="utf8") == checksums()
        print("vendored files match SHA256SUMS" if same else "vendored files differ: SHA256SUMS")
        return 0 if same else 1
    for folder in ("mermaid", "mathjax"):
        shutil.rmtree(VENDOR / folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        for package, files in PACKAGES.items():
            fetch(package, files, Path(scratch))
    SUMS.write_text(checksums(), encoding="utf8", newline="\n")
    print(f"vendored {', '.join(PACKAGES)} into {VENDOR}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
