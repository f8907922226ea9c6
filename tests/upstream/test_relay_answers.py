"""What the upstream answers is what the caller gets."""

from __future__ import annotations

import os

import pytest

from proxy.core.verdict import Outcome, Reason
from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.scripted import OK, Peer, Scripted, answering, saying
from tests.kit.waiting import until

CHUNKED_OK = b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


async def test_a_call_goes_out_and_its_answer_comes_back():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        result, caller = await ask(upstream, post(b'{"a":1}', target=b"/v1/x?y=%2F"))
    assert repr(result) == "<Result succeeded 200 started complete>"
    assert (caller.status, caller.body, caller.ended) == (200, b"ok", True)
    assert caller.headers == [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    assert result.first_byte_s is not None
    assert result.first_byte_s >= 0
    [heard] = scripted.requests
    assert (heard.line, heard.body) == (b"POST /v1/x?y=%2F HTTP/1.1", b'{"a":1}')
    assert heard.all(b"host") == [f"localhost:{scripted.port}".encode()]
    assert heard.all(b"content-length") == [b"7"]
    assert not heard.all(b"transfer-encoding")


async def test_calls_one_after_another_share_a_connection():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        results = [(await ask(upstream, get()))[0] for _ in range(3)]
        assert repr(upstream) == "<Upstream demo: 0 in use, 1 idle>"
    assert [result.reused for result in results] == [False, True, True]
    assert scripted.connections == 1


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.SUCCEEDED),
        (301, Outcome.SUCCEEDED),
        (400, Outcome.SUCCEEDED),
        (404, Outcome.SUCCEEDED),
        (429, Outcome.OVERLOADED),
        (500, Outcome.FAILED),
        (503, Outcome.FAILED),
        (529, Outcome.FAILED),
    ],
)
async def test_the_status_decides_the_outcome_and_is_relayed_as_it_is(status: int, outcome: Outcome):
    raw = b"HTTP/1.1 %d What\r\ncontent-length: 4\r\nx-own: 1\r\n\r\noops" % status
    async with Scripted(answering(raw)) as scripted, upstream_at(scripted.url) as upstream:
        result, caller = await ask(upstream, post())
    assert (result.outcome, result.reason, result.complete) == (outcome, None, True)
    assert (caller.status, caller.body, caller.all(b"x-own")) == (status, b"oops", [b"1"])


async def test_the_upstreams_own_retry_after_is_reported():
    raw = b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"
    async with Scripted(answering(raw)) as scripted, upstream_at(scripted.url) as upstream:
        result, caller = await ask(upstream, post())
    assert result.retry_after_s == 7
    assert caller.all(b"retry-after") == [b"7"]


async def test_a_chunked_answer_loses_its_chunks_and_its_trailers():
    raw = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n"
        b"2;note=1\r\nab\r\n3\r\ncde\r\n0\r\nx-sum: 9\r\n\r\n"
    )
    async with Scripted(answering(raw)) as scripted, upstream_at(scripted.url) as upstream:
        result, caller = await ask(upstream, get())
        assert upstream.pool.idle == 1
    assert (caller.body, caller.headers, result.complete) == (b"abcde", [], True)


async def test_an_answer_without_a_length_ends_with_its_connection():
    async with (
        Scripted(saying(b"HTTP/1.1 200 OK\r\n\r\nall of it")) as scripted,
        upstream_at(scripted.url) as upstream,
    ):
        result, caller = await ask(upstream, get())
        assert upstream.pool.idle == 0
    assert (caller.body, caller.ended, result.complete) == (b"all of it", True, True)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: x\r\n\r\n",
    ],
)
async def test_a_204_and_a_304_have_no_body_and_no_length(raw: bytes):
    async with Scripted(answering(raw, OK)) as scripted, upstream_at(scripted.url) as upstream:
        result, caller = await ask(upstream, get())
        again, _ = await ask(upstream, get())
    assert (caller.body, caller.all(b"content-length"), result.complete) == (b"", [], True)
    assert again.reused


@pytest.mark.parametrize("framing", [b"content-length: 5", b"transfer-encoding: chunked"])
async def test_a_204_that_announces_a_body_is_the_last_answer_of_its_connection(framing: bytes):
    raw = b"HTTP/1.1 204 No Content\r\n%b\r\n\r\n" % framing
    async with Scripted(answering(raw, OK)) as scripted, upstream_at(scripted.url) as upstream:
        result, caller = await ask(upstream, get())
        again, _ = await ask(upstream, get())
    assert (caller.body, caller.all(b"content-length"), result.complete) == (b"", [], True)
    assert not again.reused


async def test_the_answer_to_head_keeps_its_length_and_has_no_body():
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n"
    async with Scripted(answering(raw, OK)) as scripted, upstream_at(scripted.url) as upstream:
        request = get()
        request.method = b"HEAD"
        result, caller = await ask(upstream, request)
        again, second = await ask(upstream, get())
    assert (caller.body, caller.all(b"content-length"), result.complete) == (b"", [b"5000"], True)
    assert (again.reused, second.body) == (True, b"ok")


async def test_interim_answers_are_swallowed():
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\nx-hint: 1\r\n\r\n" + OK
    async with Scripted(answering(raw)) as scripted, upstream_at(scripted.url) as upstream:
        result, caller = await ask(upstream, post())
    assert (caller.status, caller.body, caller.all(b"x-hint"), caller.all(b"link")) == (200, b"ok", [], [])
    assert result.complete


async def test_hop_by_hop_headers_end_here_and_cookies_stay_apart():
    raw = (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n"
        b"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x00"
    )
    async with Scripted(answering(raw)) as scripted, upstream_at(scripted.url) as upstream:
        _, caller = await ask(upstream, get())
    assert caller.headers == [
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"content-encoding", b"gzip"),
        (b"content-length", b"3"),
    ]
    assert caller.body == b"\x1f\x8b\x00"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + OK,
        OK + b"HTTP/1.1 2",
        OK + b"junk",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + CHUNKED_OK,
    ],
)
async def test_a_connection_whose_next_bytes_could_not_be_trusted_is_not_kept(raw: bytes):
    async with Scripted(answering(raw)) as scripted, upstream_at(scripted.url) as upstream:
        for _ in range(2):
            result, caller = await ask(upstream, get())
            assert (caller.body, result.complete, result.reused) == (b"ok", True, False)
        assert upstream.pool.idle == 0


async def test_bytes_that_nobody_asked_for_close_an_idle_connection():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url, idle_for_s=60) as upstream:
        await ask(upstream, get())
        assert upstream.pool.idle == 1
        await scripted.peers[0].send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
        await until(lambda: not upstream.pool.connections)
        result, caller = await ask(upstream, get())
    assert (caller.body, result.complete, result.reused) == (b"ok", True, False)


async def test_bytes_that_nobody_asked_for_are_seen_before_the_event_loop_hands_them_over():
    async with Scripted(answering(OK)) as scripted, upstream_at(scripted.url) as upstream:
        await ask(upstream, get())
        file = scripted.peers[0].writer.get_extra_info("socket").fileno()
        os.write(file, b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
        result, caller = await ask(upstream, get())
    assert (caller.body, result.reused) == (b"ok", False)


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 999 OK\r\ncontent-length: 0\r\n\r\n", "status 999"),
        (b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n", "status 0"),
        (b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "switched protocols"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\nok", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok", "other than chunked"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "other than chunked"),
        (b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 0\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\nx: a\ncontent-length: 0\n\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n", "bytes of headers"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 20_000 + b"\r\n", "bytes of headers"),
        (b"HTTP/1.1 103 Hint\r\n\r\n" * 10_000, "bytes of headers"),
    ],
)
async def test_what_is_no_answer_is_a_failure_of_the_upstream(raw: bytes, detail: str):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)
        await peer.left()

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        result, caller = await ask(upstream, get())
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_FAILED)
    assert detail in result.detail
    assert (result.started, result.gone, caller.status) == (False, False, None)
