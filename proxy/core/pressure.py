"""Pressure: how full a route's queue is, as a class of calls meets it, from 0 to 1.

A class feels those who would be served before it and its own: a crowd of background calls is no pressure
on the critical ones. Time counts as well as number, for a short queue that does not move is full too.
"""

from __future__ import annotations

from proxy.core.policy import QueuePolicy
from proxy.core.waiting import WaitingRoom


def pressure(
    room: WaitingRoom, route: str, queue: QueuePolicy, now: float, order: int | None = None
) -> float:
    """The fuller of two: places taken to places, age of the oldest to the greatest age.

    Counts the waiters of `route` up to `order` (None: all).
    """
    oldest = room.lanes.oldest(route, order)
    if oldest is None:
        return 0.0
    taken = room.lanes.depth(route, order) / max(queue.size, 1)  # who returns with a ticket waits without one
    return min(1.0, max(taken, (now - oldest) / queue.max_age_s))
