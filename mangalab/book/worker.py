"""The process of one chapter: `python -m mangalab.book.worker SPEC.json`.

It speaks to the runner over standard output, in lines that begin with `@mangalab` and hold the
account as JSON. Anything else there (the kernel shares it) is log.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

MARK = "@mangalab "


def main(spec_file: str) -> None:
    """Execute the notebook that the spec names and report how it ended."""
    spec = json.loads(Path(spec_file).read_text(encoding="utf8"))
    warnings.simplefilter("ignore")  # papermill's and traitlets' own, not the notebook's
    logging.getLogger("papermill").setLevel(logging.ERROR)

    from .engine import Account
    from .notebook import code_cells, read

    account = Account(cells=len(code_cells(read(Path(spec["source"])))))

    def tell() -> None:
        sys.stdout.write(f"\n{MARK}{json.dumps(account.report())}\n")
        sys.stdout.flush()

    tell()
    try:
        execute(spec, account, tell)
    except OSError as error:
        from .project import explain

        account.end("failed", "", explain(error))
    except Exception as error:  # the runner needs a verdict, whatever it is
        account.end("failed", type(error).__name__, str(error))
    account.end("failed", "", "the notebook ended without a verdict")
    tell()


def end_with_runner() -> None:
    """Wait for the end of standard input, which is the runner's death, and end everything here."""
    import psutil

    while os.read(0, 1):
        pass
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


def execute(spec: dict[str, Any], account: Any, tell: Any) -> None:
    """Run papermill with the honest engine and write the settled notebook."""
    import nbformat
    from papermill.engines import papermill_engines
    from papermill.execute import execute_notebook

    from .engine import HonestEngine, settle

    papermill_engines.register("honest", HonestEngine)
    output = Path(spec["output"])
    try:
        execute_notebook(
            spec["source"],
            str(output),
            parameters=spec["parameters"],
            engine_name="honest",
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=spec["cwd"],
            execution_timeout=spec["cell_timeout"],
            account=account,
            tell=tell,
        )
    except Exception:
        # a settled account knows better: papermill also raises for cells tagged `raises-exception`
        if account.state == "running":
            raise
    if account.state == "running":
        account.end("failed", "", "the notebook ended without a verdict")
    notebook = settle(nbformat.read(output, as_version=4), account)
    nbformat.write(notebook, output)


if __name__ == "__main__":
    threading.Thread(target=end_with_runner, daemon=True).start()
    main(sys.argv[1])
