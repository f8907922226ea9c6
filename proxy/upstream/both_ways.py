"""A body that is still on its way up while the answer may already come down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.core.leash import Leash
from proxy.upstream.answer import HEAD
from proxy.upstream.connection import Connection
from proxy.upstream.contract import Downstream, Result
from proxy.upstream.deliver import deliver
from proxy.upstream.upload import Upload


async def both_ways(
    connection: Connection,
    upload: Upload,
    downstream: Downstream,
    result: Result,
    clock: Callable[[], float],
    leash: Leash | None = None,
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
            await deliver(connection, downstream, result, clock, leash)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
