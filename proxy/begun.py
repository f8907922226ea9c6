"""A call that is begun by a callback of the event loop, and goes on when what it waits for is there.

A task does the same and more: to make one, and to have the event loop take its first step, is 7 % of what a
relayed call costs and 10 % of a refused one. (CPython's own eager tasks came with 3.12.) What is missing is
`asyncio.current_task()`: who needs it awaits `in_a_task()` first. And a call has no context of its own: what
it sets in a ContextVar before its first wait, whoever began it sees.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from typing import Any, Final, cast

_ENDED: Final = object()
_IN_A_TASK: Final = object()


class _Steps:
    """Those of one event loop: `is_running` while one is taken, behind which those go on that are `next`."""

    __slots__ = ("is_running", "next")

    def __init__(self) -> None:
        self.is_running = False
        self.next: list[Begun] = []

    def take(self, call: Begun) -> None:
        """One of a call, and then of those whom it has let go on. Whom these let go on waits for the loop."""
        self.is_running = True
        try:
            call.step()
        finally:
            self.is_running = False
            if self.next:
                self._take_next()

    def _take_next(self) -> None:
        calls, self.next = self.next[::-1], []
        try:
            while calls:
                calls.pop().step()
        finally:  # what one raises is none of the others' business
            for call in reversed(calls):
                call.go_on_next()


_OF_THREAD: Final = threading.local()


def _steps() -> _Steps:
    """Those of the loop that runs in this thread."""
    steps: _Steps | None = getattr(_OF_THREAD, "steps", None)
    if steps is None:
        _OF_THREAD.steps = steps = _Steps()
    return steps


class Turn:
    """What a call waits for, which goes on right behind the step of another call that `end`s the wait.

    A future's waiters go on in the next turn of the event loop, behind all that has arrived in this one: of
    ten answers that come at once each is handed on before the first place that became free is used again.
    Outside of a call's step, and in its first, it is as a future. One waits for it, once.
    """

    __slots__ = ("_call", "_future", "_is_cancelled", "_is_over", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._call: Begun | None = None
        self._future: asyncio.Future[None] | None = None
        self._is_cancelled = False
        self._is_over = False

    def end(self) -> None:
        """Let who waits go on, or whoever will."""
        if self._is_over:
            return
        self._is_over = True
        call, self._call = self._call, None
        if call is not None:
            call.go_on_next()
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    def waits(self, call: Begun) -> None:
        """This one does: it is told, by `go_on_next`, and no task is needed."""
        self._call = call

    def cancel(self, _: str | None = None) -> bool:
        """As a future's: False where the wait is over."""
        call, self._call = self._call, None
        if self._is_over or call is None:
            return False
        self._is_over = self._is_cancelled = True
        self._loop.call_soon(call.go_on)
        return True

    def __await__(self) -> Generator[Any, None, None]:
        if self._is_over:
            return
        if asyncio.current_task() is None:
            yield self
            if self._is_cancelled:
                raise asyncio.CancelledError
        else:
            self._future = future = self._loop.create_future()
            yield from future


class Begun:
    """A call on its way. Until it has ended or waits for the first time, `begin` is running.

    What a call raises is its own to catch; only its cancellation ends here, without a word.
    """

    __slots__ = ("_awaits", "_call", "_is_cancelled", "_loop", "_task", "_waits_for")

    def __init__(self, call: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._awaits: Any = call.__await__()
        self._loop = loop
        self._waits_for: asyncio.Future[Any] | Turn | None = None
        self._is_cancelled = False
        self._task: asyncio.Task[None] | None = None

    @property
    def in_a_task(self) -> bool:
        """Has it asked for one? Then that task is the current one for whatever is begun at the call's end."""
        return self._task is not None

    def begin(self) -> bool:
        """Run to the first wait, outside of any task. False when the call has ended without one."""
        awaited = next(self._awaits, _ENDED)  # which catches StopIteration more cheaply than `except` does
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

    def go_on_next(self) -> None:
        """What it waited for is there: behind the step that is running, or in the next turn of the loop."""
        steps = _steps()
        if steps.is_running:
            steps.next.append(self)
        else:
            self._loop.call_soon(self.go_on)

    def go_on(self, _: object = None) -> None:
        """To the next wait, or to the end; and then those whom this has let go on."""
        _steps().take(self)

    def step(self) -> None:
        """To the next wait, or to the end."""
        self._waits_for = None
        try:
            if self._is_cancelled:
                self._is_cancelled = False
                awaited = self._awaits.throw(asyncio.CancelledError())
            else:
                awaited = next(self._awaits, _ENDED)
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
            self._loop.call_soon(self.go_on)
        else:
            if isinstance(awaited, Turn):
                awaited.waits(self)
            else:
                awaited._asyncio_future_blocking = False  # noqa: SLF001 - so a task tells a future
                awaited.add_done_callback(self.go_on)
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
