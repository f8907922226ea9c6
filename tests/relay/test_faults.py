"""Faults of an upstream: 502 or 504 with a reason, in the stated time, and its connection is not used again.

One time limit of each case is short; all others are longer than any wait of a test.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.kit.bench import GET, POST, Bench, Got, bench_with, closing, everything, yaml_of
from tests.kit.ports import dead_port, stuck_port
from tests.kit.raw import connect
from tests.kit.running import Running, running
from tests.kit.scripted import OK, Peer, Scripted, answering, silent
from tests.kit.waiting import bounded, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("faults")]

HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def timeouts(**short: str) -> str:
    """All of them long, but for these."""
    spans = {"connect": "60s", "first_byte": "60s", "idle": "60s"} | short
    return "timeouts: {" + ", ".join(f"{name}: {span}" for name, span in spans.items()) + "}"


async def ask(proxy: Running, request: bytes = POST) -> Got:
    async with connect(proxy.url) as raw:
        await raw.send(closing(request))
        return await everything(raw)


def detail(proxy: Running) -> str:
    """What the log says of the last call."""
    return str(next(line for line in reversed(proxy.lines()) if "detail" in line)["detail"])


def assert_told(got: Got, status: int, reason: str) -> None:
    """The caller knows what happened, and when to come again."""
    assert (got.status, got.reason, got.whole) == (status, reason, True)
    assert reason.encode() in got.body


# ── no connection ───────────────────────────────────────────────────────────────────────────────────


async def test_nobody_listens():
    async with running(yaml_of(f"http://127.0.0.1:{dead_port()}", upstream=timeouts())) as proxy:
        assert_told(await ask(proxy), 502, "upstream_failed")
        assert detail(proxy) == "connection refused"


async def test_a_name_that_does_not_resolve():
    async with running(yaml_of("http://no-such-host.invalid", upstream=timeouts())) as proxy:
        got = await ask(proxy)
        assert_told(got, 502, "upstream_failed")
        assert b"no-such-host" not in got.raw
        assert detail(proxy) == "name not resolved"


async def test_a_connection_that_does_not_open():
    with stuck_port() as port:
        yaml = yaml_of(f"http://127.0.0.1:{port}", upstream=timeouts(connect="50ms"))
        async with running(yaml) as proxy:
            assert_told(await ask(proxy), 504, "upstream_timeout")
            assert detail(proxy) == "no connection within 0.05s"


@pytest.mark.parametrize("dead", ["refused", "mute", "refused and mute"])
async def test_a_dead_address_among_several(dead: str, monkeypatch: pytest.MonkeyPatch):
    """The others are tried: at once after a refusal, a quarter of a second after silence (RFC 8305)."""
    with stuck_port() as stuck:
        async with Scripted(answering(OK)) as upstream:
            ports = {"refused": [dead_port()], "mute": [stuck]}.get(dead, [dead_port(), stuck])
            found = [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
                for port in [*ports, upstream.port]
            ]

            async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
                return found

            async with running(yaml_of("http://several.test", upstream=timeouts())) as proxy:
                _resolve_with(monkeypatch, getaddrinfo)
                got = await ask(proxy)
            assert (got.status, got.body, len(upstream.requests)) == (200, b"ok", 1)


async def test_all_addresses_are_dead(monkeypatch: pytest.MonkeyPatch):
    ports = [dead_port(), dead_port()]

    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    async with running(yaml_of("http://several.test", upstream=timeouts())) as proxy:
        _resolve_with(monkeypatch, getaddrinfo)
        assert_told(await ask(proxy), 502, "upstream_failed")


def _resolve_with(monkeypatch: pytest.MonkeyPatch, getaddrinfo: Any) -> None:
    """For the rest of the test names mean this."""

    class Loop:
        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self._loop = loop
            self.getaddrinfo = getaddrinfo

        def __getattr__(self, name: str) -> Any:
            return getattr(self._loop, name)

    from proxy.upstream import dial

    class Asyncio:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        def get_running_loop(self) -> Any:
            return Loop(asyncio.get_running_loop())

    monkeypatch.setattr(dial, "asyncio", Asyncio())


# ── no answer in time ───────────────────────────────────────────────────────────────────────────────


async def half_a_head(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nx-slow: ")
    await peer.left()


async def continues(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await peer.left()


async def takes_nothing(peer: Peer) -> None:
    await peer.head()
    peer.writer.transport.pause_reading()
    await asyncio.Event().wait()


UNANSWERED = {
    "no_answer": (silent, POST, timeouts(first_byte="50ms"), "no answer within 0.05s"),
    "half_a_head": (half_a_head, POST, timeouts(first_byte="50ms"), "no answer within 0.05s"),
    "only_a_continue": (continues, POST, timeouts(first_byte="50ms"), "no answer within 0.05s"),
    "total_without_a_head": (
        silent,
        POST,
        timeouts(total="50ms"),
        "no answer before the time for the whole call",
    ),
    "total_in_half_a_head": (
        half_a_head,
        GET,
        timeouts(total="50ms"),
        "no answer before the time for the whole call",
    ),
    "total_below_first_byte": (
        silent,
        POST,
        timeouts(first_byte="20s", total="50ms"),
        "no answer before the time for the whole call",
    ),
    "first_byte_below_total": (
        silent,
        POST,
        timeouts(first_byte="50ms", total="20s"),
        "no answer within 0.05s",
    ),
    "callers_deadline": (
        silent,
        POST.replace(b"\r\n\r\n", b"\r\nx-deadline-ms: 50\r\n\r\n"),
        timeouts(),
        None,
    ),
    "callers_deadline_below_total": (
        silent,
        POST.replace(b"\r\n\r\n", b"\r\nx-deadline-ms: 50\r\n\r\n"),
        timeouts(total="20s"),
        None,
    ),
}


@pytest.mark.parametrize("case", UNANSWERED)
async def test_no_answer_in_time(case: str):
    script, request, spans, why = UNANSWERED[case]
    async with bench_with(upstream=spans) as bench:
        bench.play(script)
        got = await bench.ask(closing(request))
        assert_told(got, 504, "upstream_timeout")
        if why is None:
            assert not bench.proxy.lines()  # the caller's own choice says nothing about the upstream
        else:
            assert detail(bench.proxy).startswith(why)
        await until(lambda: bench.in_flight == 0)
        assert (bench.kept, len(bench.heard)) == (0, 1)
        await bench.serves()


async def test_an_upstream_that_takes_no_more_of_the_request():
    async with bench_with(upstream=timeouts(idle="100ms")) as bench:
        bench.play(takes_nothing)
        async with bench.connect() as raw:
            size = 60_000_000
            await raw.send(b"POST /x HTTP/1.1\r\nhost: proxy\r\ncontent-length: %d\r\n\r\n" % size)
            sending = asyncio.create_task(raw.send(b"x" * size))
            reply = await raw.reply()
            assert (reply.status, reply.headers["x-backpressure-reason"]) == (504, "upstream_timeout")
            assert detail(bench.proxy) == "no more of the request taken within 0.1s"
            sending.cancel()
        assert bench.kept == 0


async def test_a_connection_that_does_not_open_before_the_total_is_over():
    with stuck_port() as port:
        async with running(yaml_of(f"http://127.0.0.1:{port}", upstream=timeouts(total="50ms"))) as proxy:
            assert_told(await ask(proxy), 504, "upstream_timeout")
            assert detail(proxy) == "no connection before the time for the whole call was over"


async def test_a_connection_that_does_not_open_before_the_callers_deadline():
    request = POST.replace(b"\r\n\r\n", b"\r\nx-deadline-ms: 50\r\n\r\n")
    with stuck_port() as port:
        async with running(yaml_of(f"http://127.0.0.1:{port}", upstream=timeouts())) as proxy:
            assert_told(await ask(proxy, request), 504, "upstream_timeout")


# ── an answer that does not go on ───────────────────────────────────────────────────────────────────

STALLED = {
    "length": (HALF, b"half"),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"half"),
    "until_the_end": (b"HTTP/1.1 200 OK\r\n\r\nhalf", b"half"),
    "no_body_yet": (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", b""),
    "amid_an_event": (STREAM + b"6\r\ndata: \r\n", b"data: "),
}


@pytest.mark.parametrize("short", ["idle", "total"])
@pytest.mark.parametrize("case", STALLED)
async def test_an_answer_that_stops_is_cut(case: str, short: str):
    answer, body = STALLED[case]
    async with bench_with(upstream=timeouts(**{short: "50ms"})) as bench:
        got = await bench.gets(answer, then="wait")
        assert (got.status, got.content, got.whole) == (200, body, False)
        why = "within 0.05s" if short == "idle" else "before the time for the whole call was over"
        assert detail(bench.proxy) == f"cut after {len(body)} bytes: no more of the answer {why}"
        await bench.serves()


async def test_the_total_cuts_a_stream_that_goes_on():
    """Events keep coming, so that nothing is idle: only the total ends it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        while True:
            await peer.send(b"9\r\ndata: 1\n\n\r\n")
            await heard.wait()
            heard.clear()

    heard = asyncio.Event()
    async with bench_with(upstream=timeouts(total="100ms")) as bench:
        bench.play(script)
        async with bench.connect() as raw:
            await raw.send(GET)
            got = b""
            while piece := await _more(raw.reader):
                got += piece
                heard.set()
        assert got.count(b"data: 1\n\n") >= 2
        assert "before the time for the whole call was over" in detail(bench.proxy)
        await until(lambda: bench.in_flight == 0)
        assert bench.kept == 0


async def _more(reader: asyncio.StreamReader) -> bytes:
    try:
        return await bounded(reader.read(65536))
    except ConnectionError:
        return b""


async def test_the_total_spares_an_answer_that_is_complete_and_the_next_call_has_its_own():
    """The time of the first call is over while the second runs on the same connection."""
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await release.wait()
        await peer.send(OK)
        await peer.left()

    async with bench_with(upstream=timeouts(total="2s")) as bench:
        bench.play(script)
        async with bench.connect() as raw:
            await raw.send(GET)
            assert (await raw.reply()).status == 200
            await raw.send(GET)
            await until(lambda: len(bench.heard) == 2)
            [upstream] = bench.proxy.proxy._upstreams.values()
            [connection] = upstream.pool.connections
            assert connection._patience.deadline > asyncio.get_running_loop().time() + 1.0
            release.set()
            assert (await raw.reply()).status == 200
        assert bench.upstream.connections == 1


@pytest.mark.parametrize("short", ["idle", "total"])
async def test_a_caller_that_takes_no_more_is_cut_and_is_not_the_upstreams_fault(short: str):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                await peer.send(b"100000\r\n%b\r\n" % (b"x" * 0x100000))
        except ConnectionError:
            closed.set()

    closed = asyncio.Event()
    spans = timeouts(**{short: "200ms"})
    async with bench_with(upstream=spans, breaker="{minimum_calls: 1, failure_ratio: 0.1}") as bench:
        bench.play(script)
        async with bench.connect() as raw:
            raw.writer.transport.pause_reading()
            await raw.send(GET)
            await bounded(closed.wait())
        await until(lambda: bench.in_flight == 0)
        assert [each.phase for each in bench.proxy.proxy.state().breakers] == ["closed"]


async def test_the_callers_deadline_spares_an_answer_that_has_begun(bench: Bench):
    """It says when the answer must begin; `total` is what cuts one that lasts."""
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HALF)
        await go_on.wait()
        await peer.send(b"x" * 96)
        await peer.left()

    bench.play(script)
    async with bench.connect() as raw, bench.connect() as other:
        await raw.send(closing(GET).replace(b"\r\n\r\n", b"\r\nx-deadline-ms: 500\r\n\r\n"))
        seen = await bounded(raw.reader.readuntil(b"half"))
        # Another call's deadline, later than the first one's, passes meanwhile.
        await other.send(closing(GET).replace(b"\r\n\r\n", b"\r\nx-deadline-ms: 600\r\n\r\n"))
        bench.script = silent
        await everything(other)
        go_on.set()
        got = await everything(raw)
    got.raw = seen + got.raw
    assert (got.status, got.whole) == (200, True)


async def test_the_proxy_is_well_after_all_this(bench: Bench):
    await bench.serves()
