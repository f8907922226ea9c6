"""The callers of the overload comparison: when they come, when they come back, and when they give up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from loadtests.agents import Kind
from loadtests.compare_overload.callers import Callers, Record, measure
from loadtests.compare_overload.schedule import Call, Plan
from loadtests.origin import ANSWER

OK = f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n{ANSWER}".encode()
PATIENT = Kind("critical", part=1, patience_s=5.0)


def refusal(*heads: str, status: int = 429) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} No", *heads, "content-length: 0", "", ""]).encode()


@dataclass
class Seen:
    """What the server was asked: when, the call and attempt, and on which connection."""

    port: int = 0
    asked: list[tuple[float, str, int]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    connections: int = 0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.compare_overload.callers.LEAD_S", 0.0)


@asynccontextmanager
async def server(answer: Callable[[Seen], bytes | None]) -> AsyncIterator[Seen]:
    """Answers each request as `answer` says; None: not at all, b"": it ends the connection."""
    seen = Seen()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        own = seen.connections
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
                await reader.readexactly(int(lines["content-length"]))
                seen.asked.append((time.monotonic(), lines["x-call-id"], own))
                said = answer(seen)
                if said == b"":
                    break
                writer.write(said or b"")
        except asyncio.IncompleteReadError:
            seen.lost.append(own)
        finally:
            writer.close()

    serving = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with serving:
        seen.port = serving.sockets[0].getsockname()[1]
        yield seen


def calls(*at_s: float, kind: Kind = PATIENT, is_rude: bool = False) -> list[Call]:
    return [Call(number, each, kind, 0, is_rude, 50) for number, each in enumerate(at_s)]


async def made(seen: Seen, *planned: Call) -> list[Record]:
    callers = Callers(seen.port, "/", planned, seed=1)
    async with asyncio.timeout(10):
        await callers.run()
    await asyncio.sleep(0)
    assert callers.starved == 0
    return sorted(callers.records, key=lambda record: record.number)


async def test_calls_come_when_they_are_due_and_share_kept_connections() -> None:
    async with server(lambda _: OK) as seen:
        records = await made(seen, *calls(0.0, 0.05, 0.1))
    assert [record.end for record in records] == ["good"] * 3
    assert [attempt.status for record in records for attempt in record.attempts] == [200] * 3
    for record in records:
        assert record.attempts[0].sent_at >= record.due_at - 0.002
    waits = [later - before for before, later in pairwise(record.due_at for record in records)]
    assert waits == pytest.approx([0.05, 0.05])
    assert (seen.connections, [call for _, call, _ in seen.asked]) == (1, ["0.0", "1.0", "2.0"])


async def test_an_answer_that_does_not_come_holds_nobody_else_up() -> None:
    impatient = Kind("critical", part=1, patience_s=0.1)
    async with server(lambda seen: None if len(seen.asked) == 1 else OK) as seen:
        first, second = await made(seen, *calls(0.0, 0.01, kind=impatient))
        async with asyncio.timeout(5):
            while seen.lost != [2, 1] and sorted(seen.lost) != [1, 2]:
                await asyncio.sleep(0)
    assert (first.end, second.end) == ("gave_up", "good")
    [given_up], [answered] = first.attempts, second.attempts
    assert given_up.status == 0
    assert given_up.ended_at - first.due_at >= 0.09
    assert answered.ended_at < given_up.ended_at


async def test_the_time_told_is_kept_to_the_millisecond_at_most_twice() -> None:
    told = refusal("retry-after-ms: 40", "Retry-After: 1")
    async with server(lambda _: told) as seen:
        [record] = await made(seen, *calls(0.0))
    assert record.end == "refused"
    assert [(each.status, each.told_s, each.kept_wait) for each in record.attempts] == [
        (429, 0.04, True),
        (429, 0.04, True),
        (429, 0.04, False),
    ]
    assert [call for _, call, _ in seen.asked] == ["0.0", "0.1", "0.2"]
    for before, after in pairwise(at for at, _, _ in seen.asked):
        assert after - before >= 0.039


async def test_without_a_time_told_it_backs_off_and_that_keeps_no_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtests.agents.FIRST_BACK_OFF_S", 0.02)
    async with server(lambda _: refusal(status=503)) as seen:
        [record] = await made(seen, *calls(0.0))
    assert [(each.told_s, each.kept_wait) for each in record.attempts] == [(None, False)] * 3
    waits = [after - before for before, after in pairwise(at for at, _, _ in seen.asked)]
    assert waits[0] >= 0.75 * 0.02 - 0.001
    assert waits[1] >= 0.75 * 0.04 - 0.001


async def test_who_is_told_not_to_come_back_does_not() -> None:
    async with server(lambda _: refusal("x-should-retry: false", "retry-after: 1")) as seen:
        [record] = await made(seen, *calls(0.0))
    assert (record.end, len(record.attempts)) == ("refused", 1)
    assert len(seen.asked) == 1


async def test_a_rude_caller_asks_five_times_more_whatever_it_is_told() -> None:
    told = refusal("retry-after: 30", "x-should-retry: false")
    async with server(lambda _: told) as seen:
        [record] = await made(seen, *calls(0.0, is_rude=True))
    assert record.end == "refused"
    assert [call for _, call, _ in seen.asked] == [f"0.{attempt}" for attempt in range(6)]
    assert not any(attempt.kept_wait for attempt in record.attempts)


async def test_who_would_come_back_after_its_patience_gives_up_at_once() -> None:
    forbearing = Kind("background", part=1, patience_s=60.0)
    async with server(lambda _: refusal("retry-after: 61")) as seen:
        [record] = await made(seen, *calls(0.0, kind=forbearing))
    assert (record.end, len(record.attempts), len(seen.asked)) == ("gave_up", 1, 1)


async def test_a_kept_connection_that_was_closed_meanwhile_is_no_failed_attempt() -> None:
    async with server(lambda seen: OK if seen.asked[-1][2] != 1 or len(seen.asked) == 1 else b"") as seen:
        records = await made(seen, *calls(0.0, 0.03))
    assert [[each.status for each in record.attempts] for record in records] == [[200], [200]]
    assert [(call, connection) for _, call, connection in seen.asked] == [("0.0", 1), ("1.0", 1), ("1.0", 2)]


async def test_a_new_connection_that_ends_without_an_answer_is_a_failed_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtests.agents.FIRST_BACK_OFF_S", 0.01)
    async with server(lambda seen: b"" if len(seen.asked) == 1 else OK) as seen:
        [record] = await made(seen, *calls(0.0))
    assert [each.status for each in record.attempts] == [0, 200]


async def test_what_ends_its_connection_with_the_answer_is_asked_on_another() -> None:
    async with server(lambda _: refusal("connection: close", "retry-after-ms: 1")) as seen:
        await made(seen, *calls(0.0))
    assert [connection for _, _, connection in seen.asked] == [1, 2, 3]


async def test_a_connection_that_nothing_is_left_for_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError("no port is left")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
    callers = Callers(1, "/", calls(0.0, is_rude=True), seed=1)
    await callers.run()
    assert callers.starved == 6


async def test_a_run_tells_what_became_of_every_planned_call() -> None:
    plan = Plan(slots=1, service_s=0.01, factor=0.5, warm_up_s=0.05, seconds=0.1, seed=3)
    async with server(lambda _: OK) as seen:
        found = await measure(seen.port, "/", plan)
        await asyncio.sleep(0)
    assert found["records"]
    assert {record["end"] for record in found["records"]} == {"good"}
    assert found["starved"] == 0
