"""How long a caller may take: with a head, with a body, and between two requests.

One timer for a connection's whole life, which is only ever set earlier: a request that arrives in one piece,
as nearly all do, touches nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from proxy.core.verdict import End
from proxy.listener.bounds import Bounds
from proxy.listener.reading import BETWEEN, HEAD, RequestReader

NOT_YET: Final = 0.0

AGAIN_S: Final = 0.001
"""Nobody is given up at the first look. If it was we who stood still, what the caller sent meanwhile lies
unread in the socket, and uvloop runs its timers before it reads."""


class Watched(Protocol):
    """A connection, as seen here."""

    idle_since: float

    @property
    def gone(self) -> bool: ...
    @property
    def idle(self) -> bool: ...
    @property
    def paused(self) -> bool: ...
    def abort(self) -> None: ...
    def end(self, why: End) -> None: ...
    def refuse(self, status: int, why: End, message: str) -> None: ...


class Watch:
    """Looks at a connection when something of its caller's is due."""

    __slots__ = (
        "_at", "_bounds", "_connection", "_got", "_loop", "_phase", "_reader", "_second_look", "_timer",
    )  # fmt: skip
    __deletable__ = ("_connection",)

    def __init__(
        self,
        connection: Watched,
        reader: RequestReader,
        bounds: Bounds,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._bounds = bounds
        self._loop = loop
        self._phase = BETWEEN  # the one that `reader.since` is about
        self._got = 0  # bytes of the body in this window
        self._second_look = False

    def start(self) -> None:
        """The connection is there: between its protocol and that, an event loop may stand still."""
        self._set(self._loop.time() + self._bounds.idle_s)

    def cancel(self) -> None:
        """The connection is lost: let go of it, which holds us."""
        self._timer.cancel()
        del self._connection

    def part(self, size: int) -> None:
        """`size` bytes came, and after them a request is here in part."""
        reader = self._reader
        if reader.since != NOT_YET and self._phase == reader.phase:
            self._got += size
            return
        bounds, now = self._bounds, self._loop.time()
        self._begin(now)
        self._look_by(now + (bounds.head_s if reader.phase == HEAD else bounds.body_window_s))

    def resumed(self) -> None:
        """We did not read, and do again: the caller's time begins anew."""
        if self._reader.phase > HEAD:
            self._begin(self._loop.time())

    def _begin(self, now: float) -> None:
        self._phase = self._reader.phase
        self._got = 0
        wire = self._reader.wire
        held_back = wire is not None and wire.awaits_continue  # the caller waits for us
        self._reader.since = NOT_YET if held_back and self._phase > HEAD else now

    def _look_by(self, at: float) -> None:
        if at < self._at:
            self._timer.cancel()
            self._set(at)

    def _set(self, at: float) -> None:
        self._at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        connection, reader, bounds, now = self._connection, self._reader, self._bounds, self._loop.time()
        if connection.gone:
            connection.abort()  # what was written to it is not taken
            return
        if reader.phase == BETWEEN or reader.stopped:
            due = (connection.idle_since if connection.idle else now) + bounds.idle_s
            give_up: Callable[[], None] = self._idle
        elif reader.phase == HEAD:
            due = (reader.since or now) + bounds.head_s
            give_up = self._slow_head
        else:
            due = (reader.since or now) + bounds.body_window_s
            give_up = self._slow_body
            if now >= due and self._in_pace():
                self._begin(now)
                due = now + bounds.body_window_s
            elif reader.since == NOT_YET:
                self._begin(now)
        if now < due:
            self._second_look = False
        elif self._second_look:
            give_up()
            due = now + bounds.idle_s
        else:
            self._second_look = True
            due = now + AGAIN_S
        self._set(due)

    def _in_pace(self) -> bool:
        enough = self._got >= self._bounds.body_bytes_per_s * self._bounds.body_window_s
        return enough or self._connection.paused

    def _idle(self) -> None:
        self._connection.end(End.IDLE)

    def _slow_head(self) -> None:
        within = f"{self._bounds.head_s:g}s"
        self._connection.refuse(408, End.HEAD_TOO_SLOW, f"The request's head did not arrive within {within}.")

    def _slow_body(self) -> None:
        pace = f"{self._bounds.body_bytes_per_s:g} bytes/s"
        self._connection.refuse(408, End.BODY_TOO_SLOW, f"The request's body came more slowly than {pace}.")
