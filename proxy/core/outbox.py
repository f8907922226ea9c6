"""What a replica has to tell the others with its next trip (`hints.py`)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from proxy.core.hints import Place, Return, Used

if TYPE_CHECKING:
    from proxy.core.repeats import Key, Trace

MOST_WAITING: Final = 1024
"""Of calls to tell of, between two trips; of more, the oldest are left out."""


class Outbox:
    """The calls of one replica of which others should know."""

    __slots__ = ("_booked", "_number", "_others", "_used", "replica")

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self._number = 0
        self._booked: deque[tuple[Key, Trace]] = deque(maxlen=MOST_WAITING)
        self._others: deque[tuple[Key, Trace]] = deque(maxlen=MOST_WAITING)
        self._used: deque[Used] = deque(maxlen=MOST_WAITING)

    def told(self, key: Key, trace: Trace) -> None:
        """A call was refused or failed here."""
        (self._others if trace.ticket is None else self._booked).append((key, trace))

    def used(self, key: Key, trace: Trace) -> None:
        """Its repeat has come here."""
        trace.is_used = True
        if trace.origin is not None:
            self._used.append(Used(key, *trace.origin))

    def take(self, most: int, now: float) -> tuple[list[Return], list[Used]]:
        """What to tell now, `most` of each: those with a place first, then the latest. No more is kept."""
        found: list[Return] = []
        while self._booked and len(found) < most:
            self._add(found, *self._booked.popleft(), now)
        while self._others and len(found) < most:
            self._add(found, *self._others.pop(), now)
        used = [self._used.popleft() for _ in range(min(most, len(self._used)))]
        for rest in (self._booked, self._others, self._used):
            rest.clear()
        return found, used

    def _add(self, found: list[Return], key: Key, trace: Trace, now: float) -> None:
        if trace.is_used or trace.until < now:
            return
        ticket, place = trace.ticket, None
        if ticket is not None and ticket.is_open and ticket.told is not None:
            place = Place(ticket.step_s, *ticket.told)
        self._number += 1
        trace.origin = (self.replica, self._number)
        found.append(
            Return(
                key, trace.digest, trace.due_at - now, trace.until - now, trace.tokens, place, self._number
            )
        )
