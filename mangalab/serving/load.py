"""A load test: so many clients at once, every answer timed."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..evaluation.intervals import Interval
from ..evaluation.latency import quantile_interval


@dataclass(frozen=True)
class Reply:
    """Status, milliseconds and body of one request."""

    status: int
    milliseconds: float
    body: dict


@dataclass(frozen=True)
class Load:
    """Replies of a load test and the seconds from the first request to the last answer."""

    clients: int
    replies: tuple[Reply, ...]
    seconds: float

    @property
    def good(self) -> list[Reply]:
        """Replies with status 200."""
        return [r for r in self.replies if r.status == 200]

    @property
    def statuses(self) -> dict[int, int]:
        """How often each status came."""
        return dict(sorted(Counter(r.status for r in self.replies).items()))

    @property
    def throughput(self) -> float:
        """New tokens a second, all clients together."""
        return sum(r.body["new_tokens"] for r in self.good) / self.seconds

    def at(self, quantile: float) -> float:
        """Quantile of the milliseconds of good replies."""
        return float(np.quantile([r.milliseconds for r in self.good], quantile))

    def interval(self, quantile: float) -> Interval:
        """The same with its interval."""
        return quantile_interval([r.milliseconds for r in self.good], quantile)


def fire(url: str, bodies: Sequence[dict], clients: int, limit: float = 60) -> Load:
    """Post ``bodies`` to ``url``/generate from ``clients`` threads, each waiting for its answer."""
    import httpx

    def one(body: dict) -> Reply:
        started = time.perf_counter()
        response = session.post(f"{url}/generate", json=body)
        took = 1000 * (time.perf_counter() - started)
        return Reply(response.status_code, took, response.json())

    with httpx.Client(timeout=limit, trust_env=False) as session, ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        replies = tuple(pool.map(one, bodies))
        return Load(clients, replies, time.perf_counter() - started)
