"""The relay over TLS, on real sockets: how answers end, flow control both ways, handshakes given up."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from proxy.core.verdict import Outcome, Reason
from proxy.upstream import Upstream
from proxy.upstream.connection import MOST_BUFFERED_BYTES
from proxy.upstream.contract import ONE_READ_BYTES
from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.caller import FakeCaller
from tests.kit.scripted import OK, Peer, Script, Scripted, answering
from tests.kit.tls import server
from tests.kit.tls_by_hand import accept
from tests.kit.waiting import bounded, settled, until

TOP = b"HTTP/1.1 200 OK\r\n"
WHOLE = {
    "length": TOP + b"content-length: 4\r\n\r\nbody",
    "chunked": TOP + b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "close": TOP + b"\r\nbody",
}
SHORT = {
    "length": TOP + b"content-length: 5\r\n\r\nbody",
    "chunked": TOP + b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n",
}


def tls(scripted: Scripted) -> str:
    """The URL of an upstream that does its TLS by hand."""
    return scripted.url.replace("http:", "https:")


def ending(answer: bytes, end: str, context: ssl.SSLContext, seen: asyncio.Event) -> Script:
    async def script(peer: Peer) -> None:
        far = await accept(peer, context)
        farewell = end == "close_notify"
        await peer.send(far.tickets + far.say(answer) + (far.farewell() if farewell else b""))
        if end == "reset":
            await seen.wait()
            peer.reset()

    return script


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("end", ["close_notify", "fin", "reset"])
@pytest.mark.parametrize("framing", WHOLE)
async def test_only_close_notify_ends_an_answer_that_has_no_other_end(
    authority: trustme.CA, ca: Path, framing: str, end: str, version: ssl.TLSVersion
):
    context, seen = server(authority), asyncio.Event()
    context.maximum_version = version
    async with (
        Scripted(ending(WHOLE[framing], end, context, seen)) as scripted,
        upstream_at(tls(scripted), ca=ca) as upstream,
    ):
        caller = FakeCaller()
        asking = asyncio.create_task(ask(upstream, get(), caller))
        await caller.has(b"body")
        seen.set()
        result, _ = await asking
        await until(lambda: not upstream.pool.connections)
    whole = framing != "close" or end == "close_notify"
    assert (result.complete, caller.ended, caller.body) == (whole, whole, b"body")
    if not whole:
        assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_FAILED)
        assert result.detail == "cut after 4 bytes: connection reset"


@pytest.mark.parametrize("end", ["close_notify", "fin"])
@pytest.mark.parametrize("framing", SHORT)
async def test_an_answer_cut_short_never_ends_well(authority: trustme.CA, ca: Path, framing: str, end: str):
    script = ending(SHORT[framing], end, server(authority), asyncio.Event())
    async with Scripted(script) as scripted, upstream_at(tls(scripted), ca=ca) as upstream:
        result, caller = await ask(upstream, get())
    assert (result.started, result.complete, caller.body, caller.ended) == (True, False, b"body", False)


async def test_a_kept_connection_that_ends_without_close_notify_is_not_used_again(
    authority: trustme.CA, ca: Path
):
    script = ending(WHOLE["length"], "fin", server(authority), asyncio.Event())
    async with Scripted(script) as scripted, upstream_at(tls(scripted), ca=ca) as upstream:
        for _ in range(3):
            result, caller = await ask(upstream, post())
            assert (result.complete, result.reused, caller.body) == (True, False, b"body")
            await until(lambda: not upstream.pool.connections)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_slow_caller_stops_the_reading_of_the_upstream(
    authority: trustme.CA, ca: Path, version: ssl.TLSVersion
):
    size = 20_000_000
    context = server(authority)
    context.maximum_version = version

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(TOP + b"content-length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            await peer.send(b"x" * 100_000)
        await peer.left()

    async with (
        Scripted(script, context=context) as scripted,
        upstream_at(scripted.url, ca=ca) as upstream,
    ):
        caller = FakeCaller()
        caller.taking.clear()
        asking = asyncio.create_task(ask(upstream, get(), caller))
        await caller.until(lambda: caller.status == 200)
        [connection] = upstream.pool.connections
        await until(lambda: connection.read_paused)
        read = await settled(lambda: connection.bytes_in)
        assert read < 2 * (MOST_BUFFERED_BYTES + ONE_READ_BYTES)
        caller.taking.set()
        result, _ = await asking
    assert result.complete
    assert len(caller.body) == size


async def test_a_slow_upstream_stops_the_reading_of_the_caller(authority: trustme.CA, ca: Path):
    go_on = asyncio.Event()
    piece, count = b"x" * 50_000, 400

    async def script(peer: Peer) -> None:
        heard = await peer.head()
        await go_on.wait()
        heard.body = await peer.read(len(piece) * count)
        await peer.send(OK)
        await peer.left()

    async with (
        Scripted(script, context=server(authority), receive_buffer=4096) as scripted,
        upstream_at(scripted.url, ca=ca) as upstream,
    ):
        caller = FakeCaller([piece] * count)
        asking = asyncio.create_task(ask(upstream, post(None, length=len(piece) * count), caller))
        await until(lambda: caller.pulls > 1)
        pulls = await settled(lambda: caller.pulls)
        assert pulls < count
        [connection] = upstream.pool.connections
        assert connection._transport.get_write_buffer_size() < ONE_READ_BYTES + 2 * len(piece)
        go_on.set()
        result, _ = await asking
    assert result.complete
    assert caller.pulls > pulls
    assert scripted.requests[0].body == piece * count


@pytest.mark.parametrize("turns", range(12))
async def test_a_handshake_that_is_given_up_in_any_turn_leaves_nothing(
    authority: trustme.CA, ca: Path, turns: int
):
    context = server(authority)

    async def script(peer: Peer) -> None:
        await accept(peer, context)

    async with Scripted(script) as scripted:
        upstream = Upstream("u", tls(scripted), ca=ca)
        dialling = upstream.dial()
        # Until the socket is connected, which takes as long as it takes; then turn by turn.
        while not dialling.done() and not scripted.connections:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        dialling.cancel()
        for made in await asyncio.gather(dialling, return_exceptions=True):
            if not isinstance(made, BaseException):
                made.abort()
        await bounded(upstream.aclose())  # waits for the last connection
        assert not upstream.pool.connections
        assert upstream.pool.dialling == 0
        await until(lambda: not scripted.open)


async def test_a_certificate_that_is_missed_after_the_handshake_is_a_fault(authority: trustme.CA, ca: Path):
    """TLS 1.3: the client is done before the server has looked for its certificate."""
    context = server(authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    async with (
        Scripted(answering(OK), context=context) as scripted,
        upstream_at(scripted.url, ca=ca) as upstream,
    ):
        result, caller = await ask(upstream, post())
        await until(lambda: not upstream.pool.connections)
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_FAILED)
    assert result.detail in {"connection reset", "closed before the request was sent"}
    assert result.sent == (result.detail == "connection reset")
    assert caller.status is None
