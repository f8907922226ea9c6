"""The caller's side of HTTP/1.1, byte for byte: framing, keep-alive, pipelining, cuts."""

from __future__ import annotations

import asyncio
import http.client
from urllib.parse import urlsplit

import pytest

from tests.kit.raw import connect, head
from tests.kit.running import running
from tests.kit.scripted import Scripted, answering, saying
from tests.kit.waiting import bounded

GET = head("GET", "/x")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def yaml(upstream) -> str:
    return (
        f"upstreams: {{up: {{url: '{upstream.url}', dialect: rest, breaker: off}}}}\n"
        "routes: [{name: all, path: /, upstream: up}]\n"
    )


def target_of(heard) -> bytes:
    return heard.line.split(b" ")[1]


async def whole(raw) -> bytes:
    return await bounded(raw.reader.read())


async def test_pipelined_requests_are_answered_in_their_order():
    async def script(peer) -> None:
        while True:
            path = target_of(await peer.request())
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))

    async with Scripted(script) as upstream, running(yaml(upstream)) as proxy, connect(proxy.url) as raw:
        await raw.send(b"".join(head("GET", f"/{n}") for n in range(40)))
        assert [(await raw.reply()).body for _ in range(40)] == [b"/%d" % n for n in range(40)]


async def test_a_refused_body_that_arrives_late_does_not_disturb_the_next_request():
    async with Scripted(answering(OK)) as upstream:
        full = yaml(upstream).replace("upstream: up}", "upstream: up, quotas: [{allow: 1 request/hour}]}")
        async with running(full) as proxy, connect(proxy.url) as raw:
            assert (await raw.get("/x")).status == 200
            await raw.send(head("POST", "/x", content_length="30"))
            assert (await raw.reply()).status == 429
            await raw.send(b"GET /smuggled HTTP/1.1\r\n\r\n....")
            assert (await raw.get("/x")).status == 429
            assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("request_line", "answer", "ends", "has"),
    [
        (b"GET /x HTTP/1.0\r\n", OK, True, b"connection: close"),
        (b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n", OK, False, b"connection: keep-alive"),
        (b"GET /x HTTP/1.1\r\nconnection: close\r\n", OK, True, b"connection: close"),
        (b"GET /x HTTP/1.1\r\n", OK, False, b"content-length: 2"),
        (
            b"HEAD /x HTTP/1.1\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
            False,
            b"content-length: 2",
        ),
        (b"GET /x HTTP/1.1\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", False, b"204 No Content"),
        (b"GET /x HTTP/1.1\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n", False, b"304 Not Modified"),
    ],
)
async def test_the_answers_framing_follows_the_request_and_the_status(request_line, answer, ends, has):
    async with (
        Scripted(answering(answer)) as upstream,
        running(yaml(upstream)) as proxy,
        connect(proxy.url) as raw,
    ):
        await raw.send(request_line + b"host: a\r\n\r\n")
        got = await bounded(raw.reader.readuntil(b"\r\n\r\n"))
        assert has in got
        assert b"transfer-encoding" not in got
        if ends:
            assert (await whole(raw)).endswith(b"ok")
        else:
            body = b"ok" if b"GET" in request_line and b"200" in answer else b""
            assert await bounded(raw.reader.readexactly(len(body))) == body
            await raw.send(b"GET /again HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b"HTTP/1.1 " in await bounded(raw.reader.readuntil(b"\r\n\r\n"))


async def test_an_answer_without_a_length_is_chunked_for_http_1_1_and_ends_the_connection_for_1_0():
    answer = b"HTTP/1.1 200 OK\r\n\r\nuntil the end"
    async with Scripted(saying(answer)) as upstream, running(yaml(upstream)) as proxy:
        async with connect(proxy.url) as raw:
            await raw.send(GET)
            assert b"transfer-encoding: chunked" in await bounded(raw.reader.readuntil(b"\r\n\r\n"))
            assert (await bounded(raw.reader.readuntil(b"0\r\n\r\n"))).startswith(b"d\r\nuntil the end\r\n")
        async with connect(proxy.url) as raw:
            await raw.send(b"GET /x HTTP/1.0\r\n\r\n")
            assert (await whole(raw)).endswith(b"\r\n\r\nuntil the end")


async def test_a_cut_answer_to_http_1_0_ends_in_a_reset_since_its_end_has_no_other_sign():
    half = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    async with (
        Scripted(saying(half)) as upstream,
        running(yaml(upstream)) as proxy,
        connect(proxy.url) as raw,
    ):
        await raw.send(b"GET /x HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await whole(raw)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET /x HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET /x HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
        b"GET /x HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"GET /x\r\n y HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_one_unambiguous_request_gets_400_and_nothing_is_sent_on(garbage):
    async with (
        Scripted(answering(OK)) as upstream,
        running(yaml(upstream)) as proxy,
        connect(proxy.url) as raw,
    ):
        await raw.send(garbage)
        answer = await whole(raw)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code":"bad_request"' in answer
        assert upstream.requests == []


async def test_garbage_behind_a_good_request_does_not_spoil_its_answer():
    answering = asyncio.Event()

    async def script(peer) -> None:
        await peer.request()
        await answering.wait()
        await peer.send(OK)

    async with Scripted(script) as upstream, running(yaml(upstream)) as proxy, connect(proxy.url) as raw:
        await raw.send(GET + b"\x00\x01nonsense\r\n\r\n")
        answering.set()
        answer = await whole(raw)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"okHTTP/1.1 400 Bad Request" in answer


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        (b"http://elsewhere.test/a/b?c=d", b"/a/b?c=d"),
        (b"/a//b/%2F/../c;d=e+f?q=%20", b"/a//b/%2F/../c;d=e+f?q=%20"),
    ],
)
async def test_a_target_reaches_the_upstream_byte_for_byte_without_its_authority(target, forwarded):
    async with (
        Scripted(answering(OK)) as upstream,
        running(yaml(upstream)) as proxy,
        connect(proxy.url) as raw,
    ):
        await raw.send(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % target)
        assert (await raw.reply()).status == 200
        assert target_of(upstream.requests[0]) == forwarded


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"content-length: 5", b"hello"), (b"transfer-encoding: chunked", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_an_offered_upgrade_is_declined_and_the_body_is_not_lost(framing, body, at_once):
    # curl --http2 and Java's client offer h2c with their first request.
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    async with (
        Scripted(answering(OK)) as upstream,
        running(yaml(upstream)) as proxy,
        connect(proxy.url) as raw,
    ):
        request = b"POST /x HTTP/1.1\r\nhost: a\r\n" + offer + framing + b"\r\n\r\n"
        if at_once:
            await raw.send(request + body)
        else:
            await raw.send(request)
            await raw.send(body)
        assert (await raw.reply()).status == 200
        assert upstream.requests[0].body == b"hello"
        assert upstream.requests[0].all(b"upgrade") == []
        assert (await raw.get("/again")).status == 200


@pytest.mark.parametrize("extra", [b"content-length: 1000\r\n", b"content-encoding: gzip\r\n"])
async def test_no_event_of_ours_is_put_into_a_stream_that_has_a_length_or_an_encoding(extra):
    async def script(peer) -> None:
        await peer.request()
        framing = b"" if b"length" in extra else b"transfer-encoding: chunked\r\n"
        start = b"" if b"length" not in extra else b"data: a\n\n"
        head_ = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + extra + framing + b"\r\n"
        await peer.send(head_ + start)

    async with Scripted(script) as upstream:
        speaks = yaml(upstream).replace("dialect: rest", "dialect: openai")
        async with running(speaks) as proxy, connect(proxy.url) as raw:
            await raw.send(GET)
            answer = await whole(raw)
            assert b"error" not in answer
            assert not answer.endswith(b"0\r\n\r\n")


async def test_trailers_are_bounded_like_a_head():
    async with (
        Scripted(answering(OK)) as upstream,
        running(yaml(upstream)) as proxy,
        connect(proxy.url) as raw,
    ):
        await raw.send(head("POST", "/x", transfer_encoding="chunked") + b"1\r\nx\r\n0\r\nx: ")
        await raw.send(b"a" * 600_000)  # more than is read at once
        assert (await raw.reply()).status == 431
        assert await raw.is_closed()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"GET /x HTTP/1.1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST /x HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    ],
)
async def test_a_request_without_one_host_or_with_an_unknown_coding_is_not_sent_on(lines, status):
    async with (
        Scripted(answering(OK)) as upstream,
        running(yaml(upstream)) as proxy,
        connect(proxy.url) as raw,
    ):
        await raw.send(lines)
        assert (await raw.reply()).status == status
        assert upstream.requests == []


async def test_a_caller_that_only_writes_still_finds_the_answer_to_its_huge_head():
    def blocking(host: str, port: int) -> int:
        connection = http.client.HTTPConnection(host, port, timeout=20)
        connection.request("GET", "/x", headers={"x-huge": "a" * 300_000})
        status = connection.getresponse().status
        connection.close()
        return status

    async with Scripted(answering(OK)) as upstream, running(yaml(upstream)) as proxy:
        parts = urlsplit(proxy.url)
        assert await bounded(asyncio.to_thread(blocking, parts.hostname, parts.port)) == 431
