"""Streaming both ways: as it arrives, and no faster than the other side takes it."""

from __future__ import annotations

import asyncio

import pytest

from proxy.core.verdict import Outcome, Reason
from proxy.upstream.connection import MOST_BUFFERED_BYTES
from proxy.upstream.contract import ONE_READ_BYTES
from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.caller import FakeCaller
from tests.kit.scripted import OK, Peer, Scripted, answering
from tests.kit.waiting import settled, until

SOON_S = 0.02
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_an_event_reaches_the_caller_before_the_next_is_sent():
    heard = asyncio.Queue[bytes]()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        while event := await heard.get():
            await peer.send(b"%x\r\n%b\r\n" % (len(event), event))
        await peer.send(b"0\r\n\r\n")
        await peer.left()  # an end that comes with the last bytes would be the end of the connection

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller()
        asking = asyncio.create_task(ask(upstream, post(), caller))
        await caller.until(lambda: caller.status == 200)
        for number in range(5):
            heard.put_nowait(b"data: %d\n\n" % number)
            await caller.until(lambda n=number: len(caller.pieces) == n + 1)
        heard.put_nowait(b"")
        result, _ = await asking
        assert upstream.pool.idle == 1
    assert caller.pieces == [b"data: %d\n\n" % number for number in range(5)]
    assert result.complete


async def test_a_slow_caller_stops_the_reading_of_the_upstream():
    size = 20_000_000

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            await peer.send(b"x" * 100_000)

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller()
        caller.taking.clear()
        asking = asyncio.create_task(ask(upstream, get(), caller))
        await caller.until(lambda: caller.status == 200)
        [connection] = upstream.pool.connections
        await until(lambda: connection.read_paused and connection.bytes_in > MOST_BUFFERED_BYTES)
        await settled(lambda: connection.bytes_in)
        assert connection.read_paused
        # One piece is with the caller, one waits, and one read may have been under way.
        assert connection.bytes_in <= 2 * (MOST_BUFFERED_BYTES + ONE_READ_BYTES)
        caller.taking.set()
        result, _ = await asking
    assert (result.complete, len(caller.body)) == (True, size)


@pytest.mark.parametrize(
    ("span", "why"),
    [("idle_s", "within 0.02s"), ("total_s", "before the time for the whole call was over")],
)
async def test_a_caller_that_takes_no_more_is_given_up_in_time(span: str, why: str):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM + b"2\r\nab\r\n")
        await peer.left()

    async with (
        Scripted(script) as scripted,
        upstream_at(scripted.url, **{span: SOON_S}) as upstream,
    ):
        caller = FakeCaller()
        caller.taking.clear()
        result, _ = await ask(upstream, get(), caller)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
    assert (result.outcome, result.gone, result.complete) == (Outcome.IGNORED, True, False)
    assert result.detail == "no more of the answer taken by the caller " + why


async def test_a_body_is_pulled_and_sent_with_its_length():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller([b"abc", b"def", b"g"])
        result, _ = await ask(upstream, post(None, length=7), caller)
        again, _ = await ask(upstream, get())
    assert (result.complete, again.reused) == (True, True)
    assert scripted.requests[0].body == b"abcdefg"
    assert scripted.requests[0].all(b"content-length") == [b"7"]


async def test_a_body_of_unknown_length_is_sent_in_chunks():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        headers = [(b"transfer-encoding", b"gzip, chunked"), (b"content-length", b"3")]
        result, _ = await ask(upstream, post(None, headers=headers), FakeCaller([b"abc", b"", b"def"]))
    [heard] = scripted.requests
    assert (result.complete, heard.body) == (True, b"abcdef")
    assert (heard.all(b"transfer-encoding"), heard.all(b"content-length")) == ([b"chunked"], [])


async def test_an_empty_body_of_unknown_length_is_sent_as_one():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        result, _ = await ask(upstream, post(None), FakeCaller())
        again, _ = await ask(upstream, get())
    assert (result.complete, again.reused, scripted.requests[0].body) == (True, True, b"")


@pytest.mark.parametrize(
    ("stated", "most"),
    [(16 * 1024, 16 * 1024), (MOST_BUFFERED_BYTES, ONE_READ_BYTES), (2_000_000, 2_000_000)],
)
async def test_a_slow_upstream_stops_the_pulling_of_the_body(stated: int, most: int):
    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.Event().wait()

    async with (
        Scripted(script, receive_buffer=4096) as scripted,
        upstream_at(scripted.url, stream_buffer_bytes=stated) as upstream,
    ):
        caller = FakeCaller([b"x" * 100_000] * 300)
        asking = asyncio.create_task(ask(upstream, post(None, length=30_000_000), caller))
        await until(lambda: scripted.requests)
        assert await settled(lambda: caller.pulls) < 150  # what the kernel's buffers hold, and no more
        [connection] = upstream.pool.connections
        assert most < connection._transport.get_write_buffer_size() <= most + 100_000  # one piece
        caller.leave()  # that it goes on when the upstream does is shown in tests/relay/test_streaming.py
        await asking


async def test_a_large_body_that_is_here_leaves_whole():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        body = bytes(range(256)) * 20_000
        result, _ = await ask(upstream, post(body))
        again, _ = await ask(upstream, get())
    assert (result.complete, again.reused) == (True, True)
    assert scripted.requests[0].body == body


async def test_an_answer_before_the_end_of_the_request_is_relayed_and_the_connection_not_kept():
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await peer.left()

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller([b"abc"], hangs=True)
        result, _ = await ask(upstream, post(None, length=1000), caller)
        assert upstream.pool.idle == 0
    assert (caller.status, caller.body, caller.ended, result.complete) == (413, b"big", True, True)
    assert result.outcome is Outcome.SUCCEEDED


async def test_a_caller_that_sends_no_more_is_given_up_in_time():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url, idle_s=SOON_S) as upstream:
        result, _ = await ask(upstream, post(None, length=10), FakeCaller([b"abc"], hangs=True))
        assert upstream.pool.idle == 0
    assert (result.outcome, result.gone, result.started) == (Outcome.IGNORED, True, False)
    assert result.detail == "no more of the request sent by the caller within 0.02s"


async def test_a_caller_that_sends_nothing_holds_no_connection():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url, idle_s=SOON_S) as upstream:
        result, _ = await ask(upstream, post(None, length=10), FakeCaller(hangs=True))
        assert scripted.connections == 0
    assert (result.outcome, result.gone) == (Outcome.IGNORED, True)


async def test_a_body_shorter_or_longer_than_declared_is_never_passed_off_as_whole():
    heard: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        heard.append(await peer.reader.read(-1))

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        for pieces in ([b"abc"], [b"abc", b"defgh"], [b"abcdefgh"]):
            result, caller = await ask(upstream, post(None, length=5), FakeCaller(pieces))
            assert (result.gone, caller.status) == (True, None)
            assert "not of the length" in result.detail
        await until(lambda: not upstream.pool.connections)
    assert all(len(body) < 5 for body in heard)


async def test_an_upstream_that_hangs_up_during_the_upload_has_failed():
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        result, _ = await ask(upstream, post(None, length=1000), FakeCaller([b"abc"], hangs=True))
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_FAILED)
