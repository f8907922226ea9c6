"""One exchange: the caller's request to the upstream, the upstream's answer to the caller.

Whatever the network does ends in a Result. Nothing is gathered: what arrived in one turn of the event loop
leaves in the next, in both directions, and each side is read only as fast as the other takes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from proxy.core.leash import Leash
from proxy.core.verdict import Reason
from proxy.upstream.answer import HEAD
from proxy.upstream.both_ways import both_ways
from proxy.upstream.connection import Connection
from proxy.upstream.contract import SAFE_METHODS, CallerGone, Downstream, Request, Result
from proxy.upstream.deliver import deliver
from proxy.upstream.judge import judge, left
from proxy.upstream.opening import open_connection
from proxy.upstream.patience import NEVER
from proxy.upstream.target import Upstream
from proxy.upstream.upload import Upload


async def relay(
    upstream: Upstream,
    request: Request,
    downstream: Downstream,
    *,
    clock: Callable[[], float] = time.monotonic,
    deadline: float = NEVER,
    leash: Leash | None = None,
) -> Result:
    """Carry one request and its answer; see Result for the ways it ends.

    `deadline`, in seconds of `clock`, is for the head of the answer: one that has begun is not cut by it, but
    by the upstream's `total_s`, counted from here. `leash` is told of its beginning, and may end the exchange
    before it.
    Raises UnsendableRequest before anything is sent, and CancelledError after the connection is closed.
    """
    if upstream.bridge is not None:
        return await upstream.bridge.relay(request, downstream, clock=clock, deadline=deadline, leash=leash)
    head = upstream.head.write(request)
    result = Result()
    result.ear = upstream.ear
    ends_at = NEVER if upstream.total_s is None else clock() + upstream.total_s
    begins_by = min(deadline, ends_at)
    body, upload = request.body or b"", None
    if request.body is None and request.has_body and request.length != 0:
        upload = Upload(downstream, request.length)
        try:
            body = await upload.begin(within_s=min(upstream.idle_s, begins_by - clock()))
        except CallerGone as gone:
            return left(result, str(gone))
        if upload.finished:
            upload = None  # all of it is here
    # Sent again on a new connection when a kept one turns out to be dead. A POST never is (RFC 9110 §9.2.2;
    # nginx's `proxy_next_upstream` without `non_idempotent`): its effect may have happened.
    repeatable = request.method in SAFE_METHODS and upload is None
    kept = upstream.pool.take()
    while True:
        if kept is None:
            now, crowded = clock(), upstream.pool.full
            kept = await open_connection(upstream, downstream, result, deadline - now, ends_at - now)
            if not crowded:  # to wait for room is our own bound
                result.silent_s = clock() - now
            if kept is None:
                return result
        connection: Connection = kept  # of one type: compiled code calls its methods directly
        result.reused = connection.reused
        connection.begin(bodiless=request.method == b"HEAD", clock=clock, deadline=deadline, ends_at=ends_at)
        result.sent = result.sent or not connection.over
        await _exchange(connection, head, body, upload, downstream, result, clock, leash)
        if not (repeatable and connection.reused and _was_stale(connection)):
            return judge(connection, result, clock)
        kept = None


async def _exchange(
    connection: Connection,
    head: bytes,
    body: bytes | memoryview,
    upload: Upload | None,
    downstream: Downstream,
    result: Result,
    clock: Callable[[], float],
    leash: Leash | None,
) -> None:
    """Use a connection for one exchange, and let go of it. What went wrong is left on the connection."""
    answer = connection.answer
    try:
        downstream.on_gone(connection.caller_left)
        if leash is not None:
            leash.on_cut(connection.give_up)
        connection.write(head, body)
        if upload is None:
            connection.sent()
            while answer.phase == HEAD and not connection.over:
                await connection.changed()
            if answer.phase != HEAD:
                await deliver(connection, downstream, result, clock, leash)
        else:
            await both_ways(connection, upload, downstream, result, clock, leash)
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
        if leash is not None:
            leash.on_cut(None)
        connection.end()


def _was_stale(connection: Connection) -> bool:
    """Did a kept connection turn out to be dead before it brought a byte, and nobody lost patience?"""
    return not connection.bytes_in and not connection.gone and connection.reason is Reason.UPSTREAM_FAILED
