"""Every refusal that a caller can meet, brought about on a whole proxy: the next call gets it.

async with refusing(Reason.QUEUE_FULL, "openai") as proxy:
    ... the next call to /openai is refused with queue_full
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from proxy.core.verdict import Reason
from proxy.demo import Behaviour, Hang, Outage
from tests.app.watching import waiting
from tests.kit.recording import Exchange
from tests.kit.running import BREAKER, Running, before_demo
from tests.kit.waiting import bounded, until

T = TypeVar("T")

KEY = "sk-test"
PATHS = {
    "openai": "/openai/v1/chat/completions",
    "anthropic": "/anthropic/v1/messages",
    "gemini": "/gemini/v1beta/models/demo:generateContent",
    "mcp": "/mcp",
}
ASK = {"model": "demo", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
ASK_TOOL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "search", "arguments": {"query": "room"}},
}
ASKS = {"mcp": ASK_TOOL, "gemini": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}}
AT_ONCE = "queue: {size: 0}"
NO_BREAKER = "breaker: off"


class Crowd:
    """The other callers: they fill what is there before the call under test comes."""

    def __init__(self, proxy: Running, dialect: str, client: httpx.AsyncClient) -> None:
        self.proxy = proxy
        self.dialect = dialect
        self._client = client
        self.tasks: list[asyncio.Task[Any]] = []

    async def ask(self, **headers: str) -> httpx.Response:
        """One call, and its answer."""
        sent = {"authorization": f"Bearer {KEY}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        body = ASKS.get(self.dialect, ASK)
        return await self._client.post(self.proxy.url + PATHS[self.dialect], json=body, headers=sent)

    async def send(self, heard: Exchange) -> httpx.Response:
        """A request of another client's, once more."""
        headers = {
            name: value for name, value in heard.request.items() if name not in ("host", "content-length")
        }
        return await self._client.request(
            heard.method, self.proxy.url + heard.target, content=heard.body, headers=headers
        )

    def begin(self, call: Coroutine[Any, Any, T] | None = None, **headers: str) -> asyncio.Task[Any]:
        """Start a call, of a client's own or else one of the crowd's."""
        task = asyncio.create_task(call if call is not None else self.ask(**headers))
        self.tasks.append(task)
        return task

    async def hang(self) -> None:
        """One call that its upstream does not answer."""
        ledger = self.proxy.upstream.ledger
        before = ledger.in_flight
        self.begin()
        await bounded(ledger.until(lambda: ledger.in_flight == before + 1))

    async def wait(self, call: Coroutine[Any, Any, T] | None = None, **headers: str) -> asyncio.Task[Any]:
        """One call that stands in the queue."""
        before = waiting(self.proxy, self.dialect)
        task = self.begin(call, **headers)
        await until(lambda: waiting(self.proxy, self.dialect) == before + 1)
        return task


@dataclass(frozen=True)
class Scene:
    """The configuration and what happens before; `priority` is that of the call under test."""

    prepare: Callable[[Crowd], Awaitable[None]]
    route: str = AT_ONCE
    upstream: str = ""
    mode: Any = None
    priority: str = "normal"
    sends: tuple[tuple[str, str], ...] = ()


async def nothing(_: Crowd) -> None:
    """The first call is refused."""


async def one_call(crowd: Crowd) -> None:
    (await crowd.ask()).raise_for_status()


async def one_hangs(crowd: Crowd) -> None:
    await crowd.hang()


async def one_hangs_and_one_waits(crowd: Crowd) -> None:
    await crowd.hang()
    await crowd.wait(x_priority="background")


async def four_fail(crowd: Crowd) -> None:
    for _ in range(4):
        assert (await crowd.ask()).status_code == 502


async def drains(crowd: Crowd) -> None:
    crowd.proxy.proxy.drain()


async def all_retries_are_spent(crowd: Crowd) -> None:
    (await crowd.ask(x_stainless_retry_count="1")).raise_for_status()


ONE_SLOT = "concurrency: 1"
SCENES = {
    Reason.BUCKET_EMPTY: Scene(one_call, f"buckets: [{{rate: 1 request/hour, per: caller}}]\n{AT_ONCE}"),
    Reason.QUOTA_SPENT: Scene(one_call, f"quotas: [{{allow: 1 request/hour, per: caller}}]\n{AT_ONCE}"),
    Reason.CAP_REACHED: Scene(one_hangs, AT_ONCE, ONE_SLOT, Hang()),
    Reason.QUEUE_FULL: Scene(
        one_hangs_and_one_waits,
        "queue: {size: 1}\nshed: {normal: never, background: never}",
        ONE_SLOT,
        Hang(),
        "background",
    ),
    Reason.WAITED_TOO_LONG: Scene(one_hangs, "queue: {size: 5, max_age: 50ms}", ONE_SLOT, Hang()),
    Reason.SHED: Scene(one_hangs_and_one_waits, "queue: {size: 2}", ONE_SLOT, Hang(), "background"),
    Reason.BREAKER_OPEN: Scene(four_fail, AT_ONCE, f"breaker: {BREAKER}", Outage()),
    Reason.DRAINING: Scene(drains),
    Reason.UPSTREAM_FAILED: Scene(nothing, AT_ONCE, NO_BREAKER, Outage()),
    Reason.UPSTREAM_TIMEOUT: Scene(nothing, AT_ONCE, f"{NO_BREAKER}\ntimeouts: {{first_byte: 50ms}}", Hang()),
    Reason.RETRY_BUDGET_SPENT: Scene(
        all_retries_are_spent,
        AT_ONCE,
        "retry_budget: {ratio: 0, floor: 1 per minute}",
        sends=(("x-stainless-retry-count", "1"),),
    ),
}
"""All reasons that a call can meet in this release but `displaced`, which comes to one that waits already."""


@asynccontextmanager
async def refusing(reason: Reason, dialect: str) -> AsyncIterator[Running]:
    """A proxy whose next call to `/{dialect}` with the scene's priority and headers is refused."""
    scene = SCENES[reason]
    behaviour = Behaviour(latency_s=0.0)
    if scene.mode is not None:
        behaviour.mode = scene.mode
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(
            before_demo(behaviour, upstream=scene.upstream, route=scene.route)
        )
        crowd = await stack.enter_async_context(crowded(proxy, dialect))
        await scene.prepare(crowd)
        yield proxy


@asynccontextmanager
async def crowded(proxy: Running, dialect: str) -> AsyncIterator[Crowd]:
    """Other callers, gone at the end."""
    async with httpx.AsyncClient(timeout=30) as client:
        crowd = Crowd(proxy, dialect, client)
        try:
            yield crowd
        finally:
            for task in crowd.tasks:
                task.cancel()
            await asyncio.gather(*crowd.tasks, return_exceptions=True)


def sent_with(reason: Reason) -> dict[str, str]:
    """The headers of the call under test."""
    scene = SCENES[reason]
    return {"x-priority": scene.priority, **dict(scene.sends)}
