"""Has a caller left that is not being read? No event loop tells: it looks at what it reads alone."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Final, Protocol

LOOK_S: Final = 0.5
"""How often: the upstream of a caller that left is let go of within a second (DESIGN §5, invariant 10)."""

# What Linux tells of a connection whatever is still unread; elsewhere a half of it.
_LEFT: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Unread(Protocol):
    """A connection, as seen here."""

    paused: bool

    @property
    def gone(self) -> bool: ...
    def abort(self) -> None: ...


class Hangup:
    """Looks after a connection while it is paused. A timer, and only then."""

    __slots__ = ("_connection", "_loop", "_poll", "_sock", "_timer")
    __deletable__ = ("_connection",)

    def __init__(self, connection: Unread, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._poll: select.poll | None = None
        self._sock = sock
        self._timer: asyncio.TimerHandle | None = None

    def paused(self) -> None:
        """It is not read from now on."""
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def cancel(self) -> None:
        """It is lost: let go of it, which holds us."""
        if self._timer is not None:
            self._timer.cancel()
        del self._connection

    def _look(self) -> None:
        self._timer = None
        connection = self._connection
        if not connection.paused or connection.gone:
            return
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._sock.fileno(), _LEFT)
        if self._poll.poll(0):
            connection.abort()
        else:
            self.paused()
