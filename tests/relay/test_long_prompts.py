"""A prompt of 100 kB: by every way out, in whatever pieces it arrives, and asked again where it may be.

Such a body goes past the parser, and where it came in one read it is never copied: here it is shown that
each way out takes it as it is. 256 KiB is where it is no longer sent in one piece.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from tests.kit.bench import OK, answering_ok, bench_with
from tests.kit.outbound import Outbound
from tests.kit.raw import Raw, connect, head
from tests.kit.running import running
from tests.kit.scripted import Peer, Scripted
from tests.kit.scripted_h2 import ScriptedH2, Stream
from tests.kit.tls import server
from tests.kit.waiting import bounded, settled, until

pytestmark = pytest.mark.conformance("long prompts")

SIZES = (64 * 1024 - 1, 64 * 1024, 100_000, 256 * 1024, 256 * 1024 + 1)

UP = "{{url: '{url}', dialect: {dialect}, breaker: off, retry_budget: off{more}}}"


def body_of(size: int) -> bytes:
    """Of any bytes, and with what would end a head."""
    return (b"\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n" + random.Random(size).randbytes(size))[:size]


def post(body: bytes, method: str = "POST", **headers: str) -> bytes:
    return head(method, "/x", content_length=str(len(body)), **headers) + body


def mark(body: bytes) -> bytes:
    """What the upstreams answer with."""
    return b"%d %b" % (len(body), hashlib.sha256(body).hexdigest().encode())


async def marking(peer: Peer) -> None:
    while True:
        said = mark((await peer.request()).body)
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))


async def marking_h2(stream: Stream) -> None:
    await stream.ended.wait()
    stream.answer(200, mark(stream.body))


# ── every way out ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def way_out(name: str, authority: trustme.CA, tmp_path: Path) -> AsyncIterator[Raw]:
    """A caller of the proxy before an upstream that answers with a mark, reached in one of these ways."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = server(authority) if name in ("tls", "http2") else None
    more = f", tls: {{ca: '{tmp_path / 'ca.pem'}'}}" if context else ""
    far = ScriptedH2(marking_h2, context=context) if name == "http2" else Scripted(marking, context=context)
    async with far as upstream, Outbound() as outbound:
        more += ", http2: true" if name == "http2" else ""
        more += f", proxy: '{outbound.url}'" if name == "outbound proxy" else ""
        stated = UP.format(url=upstream.url, dialect="rest", more=more)
        yaml = f"upstreams: {{up: {stated}}}\nroutes: [{{name: up, path: /, upstream: up}}]\n"
        async with running(yaml) as proxy, connect(proxy.url) as raw:
            yield raw
        if name == "outbound proxy":
            assert outbound.asked


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["plain", "tls", "http2", "outbound proxy"])
async def test_it_arrives_as_it_is_by_every_way_out(
    authority: trustme.CA, tmp_path: Path, way: str, size: int
):
    body = body_of(size)
    async with way_out(way, authority, tmp_path) as raw:
        for _ in range(2):  # the second on kept connections
            await raw.send(post(body))
            assert (await raw.reply()).body == mark(body)


@pytest.mark.parametrize("way", ["plain", "tls", "http2"])
@pytest.mark.parametrize("expect", [False, True], ids=["in_two_halves", "after_100_continue"])
async def test_nor_does_it_matter_when_it_comes(
    authority: trustme.CA, tmp_path: Path, way: str, expect: bool
):
    body = body_of(100_000)
    async with way_out(way, authority, tmp_path) as raw:
        if expect:
            await raw.send(head("POST", "/x", content_length=str(len(body)), expect="100-continue"))
            assert await bounded(raw.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await raw.send(body)
        else:
            await raw.send(post(body)[:50_000])
            await settled(raw.writer.transport.get_write_buffer_size)
            await raw.send(post(body)[50_000:])
        assert (await raw.reply()).body == mark(body)


async def test_several_behind_each_other_keep_their_bodies_apart(authority: trustme.CA, tmp_path: Path):
    bodies = [body_of(size) for size in (70_000, 3, 100_000, 0, 300_000, 64 * 1024)]
    async with way_out("plain", authority, tmp_path) as raw:
        sending = asyncio.create_task(raw.send(b"".join(map(post, bodies))))
        assert [(await raw.reply()).body for _ in bodies] == [mark(body) for body in bodies]
        await sending


async def test_what_follows_one_that_nobody_reads_is_the_next_request():
    async with bench_with(route="buckets: [{rate: 1 request/hour}]\nqueue: {size: 0}") as bench:
        bench.play(answering_ok)
        async with bench.connect() as raw:
            sending = asyncio.create_task(raw.send(post(body_of(100_000)) * 4))
            assert [(await raw.reply()).status for _ in range(4)] == [200, 429, 429, 429]
            await sending
            await raw.send(post(body_of(100_000)) + b"this is no request\r\n\r\n")
            assert [(await raw.reply()).status for _ in range(2)] == [429, 400]
            assert await raw.is_closed()
        assert [heard.body for heard in bench.heard] == [body_of(100_000)]


# ── asked again ─────────────────────────────────────────────────────────────────────────────────────

LADDER = """
upstreams:
  first: {first}
  second: {second}
routes: [{{name: api, path: /, upstream: first, fallback: [{{upstream: second}}], queue: {{size: 9}}}}]
"""


@asynccontextmanager
async def whole_before_its_turn(proxy_url: str, asked: asyncio.Event, request: bytes) -> AsyncIterator[Raw]:
    """A caller that stands in the queue, behind one that is served, until all of its request is here."""
    async with connect(proxy_url) as holder, connect(proxy_url) as raw:
        await holder.send(head("GET", "/held"))
        await bounded(asked.wait())
        await raw.send(request)
        await settled(raw.writer.transport.get_write_buffer_size)
        yield raw
        assert (await holder.reply()).status == 200


@pytest.mark.parametrize("size", [66_000, 100_000, 256 * 1024])
async def test_a_model_call_that_the_first_upstream_failed_is_asked_of_the_second(size: int):
    asked, go_on, body = asyncio.Event(), asyncio.Event(), body_of(size)

    async def failing(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await go_on.wait()
        await peer.send(OK)
        await peer.request()
        peer.reset()

    async with Scripted(failing) as first, Scripted(marking) as second:
        yaml = LADDER.format(
            first=UP.format(url=first.url, dialect="openai", more=", concurrency: 1"),
            second=UP.format(url=second.url, dialect="openai", more=""),
        )
        async with running(yaml) as proxy, whole_before_its_turn(proxy.url, asked, post(body)) as raw:
            go_on.set()
            assert (await raw.reply()).body == mark(body)
    assert [heard.body for heard in first.requests] == [b"", body]
    assert [heard.body for heard in second.requests] == [body]


@pytest.mark.parametrize("size", [66_000, 100_000, 256 * 1024])
async def test_a_safe_call_is_sent_again_when_a_kept_connection_proves_dead(size: int):
    asked, go_on, body = asyncio.Event(), asyncio.Event(), body_of(size)

    async def dies_on_second(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            asked.set()
            await go_on.wait()
        await peer.send(OK)
        await peer.request()

    async with bench_with(upstream="concurrency: 1") as bench:
        bench.play(dies_on_second)
        async with whole_before_its_turn(bench.proxy.url, asked, post(body, "GET")) as raw:
            go_on.set()
            assert (await raw.reply()).status == 200
        assert [heard.body for heard in bench.heard] == [b"", body, body]
        await until(lambda: bench.in_flight == 0)
