"""More connections than may be open: who has to go.

As nginx does when its worker_connections run out, those that have been idle longest make room, a few at a
time: whoever opens thousands and says nothing keeps nobody out. Where no connection is idle the newcomer is
cut, as by Envoy's global_downstream_max_connections.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest
from operator import attrgetter
from typing import Final, Protocol

from proxy.core.verdict import End

AT_A_TIME: Final = 32
"""So that a look at all of them is rare. nginx: ngx_drain_connections, 32."""


class Guest(Protocol):
    """A connection, as seen here."""

    idle_since: float

    @property
    def gone(self) -> bool: ...
    @property
    def idle(self) -> bool: ...
    def end(self, why: End) -> None: ...


def make_room(guests: Iterable[Guest], newcomer: Guest, most: int) -> bool:
    """Close idle ones so that at most `most` stay open. False where none but the newcomer can go."""
    present = [guest for guest in guests if not guest.gone]
    if len(present) <= most:
        return True
    idle = [guest for guest in present if guest.idle and guest is not newcomer]
    for guest in nsmallest(min(AT_A_TIME, len(idle)), idle, key=attrgetter("idle_since")):
        guest.end(End.MADE_ROOM)
    return bool(idle)
