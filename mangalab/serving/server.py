"""Running the server: in this process, or in a child that ends with the block that started it."""

import socket
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from ..distributed.group import GroupError, context, single_thread, stop
from .app import Limits, create_app

LOOPBACK = "127.0.0.1"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    sock.listen(128)
    return sock


def run(adapters: Mapping[str, Path], limits: Limits, sock: socket.socket, threads: int = 0) -> None:
    """Load the model and serve on ``sock`` until told to stop (Ctrl-C, SIGTERM)."""
    import torch
    import uvicorn

    from .engine import AdapterEngine

    if threads:
        torch.set_num_threads(threads)
    app = create_app(AdapterEngine(adapters), limits)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, lifespan="on")
    uvicorn.Server(config).run(sockets=[sock])


def _child(adapters: Mapping[str, Path], limits: Limits, pipe) -> None:
    """Body of the child: the port is told once the model is loaded, so the first request meets it."""
    import uvicorn

    from .engine import AdapterEngine

    try:
        single_thread()
        app = create_app(AdapterEngine(adapters), limits)
        sock = bind(LOOPBACK, 0)
        pipe.send(("port", sock.getsockname()[1]))
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2, lifespan="on")
        uvicorn.Server(config).run(sockets=[sock])
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))


class Server:
    """A server in a child process on a free port of the loopback interface, one thread.

    ``with Server({"tone": folder}) as url: ...``; the child is gone when the block ends.
    """

    def __init__(self, adapters: Mapping[str, Path], limits: Limits | None = None, limit: float = 120):
        self.given, self.limit = (dict(adapters), limits or Limits()), limit

    def __enter__(self) -> str:
        started = context()
        self.pipe, theirs = started.Pipe(duplex=False)
        self.process = started.Process(target=_child, args=(*self.given, theirs), daemon=True)
        self.process.start()
        theirs.close()
        try:
            if not self.pipe.poll(self.limit):
                raise GroupError(f"the server was not ready within {self.limit:.0f} s")
            word, value = self.pipe.recv()
            if word != "port":
                raise GroupError(f"the server failed:\n{value}")
        except EOFError:
            self.__exit__(None, None, None)
            raise GroupError("the server died while it started") from None
        except GroupError:
            self.__exit__(None, None, None)
            raise
        return f"http://{LOOPBACK}:{value}"

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None):
        self.pipe.close()
        self.process.terminate()
        stop([self.process])
