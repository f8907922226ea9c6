"""A call that was begun in the turn in which it came, and that goes on in a task only if it has to wait.

Most refusals wait for nothing: a task for each is 10 % of what they cost. CPython's own eager tasks, which do
the same, came with 3.12.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Final, Self, cast


def begin(call: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run `call` to its first wait; returns what a task is to go on with, None when the call has ended.

    Until then no task is current: nothing may ask for it (`asyncio.timeout` does) before the first wait.
    """
    steps = call.__await__()
    awaited = next(steps, _ENDED)  # which catches StopIteration more cheaply than `except` does
    return None if awaited is _ENDED else cast("Coroutine[Any, Any, None]", _Begun(call, steps, awaited))


_ENDED: Final = object()


class _Begun:
    """A coroutine (`collections.abc.Coroutine` asks for these methods only) that waits for `awaited` first.

    Cancelled before its task's first step, it is cancelled where it waits, as any other.
    """

    __slots__ = ("_awaited", "_call", "_steps", "_told")

    def __init__(self, call: Coroutine[Any, Any, None], steps: Iterator[object], awaited: object) -> None:
        self._call = call
        self._steps = steps
        self._awaited = awaited
        self._told = False

    def send(self, _: None) -> object:
        return self.__next__()

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> object:
        if self._told:
            return next(self._steps)
        self._told = True
        awaited, self._awaited = self._awaited, None
        return awaited

    def throw(
        self, kind: Any, value: BaseException | None = None, trace: TracebackType | None = None
    ) -> object:
        self._told = True
        return self._call.throw(kind, value, trace)

    def close(self) -> None:
        self._call.close()
