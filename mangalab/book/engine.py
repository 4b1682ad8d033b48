"""A papermill engine that tells the truth about how a notebook ended.

Papermill alone marks every cell of a dead or timed-out notebook `completed`, and takes
`sys.exit(0)` for success. This engine keeps its own account, cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine

from .notebook import INJECTED, code_cells, tags

SAVE_EVERY = 2.0  # seconds between writes of the notebook while it runs


@dataclass
class Account:
    """How far a notebook came; cells are numbered from 1 over its own code cells."""

    cells: int
    state: str = "running"  # then passed, failed, timeout or killed
    cell: int = 0  # the cell that runs or ran last
    done: list[int] = field(default_factory=list)
    name: str = ""
    message: str = ""

    def end(self, state: str, name: str = "", message: str = "") -> None:
        """Settle the state once; the first verdict stands."""
        if self.state == "running":
            self.state, self.name, self.message = state, name, message[:500]

    def report(self) -> dict[str, Any]:
        """The account as JSON, with the cells that never ran to their end."""
        return {**asdict(self), "not_done": sorted({*range(1, self.cells + 1)} - {*self.done})}


class HonestClient(PapermillNotebookClient):
    """Runs the cells, books each start and end in `account`, and calls `tell` at every step."""

    def __init__(self, nb_man: Any, account: Account, tell: Callable[[], None], **kw: Any) -> None:
        super().__init__(nb_man, **kw)
        self.account, self.tell = account, tell

    def papermill_execute_cells(self) -> None:
        """Run the cells up to the first that fails; the account ends with a verdict."""
        numbers = {id(cell): k for k, cell in enumerate(code_cells(self.nb), start=1)}
        for index, cell in enumerate(self.nb.cells):
            number = numbers.get(id(cell))
            if number:
                self.account.cell = number
                self.tell()
            if not self._run(cell, index):
                return
            if number:
                self.account.done.append(number)
        self.account.end("passed")

    def _run(self, cell: Any, index: int) -> bool:
        """Execute one cell; False when the notebook must stop here."""
        ok = False
        try:
            self.nb_man.cell_start(cell, index)
            self.execute_cell(cell, index)
            ok = True
        except CellExecutionError as error:
            self.account.end("failed", error.ename, _exit_message(error))
        except CellTimeoutError:
            self.account.end("timeout", "", f"a cell may take {self.timeout:.0f} s")
        except DeadKernelError:
            self.account.end("killed", "", "the kernel died (out of memory?)")
            raise  # the client must not wait for a reply of this kernel
        finally:
            self._book(index, ok)
        return ok

    def _book(self, index: int, ok: bool) -> None:
        if not ok:
            self.nb_man.cell_exception(self.nb.cells[index], cell_index=index)
        self.nb_man.cell_complete(self.nb.cells[index], cell_index=index)
        if not ok:
            self.nb_man.save(at_once=True)


def _exit_message(error: CellExecutionError) -> str:
    if error.ename == "SystemExit":
        return f"the cell called sys.exit({error.evalue}), later cells did not run"
    return error.evalue


def save_sparingly(nb_man: Any, every: float = SAVE_EVERY) -> None:
    """Let papermill's manager write its file at most every so many seconds.

    It writes the whole notebook before and after each cell, which is seconds a chapter; papermill
    itself writes the final state.
    """
    write = nb_man.save

    def save(at_once: bool = False, **ignored: Any) -> None:
        waited = (nb_man.now() - nb_man.last_save_time).total_seconds()
        if at_once or nb_man.end_time or waited >= every:
            write()

    nb_man.save = save


class HonestEngine(NBClientEngine):
    """Registered in the worker's process as engine `honest`; needs `account` and `tell`."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        account: Account | None = None,
        tell: Callable[[], None] = lambda: None,
        start_timeout: int = 60,
        execution_timeout: float | None = None,
        **ignored: Any,
    ) -> None:
        """Run the notebook with the honest client; papermill calls this."""
        account = account or Account(len(code_cells(nb_man.nb)))
        save_sparingly(nb_man)
        for cell in nb_man.nb.cells:
            if INJECTED in tags(cell):  # the book hides what papermill added
                cell.metadata["tags"] = [*tags(cell), "remove-cell"]
        client = HonestClient(
            nb_man,
            account,
            tell,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            timeout=execution_timeout,
            shutdown_kernel="immediate",  # nothing to save, and a busy kernel would linger
        )
        client.execute()


def settle(notebook: Any, account: Account) -> Any:
    """Make the notebook's own metadata agree with the account, and drop papermill's markers."""
    from papermill.execute import remove_error_markers

    notebook = remove_error_markers(notebook)
    words = {number: "pending" for number in account.report()["not_done"]}
    if account.state != "passed" and account.cell in words:
        words[account.cell] = "failed"
    for number, cell in enumerate(code_cells(notebook), start=1):
        cell.metadata.setdefault("papermill", {})["status"] = words.get(number, "completed")
    notebook.metadata.pop("papermill", None)  # it holds this machine's paths, and may be untrue
    notebook.metadata["mangalab"] = account.report()
    return notebook
