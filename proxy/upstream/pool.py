"""The connections to one upstream: the idle ones on a stack, the most recently used on top."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from proxy.upstream.patience import NEVER


class Pooled(Protocol):
    """What a pool needs of a connection."""

    idle_since: float
    reused: bool

    @property
    def closing(self) -> bool:
        """Lost, or about to be."""
        ...

    def readable(self) -> bool:
        """Has something arrived that nobody asked for?"""
        ...

    def close(self) -> None:
        """Close politely; nothing is going on."""
        ...

    def abort(self) -> None:
        """Close at once, whatever is going on."""
        ...


C = TypeVar("C", bound=Pooled)


class Pool(Generic[C]):
    """Open connections, idle or in use. Every connection enters by `add` and leaves by `discard`, once."""

    def __init__(
        self, *, idle_for_s: float, max_age_s: float = NEVER, most: int | None, clock: Callable[[], float]
    ) -> None:
        """At most `most` connections at once (None: as many as there are calls).

        One older than `max_age_s` carries no further call. The next one looks the name up again, and so
        a change of the upstream's addresses takes effect although the old ones still answer.
        """
        self._idle_for_s = idle_for_s
        self._max_age_s = max_age_s
        self._most = most
        self._clock = clock
        self._open: dict[C, float] = {}  # and since when
        self._idle: list[C] = []  # oldest first
        self._dialling = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None
        self._draining = False

    @property
    def connections(self) -> frozenset[C]:
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
        """May no other connection be opened? One that is being closed does not count any more."""
        if self._most is None or len(self._open) + self._dialling < self._most:
            return False
        return sum(not connection.closing for connection in self._open) + self._dialling >= self._most

    async def room(self) -> C | None:
        """Wait while the pool is full. An idle connection, or None: a new one may be opened.

        Waits for as long as it takes: the caller keeps the time. First come, first woken.
        """
        while self.full:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # the room that it was told of is another's
                raise
            if (connection := self.take()) is not None:
                return connection
        return None

    def take(self) -> C | None:
        """The idle connection used last, or None. One whose end has arrived is never returned."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.closing:
                continue
            now = self._clock()
            too_old = (
                now - connection.idle_since >= self._idle_for_s
                or now - self._open.get(connection, now) >= self._max_age_s
            )
            # What has arrived but was not yet handed over is its end, or bytes that nobody asked for and that
            # would pass for the answer to the next request. One system call (1 us) closes that gap.
            if too_old or connection.readable():
                connection.close()
                continue
            connection.reused = True
            return connection
        return None

    def release(self, connection: C) -> None:
        """An exchange ended well: keep the connection for the next, or close it."""
        if self._draining or self._idle_for_s <= 0 or connection.closing:
            connection.close()
            return
        connection.idle_since = self._clock()
        self._idle.append(connection)
        if self._sweep is None:
            self._set_sweep(self._idle_for_s)
        self._wake()

    def dial_begins(self) -> None:
        """Count a connection that is being opened."""
        self._dialling += 1

    def dial_ends(self, _: object = None) -> None:
        """It is open, or it failed."""
        self._dialling -= 1
        self._wake()
        self._look_empty()

    def add(self, connection: C) -> None:
        """A connection is open."""
        self._open[connection] = self._clock()

    def forget(self, connection: C) -> None:
        """Its end has arrived: it must not be taken any more."""
        if connection in self._idle:
            self._idle.remove(connection)
            connection.close()
            self._wake()

    def discard(self, connection: C) -> None:
        """A connection is closed."""
        self.forget(connection)
        self._open.pop(connection, None)
        self._wake()
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

    def _wake(self) -> None:
        """Room may have come: let the first who waits look."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

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
