"""The answer on its way to the caller: what arrived in one turn of the event loop leaves in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.upstream.answer import COMPLETE
from proxy.upstream.connection import Connection
from proxy.upstream.contract import Downstream, Result


async def deliver(
    connection: Connection, downstream: Downstream, result: Result, clock: Callable[[], float]
) -> None:
    """Hand the answer to the caller as it arrives. What arrived before a fault is handed over too."""
    answer, task = connection.answer, asyncio.current_task()
    result.status = answer.status
    result.first_byte_s = clock() - connection.sent_at if connection.sent_at is not None else 0.0
    result.started = True
    connection.hand_over(task)
    downstream.start(answer.status, answer.headers)
    while not connection.gone:
        if piece := connection.take():
            downstream.write(piece)
            if downstream.slow:
                await downstream.drained()
        elif answer.phase == COMPLETE:
            downstream.end()
            result.complete = not connection.gone
            return
        elif connection.over:
            return
        else:
            downstream.flush()
            connection.upstream_goes_on()
            await connection.changed()
            connection.hand_over(task)
