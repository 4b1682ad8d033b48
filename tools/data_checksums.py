"""Check the data files against mangalab/data/text/SHA256SUMS, or write that list anew.

    python tools/data_checksums.py           # exit 1 and name the files that differ
    python tools/data_checksums.py --write   # after a change that is meant

Line ends do not count, so that a Windows checkout has the same checksums.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mangalab.data import _files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="record the files as they are now")
    changed = _files.changed_files()
    if parser.parse_args().write:
        lines = [f"{digest}  {name}\n" for name, digest in _files.checksums().items()]
        (_files.TEXT / _files.CHECKSUMS).write_bytes("".join(lines).encode("utf8"))
        print(f"recorded {len(lines)} data files; {len(changed)} of them new, changed or gone")
        return 0
    for name in changed:
        print(f"{name} differs from SHA256SUMS; if that is meant: {Path(__file__).name} --write")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
