"""A crowd of agents that behave as the SDKs do: an open loop of calls, each with up to two told retries."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.kit.raw import CHAT, Raw, Reply, connect, head

PATH = "/openai/v1/chat/completions"
MIX = (("critical", 0.1), ("normal", 0.4), ("background", 0.5))
RETRIES = 2


@dataclass
class Seen:
    """What the agents saw: how their calls ended, and every refusal on the way."""

    ended: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name, _ in MIX})
    refusals: list[Reply] = field(default_factory=list)
    began_at: float = 0.0
    ended_at: float = 0.0


class Crowd:
    """Keeps its connections; each call takes an idle one."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._chance = random.Random(seed)
        self._idle: list[tuple[object, Raw]] = []
        self._over = asyncio.Event()
        self.seen = Seen()

    async def load(self, *, per_s: float, for_s: float) -> Seen:
        """Start `per_s` calls a second, whatever becomes of them, for `for_s` seconds; then let them end.

        Who would have to come back after the end gives up (`left`): nobody presses any more.
        """
        loop = asyncio.get_running_loop()
        seen, names, shares = self.seen, *zip(*MIX, strict=True)
        seen.began_at = loop.time()
        async with asyncio.TaskGroup() as calls:
            for number in range(int(per_s * for_s)):
                due = seen.began_at + number / per_s
                if due > loop.time():
                    await self._wait(due - loop.time())
                (priority,) = self._chance.choices(names, shares)
                calls.create_task(self._agent(priority, number))
            seen.ended_at = loop.time()
            self._over.set()
        return seen

    async def _agent(self, priority: str, number: int) -> None:
        for attempt in range(1 + RETRIES):
            reply = await self._call(priority, number, attempt)
            if reply.status == 200:
                self.seen.ended[priority]["succeeded"] += 1
                return
            self.seen.refusals.append(reply)
            told = reply.headers.get("retry-after-ms")
            if told is None or reply.headers.get("x-should-retry") == "false":
                break
            if attempt < RETRIES and await self._wait(int(told) / 1000):
                self.seen.ended[priority]["left"] += 1
                return
        self.seen.ended[priority]["failed"] += 1

    async def _call(self, priority: str, number: int, attempt: int) -> Reply:
        async with self._connection() as raw:
            await raw.send(
                head(
                    "POST",
                    PATH,
                    content_length=str(len(CHAT)),
                    x_priority=priority,
                    x_caller_id=f"{priority}-{number % 10}",
                    x_run_id=str(number),
                    x_stainless_retry_count=str(attempt),
                )
                + CHAT
            )
            return await raw.reply()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Raw]:
        """An idle connection, or a new one; one that failed is not kept."""
        opened, raw = self._idle.pop() if self._idle else await self._open()
        yield raw
        self._idle.append((opened, raw))

    async def _open(self) -> tuple[object, Raw]:
        opened = connect(self._url)
        return opened, await opened.__aenter__()

    async def _wait(self, seconds: float) -> bool:
        """Let so many seconds pass, or less if the load is over meanwhile: then True."""
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def aclose(self) -> None:
        for opened, _ in self._idle:
            await opened.__aexit__(None, None, None)


@asynccontextmanager
async def crowd_at(url: str, seed: int = 1) -> AsyncIterator[Crowd]:
    """Agents at one proxy; their connections are closed at the end."""
    crowd = Crowd(url, seed)
    try:
        yield crowd
    finally:
        await crowd.aclose()
