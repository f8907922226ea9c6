"""Streaming both ways: each event at once, no faster than the other takes it, for nobody who has left."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.listener import CallerConnection
from proxy.upstream.connection import Connection
from tests.kit.bench import GET, Bench, bench_with, closing, everything, yaml_of
from tests.kit.ports import stuck_port
from tests.kit.process import started, written
from tests.kit.raw import Raw, connect
from tests.kit.running import running
from tests.kit.scripted import OK, Peer, Scripted
from tests.kit.waiting import bounded, settled, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("streaming")]

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = EVENTS + b"transfer-encoding: chunked\r\n\r\n"
MIB = 1 << 20
LINGER_NOT = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


# ── at once ─────────────────────────────────────────────────────────────────────────────────────────

FRAMINGS = {
    "chunks": (CHUNKED, chunk, b"0\r\n\r\n"),
    "until_the_end": (EVENTS + b"\r\n", bytes, b""),
    "length": (EVENTS + b"content-length: 90\r\n\r\n", bytes, b""),
}


@pytest.mark.parametrize("caller", [b"HTTP/1.1", b"HTTP/1.0"], ids=["http_1_1", "http_1_0"])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_an_event_reaches_the_caller_before_the_next_is_sent(bench: Bench, framing: str, caller: bytes):
    """The upstream sends an event only when the caller has the one before it: nothing waits for anything."""
    head, frame, end = FRAMINGS[framing]
    wanted = asyncio.Queue[bytes]()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        while event := await wanted.get():
            await peer.send(frame(event))
        await peer.send(end)

    bench.play(script)
    async with bench.connect() as raw:
        await raw.send(closing(GET).replace(b"HTTP/1.1", caller))
        answer = await bounded(raw.reader.readuntil(b"\r\n\r\n"))
        assert answer.startswith(b"HTTP/1.1 200 OK")  # the head too comes before there is an event
        for number in range(10):
            event = b"data: %d\n\n" % number
            wanted.put_nowait(event)
            assert (await bounded(raw.reader.readuntil(event))).endswith(event)
        wanted.put_nowait(b"")
        await everything(raw)


class Overheard:
    """A caller's transport; `notice` is called when its `method` is."""

    def __init__(self, transport: Any, method: str, notice: Callable[[], None]) -> None:
        self._transport = transport
        self._method = method
        self._notice = notice

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._transport, name)
        if name != self._method:
            return found

        def noticed(*arguments: Any) -> Any:
            self._notice()
            return found(*arguments)

        return noticed


def overhear(monkeypatch: pytest.MonkeyPatch, method: str, notice: Callable[[], None]) -> None:
    """Notice a call of every caller's transport. (Compiled code passes by what replaces a method of ours.)"""
    made = CallerConnection.connection_made

    def connection_made(self: CallerConnection, transport: asyncio.BaseTransport) -> None:
        made(self, cast("asyncio.BaseTransport", Overheard(transport, method, notice)))

    monkeypatch.setattr(CallerConnection, "connection_made", connection_made)


@pytest.mark.parametrize("size", [1, 100, 20_000])
async def test_an_event_leaves_in_the_turn_after_the_one_it_came_in(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int
):
    """Counted in turns of the loop, with the real sockets: the turn it is read in, and the next at most."""
    loop, turn = asyncio.get_running_loop(), 0
    came: list[int] = []
    left: list[int] = []
    receive = Connection.data_received

    def count() -> None:
        nonlocal turn, counting
        turn += 1
        counting = loop.call_soon(count)

    def receiving(self: Connection, data: bytes) -> None:
        came.append(turn)
        receive(self, data)

    monkeypatch.setattr(Connection, "data_received", receiving)
    overhear(monkeypatch, "write", lambda: left.append(turn))
    wanted = asyncio.Queue[bytes]()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        while event := await wanted.get():
            await peer.send(chunk(event))

    bench.play(script)
    async with bench.connect() as raw:
        await raw.send(GET)
        await bounded(raw.reader.readuntil(b"\r\n\r\n"))
        counting = loop.call_soon(count)
        for _ in range(20):
            came.clear()
            left.clear()
            event = b"data: %b\n\n" % (b"x" * size)
            wanted.put_nowait(event)
            await bounded(raw.reader.readuntil(event))
            assert len(left) == len(came) == 1  # one read, one write
            assert left[0] - came[0] <= 1
        counting.cancel()


async def test_events_that_came_together_leave_together(bench: Bench):
    events = b"".join(b"data: %d\n\n" % number for number in range(100))
    got = await bench.gets(CHUNKED + b"".join(chunk(each) for each in events.split(b"\n\n")) + b"0\r\n\r\n")
    assert got.content == events.replace(b"\n\n", b"")
    assert got.body.count(b"\r\n") <= 6  # they are one chunk now, or a few: never more than there were


async def test_a_body_reaches_the_upstream_piece_by_piece(bench: Bench):
    """A piece is sent only when the upstream has the one before it."""
    heard = asyncio.Queue[bytes]()

    async def script(peer: Peer) -> None:
        await peer.head()
        for _ in range(10):
            size = int(await peer.reader.readuntil(b"\r\n"), 16)
            heard.put_nowait((await peer.read(size + 2))[:-2])
        await peer.reader.readuntil(b"0\r\n\r\n")
        await peer.send(OK)

    bench.play(script)
    async with bench.connect() as raw:
        await raw.send(b"POST /x HTTP/1.1\r\nhost: proxy\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(10):
            await raw.send(chunk(b"piece %d" % number))
            assert await bounded(heard.get()) == b"piece %d" % number
        await raw.send(b"0\r\n\r\n")
        assert (await raw.reply()).status == 200


# ── no faster than the other side takes it ──────────────────────────────────────────────────────────

KERNEL = 12 * MIB
"""What the kernel's two buffers of a connection over loopback may hold, with room to spare."""


@pytest.mark.parametrize("stream_buffer", ["16KiB", "64KiB", "2MiB"])
async def test_a_slow_caller_stops_the_reading_of_the_upstream(stream_buffer: str):
    size = 60 * MIB
    async with bench_with(upstream=f"stream_buffer: {stream_buffer}") as bench:

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            await peer.send(b"x" * size)
            await peer.left()

        bench.play(script)
        async with bench.connect() as raw:
            raw.writer.transport.pause_reading()
            await raw.send(GET)
            [upstream] = bench.proxy.proxy._upstreams.values()
            await until(lambda: upstream.pool.in_use)
            [connection] = upstream.pool.connections
            await until(lambda: connection.read_paused)
            read = await settled(lambda: connection.bytes_in)
            held = connection.bytes_in - connection.bytes_out
            most = connection._most_buffered
            assert connection.read_paused
            assert most <= held <= most + 256 * 1024  # one read more than is allowed
            assert read < KERNEL + 2 * most
            raw.writer.transport.resume_reading()
            got = len(await bounded(raw.reader.readuntil(b"\r\n\r\n")))
            assert got
            left = size
            while left:
                left -= len(await bounded(raw.reader.read(MIB)))


async def test_a_slow_upstream_stops_the_reading_of_the_caller():
    size = 60 * MIB
    async with bench_with(upstream="stream_buffer: 16KiB") as bench:
        go_on = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.head()
            peer.writer.transport.pause_reading()
            await go_on.wait()
            peer.writer.transport.resume_reading()
            await peer.read(size)
            await peer.send(OK)

        bench.play(script)
        async with bench.connect() as raw:
            sent = 0

            async def send() -> None:
                nonlocal sent
                await raw.send(b"POST /x HTTP/1.1\r\nhost: proxy\r\ncontent-length: %d\r\n\r\n" % size)
                for _ in range(size // MIB):
                    await raw.send(b"x" * MIB)
                    sent += MIB

            sending = asyncio.create_task(send())
            await until(lambda: bench.heard)
            assert (
                await settled(lambda: sent) < 2 * KERNEL + 2 * MIB
            )  # two connections' kernel buffers and ours
            assert not sending.done()
            go_on.set()
            await bounded(sending)
            assert (await raw.reply()).status == 200


# ── flat memory ─────────────────────────────────────────────────────────────────────────────────────

LARGE = 100 * MIB
MOST_GROWTH = 20 * MIB


def memory_of(pid: int, what: str) -> int:
    """`VmRSS` or its peak so far, `VmHWM`, in bytes."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@asynccontextmanager
async def child_before(url: str, folder: Path) -> AsyncIterator[tuple[str, int]]:
    """The proxy as a process of its own: its URL, and its id."""
    async with started("serve", str(written(folder, yaml_of(url)))) as process:
        line = await process.until("started")
        yield f"http://{line['listen']}", process._process.pid


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
async def test_100_megabytes_each_way_with_flat_memory(tmp_path: Path, framing: str):
    piece = bytes(range(256)) * 4096  # 1 MiB
    taken = 0

    async def upload(raw: Raw) -> None:
        fields = b"content-length: %d" % LARGE if framing == "length" else b"transfer-encoding: chunked"
        await raw.send(b"POST /x HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n%b\r\n\r\n" % fields)
        for _ in range(LARGE // MIB):
            await raw.send(piece if framing == "length" else chunk(piece))
        if framing == "chunks":
            await raw.send(b"0\r\n\r\n")

    async def script(peer: Peer) -> None:
        nonlocal taken
        await peer.head()
        while taken < LARGE:
            taken += len(await peer.read(MIB)) if framing == "length" else len(await _chunk_of(peer))
        if framing == "chunks":
            await peer.reader.readuntil(b"0\r\n\r\n")
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE if framing == "length" else CHUNKED
        )
        for _ in range(LARGE // MIB):
            await peer.send(piece if framing == "length" else chunk(piece))
        if framing == "chunks":
            await peer.send(b"0\r\n\r\n")
        await peer.left()

    async with Scripted(script) as upstream, child_before(upstream.url, tmp_path) as (url, pid):
        before = memory_of(pid, "VmRSS")
        async with connect(url) as raw:
            await upload(raw)
            await bounded(raw.reader.readuntil(b"\r\n\r\n"))
            came = 0
            while read := await bounded(raw.reader.read(MIB)):
                came += len(read)
        grown = memory_of(pid, "VmHWM") - before
    assert taken == LARGE
    assert came >= LARGE
    assert grown < MOST_GROWTH


async def _chunk_of(peer: Peer) -> bytes:
    size = int(await bounded(peer.reader.readuntil(b"\r\n")), 16)
    return (await peer.read(size + 2))[:-2]


# ── a caller that has left ──────────────────────────────────────────────────────────────────────────
# All time limits are longer than any wait of a test: what ends within it was ended by the disconnect.

LONG = "timeouts: {connect: 60s, first_byte: 60s, idle: 60s}"
PART = b"POST /x HTTP/1.1\r\nhost: proxy\r\ncontent-length: 1000\r\n\r\npart"


class Phases:
    """Upstream scripts, each of which stays in one phase until the connection ends; then `closed` is set."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def sending_body(self, peer: Peer) -> None:
        await peer.head()
        await self._until_closed(peer)

    async def awaiting_head(self, peer: Peer) -> None:
        await peer.request()
        await self._until_closed(peer)

    async def half_a_head(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nx-")
        await self._until_closed(peer)

    async def after_continue(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self._until_closed(peer)

    async def head_only(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await self._until_closed(peer)

    async def amid_the_answer(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + chunk(b"data: 1\n\n"))
        await self._until_closed(peer)

    async def amid_an_event(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"100\r\ndata: ")
        await self._until_closed(peer)

    async def an_early_answer(self, peer: Peer) -> None:
        await peer.head()
        await peer.send(CHUNKED + chunk(b"data: 1\n\n"))
        await self._until_closed(peer)

    async def _until_closed(self, peer: Peer) -> None:
        await peer.left()
        self.closed.set()


ANSWERED = {
    "sending_body": PART,
    "awaiting_head": GET,
    "half_a_head": GET,
    "after_continue": GET,
    "head_only": GET,
    "amid_the_answer": GET,
    "amid_an_event": GET,
    "an_early_answer": PART,
}


@pytest.mark.parametrize("how", ["reset", "close", "half_close"])
@pytest.mark.parametrize("phase", ANSWERED)
async def test_the_upstream_of_a_caller_that_left_is_closed(bench: Bench, phase: str, how: str):
    """Half-closed is left too: nginx does so with `proxy_ignore_client_abort off`, and no SDK half-closes."""
    phases = Phases()
    bench.play(getattr(phases, phase))
    async with bench.connect() as raw:
        await raw.send(ANSWERED[phase])
        await until(lambda: bench.heard)
        if phase in ("head_only", "amid_the_answer", "amid_an_event", "an_early_answer"):
            await bounded(raw.reader.readuntil(b"\r\n\r\n"))
        if how == "reset":
            raw.leave()
        elif how == "close":
            raw.writer.close()
        else:
            raw.writer.write_eof()
        await bounded(phases.closed.wait())
    await until(lambda: bench.in_flight == 0)
    assert (bench.kept, bench.upstream.connections) == (0, 1)


async def test_a_caller_that_leaves_the_queue_costs_the_upstream_nothing():
    async with bench_with(
        upstream="concurrency: 1\n" + LONG, route="queue: {size: 5, max_age: 60s}"
    ) as bench:
        bench.play(Phases().awaiting_head)
        async with bench.connect() as first, bench.connect() as second:
            await first.send(GET)
            await until(lambda: bench.heard)
            await second.send(GET)
            lanes = bench.proxy.proxy.state
            await until(lambda: sum(lane.depth for lane in lanes().lanes) == 1)
            second.leave()
            await until(lambda: sum(lane.depth for lane in lanes().lanes) == 0)
            assert len(bench.heard) == bench.in_flight == 1


async def test_a_caller_that_leaves_while_a_connection_is_opened():
    with stuck_port() as port:
        async with (
            running(yaml_of(f"http://127.0.0.1:{port}", upstream=LONG)) as proxy,
            connect(proxy.url) as raw,
        ):
            [upstream] = proxy.proxy._upstreams.values()
            await raw.send(GET)
            await until(lambda: upstream.pool.dialling == 1)
            raw.leave()
            await until(lambda: upstream.pool.dialling == 0)
            await until(lambda: sum(cap.in_flight for cap in proxy.proxy.state().caps) == 0)


async def test_a_caller_that_leaves_during_the_handshake():
    phases = Phases()

    async def mute(peer: Peer) -> None:
        await phases._until_closed(peer)  # it takes the client's hello, and says nothing

    async with (
        Scripted(mute) as upstream,
        running(yaml_of(f"https://localhost:{upstream.port}", upstream=LONG)) as proxy,
        connect(proxy.url) as raw,
    ):
        await raw.send(GET)
        await until(lambda: upstream.connections)
        raw.leave()
        await bounded(phases.closed.wait())
        await until(lambda: sum(cap.in_flight for cap in proxy.proxy.state().caps) == 0)


async def test_a_caller_that_leaves_while_it_takes_nothing():
    """Its answer waits to be taken, and the upstream is not read meanwhile."""
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        try:
            while True:
                await peer.send(chunk(b"x" * MIB))
        except ConnectionError:
            closed.set()

    async with bench_with(upstream=LONG) as bench:
        bench.play(script)
        async with bench.connect() as raw:
            raw.writer.transport.pause_reading()
            await raw.send(GET)
            [upstream] = bench.proxy.proxy._upstreams.values()
            await until(lambda: any(each.read_paused for each in upstream.pool.connections))
            raw.leave()
            await bounded(closed.wait())


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_caller_that_leaves_while_it_is_not_read(how: str, monkeypatch: pytest.MonkeyPatch):
    """The upstream takes nothing, so that the caller is not read, and its end cannot be read either."""
    paused = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()
        await asyncio.Event().wait()

    overhear(monkeypatch, "pause_reading", paused.set)
    async with bench_with(upstream=LONG) as bench:
        bench.play(script)
        async with bench.connect() as raw:
            [upstream] = bench.proxy.proxy._upstreams.values()
            await raw.send(b"POST /x HTTP/1.1\r\nhost: proxy\r\ncontent-length: 100000000\r\n\r\n")
            while not paused.is_set():
                await raw.send(b"x" * 65536)
                for _ in range(20):
                    await asyncio.sleep(0)
            assert bench.in_flight == 1
            if how == "reset":
                raw.writer.get_extra_info("socket").setsockopt(*LINGER_NOT)
            raw.leave()
            await until(lambda: not upstream.pool.connections)
            await until(lambda: bench.in_flight == 0)


# ── other protocols ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("upgrade", [b"websocket", b"WebSocket", b"WEBSOCKET"])
async def test_websocket_is_refused_clearly(bench: Bench, upgrade: bytes):
    """501, and the reason; nothing reaches the upstream. (README, docs: WebSocket is not relayed.)"""
    bench.play(Phases().awaiting_head)
    fields = (
        b"host: proxy\r\nupgrade: %b\r\nconnection: upgrade, close\r\nsec-websocket-version: 13\r\n" % upgrade
    )
    got = await bench.ask(GET.replace(b"host: proxy\r\n", fields))
    assert (got.status, bench.heard) == (501, [])
    assert b"websocket_not_relayed" in got.body


async def test_the_proxy_is_well_after_all_this(bench: Bench):
    await bench.serves()
