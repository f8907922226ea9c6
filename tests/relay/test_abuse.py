"""Callers that mean harm: slow, many, or endless. Each costs at most its own connection, and the next call is
answered.

Spans are short here and nobody sleeps: a case waits for the connection that its bound ends.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.kit.bench import OK, POST, Bench, answering_ok, bench_with, closing, everything
from tests.kit.raw import Raw, connect, head
from tests.kit.running import running
from tests.kit.scripted import Peer
from tests.kit.waiting import bounded, settled, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.conformance("abuse")]

SLOW = "connections: {head_within: 60ms, body_window: 60ms, body_per_second: 10KiB}\n"
LATER = "connections: {head_within: 300ms, body_window: 60ms, body_per_second: 10KiB}\n"
"""A head that never ends is the clock of a case: when it is refused, several windows of a body are over."""

MANY = 5_000


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def impatient() -> AsyncIterator[Bench]:
    async with bench_with(top=SLOW) as bench:
        yield bench


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def timed() -> AsyncIterator[Bench]:
    async with bench_with(top=LATER) as bench:
        yield bench


async def until_several_windows_are_over(bench: Bench) -> None:
    async with bench.connect() as clock:
        await clock.send(b"GET /never")
        assert (await everything(clock)).status == 408


async def dripped(raw: Raw, data: bytes) -> bytes:
    """Send a byte every 10 ms, until the connection ends; all that comes."""
    answer = asyncio.ensure_future(everything(raw))
    for at in range(len(data)):
        await asyncio.wait([answer], timeout=0.01)
        if answer.done():
            break
        raw.writer.write(data[at : at + 1])
    return (await answer).raw


# ── slow callers ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "part", [b"G", b"GET /x", b"GET /x HTTP/1.1\r\n", b"GET /x HTTP/1.1\r\nhost: a\r\nx: ", POST[:-3]]
)
async def test_a_head_that_does_not_arrive_whole_is_a_408(impatient: Bench, part: bytes):
    async with impatient.connect() as raw:
        await raw.send(part)
        got = await everything(raw)
    assert (got.status, got.all(b"connection")) == (408, [b"close"])
    await impatient.serves()


async def test_a_head_that_drips_in_is_a_408_all_the_same(impatient: Bench):
    """Slowloris: no two bytes are far apart, and the whole takes for ever."""
    async with impatient.connect() as raw:
        assert (await dripped(raw, head("GET", "/x", x="a" * 2000))).startswith(b"HTTP/1.1 408 ")
    await impatient.serves()


async def test_a_head_that_drips_in_behind_a_call_is_refused_after_its_answer(impatient: Bench):
    asked = asyncio.Event()
    answer = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await answer.wait()
        await peer.send(OK)

    impatient.play(script)
    async with impatient.connect() as raw:
        await raw.send(POST + b"GET /x")
        await asked.wait()
        async with impatient.connect() as clock:
            await clock.send(b"G")
            assert (await everything(clock)).status == 408
        answer.set()
        assert (await raw.reply()).status == 200
        assert (await everything(raw)).status == 408
    await impatient.serves()


@pytest.mark.parametrize("framing", [b"content-length: 100000", b"transfer-encoding: chunked"])
@pytest.mark.parametrize("begins", [b"", b"5\r\nhello\r\n5\r\nhe"], ids=["nothing", "a part"])
async def test_a_body_that_stays_away_holds_no_permit_for_long(
    impatient: Bench, framing: bytes, begins: bytes
):
    impatient.play(answering_ok)
    async with impatient.connect() as raw:
        await raw.send(b"POST /x HTTP/1.1\r\nhost: a\r\n" + framing + b"\r\n\r\n" + begins)
        got = await everything(raw)
    assert got.status == 408
    await until(lambda: impatient.in_flight == 0)
    await impatient.serves()


async def test_a_body_that_drips_in_holds_no_permit_for_long(impatient: Bench):
    """Idle time alone would never end it: a pace is asked for."""
    impatient.play(answering_ok)
    async with impatient.connect() as raw:
        await raw.send(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")
        assert (await dripped(raw, b"a" * 2000)).startswith(b"HTTP/1.1 408 ")
    await until(lambda: impatient.in_flight == 0)


async def test_a_body_that_drips_in_after_a_fast_beginning_is_no_better(impatient: Bench):
    """As an average it would be fast enough for minutes: each window counts by itself."""
    impatient.play(answering_ok)
    async with impatient.connect() as raw:
        await raw.send(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n")
        await raw.send(b"a" * 1_000_000)
        assert (await dripped(raw, b"a" * 2000)).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_drips_in_under_an_answer_cuts_it(impatient: Bench):
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await peer.left()

    impatient.play(script)
    async with impatient.connect() as raw:
        await raw.send(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\na")
        got = await everything(raw)
    assert got.body == b"half"
    assert not got.whole


async def test_the_rest_of_a_refused_body_has_to_come_in_pace_too(impatient: Bench):
    async with impatient.connect() as raw:
        await raw.send(head("POST", "/x/../../y", content_length="100000") + b"a")
        assert (await raw.reply()).status == 400
        got = await everything(raw)
    assert got.raw == b"", "it has its answer"


async def test_a_body_that_we_do_not_read_is_not_slow(timed: Bench):
    """An upstream that takes nothing holds its caller up: that is no fault of the caller's."""
    reads, size = asyncio.Event(), 40_000_000

    async def script(peer: Peer) -> None:
        await peer.head()
        await reads.wait()
        await peer.read(size)
        await peer.send(OK)

    timed.play(script)
    async with timed.connect() as raw:
        request = head("POST", "/x", content_length=str(size)) + b"a" * size
        sending = asyncio.ensure_future(raw.send(request))
        await until_several_windows_are_over(timed)
        assert not sending.done()
        reads.set()
        assert (await raw.reply()).status == 200
        await sending


async def test_a_body_that_we_have_not_asked_for_is_not_slow():
    """`Expect: 100-continue`, while the call waits in the queue."""
    queue = "queue: {size: 5, max_age: 20s}"
    async with bench_with(top=LATER, upstream="concurrency: 1", route=queue) as one:
        done = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await done.wait()
            await peer.send(OK)
            await answering_ok(peer)

        one.play(script)
        async with one.connect() as first, one.connect() as second:
            await first.send(POST)
            await until(lambda: one.heard)
            await second.send(head("POST", "/x", content_length="2", expect="100-continue"))
            await until_several_windows_are_over(one)
            done.set()
            assert await bounded(second.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await second.send(b"{}")
            assert (await second.reply()).status == 200


async def test_an_idle_connection_is_closed_and_says_nothing():
    async with bench_with(top="connections: {keep_alive: 60ms}\n") as bench:
        async with bench.connect() as raw:
            assert (await everything(raw)).raw == b"", "one that was never used"
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.send(POST)
            assert (await raw.reply()).status == 200
            assert (await everything(raw)).raw == b""
        async with bench.connect() as raw:
            assert await dripped(raw, b"\r\n" * 2000) == b"", "empty lines are no request (RFC 9112 §2.2)"


async def test_answers_that_are_not_taken_stop_the_requests():
    """A caller that asks and never reads: what is due to it fills the socket's buffers and little more."""
    routes = [f"  - {{name: r{n}, path: /{'long' * 15}/{n}, upstream: up}}" for n in range(300)]
    yaml = "upstreams: {up: {url: 'http://127.0.0.1:1', dialect: rest}}\nroutes:\n" + "\n".join(routes)
    request = head("GET", "/none", x="a" * 8000)  # answered by all the prefixes, 20 KB
    async with running(yaml) as proxy, connect(proxy.url) as raw:
        raw.writer.write(request * 2000)
        unsent = await settled(raw.writer.transport.get_write_buffer_size)
        assert unsent > 4_000_000
        for _ in range(2000):
            assert (await raw.reply()).status == 404
        assert raw.writer.transport.get_write_buffer_size() == 0


# ── large ones ──────────────────────────────────────────────────────────────────────────────────────

LARGE = {
    "a_url_of_64_kb": (b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * 65_536), 414),
    "a_query_of_64_kb": (b"GET /x?%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * 65_536), 414),
    "a_url_over_its_bound": (b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * 16_384), 414),
    "a_url_within_it": (b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * 16_383), 200),
    "an_endless_url": (b"GET /" + b"a" * 400_000, 414),
    "one_header_of_64_kb": (head("GET", "/x", x="a" * 65_536), 431),
    "one_header_of_60_kb": (head("GET", "/x", x="a" * 61_440), 200),
    "an_endless_header": (head("GET", "/x")[:-2] + b"x: " + b"a" * 400_000, 431),
    "an_endless_name": (head("GET", "/x")[:-2] + b"a" * 400_000, 431),
    "many_headers_of_64_kb": (head("GET", "/x", **{f"x{n}": "a" * 1000 for n in range(66)}), 431),
    "100_headers": (head("GET", "/x", **{f"x{n}": "a" for n in range(99)}), 200),
    "101_headers": (head("GET", "/x", **{f"x{n}": "a" for n in range(100)}), 431),
    "100_headers_of_one_name": (head("GET", "/x")[:-2] + b"x: a\r\n" * 100 + b"\r\n", 431),
    "a_method_without_end": (b"G" * 400_000, 400),
    "empty_lines_without_end": (b"\r\n" * 200_000, 431),
}


@pytest.mark.parametrize("case", LARGE)
async def test_what_is_too_large_is_refused_and_the_rest_served(bench: Bench, case: str):
    request, status = LARGE[case]
    bench.play(answering_ok)
    async with bench.connect() as raw:
        sending = asyncio.ensure_future(raw.send(request))
        assert (await raw.reply()).status == status
        if status != 200:
            assert await raw.is_closed()
        await asyncio.gather(sending, return_exceptions=True)
    assert len(bench.heard) == int(status == 200)


@pytest.mark.parametrize(
    ("top", "request_", "status"),
    [
        ("headers: {max_url: 100B}\n", head("GET", "/" + "a" * 100), 414),
        ("headers: {max_url: 100B}\n", head("GET", "/" + "a" * 99), 200),
        ("headers: {max_size: 1KiB}\n", head("GET", "/x", x="a" * 1024), 431),
        ("headers: {max_size: 1KiB}\n", head("GET", "/" + "a" * 1030), 414),
        ("headers: {max_count: 3}\n", head("GET", "/x", a="1", b="2"), 200),
        ("headers: {max_count: 3}\n", head("GET", "/x", a="1", b="2", c="3"), 431),
    ],
)
async def test_the_bounds_of_a_head_are_settings(top: str, request_: bytes, status: int):
    async with bench_with(top=top) as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.send(request_)
            assert (await raw.reply()).status == status


# ── many ────────────────────────────────────────────────────────────────────────────────────────────


async def test_requests_that_are_sent_ahead_are_bounded_and_the_rest_is_for_another_connection(bench: Bench):
    bench.play(answering_ok)
    async with bench.connect() as raw:
        await raw.send(head("GET", "/x") * 3000)
        got = await everything(raw)
    assert got.raw.count(b"HTTP/1.1 200 ") == len(bench.heard)
    assert 100 <= len(bench.heard) < 3000
    assert got.raw.count(b"connection: close") == 1


async def test_how_many_may_be_sent_ahead_is_a_setting():
    async with bench_with(top="connections: {max_pipelined: 3}\n") as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            await raw.send(head("GET", "/x") * 5)
            assert (await everything(raw)).raw.count(b"HTTP/1.1 200 ") == 3


async def test_above_the_bound_those_that_were_idle_longest_make_room():
    async with bench_with(top="connections: {max_open: 40}\n") as bench:
        bench.play(answering_ok)
        async with several(bench, 40) as idle:
            await idle[0].send(POST)
            assert (await idle[0].reply()).status == 200, "all of them may be open"
            async with bench.connect() as newcomer:
                await newcomer.send(closing(POST))
                assert (await everything(newcomer)).status == 200
            assert await idle[1].is_closed()
            await idle[0].send(POST)
            assert (await idle[0].reply()).status == 200, "the one that was used last stays"


async def test_above_the_bound_a_slow_head_makes_room_as_well():
    async with bench_with(top="connections: {max_open: 5}\n") as bench:
        async with several(bench, 5) as slow:
            for raw in slow:
                await raw.send(b"GET /x HTT")
            await bench.serves()


async def test_above_the_bound_where_all_are_at_work_the_newcomer_is_cut():
    async with bench_with(top="connections: {max_open: 2}\n") as bench:
        done = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await done.wait()
            await peer.send(OK)

        bench.play(script)
        async with several(bench, 2) as working:
            for raw in working:
                await raw.send(POST)
            await until(lambda: len(bench.heard) == 2)
            async with bench.connect() as newcomer:
                assert await newcomer.is_closed()
            done.set()
            assert [(await raw.reply()).status for raw in working] == [200, 200]


async def test_2000_connections_that_come_and_go_leave_nothing(bench: Bench):
    address = urlsplit(bench.proxy.url)
    await bench.serves()
    tasks, files = len(asyncio.all_tasks()), open_files()
    for at in range(2000):
        with socket.create_connection((address.hostname, address.port)) as sock:
            if at % 2:
                sock.send((b"GET /x HTTP/1.1\r\n", b"", POST[:-1], b"\0")[at % 4])
        await asyncio.sleep(0)
    await bench.serves()
    await until(lambda: len(asyncio.all_tasks()) <= tasks and open_files() <= files)


CROWD = f"""
import asyncio, resource, socket, sys
from urllib.parse import urlsplit
from tests.kit.raw import head
from tests.kit.bench import bench_with

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 * {MANY},) * 2)
    async with bench_with() as bench:
        loop, parts = asyncio.get_running_loop(), urlsplit(bench.proxy.url)
        idle = [socket.socket() for _ in range({MANY})]
        for at, sock in enumerate(idle):
            sock.setblocking(False)
            await loop.sock_connect(sock, (parts.hostname, parts.port))
            if at % 2:
                await loop.sock_sendall(sock, b"GET /x HTTP/1.1")
        await bench.serves()
        for sock in idle:  # all are still open
            try:
                assert sock.recv(1), "ended"
            except BlockingIOError:
                pass
            sock.close()
        await bench.serves()

asyncio.run(main())
"""


async def test_a_good_call_is_answered_beside_5000_idle_connections():
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 3 * MANY:
        pytest.skip(f"a process may not open {3 * MANY} files here (ulimit -Hn)")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CROWD, stderr=asyncio.subprocess.PIPE, cwd=Path.cwd()
    )
    try:
        _, said = await asyncio.wait_for(child.communicate(), 60)
    finally:
        if child.returncode is None:
            child.kill()
    assert child.returncode == 0, said.decode()


@asynccontextmanager
async def several(bench: Bench, count: int) -> AsyncIterator[list[Raw]]:
    """So many connections, in the order in which they were opened."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(bench.connect()) for _ in range(count)]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
