"""Calls that httpx carries: the same contract as the relay's, over HTTP/2."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from proxy.core.verdict import Outcome, Reason
from proxy.upstream import UnsendableRequest
from proxy.upstream.httpx_line import Broken, fields_for_caller
from tests.kit.asking import ask, get, post, upstream_at
from tests.kit.caller import FakeCaller
from tests.kit.ports import dead_port, stuck_port
from tests.kit.scripted import OK, Peer, Scripted, answering
from tests.kit.scripted_h2 import ScriptedH2, Stream, ok, slowly
from tests.kit.tls import server
from tests.kit.waiting import bounded, until

Script = Callable[[Stream], Awaitable[None]]


async def test_an_http2_upstream_is_agreed_on_by_tls(authority: trustme.CA, ca: Path):
    context = server(authority, "localhost")
    async with (
        ScriptedH2(ok, context=context) as scripted,
        upstream_at(scripted.url, ca=ca, http2=True) as upstream,
    ):
        for reused in (False, True):
            result, caller = await ask(upstream, post(b"x" * 200_000, target=b"/v1/a%2Fb//../c;d?q=+&%20"))
            assert (result.outcome, result.complete, result.reused) == (Outcome.SUCCEEDED, True, reused)
            assert (caller.status, caller.body, caller.ended) == (200, b"ok", True)
        assert repr(upstream.pool) == "<Pool 0 in use, 1 idle>"
    assert scripted.connections == 1
    for stream in scripted.streams:
        assert stream.all(b":path") == [b"/v1/a%2Fb//../c;d?q=+&%20"]
        assert stream.all(b":authority") == [f"localhost:{scripted.port}".encode()]
        assert stream.body == b"x" * 200_000


async def test_an_https_upstream_that_does_not_speak_http2_is_spoken_to_in_http_1_1(
    authority: trustme.CA, ca: Path
):
    context = server(authority, "localhost")
    context.set_alpn_protocols(["http/1.1"])
    async with (
        Scripted(answering(OK), context=context) as scripted,
        upstream_at(scripted.url, ca=ca, http2=True) as upstream,
    ):
        for reused in (False, True):
            result, caller = await ask(upstream, get())
            assert (result.complete, result.reused, caller.body) == (True, reused, b"ok")
    assert scripted.connections == 1


async def test_headers_follow_the_rules_of_the_relay():
    async def script(stream: Stream) -> None:
        await stream.ended.wait()
        stream.head(
            200,
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"content-encoding", b"gzip"),
            (b"keep-alive", b"timeout=5"),
        )
        stream.send(b"\x1f\x8bnot really", end=True)

    headers = [
        (b"host", b"proxy"),
        (b"authorization", b"Bearer the caller's"),
        (b"connection", b"x-hop"),
        (b"x-hop", b"1"),
        (b"te", b"trailers"),
        (b"x-kept", b"1"),
        (b"x-kept", b"2"),
    ]
    async with (
        ScriptedH2(script) as scripted,
        upstream_at(
            scripted.url, http2=True, credentials={"authorization": "Bearer the provider's"}
        ) as upstream,
    ):
        result, caller = await ask(upstream, get(headers=headers, peer=b"10.0.0.9"))
    assert result.complete
    assert caller.headers == [
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"content-encoding", b"gzip"),
    ]
    assert caller.body == b"\x1f\x8bnot really"
    (stream,) = scripted.streams
    assert stream.all(b"authorization") == [b"Bearer the provider's"]
    assert stream.all(b"x-kept") == [b"1", b"2"]
    assert stream.all(b"x-forwarded-for") == [b"10.0.0.9"]
    assert not {b"x-hop", b"connection", b"te", b"host"} & {name for name, _ in stream.fields}


async def test_a_request_that_cannot_be_sent_is_refused_before_anything_is_opened():
    async with upstream_at(f"http://localhost:{dead_port()}", http2=True) as upstream:
        with pytest.raises(UnsendableRequest):
            await ask(upstream, get(b"/a b"))


async def test_an_event_reaches_the_caller_before_the_next_is_sent():
    go_on = asyncio.Event()

    async def script(stream: Stream) -> None:
        stream.head(200, (b"content-type", b"text/event-stream"))
        stream.send(b"data: 1\n\n")
        await go_on.wait()
        stream.send(b"data: 2\n\n", end=True)

    async with ScriptedH2(script) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        caller = FakeCaller()
        asking = asyncio.create_task(ask(upstream, get(), caller))
        await caller.has(b"data: 1\n\n")
        await until(lambda: caller.flushes >= 2)
        go_on.set()
        result, _ = await bounded(asking)
    assert (result.complete, caller.pieces) == (True, [b"data: 1\n\n", b"data: 2\n\n"])


@pytest.mark.parametrize("length", [None, 6])
async def test_a_body_is_pulled_and_sent_piece_by_piece(length: int | None):
    async def script(stream: Stream) -> None:
        await stream.arrived.wait()
        seen.append(stream.body)
        await stream.ended.wait()
        stream.answer(200, stream.body)

    seen: list[bytes] = []
    caller = FakeCaller([b"one", b"two"])
    async with ScriptedH2(script) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        result, _ = await ask(upstream, post(None, length=length), caller)
    assert (result.complete, caller.body) == (True, b"onetwo")
    assert scripted.streams[0].all(b"content-length") == ([b"6"] if length else [])


async def test_an_upstream_that_takes_no_more_of_a_body_is_given_up():
    async def script(stream: Stream) -> None:
        await stream.gone.wait()

    async with (
        ScriptedH2(script, reads=False) as scripted,
        upstream_at(scripted.url, http2=True, idle_s=0.03) as upstream,
    ):
        result, _ = await ask(upstream, post(b"x" * 300_000))
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert result.reason is Reason.UPSTREAM_TIMEOUT
    assert result.detail == "no more of the request taken within 0.03s"


async def test_a_slow_caller_stops_the_upstream():
    async def script(stream: Stream) -> None:
        stream.head(200)
        piece = bytes(16_000)
        while not stream.gone.is_set():
            if stream.wire.h2.local_flow_control_window(stream.number) < len(piece):
                break
            stream.send(piece)
            await stream.wire.writer.drain()
            sent.append(len(piece))
            await asyncio.sleep(0)

    sent: list[int] = []
    caller = FakeCaller()
    caller.taking.clear()
    async with ScriptedH2(script) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        asking = asyncio.create_task(ask(upstream, get(), caller))
        await until(lambda: caller.status)
        sock = upstream.pool.connections
        await until(lambda: scripted.wires[0].writer.transport.get_write_buffer_size() > 0)
        assert len(sock) == 1
        assert sum(sent) < 16 * 2**20  # the window that httpx opens: what is not read stays in the sockets
        caller.leave()
        await bounded(asking)


async def test_the_callers_own_deadline_and_the_spans_of_the_upstream():
    async def script(stream: Stream) -> None:
        if stream.all(b":path") == [b"/body"]:
            stream.head(200)
            stream.send(b"some")
        await stream.gone.wait()

    async with (
        ScriptedH2(script) as scripted,
        upstream_at(scripted.url, http2=True, idle_s=0.1) as upstream,
    ):
        upstream.first_byte_s = 0.03
        silent, _ = await ask(upstream, get())
        cut, caller = await ask(upstream, get(b"/body"))
        loop = asyncio.get_running_loop()
        late, _ = await ask(upstream, get(), clock=loop.time, deadline=loop.time() + 0.01)
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert (silent.reason, silent.outcome) == (Reason.UPSTREAM_TIMEOUT, Outcome.FAILED)
    assert silent.detail == "no answer within 0.03s"
    assert (cut.started, cut.complete, caller.body) == (True, False, b"some")
    assert cut.detail == "cut after 4 bytes: no more of the answer within 0.1s"
    assert late.outcome is Outcome.IGNORED
    assert late.detail.endswith("before the call's deadline")


async def test_the_time_for_the_whole_call_cuts_a_stream():
    async def script(stream: Stream) -> None:
        stream.head(200)
        while not stream.gone.is_set():
            stream.send(b".")
            await asyncio.sleep(0)

    async with (
        ScriptedH2(script) as scripted,
        upstream_at(scripted.url, http2=True, total_s=0.05) as upstream,
    ):
        result, _ = await ask(upstream, get())
    assert (result.started, result.complete, result.outcome) == (True, False, Outcome.FAILED)
    assert result.detail.endswith("before the time for the whole call was over")


async def test_a_caller_that_stalls_is_gone():
    async def script(stream: Stream) -> None:
        stream.answer(200, b"ok")

    caller = FakeCaller()
    caller.taking.clear()
    async with (
        ScriptedH2(script) as scripted,
        upstream_at(scripted.url, http2=True, idle_s=0.03) as upstream,
    ):
        result, _ = await ask(upstream, get(), caller)
    assert (result.gone, result.outcome) == (True, Outcome.IGNORED)
    assert result.detail == "no more of the answer taken by the caller within 0.03s"


# ── whoever leaves ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("phase", ["head", "body", "upload"])
async def test_a_caller_that_leaves_closes_the_upstream_at_once(phase: str):
    async def script(stream: Stream) -> None:
        if phase == "body":
            stream.head(200)
            stream.send(b"some")
        await stream.gone.wait()

    caller = FakeCaller([b"some"], hangs=True)
    async with ScriptedH2(script) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        request = post(None, length=100) if phase == "upload" else get()
        asking = asyncio.create_task(ask(upstream, request, caller))
        await until(lambda: scripted.streams)
        if phase == "body":
            await caller.has(b"some")
        elif phase == "upload":
            await bounded(scripted.streams[0].arrived.wait())
        assert upstream.pool.in_use == 1
        caller.leave()
        result, _ = await bounded(asking)
        await bounded(scripted.streams[0].gone.wait())
        await until(lambda: not scripted.open)
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert (result.gone, result.complete, result.outcome) == (True, False, Outcome.IGNORED)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_caller_that_leaves_while_a_connection_is_opened_leaves_nothing_open(tls: bool):
    async def script(peer: Peer) -> None:
        accepted.set()
        await peer.left()
        closed.set()

    accepted, closed = asyncio.Event(), asyncio.Event()
    caller = FakeCaller()
    with stuck_port() as stuck:
        async with Scripted(script) as scripted:
            url = f"https://localhost:{scripted.port}" if tls else f"http://127.0.0.1:{stuck}"
            async with upstream_at(url, http2=True) as upstream:
                asking = asyncio.create_task(ask(upstream, get(), caller))
                await until(lambda: upstream.pool.dialling)
                if tls:
                    await bounded(accepted.wait())
                caller.leave()
                result, _ = await bounded(asking)
                assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
                if tls:
                    await bounded(closed.wait())
    assert result.gone


async def begins(stream: Stream) -> None:
    """Answer in part, and then no more."""
    stream.head(200)
    stream.send(b"some")
    await stream.gone.wait()


async def test_a_cancelled_call_closes_its_connection():
    caller = FakeCaller()
    async with ScriptedH2(begins) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        asking = asyncio.create_task(ask(upstream, get(), caller))
        await caller.has(b"some")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
        await until(lambda: not scripted.open)


async def test_aborting_cuts_what_runs_and_closing_waits_for_it():
    caller = FakeCaller()
    async with ScriptedH2(begins) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        asking = asyncio.create_task(ask(upstream, get(), caller))
        await caller.has(b"some")
        closing = asyncio.create_task(upstream.aclose())
        await asyncio.sleep(0)
        assert not closing.done()
        upstream.abort()
        result, _ = await bounded(asking)
        await bounded(closing)
    assert (result.complete, result.gone, result.detail) == (
        False,
        False,
        "cut after 4 bytes: connection closed",
    )


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────────


async def reset_at_once(stream: Stream) -> None:
    stream.reset(2)


async def reset_midway(stream: Stream) -> None:
    stream.head(200)
    stream.send(b"some")
    stream.reset(2)


async def close_midway(stream: Stream) -> None:
    stream.head(200)
    stream.send(b"some")
    stream.wire.end()


async def too_short(stream: Stream) -> None:
    stream.head(200, (b"content-length", b"10"))
    stream.send(b"some", end=True)


async def split(stream: Stream) -> None:
    stream.head(200, (b"x-bad", b"1\r\nset-cookie: evil=1"), end=True)


async def two_lengths(stream: Stream) -> None:
    stream.head(200, (b"content-length", b"0"), (b"content-length", b"0"), end=True)


async def too_many_headers(stream: Stream) -> None:
    stream.head(200, *((b"x-%d" % at, bytes([97]) * 1000) for at in range(70)), end=True)


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        (reset_at_once, "the upstream reset the stream, HTTP/2 error 2"),
        (reset_midway, "cut after 4 bytes: the upstream reset the stream, HTTP/2 error 2"),
        (close_midway, "cut after 4 bytes: connection closed"),
        (too_short, "not valid HTTP"),
        (split, "a header that is not valid"),
        (two_lengths, "more than one length, or one that is no number"),
        (too_many_headers, "not valid HTTP"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
async def test_an_answer_that_is_none(script: Script, detail: str):
    async with ScriptedH2(script) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        result, caller = await ask(upstream, post())
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert (result.outcome, result.reason) == (Outcome.FAILED, Reason.UPSTREAM_FAILED)
    assert result.detail == detail
    assert not caller.ended
    assert len(scripted.streams) == 1
    assert result.sent


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(429, Outcome.OVERLOADED), (503, Outcome.FAILED), (404, Outcome.SUCCEEDED)],
)
async def test_an_answer_is_judged_as_the_relay_does(status: int, outcome: Outcome):
    async def script(stream: Stream) -> None:
        stream.answer(status, b"no", (b"retry-after", b"7"))

    async with ScriptedH2(script) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        result, _ = await ask(upstream, get())
    assert (result.complete, result.status, result.outcome) == (True, status, outcome)
    assert result.retry_after_s == (None if status == 404 else 7.0)
    assert result.first_byte_s is not None


async def test_no_connection():
    async with upstream_at(f"http://localhost:{dead_port()}", http2=True) as upstream:
        refused, _ = await ask(upstream, get())
    async with upstream_at("http://nowhere.invalid", http2=True) as upstream:
        unknown, _ = await ask(upstream, get())
    with stuck_port() as stuck:
        async with upstream_at(f"http://127.0.0.1:{stuck}", http2=True, connect_s=0.03) as upstream:
            blackhole, _ = await ask(upstream, get())
            assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert not any(result.sent for result in (refused, unknown, blackhole))
    assert (refused.reason, refused.detail) == (Reason.UPSTREAM_FAILED, "connection refused")
    assert (unknown.reason, unknown.detail) == (Reason.UPSTREAM_FAILED, "name not resolved")
    assert (blackhole.reason, blackhole.detail) == (
        Reason.UPSTREAM_TIMEOUT,
        "no connection within 0.03s",
    )


async def test_a_certificate_that_proves_nothing_is_not_accepted(authority: trustme.CA, ca: Path):
    async with (
        ScriptedH2(ok, context=server(authority, "other.test")) as scripted,
        upstream_at(scripted.url, ca=ca, http2=True) as upstream,
    ):
        result, _ = await ask(upstream, get())
    assert (result.reason, result.detail) == (
        Reason.UPSTREAM_FAILED,
        "certificate not accepted: it is for another name",
    )


# ── connections ─────────────────────────────────────────────────────────────────────────────────────


async def test_each_call_has_a_connection_of_its_own_while_it_lasts():
    go_on = asyncio.Event()
    async with slowly(go_on, http2=True) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        asking = [asyncio.create_task(ask(upstream, get())) for _ in range(3)]
        await until(lambda: len(scripted.streams) == 3)
        assert (scripted.connections, upstream.pool.in_use) == (3, 3)
        go_on.set()
        await asyncio.gather(*asking)
        assert (upstream.pool.in_use, upstream.pool.idle) == (0, 3)


async def test_a_connection_that_said_goodbye_is_not_taken():
    async with ScriptedH2(ok) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        await ask(upstream, post())
        scripted.wires[0].leave()
        await scripted.wires[0].writer.drain()
        line = next(iter(upstream.pool.connections))
        await until(line.readable)
        result, _ = await ask(upstream, post())
    assert (result.complete, result.reused, scripted.connections) == (True, False, 2)


@pytest.mark.parametrize(("request_", "sent"), [(get(), 2), (post(), 1)], ids=["get", "post"])
async def test_only_a_safe_request_is_sent_again_when_a_kept_connection_is_dead(request_, sent: int):
    async def script(stream: Stream) -> None:
        await stream.ended.wait()
        if len(scripted.streams) == 2:
            stream.wire.writer.transport.abort()
        else:
            stream.answer(200, b"ok")

    async with ScriptedH2(script) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        await ask(upstream, get())
        result, _ = await ask(upstream, request_)
    assert result.complete is (sent == 2)
    assert len(scripted.streams) == 1 + sent


async def looks_at_one(stream: Stream) -> None:
    """Answer the first stream of a connection, and say goodbye at the second without a look at it."""
    await stream.ended.wait()
    if stream.number > 1:
        stream.wire.leave(1)
    else:
        stream.answer(200, b"ok")


async def test_a_post_that_was_not_looked_at_is_not_sent_again_either():
    async with ScriptedH2(looks_at_one) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        await ask(upstream, post())
        result, _ = await ask(upstream, post())
        assert repr(upstream.pool) == "<Pool 0 in use, 0 idle>"
    assert (result.complete, result.detail) == (False, "connection closed")
    assert len(scripted.streams) == 2


def test_who_needs_no_bridge_does_not_load_it():
    code = (
        "import sys, proxy.app, proxy.server\n"
        "proxy.app.Upstream('a', 'http://localhost')\n"
        "assert not {'httpx', 'httpcore', 'h2'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_a_get_that_was_not_looked_at_is_sent_again_by_httpx():
    async with ScriptedH2(looks_at_one) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        await ask(upstream, get())
        result, _ = await ask(upstream, get())
        await until(lambda: scripted.open == 1)
    assert (result.complete, result.reused) == (True, False)
    assert (scripted.connections, len(scripted.streams)) == (2, 3)


@pytest.mark.parametrize("status", [101, 199, 600])
def test_a_status_that_is_no_answer(status: int):
    with pytest.raises(Broken):
        fields_for_caller(status, [])


def test_of_the_fields_of_an_answer_connection_may_take_out_any_but_the_length():
    raw = [(b"Connection", b"x-hop, content-length"), (b"X-Hop", b"1"), (b"Content-Length", b"2")]
    assert fields_for_caller(200, raw) == [(b"content-length", b"2")]
    assert fields_for_caller(204, raw) == []


async def test_an_answer_that_has_begun_is_not_cut_by_the_callers_deadline():
    async def script(stream: Stream) -> None:
        stream.head(200)
        stream.send(b"some")
        await until(lambda: loop.time() > deadline + 0.02)
        stream.send(b" more", end=True)

    loop = asyncio.get_running_loop()
    async with ScriptedH2(script) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        deadline = loop.time() + 1.0  # in which the answer begins, however busy the machine is
        result, caller = await ask(upstream, get(), clock=loop.time, deadline=deadline)
    assert (result.complete, caller.body) == (True, b"some more")


async def test_one_dead_connection_is_enough_and_a_reset_is_an_answer():
    async def script(stream: Stream) -> None:
        await stream.ended.wait()
        if stream.all(b":path") == [b"/reset"]:
            stream.reset(2)
        elif stream.all(b":path") == [b"/dead"] and stream.number > 1:
            stream.wire.writer.transport.abort()
        else:
            await go_on.wait()
            stream.answer(200, b"ok")

    go_on = asyncio.Event()
    async with ScriptedH2(script) as scripted, upstream_at(scripted.url, http2=True) as upstream:
        asking = [asyncio.create_task(ask(upstream, get())) for _ in range(3)]
        await until(lambda: len(scripted.streams) == 3)
        go_on.set()
        await asyncio.gather(*asking)
        reset, _ = await ask(upstream, get(b"/reset"))
        assert (reset.complete, len(scripted.streams)) == (False, 4)
        dead, _ = await ask(upstream, get(b"/dead"))
        assert (dead.complete, dead.reused, len(scripted.streams)) == (True, False, 6)
        assert upstream.pool.idle == 2  # the fresh one, and one that nobody tried
