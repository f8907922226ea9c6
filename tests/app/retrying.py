"""A proxy that repeats calls, before a scripted upstream; its pauses end when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from tests.app.watching import assert_nothing_is_held
from tests.kit.raw import CHAT, Reply, connect, head
from tests.kit.running import Running, running
from tests.kit.scripted import OK, Peer, Scripted, answering
from tests.kit.waiting import until

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nx-which: first\r\ncontent-length: 4\r\n\r\nbusy"
GET = head("GET", "/x")
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
KEY = {"idempotency_key": "one"}
AT_ONCE = "{backoff: 1ms}"
AT_LENGTH = "{backoff: 1h}"
SPENT = "breaker: off, retry_budget: {ratio: 0, floor: 0 per minute}"
ONE = "breaker: off, retry_budget: {ratio: 0, floor: 1 per minute}"
MANY = "breaker: off, concurrency: 1, retry_budget: {ratio: 1, floor: 1000 per minute}"


@dataclass
class Case:
    """A proxy with retries, before a scripted upstream."""

    proxy: Running
    upstream: Scripted

    @property
    def heard(self) -> int:
        """Requests that reached the upstream."""
        return len(self.upstream.requests)

    @property
    def pauses(self) -> set[asyncio.Future[None]]:
        """The calls that pause."""
        return self.proxy.proxy._admission._pauses

    async def pausing(self, number: int = 1) -> None:
        """Wait until so many do."""
        await until(lambda: len(self.pauses) == number)

    def go_on(self) -> None:
        """The pauses are over."""
        for pause in self.pauses:
            pause.set_result(None)

    async def results(self) -> dict[str, int]:
        """What came of the retries so far."""
        return {
            sample.labels["result"]: int(sample.value)
            for family in text_string_to_metric_families(await self.proxy.metrics())
            for sample in family.samples
            if sample.name == "backpressure_retries_total"
        }


@asynccontextmanager
async def retrying(
    script: Callable[[Peer], Awaitable[None]],
    retries: str = AT_ONCE,
    *,
    upstream: str = "breaker: off",
    route: str = "",
    dialect: str = "rest",
    url: str = "",
) -> AsyncIterator[Case]:
    """`upstream` and `route` are more of their YAML. Pauses are the longest; nothing is held at the end."""
    async with Scripted(script) as scripted:
        yaml = (
            f"upstreams: {{up: {{url: '{url or scripted.url}', dialect: {dialect}, {upstream}}}}}\n"
            f"routes: [{{name: api, path: /, upstream: up, retries: {retries}{route}}}]\n"
        )
        async with running(yaml) as proxy:
            proxy.proxy._pipeline._chance = lambda: 1.0
            yield Case(proxy, scripted)
            await assert_nothing_is_held(proxy)
            assert not proxy.proxy._admission._pauses


async def ask(case: Case, request: bytes = GET) -> Reply:
    async with connect(case.proxy.url) as raw:
        await raw.send(request)
        return await raw.reply()


def post(path: str = "/x", body: bytes = CHAT, **headers: str) -> bytes:
    return head("POST", path, content_length=str(len(body)), **headers) + body


def status(code: int, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d No\r\n%bcontent-length: 2\r\n\r\nno" % (code, more)


def first(script: Callable[[Peer], Awaitable[None]]) -> Callable[[Peer], Awaitable[None]]:
    """The first connection is treated so; every later one is answered well."""

    async def each(peer: Peer) -> None:
        await (script if peer.number == 0 else answering(OK))(peer)

    return each


async def resets(peer: Peer) -> None:
    await peer.request()
    peer.reset()
