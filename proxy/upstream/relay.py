"""One exchange: the caller's request to the upstream, the upstream's answer to the caller.

Whatever the network does ends in a Result. Nothing is gathered: what arrived in one turn of the event loop
leaves in the next, in both directions, and each side is read only as fast as the other takes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from proxy.core.verdict import Outcome, Reason
from proxy.upstream.answer import COMPLETE, HEAD
from proxy.upstream.connection import Connection
from proxy.upstream.contract import CallerGone, Downstream, Request, Result
from proxy.upstream.dial import DialFailed
from proxy.upstream.retry_after import retry_after_s
from proxy.upstream.target import Upstream
from proxy.upstream.upload import Upload

REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Safe methods (RFC 9110 §9.2.1): sent again on a new connection when a kept one turns out to be dead. A POST
never is (§9.2.2; nginx's `proxy_next_upstream` without `non_idempotent`): its effect may have happened."""

TELLS_WHEN: Final = frozenset({429, 503, 529})


async def relay(
    upstream: Upstream,
    request: Request,
    downstream: Downstream,
    *,
    clock: Callable[[], float] = time.monotonic,
    deadline: float = float("inf"),
) -> Result:
    """Carry one request and its answer; see Result for the ways it ends.

    `deadline`, in seconds of `clock`, is for the head of the answer: one that has begun is not cut by it.
    Raises UnsendableRequest before anything is sent, and CancelledError after the connection is closed.
    """
    head = upstream.head.write(request)
    result = Result()
    body, upload = request.body or b"", None
    if request.body is None and request.has_body and request.length != 0:
        upload = Upload(downstream, request.length)
        try:
            body = await upload.begin(within_s=min(upstream.idle_s, deadline - clock()))
        except CallerGone as gone:
            return _left(result, str(gone))
        if upload.finished:
            upload = None  # all of it is here
    repeatable = request.method in REPEATABLE and upload is None
    connection = upstream.pool.take()
    while True:
        if connection is None:
            connection = await _dial(upstream, downstream, result, deadline - clock())
            if connection is None:
                return result
        result.reused = connection.reused
        connection.begin(bodiless=request.method == b"HEAD", clock=clock, deadline=deadline)
        await _exchange(connection, head, body, upload, downstream, result, clock)
        if not (repeatable and connection.reused and _was_stale(connection)):
            return _judge(connection, result)
        connection = None


async def _exchange(
    connection: Connection,
    head: bytes,
    body: bytes,
    upload: Upload | None,
    downstream: Downstream,
    result: Result,
    clock: Callable[[], float],
) -> None:
    """Use a connection for one exchange, and let go of it. What went wrong is left on the connection."""
    answer = connection.answer
    try:
        downstream.on_gone(connection.caller_left)
        connection.write(head, body)
        if upload is None:
            connection.sent()
            while answer.phase == HEAD and not connection.over:
                await connection.changed()
            if answer.phase != HEAD:
                await _deliver(connection, downstream, result, clock)
        else:
            await _both_ways(connection, upload, downstream, result, clock)
    except CallerGone as gone:
        connection.gone = True
        connection.detail = str(gone)
    except asyncio.CancelledError:
        # The timer's own cancellation, and nobody else's, ends here.
        task = asyncio.current_task()
        if not connection.stalled or task is None or task.uncancel() > 0:
            raise
    finally:
        downstream.on_gone(None)  # first: a connection in the pool is no longer this caller's to close
        connection.end()


async def _deliver(
    connection: Connection, downstream: Downstream, result: Result, clock: Callable[[], float]
) -> None:
    """Hand the answer to the caller as it arrives. What arrived before a fault is handed over too."""
    answer, task = connection.answer, asyncio.current_task()
    result.status = answer.status
    result.first_byte_s = clock() - connection.sent_at if connection.sent_at is not None else 0.0
    result.started = True
    connection.hand_over(task)
    await downstream.start(answer.status, answer.headers)
    while not connection.gone:
        if piece := connection.take():
            await downstream.write(piece)
        elif answer.phase == COMPLETE:
            await downstream.end()
            result.complete = not connection.gone
            return
        elif connection.over:
            return
        else:
            downstream.flush()
            connection.upstream_goes_on()
            await connection.changed()
            connection.hand_over(task)


async def _both_ways(
    connection: Connection,
    upload: Upload,
    downstream: Downstream,
    result: Result,
    clock: Callable[[], float],
) -> None:
    """Send a long body while the answer may already come: an upstream may answer before it has read it all.

    The answer ends the exchange. What is left of the body then is not sent, and the connection not kept.
    """
    answer = connection.answer
    sending = asyncio.create_task(upload.go_on(connection))
    sending.add_done_callback(connection.wake)
    try:
        while answer.phase == HEAD and not connection.over:
            if sending.done():
                sending.result()  # raises CallerGone
            await connection.changed()
        if answer.phase != HEAD:
            await _deliver(connection, downstream, result, clock)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _dial(
    upstream: Upstream, downstream: Downstream, result: Result, deadline_in_s: float
) -> Connection | None:
    """A new connection, or None with the result filled in. Given up at once when the caller leaves."""
    if upstream.pool.full:
        result.outcome = Outcome.UNUSED  # our own bound says nothing about the upstream
        result.reason, result.detail = Reason.UPSTREAM_FAILED, "every connection that is allowed is in use"
        return None
    dialling = upstream.dial()
    gone = False

    def give_up() -> None:
        nonlocal gone
        gone = True
        dialling.cancel()

    wanted = False
    try:
        downstream.on_gone(give_up)
        await asyncio.wait((dialling,), timeout=max(0.0, min(upstream.connect_s, deadline_in_s)))
        wanted = dialling.done() and not gone
    finally:
        downstream.on_gone(None)
        if not wanted:
            dialling.cancel()
            for unwanted in await asyncio.gather(dialling, return_exceptions=True):
                if isinstance(unwanted, Connection):
                    unwanted.abort()
    if wanted:
        try:
            return dialling.result()
        except DialFailed as failed:
            result.reason, result.detail = Reason.UPSTREAM_FAILED, str(failed)
    elif gone:
        _left(result, "the caller left while a connection was opened")
    else:
        result.reason = Reason.UPSTREAM_TIMEOUT
        result.detail = f"no connection within {upstream.connect_s:g}s"
        if deadline_in_s < upstream.connect_s:
            result.outcome = Outcome.IGNORED
            result.detail = "no connection before the call's deadline"
    return None


def _was_stale(connection: Connection) -> bool:
    """Did a kept connection turn out to be dead before it brought a byte, and nobody lost patience?"""
    return not connection.bytes_in and not connection.gone and connection.reason is Reason.UPSTREAM_FAILED


def _left(result: Result, detail: str) -> Result:
    result.gone = True
    result.outcome = Outcome.IGNORED
    result.detail = detail or "the caller left"
    return result


def _judge(connection: Connection, result: Result) -> Result:
    """What the exchange says about the upstream (DESIGN §5: 429 is no failure, 5xx is)."""
    if connection.gone or connection.stalled:
        return _left(result, connection.detail)
    if not result.complete:
        # A deadline is the caller's choice: one who sets it too short must not open everybody's breaker.
        result.outcome = Outcome.IGNORED if connection.late else Outcome.FAILED
        result.reason = connection.reason or Reason.UPSTREAM_FAILED
        after = f"cut after {connection.bytes_out} bytes: " if result.started else ""
        result.detail = after + connection.detail
        return result
    status = connection.answer.status
    if status in TELLS_WHEN:
        result.retry_after_s = retry_after_s(connection.answer.headers, time.time())
    if status == 429:
        result.outcome = Outcome.OVERLOADED
    else:
        result.outcome = Outcome.FAILED if status >= 500 else Outcome.SUCCEEDED
    return result
