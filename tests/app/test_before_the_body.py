"""A refusal costs the reading of no body: it comes while the body is still unsent."""

from __future__ import annotations

from proxy.demo import Behaviour, Hang
from tests.app.watching import in_flight
from tests.kit.raw import CHAT, connect, head
from tests.kit.running import before_demo
from tests.kit.waiting import bounded, until

PATH = "/openai/v1/chat/completions"
EMPTY = "buckets: [{rate: 1 request/hour}]\nqueue: {size: 0}"


async def spend(proxy):
    async with connect(proxy.url) as raw:
        assert (await raw.post(PATH)).status == 200


async def test_a_refusal_does_not_wait_for_the_body_and_the_connection_serves_the_next_call():
    async with before_demo(route=EMPTY) as proxy, connect(proxy.url) as raw:
        await spend(proxy)
        await raw.send(head("POST", PATH, content_length=str(len(CHAT))))
        reply = await raw.reply()
        assert reply.status == 429
        assert "connection" not in reply.headers, "the length says where the next request begins"
        await raw.send(CHAT)
        assert (await raw.get("/tools/search")).status == 200
        assert proxy.upstream.ledger.arrivals == 2


async def test_a_refused_caller_that_expects_100_continue_is_never_told_to_go_on():
    async with before_demo(route=EMPTY) as proxy, connect(proxy.url) as raw:
        await spend(proxy)
        await raw.send(head("POST", PATH, content_length=str(len(CHAT)), expect="100-continue"))
        reply = await raw.reply()  # and no 100 before it
        assert reply.status == 429
        assert reply.headers["connection"] == "close", "whether the body follows is the caller's choice"
        assert await raw.is_closed()


async def test_an_admitted_caller_that_expects_100_continue_is_told_to_go_on_by_us():
    async with before_demo(route=EMPTY) as proxy, connect(proxy.url) as raw:
        await raw.send(head("POST", PATH, content_length=str(len(CHAT)), expect="100-continue"))
        assert await bounded(raw.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await raw.send(CHAT)
        assert (await raw.reply()).status == 200
        (entry,) = proxy.upstream.ledger.entries
        assert entry.header("expect") is None


async def test_a_refusal_of_a_chunked_body_does_not_wait_for_it_either():
    async with before_demo(route=EMPTY) as proxy, connect(proxy.url) as raw:
        await spend(proxy)
        await raw.send(head("POST", PATH, transfer_encoding="chunked"))
        assert (await raw.reply()).status == 429
        await raw.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT))
        assert (await raw.post(PATH)).status == 429, "the body was read past, not taken for a request"


async def test_a_body_that_looks_like_a_request_is_a_body():
    async with before_demo(route=EMPTY) as proxy, connect(proxy.url) as raw:
        await spend(proxy)
        smuggled = head("GET", "/tools/search/smuggled")
        await raw.send(head("POST", PATH, content_length=str(len(smuggled))))
        assert (await raw.reply()).status == 429
        await raw.send(smuggled)
        assert (await raw.post(PATH)).status == 429
        assert proxy.upstream.ledger.arrivals == 1


async def test_a_wait_in_the_queue_needs_no_body_either():
    behaviour = Behaviour(latency_s=0.0, mode=Hang())
    route = "queue: {size: 5, max_age: 100ms}"
    async with (
        before_demo(behaviour, upstream="concurrency: 1", route=route) as proxy,
        connect(proxy.url) as holder,
        connect(proxy.url) as raw,
    ):
        await holder.send(head("POST", PATH, content_length=str(len(CHAT))) + CHAT)
        await until(lambda: in_flight(proxy) == 1)
        await raw.send(head("POST", PATH, content_length="1000000"))
        reply = await raw.reply()
        assert reply.headers["x-backpressure-reason"] == "waited_too_long"
