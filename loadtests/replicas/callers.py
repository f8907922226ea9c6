"""The callers of all replicas, in one process: an open loop of Poisson arrivals at each of them.

    python -m loadtests.replicas.callers PLAN.json RECORDS.json

The plan is {"begin_at", "seed", "retries", "roams", "chat", "streams"}, of which each stream is [replica,
port, per_s, from_s, to_s]. Callers return as SDKs do, at the time told, while there is load; to the next
replica where the plan `roams`. With `retries` above 0 they are rude: whatever is refused or fails comes
again at once, so many times; with -1 nobody returns. With `chat` calls ask a model, as those of
`loadtests.agents` do, in the names of AGENTS callers. A record is [replica, number, attempt, due_at,
sent_at, ended_at, status, reason, told_s]; status 0: no answer, -1: none in time; told_s: after how long to
return, or None.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Iterator, Mapping
from heapq import merge
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import uvloop

from loadtests.agents import Kind, request, told_wait_s, wait_before_retry
from loadtests.compare_overload.callers import Pool

HUNG: Final = -1
HUNG_S: Final = 15.0
"""Longer than any queue lets a call wait."""
LENGTHS: Final = 211
"""Prompts are of as many lengths as that."""
REASON: Final = "x-backpressure-reason"
AGENTS: Final = 10
AGENT: Final = Kind("normal", part=100, patience_s=600.0)
"""The SDK's own time limit."""

Stream = tuple[int, int, float, float, float]
Arrival = tuple[float, int, int, int]
"""When it is due, the replica, its port, the call's number."""


def arrivals(stream: Stream, number: int, seed: int) -> Iterator[Arrival]:
    """One stream's calls, in seconds from the beginning."""
    replica, port, per_s, from_s, to_s = stream
    chance = Random(f"{seed}/{number}")
    at_s, call = from_s, number * 1_000_000
    while per_s > 0.0 and (at_s := at_s + chance.expovariate(per_s)) < to_s:
        yield at_s, replica, port, call
        call += 1


class Callers:
    """Makes every call when it is due, however the others fare."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._begin_at = float(plan["begin_at"])
        self._retries = int(plan["retries"])
        self._chat = bool(plan["chat"])
        self._ends_at = self._begin_at + max(float(one[4]) for one in plan["streams"])
        self._chance = Random(f"{plan['seed']}/back-off")
        ports = sorted({int(one[1]) for one in plan["streams"]})
        self._next = dict(zip(ports, ports[1:] + ports[:1], strict=True)) if plan["roams"] else {}
        self._streams = [arrivals(one, number, plan["seed"]) for number, one in enumerate(plan["streams"])]
        self._pools: dict[int, Pool] = {}
        self.records: list[list[Any]] = []

    async def run(self) -> None:
        """Return when all have ended."""
        async with asyncio.TaskGroup() as group:
            for at_s, replica, port, call in merge(*self._streams):
                due_at = self._begin_at + at_s
                if (ahead_s := due_at - time.monotonic()) > 0:
                    await asyncio.sleep(ahead_s)
                group.create_task(self._make(due_at, replica, port, call))
        for pool in self._pools.values():
            pool.close()

    async def _make(self, due_at: float, replica: int, port: int, call: int) -> None:
        for attempt in count():
            pool = self._pools.setdefault(port, Pool(port))
            asked = _request(port, replica, call, attempt, chat=self._chat)
            sent_at = time.monotonic()
            status, headers = HUNG, dict[str, str]()
            try:
                async with asyncio.timeout(HUNG_S):
                    status, headers = await pool.ask(asked)
            except TimeoutError:
                pass
            ended_at = time.monotonic()
            told_s = told_wait_s(headers, time.time())
            told = [sent_at, ended_at, status, headers.get(REASON, ""), told_s]
            self.records.append([replica, call, attempt, due_at, *told])
            wait_s = None if 200 <= status < 300 else self._wait_s(attempt, status, headers)
            if wait_s is None or ended_at + wait_s >= self._ends_at:
                return
            if wait_s:
                await asyncio.sleep(wait_s)
            port = self._next.get(port, port)

    def _wait_s(self, attempt: int, status: int, headers: Mapping[str, str]) -> float | None:
        if self._retries:
            return 0.0 if attempt < self._retries else None
        return wait_before_retry(status, headers, attempt, self._chance.random(), time.time())


def _request(port: int, replica: int, call: int, attempt: int, *, chat: bool) -> bytes:
    """All attempts of a call have one body, and no two calls have; few have one length."""
    path, body = "/call", b'{"call":%d,"words":"%s"}' % (call, b"word " * (call % LENGTHS))
    headers = {"content-type": "application/json", "x-stainless-retry-count": str(attempt)}
    if chat:
        path = "/v1/chat/completions"
        headers, body = request(AGENT, f"agent-{call % AGENTS}", call, attempt)
    headers |= {"content-length": str(len(body)), "x-call-id": f"{replica}.{call}.{attempt}"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{lines}\r\n".encode() + body


async def measure(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The records, and how busy the generator was."""
    callers = Callers(plan)
    own_before_s, begun_at = time.process_time(), time.monotonic()
    await callers.run()
    busy = (time.process_time() - own_before_s) / (time.monotonic() - begun_at)
    return {"busy": busy, "records": callers.records}


if __name__ == "__main__":
    gc.disable()  # the run is short, and a collection stops every arrival
    found = uvloop.run(measure(json.loads(Path(sys.argv[1]).read_text())))
    Path(sys.argv[2]).write_text(json.dumps(found))
