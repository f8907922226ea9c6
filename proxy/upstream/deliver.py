"""The answer on its way to the caller: what arrives while the caller takes all leaves in the same turn."""

from __future__ import annotations

from collections.abc import Callable

from proxy.begun import in_a_task
from proxy.core.leash import Leash
from proxy.upstream.answer import COMPLETE
from proxy.upstream.connection import Connection
from proxy.upstream.contract import Downstream, Result
from proxy.upstream.judge import is_good


async def deliver(
    connection: Connection,
    downstream: Downstream,
    result: Result,
    clock: Callable[[], float],
    leash: Leash | None = None,
) -> None:
    """Hand the answer to the caller as it arrives. What arrived before a fault is handed over too."""
    answer = connection.answer
    result.status = answer.status
    result.first_byte_s = clock() - connection.sent_at if connection.sent_at is not None else 0.0
    result.started = True
    headers = answer.headers
    if leash is not None and result.ear is not None:
        headers = result.ear.listen(answer.status, headers, leash)
    if leash is not None and answer.phase != COMPLETE and is_good(answer.status):
        leash.answered(result.silent_s + result.first_byte_s)  # what is complete is settled at once
    connection.hand_over()
    downstream.start(answer.status, headers)
    while not connection.gone:
        if piece := connection.take():
            downstream.write(piece)
        elif answer.phase == COMPLETE:
            downstream.end()
            result.complete = not connection.gone
            return
        elif connection.over:
            return
        elif not downstream.slow:
            downstream.flush()
            await connection.passed_on(downstream)
            connection.hand_over()
        if downstream.slow:
            await in_a_task()
            connection.waits_for_caller()
            await downstream.drained()
            connection.hand_over()  # it takes, if slowly: its time begins anew
