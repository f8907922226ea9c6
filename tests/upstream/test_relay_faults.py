"""What the network does ends in a Result, and the connection is not used again."""

from __future__ import annotations

import asyncio

import pytest

from proxy.core.verdict import Outcome, Reason
from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.caller import FakeCaller
from tests.kit.ports import dead_port, stuck_port
from tests.kit.scripted import OK, Peer, Scripted, answering, dies_on_second, saying, silent
from tests.kit.waiting import until

SOON_S = 0.02


async def test_nobody_listens():
    async with upstream_at(f"http://127.0.0.1:{dead_port()}") as upstream:
        result, caller = await ask(upstream, post())
    assert repr(result) == "<Result failed - unanswered upstream_failed: connection refused>"
    assert caller.status is None
    assert not result.sent


async def test_a_name_that_does_not_exist_is_not_told():
    async with upstream_at("http://no-such-host.invalid") as upstream:
        result, _ = await ask(upstream, get())
    assert (result.reason, result.detail) == (Reason.UPSTREAM_FAILED, "name not resolved")


async def test_a_connection_that_does_not_open_is_given_up_in_time():
    with stuck_port() as stuck:
        async with upstream_at(f"http://127.0.0.1:{stuck}", connect_s=SOON_S) as upstream:
            result, _ = await ask(upstream, get())
            assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_TIMEOUT)
    assert result.detail == "no connection within 0.02s"


async def test_an_upstream_that_never_answers_is_given_up_in_time():
    async with Scripted(silent) as scripted, upstream_at(scripted.url, first_byte_s=SOON_S) as upstream:
        result, caller = await ask(upstream, post())
        assert upstream.pool.idle == 0
    assert repr(result) == "<Result failed - unanswered upstream_timeout: no answer within 0.02s>"
    assert caller.status is None
    assert result.sent


async def test_half_a_head_does_not_buy_time():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nx-slow: ")
        await peer.left()

    async with Scripted(script) as scripted, upstream_at(scripted.url, first_byte_s=SOON_S) as upstream:
        result, _ = await ask(upstream, post())
    assert result.reason is Reason.UPSTREAM_TIMEOUT


async def test_an_answer_that_stops_midway_is_cut_in_time():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await peer.left()

    async with Scripted(script) as scripted, upstream_at(scripted.url, idle_s=SOON_S) as upstream:
        result, caller = await ask(upstream, post())
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_TIMEOUT)
    assert (result.started, result.complete, caller.body, caller.ended) == (True, False, b"half", False)
    assert result.detail == "cut after 4 bytes: no more of the answer within 0.02s"


async def test_an_upstream_that_takes_no_more_of_the_request_is_given_up_in_time():
    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.Event().wait()

    big = b"x" * 30_000_000  # more than the two kernel buffers take
    async with (
        Scripted(script, receive_buffer=4096) as scripted,
        upstream_at(scripted.url, idle_s=SOON_S) as upstream,
    ):
        result, _ = await ask(upstream, post(big))
    assert result.reason is Reason.UPSTREAM_TIMEOUT
    assert result.detail == "no more of the request taken within 0.02s"


async def test_the_deadline_ends_the_wait_and_does_not_count_against_the_upstream():
    async with Scripted(silent) as scripted, upstream_at(scripted.url) as upstream:
        now = asyncio.get_running_loop().time
        result, _ = await ask(upstream, post(), clock=now, deadline=now() + SOON_S)
    assert (result.outcome, result.reason) == (Outcome.IGNORED, Reason.UPSTREAM_TIMEOUT)
    assert result.detail == "no answer before the call's deadline"


async def test_the_deadline_does_not_cut_an_answer_that_has_begun():
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number > 0:
            await peer.left()
            return
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
        await go_on.wait()
        await peer.send(b"cd")

    now = 0.0
    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller()
        asking = asyncio.create_task(ask(upstream, post(), caller, clock=lambda: now, deadline=SOON_S))
        await caller.has(b"ab")
        now = 1.0  # long after the deadline
        # While another call waits in vain, the timer of the first has time to look.
        clock = asyncio.get_running_loop().time
        await ask(upstream, post(), clock=clock, deadline=clock() + 5 * SOON_S)
        go_on.set()
        result, _ = await asking
    assert (result.complete, caller.body) == (True, b"abcd")


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", b"half"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"half"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", b"half"),
    ],
)
async def test_an_answer_cut_short_never_ends_well(raw: bytes, body: bytes):
    async with Scripted(saying(raw)) as scripted, upstream_at(scripted.url) as upstream:
        result, caller = await ask(upstream, get())
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_FAILED)
    assert (result.started, result.complete, caller.body, caller.ended) == (True, False, body, False)
    assert result.detail == "cut after 4 bytes: connection closed"


async def test_a_reset_midway_never_ends_well_even_without_a_length():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await heard.wait()
        peer.reset()

    heard = asyncio.Event()
    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        caller = FakeCaller()
        asking = asyncio.create_task(ask(upstream, get(), caller))
        await caller.has(b"half")
        heard.set()
        result, _ = await asking
    assert (result.complete, caller.ended) == (False, False)
    assert result.detail == "cut after 4 bytes: connection reset"


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\ncontent-"])
async def test_a_connection_closed_before_the_head_is_a_failure(raw: bytes):
    async with Scripted(saying(raw)) as scripted, upstream_at(scripted.url) as upstream:
        result, _ = await ask(upstream, get())
    assert (result.reason, result.started) == (Reason.UPSTREAM_FAILED, False)
    assert result.detail == "connection closed"


async def test_no_more_connections_than_allowed():
    async with (
        Scripted(silent) as scripted,
        upstream_at(scripted.url, max_connections=1, connect_s=0.2) as upstream,
    ):
        first = FakeCaller()
        waiting = asyncio.create_task(ask(upstream, post(), first))
        await until(lambda: scripted.requests)
        result, _ = await ask(upstream, post())
        first.leave()
        await waiting
    assert (result.outcome, result.reason) == (Outcome.UNUSED, Reason.UPSTREAM_FAILED)
    assert scripted.connections == 1


# ── kept connections that died ──────────────────────────────────────────────────────────────────────


async def test_a_get_is_sent_again_when_a_kept_connection_was_dead():
    async with Scripted(dies_on_second) as scripted, upstream_at(scripted.url) as upstream:
        await ask(upstream, get())
        result, caller = await ask(upstream, get(b"/second"))
    assert (result.complete, result.reused, caller.body) == (True, False, b"ok")
    assert [heard.line for heard in scripted.requests].count(b"GET /second HTTP/1.1") == 2


async def test_a_post_is_never_sent_twice():
    async with Scripted(dies_on_second) as scripted, upstream_at(scripted.url) as upstream:
        await ask(upstream, post(b"1"))
        result, _ = await ask(upstream, post(b"2"))
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_FAILED)
    assert [heard.body for heard in scripted.requests] == [b"1", b"2"]


async def test_a_get_is_not_sent_again_on_a_new_connection():
    async with Scripted(saying(b"")) as scripted, upstream_at(scripted.url) as upstream:
        result, _ = await ask(upstream, get())
    assert result.reason is Reason.UPSTREAM_FAILED
    assert len(scripted.requests) == 1


async def test_a_get_whose_answer_had_begun_is_not_sent_again():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"HTTP/1.1 200")

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        await ask(upstream, get())
        result, _ = await ask(upstream, get())
    assert result.reason is Reason.UPSTREAM_FAILED
    assert len(scripted.requests) == 2


async def test_a_get_that_was_not_answered_in_time_is_not_sent_again():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await silent(peer)

    async with Scripted(script) as scripted, upstream_at(scripted.url) as upstream:
        await ask(upstream, get())
        clock = asyncio.get_running_loop().time
        result, _ = await ask(upstream, get(), clock=clock, deadline=clock() + SOON_S)
    assert (result.reason, result.reused) == (Reason.UPSTREAM_TIMEOUT, True)
    assert scripted.connections == 1


async def test_cancellation_closes_the_connection_and_passes_through():
    async with Scripted(silent) as scripted, upstream_at(scripted.url) as upstream:
        asking = asyncio.create_task(ask(upstream, post()))
        await until(lambda: scripted.requests)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await upstream.aclose()
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"


async def test_the_next_call_after_a_fault_gets_a_new_connection():
    async with (
        Scripted(answering(b"garbage\r\n\r\n", OK)) as scripted,
        upstream_at(scripted.url) as upstream,
    ):
        await ask(upstream, get())
        result, _ = await ask(upstream, get())
    assert (result.complete, result.reused, scripted.connections) == (True, False, 2)
