"""A call that is begun by a callback of the event loop, and goes on when what it waits for is there.

A task does the same and more: to make one, and to have the event loop take its first step, is 7 % of what a
relayed call costs and 10 % of a refused one. (CPython's own eager tasks came with 3.12.) What is missing is
`asyncio.current_task()`: who needs it awaits `in_a_task()` first. And a call has no context of its own: what
it sets in a ContextVar before its first wait, whoever began it sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Final, cast

_ENDED: Final = object()
_IN_A_TASK: Final = object()


class Begun:
    """A call on its way. Until it has ended or waits for the first time, `begin` is running.

    What a call raises is its own to catch; only its cancellation ends here, without a word.
    """

    __slots__ = ("_call", "_is_cancelled", "_loop", "_steps", "_task", "_waits_for")

    def __init__(self, call: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._steps: Any = call.__await__()
        self._loop = loop
        self._waits_for: asyncio.Future[Any] | None = None
        self._is_cancelled = False
        self._task: asyncio.Task[None] | None = None

    @property
    def in_a_task(self) -> bool:
        """Has it asked for one? Then that task is the current one for whatever is begun at the call's end."""
        return self._task is not None

    def begin(self) -> bool:
        """Run to the first wait, outside of any task. False when the call has ended without one."""
        awaited = next(self._steps, _ENDED)  # which catches StopIteration more cheaply than `except` does
        if awaited is _ENDED:
            return False
        self._wait_for(awaited)
        return True

    def cancel(self, msg: str | None = None) -> None:
        """As a task's: CancelledError is raised where the call waits, in a later turn of the loop."""
        if self._task is not None:
            self._task.cancel(msg)
        elif self._waits_for is None or not self._waits_for.cancel(msg):
            self._is_cancelled = True  # it is about to go on

    def _go_on(self, _: object = None) -> None:
        self._waits_for = None
        try:
            if self._is_cancelled:
                self._is_cancelled = False
                awaited = self._steps.throw(asyncio.CancelledError())
            else:
                awaited = next(self._steps, _ENDED)
        except (StopIteration, asyncio.CancelledError):
            return
        if awaited is not _ENDED:
            self._wait_for(awaited)

    def _wait_for(self, awaited: Any) -> None:
        if awaited is _IN_A_TASK:
            self._task = asyncio.Task(self._call, loop=self._loop, name="call")
            if self._is_cancelled:
                self._task.cancel()
        elif awaited is None:  # `asyncio.sleep(0)`
            self._loop.call_soon(self._go_on)
        else:
            awaited._asyncio_future_blocking = False  # noqa: SLF001 - so a task tells a future
            awaited.add_done_callback(self._go_on)
            self._waits_for = awaited
            if self._is_cancelled and awaited.cancel():
                self._is_cancelled = False


class _InATask:
    def __await__(self) -> Generator[Any, None, None]:
        yield _IN_A_TASK


async def in_a_task() -> None:
    """From here on the call runs in a task of its own, if it did not before."""
    if asyncio.current_task() is None:
        await cast("Any", _InATask())
