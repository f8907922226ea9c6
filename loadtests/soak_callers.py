"""The callers of a soak, in a process of their own: `python -m loadtests.soak_callers PORT LEDGER …`.

Calls arrive as a Poisson stream, blind to how the answers come; some callers stay on their connection and
some bring a new one for each call; some leave midway; who is refused comes back as the openai SDK does. The
ledger says how every attempt ended, as its caller saw it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final, cast

import httptools
import uvloop

from loadtests.agents import NO_ANSWER, arrivals, wait_before_retry
from loadtests.soak_plan import CALLERS, GREEDY_PART, KINDS, PRIORITIES, Kind, Plan, request

ENDINGS: Final = ("good", "refused", "failed", "cut", "left", "broken", "open")
"""`refused` is the proxy's own no; `failed` is the upstream's fault, by its words or the proxy's; `cut` began
to be answered and was broken off. `broken` got no answer at all, and `open` never ended: there must be
none."""

CHURN: Final = 0.3
"""The part of the calls that come on a new connection and close it."""

MOST_KEPT: Final = 64
"""Idle connections that callers keep."""

OPEN_WITHIN_S: Final = 30.0
"""After the last arrival: more than any bound of the configuration. What has not ended then is `open`."""

UPSTREAMS_FAULT: Final = ("upstream_failed", "upstream_timeout")


class Connection(asyncio.Protocol):
    """One connection to the proxy, one exchange at a time."""

    def __init__(self, kept: list[Connection]) -> None:
        self._kept = kept
        self._transport = cast(asyncio.Transport, None)
        self._ended: asyncio.Future[bool] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._closed = asyncio.get_running_loop().create_future()
        self.headers: dict[str, str] = {}
        self.status = NO_ANSWER
        self.begun = asyncio.Event()

    async def exchange(self, head: bytes, body: bytes) -> bool:
        """Send a request and read its answer: is it whole? `status` and `headers` are what came of it."""
        self.headers, self.status, self.begun = {}, NO_ANSWER, asyncio.Event()
        self._parser = httptools.HttpResponseParser(self)
        self._ended = asyncio.get_running_loop().create_future()
        if self._closed.done():
            return False
        self._transport.write(head + body)
        whole = await self._ended
        self._ended = None
        return whole

    async def leave(self) -> None:
        """Disconnect, whatever is under way."""
        self._transport.abort()
        await self._closed

    def is_here(self) -> bool:
        return not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._parser is not None:
            self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()

    def on_body(self, _: bytes) -> None:
        self.begun.set()

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if not self._parser.should_keep_alive():
            self._transport.close()
        self._end(is_whole=True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self in self._kept:
            self._kept.remove(self)
        self._end(is_whole=False)
        if not self._closed.done():
            self._closed.set_result(None)

    def _end(self, *, is_whole: bool) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(is_whole)


class Callers:
    """Offers calls to the port and writes down their ends."""

    def __init__(self, port: int, plan: Plan) -> None:
        self._port = port
        self._plan = plan
        self._chance = Random(plan.seed)
        self._kept: list[Connection] = []
        self._over = asyncio.Event()
        self.calls = 0
        self.offered = 0
        self.endings = {kind.name: Counter[str]() for kind in KINDS}
        self.reasons: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()

    async def run(self) -> None:
        """Offer the plan's load for its time, then wait for what is open."""
        begun_at = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        for at in arrivals(self._plan.rate_per_s, begun_at, self._chance):
            if at >= begun_at + self._plan.seconds:
                break
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            task = asyncio.create_task(self._call())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        self._over.set()  # who waits to come back does not
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=OPEN_WITHIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for connection in list(self._kept):
            await connection.leave()

    def ledger(self) -> dict[str, Any]:
        """What was offered and how it ended, as JSON types."""
        return {
            "calls": self.calls,
            "offered": self.offered,
            "endings": {name: {end: ends[end] for end in ENDINGS} for name, ends in self.endings.items()},
            "reasons": dict(self.reasons.most_common()),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
        }

    async def _call(self) -> None:
        chance = self._chance
        self.calls += 1
        number = self.calls
        kind = chance.choices(KINDS, [kind.part for kind in KINDS])[0]
        caller = 0 if chance.random() < GREEDY_PART else chance.randrange(1, CALLERS)
        priority = chance.choices([*PRIORITIES], [*PRIORITIES.values()])[0]
        for attempt in range(3):
            wait_s = await self._attempt(kind, caller, priority, number, attempt)
            if wait_s is None:
                return
            try:
                await asyncio.wait_for(self._over.wait(), wait_s)
            except TimeoutError:
                continue
            return

    async def _attempt(
        self, kind: Kind, caller: int, priority: str, number: int, attempt: int
    ) -> float | None:
        """One attempt; when to make the next one, if it is worth one."""
        keep = self._chance.random() >= CHURN
        head, body = request(kind, caller, priority, number, attempt, keep=keep)
        connection = await self._connection(keep=keep)
        self.offered += 1
        ending = "open"
        try:
            if kind.leaves:
                ending = await self._leave(connection, kind, head, body)
            else:
                ending = ending_of(connection, is_whole=await connection.exchange(head, body))
        finally:
            self.endings[kind.name][ending] += 1
            if ending not in ("good", "left"):
                self.reasons[connection.headers.get("x-backpressure-reason", "")] += 1
            self.statuses[connection.status] += 1
            is_clean = connection.is_here() and not kind.leaves and ending != "open"
            if keep and is_clean and len(self._kept) < MOST_KEPT:
                self._kept.append(connection)
            else:
                await connection.leave()
        if ending in ("good", "left", "cut"):
            return None
        return wait_before_retry(
            connection.status, connection.headers, attempt, self._chance.random(), time.time()
        )

    async def _leave(self, connection: Connection, kind: Kind, head: bytes, body: bytes) -> str:
        """Begin a call and disconnect, unless it ends before."""
        sent = body[: len(body) // 2] if kind.leaves == "upload" else body
        exchange = asyncio.create_task(connection.exchange(head, sent))
        reached = asyncio.create_task(connection.begun.wait()) if kind.leaves == "answer" else None
        patience_s = None if reached else self._chance.uniform(0, self._plan.latency_s)
        await asyncio.wait(
            [each for each in (exchange, reached) if each],
            timeout=patience_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if reached:
            reached.cancel()
        if exchange.done():
            return ending_of(connection, is_whole=exchange.result())
        await connection.leave()
        await exchange
        return "left"

    async def _connection(self, *, keep: bool) -> Connection:
        while keep and self._kept:
            connection = self._kept.pop()
            if connection.is_here():
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self._kept), "127.0.0.1", self._port)
        return connection


def ending_of(connection: Connection, *, is_whole: bool) -> str:
    """How an attempt ended whose caller stayed."""
    if not is_whole:
        return "cut" if connection.status else "broken"
    reason = connection.headers.get("x-backpressure-reason", "")
    if reason:
        return "failed" if reason in UPSTREAMS_FAULT else "refused"
    return "good" if 200 <= connection.status < 300 else "failed"


async def _offer(port: int, plan: Plan, ledger: Path) -> None:
    callers = Callers(port, plan)
    try:
        await callers.run()
    finally:
        ledger.write_text(json.dumps(callers.ledger()))


def main(arguments: list[str] | None = None) -> int:
    """Offer the load; the ledger is written at the end."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak_callers")
    parser.add_argument("port", type=int)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("plan", help="the plan's fields, as JSON")
    asked = parser.parse_args(arguments)
    uvloop.run(_offer(asked.port, Plan(**json.loads(asked.plan)), asked.ledger))
    return 0


if __name__ == "__main__":
    sys.exit(main())
