"""Notices that a peer has hung up although nobody reads its socket.

An event loop learns of a disconnect by reading. Where reading is paused, for what was sent is not wanted yet,
a caller that leaves would go unnoticed until then. The kernel knows: an epoll of its own, which asks for the
hang-up and not for data, becomes readable when it happens, and the loop can wait for that.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable


class Hangup:
    """Calls `happened` once, when the peer of the socket `fd` closes or resets. `close` ends the watch.

    Without epoll (macOS) it watches nothing: there a disconnect is noticed when reading goes on.
    """

    __slots__ = ("_epoll", "_happened", "_loop")

    def __init__(self, fd: int, happened: Callable[[], None]) -> None:
        self._happened = happened
        self._loop = asyncio.get_running_loop()
        self._epoll: select.epoll | None = None
        if sys.platform == "linux":
            self._epoll = select.epoll()
            self._epoll.register(fd, select.EPOLLRDHUP)  # EPOLLHUP and EPOLLERR come unasked
            self._loop.add_reader(self._epoll.fileno(), self._hung_up)

    def close(self) -> None:
        """Watch no more. Safe to call twice."""
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            self._loop.remove_reader(epoll.fileno())
            epoll.close()

    def _hung_up(self) -> None:
        self.close()
        self._happened()
