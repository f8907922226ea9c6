"""Two proxies that share a store, each a process of its own, before one upstream."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from proxy.demo import Behaviour, DemoUpstream, serve_demo
from tests.kit.process import BOUND_S, Process, started, written
from tests.kit.raw import CHAT
from tests.kit.redis import RedisServer, until
from tests.kit.sharing import in_use_for_long

ALLOWED = 8
"""Calls that the bucket of one caller lets through, at both proxies together; an hour brings as many."""

CAP = 2
"""Calls in flight, from both proxies together."""

YAML = f"""
upstreams:
  few: {{url: UPSTREAM, dialect: openai, concurrency: {CAP}}}
  many: {{url: UPSTREAM, dialect: openai}}
routes:
  - {{name: capped, path: /capped/, upstream: few, queue: {{size: 100}}}}
  - name: counted
    path: /counted/
    upstream: many
    buckets: [{{rate: {ALLOWED} requests/hour, burst: {ALLOWED}, per: caller}}]
    queue: {{size: 0}}
"""


class Replica:
    """One of them."""

    def __init__(self, process: Process, line: dict[str, Any], http: httpx.AsyncClient) -> None:
        self.process = process
        self._data = f"http://{line['listen']}"
        self._control = f"http://{line['admin']}"
        self._http = http

    async def told(self, route: str, caller: str, number: int) -> str:
        """What a call was answered: its status, or the reason why not."""
        url, body = f"{self._data}/{route}/v1/chat/completions", CHAT.replace(b"hi", b"hi %d" % number)
        answer = await self._http.post(url, content=body, headers={"authorization": f"Bearer {caller}"})
        return answer.headers.get("x-backpressure-reason", str(answer.status_code))

    async def store(self) -> dict[str, Any]:
        """How it stands with the store."""
        told: dict[str, Any] = (await self._http.get(f"{self._control}/state")).json()["store"]
        return told

    async def is_shared(self) -> bool:
        return bool((await self.store())["phase"] == "shared")


class Pair:
    """Both, and the upstream."""

    def __init__(self, replicas: list[Replica], upstream: DemoUpstream) -> None:
        self.replicas = replicas
        self.upstream = upstream
        self._numbers = count()  # no call is a repeat of another

    async def counted(self, caller: str, calls: int) -> Counter[str]:
        """The answers to calls one after the other, at either in turn, of a caller with a bucket."""
        told: Counter[str] = Counter()
        for _ in range(calls):
            number = next(self._numbers)
            told[await self.replicas[number % 2].told("counted", caller, number)] += 1
        return told

    async def most_at_once(self, calls: int = 12) -> int:
        """How many were in flight at once, of calls that came to both at once and were all answered."""
        self.upstream.ledger.reset()
        numbers = [next(self._numbers) for _ in range(calls)]
        told = await asyncio.gather(
            *(self.replicas[number % 2].told("capped", "crowd", number) for number in numbers)
        )
        assert set(told) == {"200"}, told
        return self.upstream.ledger.peak_in_flight

    async def until_shared(self) -> None:
        """Until both are in touch with the store."""
        for replica in self.replicas:
            await until(replica.is_shared)

    async def trips_answered(self) -> list[int]:
        """Of each: how many of its trips had an answer."""
        told = [await replica.store() for replica in self.replicas]
        return [int(store["trips"]) - int(store["missed"]) for store in told]

    async def until_shared_anew(self, caller: str) -> Counter[str]:
        """Until both have had an answer of the store since now. The answers of calls that came meanwhile."""
        before = await self.trips_answered()
        told: Counter[str] = Counter()
        async with asyncio.timeout(BOUND_S):
            while any(now <= then for now, then in zip(await self.trips_answered(), before, strict=True)):
                told += await self.counted(caller, 2)
        await self.until_shared()
        return told


@contextlib.asynccontextmanager
async def paired(folder: Path, store: str, ledger: RedisServer) -> AsyncIterator[Pair]:
    """Two with `store: STORE`, in touch. `ledger` is the server that keeps their counts."""
    await in_use_for_long(ledger)
    async with contextlib.AsyncExitStack() as stack:
        demo = await stack.enter_async_context(serve_demo(Behaviour(latency_s=0.02, slots=100)))
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=BOUND_S))
        file = written(folder, f"store: {store}\n{YAML.replace('UPSTREAM', demo.url)}")
        processes = [await stack.enter_async_context(started("serve", str(file))) for _ in range(2)]
        replicas = [Replica(each, await each.until("started"), http) for each in processes]
        pair = Pair(replicas, demo.upstream)
        await pair.until_shared()
        yield pair
