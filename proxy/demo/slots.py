"""The upstream's own waiting line: so many calls are served at once, the others wait in order of arrival."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.demo.wire import Connection


class Slots:
    """At most `count()` calls hold a slot; each `take` that returns must be followed by one `give`.

    `count` may change at any time. When it has grown, call `offer`, else the line moves only with the next
    `take` or `give`; when it has shrunk, holders finish.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self.taken = 0
        self._count = count
        self._waiting: dict[asyncio.Future[bool], None] = {}

    @property
    def waiting(self) -> int:
        """Calls without a slot."""
        return len(self._waiting)

    async def take(self, connection: Connection) -> None:
        """Wait for a slot. Raises CallerLeftError when the caller does not wait for it."""
        if not self._waiting and self.taken < self._count():
            self.taken += 1
            return
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[place] = None
        self.offer()
        try:
            await connection.wait(place)
        except BaseException:
            if place in self._waiting:
                del self._waiting[place]
            elif place.done() and not place.cancelled() and place.result():
                self.give()  # granted in the very turn in which the wait was given up
            raise

    def give(self) -> None:
        """Return a slot."""
        self.taken -= 1
        self.offer()

    def offer(self) -> None:
        """Hand free slots to those who wait."""
        while self._waiting and self.taken < self._count():
            place = next(iter(self._waiting))
            del self._waiting[place]
            if not place.done():
                self.taken += 1
                place.set_result(True)
