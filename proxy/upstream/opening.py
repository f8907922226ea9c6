"""A new connection for a call that finds none idle, within its time and only while its caller is there."""

from __future__ import annotations

import asyncio

from proxy.core.verdict import FAILED, IGNORED, Reason
from proxy.upstream.connection import Connection
from proxy.upstream.contract import Downstream, Result
from proxy.upstream.dial import DialFailed
from proxy.upstream.judge import left, no_room
from proxy.upstream.patience import DEADLINE, TOTAL
from proxy.upstream.target import Upstream


async def open_connection(
    upstream: Upstream, downstream: Downstream, result: Result, deadline_in_s: float, ends_in_s: float
) -> Connection | None:
    """A new connection, or None with the result filled in. Given up at once when the caller leaves."""
    crowded = upstream.pool.full
    within_s = min(upstream.connect_s, deadline_in_s, ends_in_s)
    dialling = upstream.dial()
    gone = False

    def give_up() -> None:
        nonlocal gone
        gone = True
        dialling.cancel()

    wanted = False
    try:
        downstream.on_gone(give_up)
        await asyncio.wait((dialling,), timeout=max(0.0, within_s))
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
        left(result, "the caller left while a connection was opened")
    elif crowded and upstream.pool.full:
        no_room(result)
    else:
        result.reason = Reason.UPSTREAM_TIMEOUT
        result.detail = f"no connection within {upstream.connect_s:g}s"
        if within_s < upstream.connect_s:
            whose = TOTAL if within_s == ends_in_s else DEADLINE
            result.detail = f"no connection before {whose}"
            result.outcome = FAILED if whose is TOTAL else IGNORED
    return None
