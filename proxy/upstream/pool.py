"""The connections to one upstream: the idle ones on a stack, the most recently used on top."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.upstream.connection import Connection


class Pool:
    """Open connections, idle or in use. Every connection enters by `add` and leaves by `discard`, once."""

    def __init__(self, *, idle_for_s: float, most: int | None, clock: Callable[[], float]) -> None:
        """At most `most` connections at once (None: as many as there are calls)."""
        self._idle_for_s = idle_for_s
        self._most = most
        self._clock = clock
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []  # oldest first
        self._dialling = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None
        self._draining = False

    @property
    def connections(self) -> frozenset[Connection]:
        """All that are open."""
        return frozenset(self._open)

    @property
    def idle(self) -> int:
        """Connections that carry nothing."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """Connections that carry an exchange."""
        return len(self._open) - len(self._idle)

    @property
    def dialling(self) -> int:
        """Connections being opened."""
        return self._dialling

    @property
    def full(self) -> bool:
        """May no other connection be opened?"""
        return self._most is not None and len(self._open) + self._dialling >= self._most

    def take(self) -> Connection | None:
        """The idle connection used last, or None. One whose end has arrived is never returned."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.closing:
                continue
            too_old = self._clock() - connection.idle_since >= self._idle_for_s
            # What has arrived but was not yet handed over is its end, or bytes that nobody asked for and that
            # would pass for the answer to the next request. One system call (1 us) closes that gap.
            if too_old or connection.readable():
                connection.close()
                continue
            connection.reused = True
            return connection
        return None

    def release(self, connection: Connection) -> None:
        """An exchange ended well: keep the connection for the next, or close it."""
        if self._draining or self._idle_for_s <= 0 or connection.closing:
            connection.close()
            return
        connection.idle_since = self._clock()
        self._idle.append(connection)
        if self._sweep is None:
            self._set_sweep(self._idle_for_s)

    def dial_begins(self) -> None:
        """Count a connection that is being opened."""
        self._dialling += 1

    def dial_ends(self, _: object = None) -> None:
        """It is open, or it failed."""
        self._dialling -= 1
        self._look_empty()

    def add(self, connection: Connection) -> None:
        """A connection is open."""
        self._open.add(connection)

    def forget(self, connection: Connection) -> None:
        """Its end has arrived: it must not be taken any more."""
        if connection in self._idle:
            self._idle.remove(connection)

    def discard(self, connection: Connection) -> None:
        """A connection is closed."""
        self.forget(connection)
        self._open.discard(connection)
        self._look_empty()

    async def aclose(self) -> None:
        """Close what is idle now and the others as their exchanges end; wait for the last."""
        self._draining = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        if self._open or self._dialling:
            self._emptied = self._emptied or asyncio.Event()
            await self._emptied.wait()

    def abort(self) -> None:
        """Cut every exchange that is still going on. Its caller is told as of any cut."""
        for connection in list(self._open):
            connection.abort()

    def __repr__(self) -> str:
        """The counts, as tests and the log want them."""
        dialling = f", {self._dialling} dialling" if self._dialling else ""
        return f"<Pool {self.in_use} in use, {len(self._idle)} idle{dialling}>"

    def _look_empty(self) -> None:
        if self._emptied is not None and not self._open and not self._dialling:
            self._emptied.set()

    def _set_sweep(self, in_s: float) -> None:
        self._sweep = asyncio.get_running_loop().call_later(in_s, self._close_old)

    def _close_old(self) -> None:
        self._sweep = None
        now, idle = self._clock(), self._idle
        while idle and now - idle[0].idle_since >= self._idle_for_s:
            idle.pop(0).close()
        if idle:
            self._set_sweep(max(0.001, idle[0].idle_since + self._idle_for_s - now))
