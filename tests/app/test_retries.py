"""Retries of our own: which calls are sent once more, after which failures."""

from __future__ import annotations

import asyncio

import pytest

from tests.app.retrying import (
    AT_LENGTH,
    AT_ONCE,
    BUSY,
    CHUNKED,
    GET,
    KEY,
    SPENT,
    ask,
    first,
    post,
    resets,
    retrying,
    status,
)
from tests.app.test_cancellation import TOOL
from tests.app.watching import by_hand, in_flight
from tests.kit.bench import everything
from tests.kit.ports import dead_port, stuck_port
from tests.kit.raw import CHAT, connect, head
from tests.kit.scripted import OK, Peer, answering, silent
from tests.kit.waiting import bounded, until


async def test_a_call_that_failed_is_sent_once_more_and_its_caller_sees_one_answer():
    async with retrying(answering(BUSY, OK)) as case:
        reply = await ask(case, head("GET", "/x?a=b", x_mine="1"))
        assert (reply.status, reply.body) == (200, b"ok")
        assert "x-which" not in reply.headers
        one, two = case.upstream.requests
        assert one.raw == two.raw
        assert case.upstream.connections == 1, "the answer was read to its end, so its connection is kept"
        assert await case.results() == {"succeeded": 1}


@pytest.mark.parametrize(
    ("when", "code", "repeated"),
    [
        ("", 502, True), ("", 503, True), ("", 504, True), ("", 500, False), ("", 429, False),
        ("5xx", 500, True), ("5xx", 599, True), ("5xx", 429, False), ("429", 429, True), ("529", 529, True),
        ("529", 503, False), ("connect", 503, False), ("", 404, False),
    ],
)  # fmt: skip
async def test_an_answer_is_held_back_if_its_status_is_named(when, code, repeated):
    when = f", when: [{when}]" if when else ""
    async with retrying(answering(status(code), OK), f"{{backoff: 1ms{when}}}") as case:
        assert (await ask(case)).status == (200 if repeated else code)
        assert case.heard == 1 + repeated


@pytest.mark.parametrize(("when", "repeated"), [("reset", True), ("connect", False), ("timeout", False)])
async def test_a_request_that_was_sent_and_never_answered(when, repeated):
    async with retrying(first(resets), f"{{backoff: 1ms, when: [{when}], calls: all}}") as case:
        assert (await ask(case, post())).status == (200 if repeated else 502)
        assert case.upstream.connections == 1 + repeated


@pytest.mark.parametrize(("when", "repeated"), [("timeout", True), ("reset", False), ("connect", False)])
async def test_a_request_that_was_not_answered_in_time(when, repeated):
    upstream = "breaker: off, timeouts: {first_byte: 10ms}"
    async with (
        retrying(first(silent), f"{{backoff: 1ms, when: [{when}]}}", upstream=upstream) as case,
        connect(case.proxy.url) as raw,
    ):
        clock = by_hand(case.proxy)
        await raw.send(GET)
        await until(lambda: case.heard == 1)
        clock.advance(1)  # and no more: the second attempt has all the time there is
        assert (await raw.reply()).status == (200 if repeated else 504)
        assert case.upstream.connections == 1 + repeated


@pytest.mark.parametrize("when", ["connect", "reset, timeout, 5xx"])
async def test_what_was_never_sent_is_tried_again_whatever_it_is(when):
    url = f"http://127.0.0.1:{dead_port()}"
    async with retrying(silent, f"{{backoff: 1ms, when: [{when}]}}", url=url) as case:
        assert (await ask(case, post())).status == 502
        assert await case.results() == ({"failed": 1} if when == "connect" else {})
        assert sum(line["event"] == "failed" for line in case.proxy.lines()) == 1 + (when == "connect")


async def test_a_connection_that_does_not_open_in_time_is_tried_again():
    with stuck_port() as port:
        upstream, url = "breaker: off, timeouts: {connect: 20ms}", f"http://127.0.0.1:{port}"
        async with retrying(silent, AT_ONCE, url=url, upstream=upstream) as case:
            assert (await ask(case, post())).status == 504
            assert await case.results() == {"failed": 1}


async def test_no_room_among_our_own_connections_is_no_failure_of_the_upstream():
    upstream = "breaker: off, concurrency: 1, connections: {max: 1}, timeouts: {connect: 20ms}"
    async with retrying(silent, AT_ONCE, upstream=upstream) as case, connect(case.proxy.url) as holder:
        pool = case.proxy.proxy._upstreams["up"].pool
        dialled = await case.proxy.proxy._upstreams["up"].dial()
        assert pool.full
        assert (await ask(case)).status == 502
        assert await case.results() == {}
        dialled.abort()
        assert holder


async def test_an_answer_that_has_begun_is_never_begun_again():
    async def cuts(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")

    async with retrying(cuts, "{backoff: 1ms, when: [reset, timeout, 5xx, connect]}") as case:
        async with connect(case.proxy.url) as raw:
            await raw.send(GET)
            assert (await everything(raw)).body == b"half"
        assert case.heard == 1


async def test_a_held_answer_that_breaks_off_has_not_begun_for_its_caller():
    async def cuts(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 503 Busy\r\ncontent-length: 10\r\n\r\nhalf")

    async with retrying(first(cuts)) as case:
        assert (await ask(case)).status == 200
    async with retrying(cuts, AT_LENGTH) as case, connect(case.proxy.url) as raw:
        await raw.send(GET)
        await case.pausing()
        case.proxy.proxy.drain()
        got = await everything(raw)
        assert (got.status, got.body, got.whole) == (503, b"half", False), "as it came"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Busy\r\ncontent-length: 70000\r\n\r\n" + b"x" * 70_000,
        b"HTTP/1.1 503 Busy\r\n" + CHUNKED + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 3 + b"0\r\n\r\n",
    ],
    ids=["as it says", "as it turns out"],
)  # fmt: skip
async def test_an_answer_too_long_to_be_held_passes_whole(answer):
    async with retrying(answering(answer, OK)) as case:
        reply = await ask(case)
        assert (reply.status, set(reply.body)) == (503, {ord("x")})
        assert len(reply.body) in (70_000, 3 * 0x8000)
        assert case.heard == 1


async def test_a_held_stream_that_breaks_off_ends_as_any_other():
    async def cuts(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 503 Busy\r\ncontent-type: text/event-stream\r\n" + CHUNKED)
        await peer.send(b"9\r\ndata: 1\n\n\r\n")

    async with (
        retrying(cuts, "{calls: all}", upstream=SPENT, dialect="openai") as case,
        connect(case.proxy.url) as raw,
    ):
        await raw.send(post("/v1/chat/completions", connection="close"))
        got = await everything(raw)
        assert got.content.startswith(b"data: 1\n\n")
        assert b"upstream_failed" in got.content, "the dialect's own error event"


async def test_an_answer_that_says_it_is_too_long_passes_from_its_first_byte():
    async def begins(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 503 Busy\r\ncontent-length: 70000\r\n\r\n")
        await bounded(go_on.wait())
        await peer.send(b"x" * 70_000)

    go_on = asyncio.Event()
    async with retrying(begins) as case, connect(case.proxy.url) as raw:
        await raw.send(GET)
        assert b"503" in await bounded(raw.reader.readuntil(b"\r\n\r\n"))
        go_on.set()
        await bounded(raw.reader.readexactly(70_000))


async def test_the_pieces_of_a_stream_pass_as_they_come():
    async def streams(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + CHUNKED)
        await peer.send(b"9\r\ndata: 1\n\n\r\n")
        await bounded(go_on.wait())
        await peer.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    go_on = asyncio.Event()
    async with retrying(streams) as case, connect(case.proxy.url) as raw:
        await raw.send(GET)
        assert b"data: 1" in await bounded(raw.reader.readuntil(b"data: 1\n\n\r\n"))
        go_on.set()
        await bounded(raw.reader.readuntil(b"0\r\n\r\n"))


@pytest.mark.parametrize(
    ("request_", "calls", "repeated"),
    [
        (head("HEAD", "/x"), "idempotent", True),
        (head("OPTIONS", "/x"), "idempotent", True),
        (head("DELETE", "/x"), "idempotent", False),
        (post(), "idempotent", False),
        (post(**KEY), "idempotent", True),
        (post(idempotency_key=""), "idempotent", False),
        (post(), "all", True),
        (head("DELETE", "/x"), "all", True),
    ],
    ids=["HEAD", "OPTIONS", "DELETE", "POST", "POST with a key", "an empty key", "all: POST", "all: DELETE"],
)
async def test_only_what_may_happen_twice_is_repeated(request_, calls, repeated):
    busy = BUSY.replace(b"4\r\n\r\nbusy", b"0\r\n\r\n")
    async with retrying(
        answering(busy, OK.replace(b"2\r\n\r\nok", b"0\r\n\r\n")), f"{{backoff: 1ms, calls: {calls}}}"
    ) as case:
        assert (await ask(case, request_)).status == (200 if repeated else 503)
        assert case.heard == 1 + repeated


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_a_model_call_costs_money_and_is_repeated_if_the_operator_says_so(dialect):
    for calls, repeated in (("idempotent", False), ("all", True)):
        async with retrying(
            answering(BUSY, OK), f"{{backoff: 1ms, calls: {calls}}}", dialect=dialect
        ) as case:
            await ask(case, post("/v1/chat/completions"))
            assert case.heard == 1 + repeated
            assert {heard.body for heard in case.upstream.requests} == {CHAT}


@pytest.mark.parametrize("size", [30_000, 250_000])
async def test_a_body_that_comes_in_pieces_is_kept_and_sent_whole_twice(size):
    body = b"x" * size
    async with retrying(answering(BUSY, OK)) as case, connect(case.proxy.url) as raw:
        request = post(body=body, **KEY)
        await raw.send(request[:15_000])
        await until(lambda: in_flight(case.proxy, "upstream:up") == 1)
        await raw.send(request[15_000:])
        assert (await raw.reply()).status == 200
        assert [heard.body for heard in case.upstream.requests] == [body, body]


@pytest.mark.parametrize("chunked", [False, True], ids=["long", "chunked"])
async def test_a_body_that_is_not_kept_cannot_be_sent_again(chunked):
    body = b"5\r\nhello\r\n0\r\n\r\n" if chunked else b"x" * 300_000
    framing = {"transfer_encoding": "chunked"} if chunked else {"content_length": "300000"}
    async with retrying(answering(BUSY, OK)) as case:
        assert (await ask(case, head("POST", "/x", **framing, **KEY) + body)).status == 503
        assert case.heard == 1


async def test_a_callers_own_retry_is_not_repeated_by_us_too():
    async with retrying(answering(BUSY, OK)) as case:
        assert (await ask(case, head("GET", "/x", x_stainless_retry_count="1"))).status == 503
        assert case.heard == 1


async def test_the_messages_of_an_mcp_session_are_not_repeated():
    initialize = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}'
    async with retrying(resets, "{backoff: 1ms, calls: all}", dialect="mcp") as case:
        await ask(case, post("/", initialize))
        assert case.heard == 1
    async with retrying(resets, "{backoff: 1ms, calls: all}", dialect="mcp") as case:
        await ask(case, post("/", TOOL))
        assert case.heard == 2, "a tool call is, if the operator says so"
