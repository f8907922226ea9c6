"""The lanes of the waiting room: how many wait of a route and class, how old they are, who must go first.

A queue is bounded in number, in bytes and in time. When it is full, whoever is least important makes room;
among equals whoever's caller holds most places in it, for a loud caller must not fill it for all.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from proxy.core.groups import SLACK
from proxy.core.orders import BOOKED, GUARD_SHARE, KINDS, first_order, last_order

if TYPE_CHECKING:
    from proxy.core.call import Call
    from proxy.core.policy import RoutePolicy
    from proxy.core.waiting import Waiter


LEAST_PLACES: Final = 8
"""Of fewer places the least important keep none."""


class Lane:
    """Those of one route and order."""

    __slots__ = ("_crowds", "by_caller", "size", "waiters")

    def __init__(self) -> None:
        self.size = 0  # in bytes
        self.waiters: OrderedDict[int, Waiter] = OrderedDict()
        self.by_caller: dict[str, OrderedDict[int, Waiter]] = {}
        self._crowds: list[tuple[float, int, str]] = []  # callers by what they hold, or held

    def add(self, waiter: Waiter) -> None:
        """One more, the newest."""
        caller = waiter.call.caller
        own = self.by_caller.get(caller)
        if own is None:
            own = self.by_caller[caller] = OrderedDict()
        own[waiter.seq] = waiter
        self.waiters[waiter.seq] = waiter
        self.size += waiter.call.size
        heapq.heappush(self._crowds, (-len(own) / waiter.call.weight, -waiter.seq, caller))
        if len(self._crowds) > 2 * len(self.waiters) + SLACK:
            self._crowds = [_crowd(name, held) for name, held in self.by_caller.items()]
            heapq.heapify(self._crowds)

    def remove(self, waiter: Waiter) -> None:
        """One less."""
        own = self.by_caller[waiter.call.caller]
        del own[waiter.seq]
        if not own:
            del self.by_caller[waiter.call.caller]
        del self.waiters[waiter.seq]
        self.size -= waiter.call.size

    def held_by(self, caller: str, weight: float) -> float:
        """Places that a caller holds, over its weight."""
        own = self.by_caller.get(caller)
        return 0.0 if own is None else len(own) / weight

    def newest_of_most(self) -> Waiter:
        """The newest waiter of the caller who holds most places for its weight."""
        crowds = self._crowds
        while True:
            crowd = crowds[0]
            own = self.by_caller.get(crowd[2])
            if own is None:
                heapq.heappop(crowds)
                continue
            newest = next(reversed(own.values()))
            if -len(own) / newest.call.weight <= crowd[0]:
                return newest
            heapq.heapreplace(crowds, _crowd(crowd[2], own))


def few_of(route: RoutePolicy) -> int:
    """How many places of a full queue the least important keep."""
    size = route.queue.size
    return max(1, int(GUARD_SHARE * size)) if size >= LEAST_PLACES else 0


class Lanes:
    """All lanes, by route and order."""

    __slots__ = ("_callers", "_lanes")

    def __init__(self) -> None:
        self._lanes: dict[str, dict[int, Lane]] = {}
        self._callers: dict[tuple[str, int], dict[str, int]] = {}  # route and rank → places by caller

    def add(self, waiter: Waiter) -> None:
        """One more."""
        name = waiter.route.name
        lanes = self._lanes.get(name)
        if lanes is None:
            lanes = self._lanes[name] = {}
        lane = lanes.get(waiter.order)
        if lane is None:
            lane = lanes[waiter.order] = Lane()
        lane.add(waiter)
        call = waiter.call
        callers = self._callers.get((name, call.rank))
        if callers is None:
            callers = self._callers[name, call.rank] = {}
        callers[call.caller] = callers.get(call.caller, 0) + 1

    def remove(self, waiter: Waiter) -> None:
        """One less."""
        name = waiter.route.name
        lanes = self._lanes[name]
        lane = lanes[waiter.order]
        lane.remove(waiter)
        if not lane.waiters:
            del lanes[waiter.order]
            if not lanes:
                del self._lanes[name]
        call = waiter.call
        callers = self._callers[name, call.rank]
        callers[call.caller] -= 1
        if not callers[call.caller]:
            del callers[call.caller]
            if not callers:
                del self._callers[name, call.rank]

    def displaceable(self, route: RoutePolicy, waiter: Waiter) -> Waiter | None:
        """Who must make room for a newcomer; None when it is the newcomer who is least important.

        The newest of the least important, but nobody who returns to a place that was kept for it. Among those
        as important as the newcomer only one of a caller who would still hold no less than the newcomer's.
        Nobody goes where that would not make room enough.
        """
        lanes = self._lanes.get(route.name)
        if not lanes:
            return None
        rank = waiter.call.rank
        last = max([order for order in lanes if self._gives_way(route, order, rank)], default=-1)
        if last < waiter.order:
            # The least important has a few places too, that it can have the turns that are kept for it.
            if last < 0 or self.of_class(route.name, rank) >= few_of(route):
                return None
            most = lanes[last].newest_of_most()
            return most if self._is_enough(route, most, waiter) else None
        lane = lanes[last]
        most = lane.newest_of_most()
        if last > waiter.order:
            stay = [lane.size for order, lane in lanes.items() if order <= waiter.order or _is_booked(order)]
            return most if _fits(route, sum(stay), waiter.call.size) else None
        if not self._is_enough(route, most, waiter):
            return None
        caller, weight = waiter.call.caller, waiter.call.weight
        held = lane.held_by(most.call.caller, most.call.weight) - 1 / most.call.weight
        return most if held >= lane.held_by(caller, weight) + 1 / weight else None

    def _is_enough(self, route: RoutePolicy, most: Waiter, waiter: Waiter) -> bool:
        """Is there room for the bytes of `waiter` when `most` alone has gone?"""
        return _fits(route, self.bytes_of(route.name) - most.call.size, waiter.call.size)

    def _gives_way(self, route: RoutePolicy, order: int, rank: int) -> bool:
        """Do those of this order make room for a newcomer of class `rank`?"""
        its_rank = order // KINDS
        if _is_booked(order):
            return False
        return its_rank <= rank or self.of_class(route.name, its_rank) > few_of(route)

    def _unbooked(self, route: str) -> int:
        """How many wait, without those who return to a place: these are bounded by the tickets sold."""
        lanes = self._lanes.get(route)
        if lanes is None:
            return 0
        unbooked = 0
        for order, lane in lanes.items():
            if not _is_booked(order):
                unbooked += len(lane.waiters)
        return unbooked

    def is_full(self, route: RoutePolicy, size: int) -> bool:
        """Is there no place for one more, or no room for so many more bytes?"""
        return self._unbooked(route.name) >= route.queue.size or self.is_heavy(route, size)

    def is_heavy(self, route: RoutePolicy, size: int) -> bool:
        """Is there no room for so many more bytes?"""
        return not _fits(route, self.bytes_of(route.name), size)

    def crowds(self, route: str, call: Call, order: int) -> bool:
        """Do as many wait of this caller, in the class of `call` up to `order`, as of others, or more?

        Compared with the mean of all callers of the class. Who waits with a later order is no crowd to it.
        """
        callers = self._callers.get((route, call.rank))
        if callers is None:
            return False  # nobody of the class is here: it must not be shut out
        own, depth = 0, 0
        for each, lane in self._lanes[route].items():
            if first_order(call.rank) <= each <= order:
                depth += len(lane.waiters)
                held = lane.by_caller.get(call.caller)
                own += 0 if held is None else len(held)
        return own > 0 and own / call.weight * len(callers) >= depth

    def depth(self, route: str, up_to: int | None = None, since: int = 0) -> int:
        """How many of a route wait, or how many of them with an order from `since` to `up_to`."""
        lanes = self._lanes.get(route)
        if lanes is None:
            return 0
        depth = 0
        for order, lane in lanes.items():
            if order >= since and (up_to is None or order <= up_to):
                depth += len(lane.waiters)
        return depth

    def of_class(self, route: str, rank: int) -> int:
        """How many of one class of a route wait."""
        return self.depth(route, last_order(rank), since=first_order(rank))

    def bytes_of(self, route: str) -> int:
        """How much the waiting calls of a route keep in memory."""
        return sum(lane.size for lane in self._lanes.get(route, {}).values())

    def oldest(self, route: str, up_to: int | None = None, since: int = 0) -> float | None:
        """When the oldest waiter of a route, with an order from `since` to `up_to`, began to wait."""
        lanes = self._lanes.get(route, {})
        heads = [
            next(iter(lane.waiters.values())).since
            for order, lane in lanes.items()
            if order >= since and (up_to is None or order <= up_to)
        ]
        return min(heads) if heads else None

    def waiters(self) -> list[Waiter]:
        """Everybody, lane by lane."""
        return [
            waiter
            for lanes in self._lanes.values()
            for lane in lanes.values()
            for waiter in lane.waiters.values()
        ]


def _is_booked(order: int) -> bool:
    return order % KINDS == BOOKED


def _fits(route: RoutePolicy, held: int, size: int) -> bool:
    """Whoever is alone fits, however large it is."""
    return not held or held + size <= route.queue.max_bytes


def _crowd(caller: str, own: OrderedDict[int, Waiter]) -> tuple[float, int, str]:
    newest = next(reversed(own.values()))
    return -len(own) / newest.call.weight, -newest.seq, caller
