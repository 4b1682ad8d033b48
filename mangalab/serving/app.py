"""The HTTP side: the adapter is named in the request, limits are answered with their own codes.

404 unknown adapter (the answer lists the known ones) · 413 body too large · 422 prompt too long or not
well formed · 429 too many requests wait · 503 not answered in time.
"""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from .engine import Answer, Request


@dataclass(frozen=True)
class Limits:
    """What one client may ask, and how many may wait."""

    body_bytes: int = 8192
    prompt_tokens: int = 256
    new_tokens: int = 64
    waiting: int = 8
    batch: int = 4
    seconds: float = 30.0

    def __post_init__(self):
        if min(self.body_bytes, self.prompt_tokens, self.new_tokens, self.waiting, self.batch) < 1:
            raise ValueError(f"{self}: every limit must be at least 1")


class Engine(Protocol):
    """What the server needs of an engine; tests give it a small one."""

    names: tuple[str, ...]

    def tokens(self, prompt: str) -> int: ...

    def answer(self, requests: list[Request]) -> list[Answer]: ...


class Asked(BaseModel):
    """Body of a request."""

    model_config = ConfigDict(extra="forbid")
    adapter: str = Field(description="name of an adapter, or 'base'")
    prompt: str = Field(min_length=1)
    max_new_tokens: int = Field(default=32, ge=1)


class Replied(BaseModel):
    """Body of an answer; ``batched`` says how many requests shared the pass."""

    adapter: str
    text: str
    prompt_tokens: int
    new_tokens: int
    batched: int


class BodyLimit:
    """Refuse a body over ``limit`` bytes with 413: by its header, or while it arrives."""

    def __init__(self, app, limit: int):
        self.app, self.limit = app, limit

    async def __call__(self, scope, receive, send):
        """One connection of ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > self.limit:
            return await self._refuse(send)
        seen = 0

        async def counted():
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            # the application sees a client that left; what it says of that is not sent
            return {"type": "http.disconnect"} if seen > self.limit else message

        async def guarded(message):
            if seen <= self.limit:
                await send(message)

        try:
            await self.app(scope, counted, guarded)
        except Exception:
            if seen <= self.limit:
                raise
        if seen > self.limit:
            await self._refuse(send)

    async def _refuse(self, send) -> None:
        body = f'{{"detail": "the body may have {self.limit} bytes"}}'.encode()
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 413, "headers": head})
        await send({"type": "http.response.body", "body": body})


class Batcher:
    """Requests wait in line; one worker takes what waits, up to a batch, and answers it in one pass."""

    def __init__(self, engine: Engine, limits: Limits):
        self.engine, self.limits = engine, limits
        self.line: asyncio.Queue = asyncio.Queue()
        self.inside = 0

    async def ask(self, request: Request) -> tuple[Answer, int]:
        """The answer and the size of its batch; 429 if the line is full, 503 if it takes too long."""
        if self.inside >= self.limits.waiting:
            raise HTTPException(429, f"{self.inside} requests wait, which is the limit: come back",
                                headers={"Retry-After": "1"})
        self.inside += 1
        ready = asyncio.get_running_loop().create_future()
        try:
            self.line.put_nowait((request, ready))
            return await asyncio.wait_for(ready, self.limits.seconds)
        except TimeoutError:
            raise HTTPException(503, f"no answer within {self.limits.seconds:g} s") from None
        finally:
            self.inside -= 1

    async def work(self) -> None:
        """Answer batches for ever; a failure goes to those who waited for it, not to the server."""
        while True:
            taken = [await self.line.get()]
            while len(taken) < self.limits.batch and not self.line.empty():
                taken.append(self.line.get_nowait())
            taken = [(request, ready) for request, ready in taken if not ready.done()]
            if not taken:
                continue
            try:
                answers = await asyncio.to_thread(self.engine.answer, [r for r, _ in taken])
            except Exception as error:
                for _, ready in taken:
                    if not ready.done():
                        ready.set_exception(HTTPException(500, f"{type(error).__name__} in the model"))
                continue
            for (_, ready), answer in zip(taken, answers, strict=True):
                if not ready.done():
                    ready.set_result((answer, len(taken)))


def create_app(engine: Engine, limits: Limits | None = None) -> FastAPI:
    """The application around a loaded engine."""
    limits = limits or Limits()
    batcher = Batcher(engine, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        worker = asyncio.create_task(batcher.work())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    app = FastAPI(title="adapters on one base", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, limit=limits.body_bytes)

    @app.get("/health")
    async def health() -> dict:
        return {"waiting": batcher.inside, "limit": limits.waiting}

    @app.get("/adapters")
    async def adapters() -> dict:
        return {"adapters": list(engine.names)}

    @app.post("/generate")
    async def generate(asked: Asked) -> Replied:
        _check(engine, limits, asked)
        answer, size = await batcher.ask(Request(asked.adapter, asked.prompt, asked.max_new_tokens))
        return Replied(adapter=asked.adapter, text=answer.text, prompt_tokens=answer.prompt_tokens,
                       new_tokens=answer.new_tokens, batched=size)

    return app


def _check(engine: Engine, limits: Limits, asked: Asked) -> None:
    if asked.adapter not in engine.names:
        raise HTTPException(
            404, {"error": f"no adapter {asked.adapter[:80]!r}", "known": list(engine.names)})
    if asked.max_new_tokens > limits.new_tokens:
        raise HTTPException(
            422, f"max_new_tokens is {asked.max_new_tokens}, the limit {limits.new_tokens}")
    if (n := engine.tokens(asked.prompt)) > limits.prompt_tokens:
        raise HTTPException(422, f"the prompt has {n} tokens, the limit is {limits.prompt_tokens}")
