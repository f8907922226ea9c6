"""The callers of one run, in a process of their own: open loop, kept connections, retries as SDKs make them.

    python -m loadtests.compare_overload.callers PORT PATH PLAN.json RECORDS.json

Their rules are those of `loadtests.agents`. A caller that gives up closes its connection.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final, cast

import httptools
import uvloop

from loadtests.agents import NO_ANSWER, told_wait_s, wait_before_retry
from loadtests.compare_overload.schedule import RUDE_RETRIES, Call, Plan, calls

LEAD_S: Final = 0.2
"""Between the start of the loop and the first call that may be due."""
READ: Final = frozenset({b"retry-after", b"retry-after-ms", b"x-should-retry", b"x-backpressure-reason"})
Answer = tuple[int, dict[str, str]]


@dataclass(slots=True)
class Attempt:
    """One request. Monotonic seconds; `status` is 0 without an answer; `told_s`: the wait it was told.

    `kept_wait`: the caller waited exactly that long and then came back.
    """

    sent_at: float
    status: int = NO_ANSWER
    ended_at: float = 0.0
    told_s: float | None = None
    kept_wait: bool = False


@dataclass(slots=True)
class Record:
    """What became of one call: `good`, `refused` (the last answer was none), or `gave_up` at its deadline."""

    number: int
    due_at: float
    end: str = "gave_up"
    attempts: list[Attempt] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: dict[str, str] = {}
        self.has_begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without the base class.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    async def ask(self, request: bytes) -> Answer:
        """ConnectionError when the connection ends before the answer does. Cancelled: the connection ends."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._headers, self.has_begun = {}, False
        self._transport.write(request)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.cancelled():  # else it was answered in this very turn, and is free for others again
                self.leave()
            raise

    def leave(self) -> None:
        """End the connection, whatever is under way on it."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.has_begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if (lower := name.lower()) in READ:
            self._headers[lower.decode()] = value.decode("latin-1")

    def on_message_complete(self) -> None:
        if self._parser.should_keep_alive():
            self._pool.idle[self] = None
        else:
            self._transport.close()
        if self._answer and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), self._headers))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._pool.idle.pop(self, None)
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())


class Pool:
    """Connections to one port; the one used last is used next. `starved` counts those we had no room for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.idle: dict[Connection, None] = {}
        self.starved = 0

    async def ask(self, request: bytes) -> Answer:
        """The answer's status, and those of its headers that callers read. Status 0: there was none.

        A kept connection that ends without a byte was closed while the request was on its way: it is sent
        again, as every HTTP client does.
        """
        while True:
            is_kept = bool(self.idle)
            connection = self.idle.popitem()[0] if is_kept else await self._connect()
            if connection is None:
                return NO_ANSWER, {}
            try:
                return await connection.ask(request)
            except ConnectionError:
                if connection.has_begun or not is_kept:
                    return NO_ANSWER, {}

    def close(self) -> None:
        """End the connections that nobody uses."""
        for connection in self.idle:
            connection.leave()

    async def _connect(self) -> Connection | None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        except ConnectionError:
            return None
        except OSError:  # no port or no file is left to us: that proves nothing about the proxy
            self.starved += 1
            return None
        return connection


class Callers:
    """All callers of one plan, and what became of their calls."""

    def __init__(self, port: int, path: str, planned: Iterable[Call], seed: int) -> None:
        self._port = port
        self._path = path
        self._calls = list(planned)
        self._pool = Pool(port)
        self._chance = Random(f"{seed}/back-off")
        self.records: list[Record] = []
        self.begun_at = 0.0

    @property
    def starved(self) -> int:
        return self._pool.starved

    async def run(self) -> None:
        """Start every call when it is due, however the others fare; return when all have ended."""
        self.begun_at = time.monotonic() + LEAD_S
        async with asyncio.TaskGroup() as group:
            for call in self._calls:
                due_at = self.begun_at + call.at_s
                if (ahead_s := due_at - time.monotonic()) > 0:
                    await asyncio.sleep(ahead_s)
                group.create_task(self._make(call, due_at))
        self._pool.close()

    async def _make(self, call: Call, due_at: float) -> None:
        record = Record(call.number, due_at)
        self.records.append(record)
        give_up_at = due_at + call.kind.patience_s
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + give_up_at - time.monotonic()):
                await self._attempt_until_final(call, record, give_up_at)
        except TimeoutError:
            if record.attempts and not record.attempts[-1].ended_at:
                record.attempts[-1].ended_at = time.monotonic()

    async def _attempt_until_final(self, call: Call, record: Record, give_up_at: float) -> None:
        for number in count():
            attempt = Attempt(time.monotonic())
            record.attempts.append(attempt)
            request = call.request(self._port, self._path, number)
            attempt.status, headers = await self._pool.ask(request)
            attempt.ended_at = time.monotonic()
            if 200 <= attempt.status < 300:
                record.end = "good"
                return
            attempt.told_s = told_wait_s(headers, time.time())
            wait_s = self._wait_s(call, number, attempt.status, headers)
            if wait_s is None:
                record.end = "refused"
                return
            if time.monotonic() + wait_s >= give_up_at:
                return
            if wait_s:
                await asyncio.sleep(wait_s)
                attempt.kept_wait = wait_s == attempt.told_s

    def _wait_s(self, call: Call, number: int, status: int, headers: Mapping[str, str]) -> float | None:
        if call.is_rude:
            is_refusal = status in {NO_ANSWER, 429} or status >= 500
            return 0.0 if is_refusal and number < RUDE_RETRIES else None
        return wait_before_retry(status, headers, number, self._chance.random(), time.time())


async def measure(port: int, path: str, plan: Plan) -> dict[str, Any]:
    """When it began, the calls' records, and what the generator itself was short of."""
    callers = Callers(port, path, calls(plan), plan.seed)
    own_before_s = time.process_time()
    await callers.run()
    own_s = time.process_time() - own_before_s
    return {
        "begun_at": callers.begun_at,
        "busy": own_s / (time.monotonic() - callers.begun_at),
        "starved": callers.starved,
        "records": [asdict(record) for record in callers.records],
    }


if __name__ == "__main__":
    gc.disable()  # the run is short, and a collection stops every arrival
    asked = Plan(**json.loads(Path(sys.argv[3]).read_text()))
    found = uvloop.run(measure(int(sys.argv[1]), sys.argv[2], asked))
    Path(sys.argv[4]).write_text(json.dumps(found))
