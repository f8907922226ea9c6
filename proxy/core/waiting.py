"""The waiting room: who waits, for what, in which order, and until when.

A waiter holds nothing but a place. It stands in two orders at once: among those who ask for the same, the
most important first, from where it is dispatched (`lines.py`); and in its *lane* (route and order), oldest
first, by which the room is bounded, displaced and measured. No operation of a call walks the room.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from proxy.core.call import Call
from proxy.core.claims import Claims, Shortfall
from proxy.core.lines import SLACK, Group, Lines
from proxy.core.policy import RoutePolicy
from proxy.core.verdict import Reason

if TYPE_CHECKING:
    from proxy.core.gate import Grant
    from proxy.core.target import Target
    from proxy.core.verdict import Refusal


class Waiter:
    """One waiting call. `verdict` is None while it waits; `reply` belongs to whoever waits for it."""

    __slots__ = (
        "call", "claims", "expires_at", "group", "order", "reply", "route", "seq", "since", "target",
        "verdict", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        target: Target,
        route: RoutePolicy,
        claims: Claims,
        *,
        since: float,
        expires_at: float,
    ) -> None:
        self.call = call
        self.target = target
        self.route = route
        self.claims = claims
        self.since = since
        self.expires_at = expires_at
        # A retry never outranks a first attempt of its class, and never falls behind a lower class.
        self.order = order_of(call)
        self.seq = 0
        self.group: Group | None = None
        self.waiting = False
        self.verdict: Grant | Refusal | None = None
        self.reply: Any = None

    def __lt__(self, other: Waiter) -> bool:
        """Is this one served before the other?"""
        return (self.order, self.seq) < (other.order, other.seq)


def order_of(call: Call) -> int:
    """The class and, within it, first attempts before retries: the smaller is served first."""
    return 2 * call.rank + call.is_retry


class WaitingRoom:
    """All who wait at one gate."""

    def __init__(self) -> None:
        self.lines = Lines()
        self._lanes: dict[str, dict[int, OrderedDict[int, Waiter]]] = {}  # route → order → seq → waiter
        self._expiry: list[tuple[float, int, Waiter]] = []  # with those who left, until half of it is stale
        self._seq = 0
        self.size = 0

    def join(self, waiter: Waiter, key: str, ready_at: float) -> None:
        """Begin to wait for `key`, which is worth trying again at `ready_at` (inf: at the next settle)."""
        self._seq += 1
        waiter.seq = self._seq
        waiter.waiting = True
        lanes = self._lanes.setdefault(waiter.route.name, {})
        lanes.setdefault(waiter.order, OrderedDict())[waiter.seq] = waiter
        heapq.heappush(self._expiry, (waiter.expires_at, waiter.seq, waiter))
        self.size += 1
        self.lines.stand(waiter, key, ready_at)

    def leave(self, waiter: Waiter) -> None:
        """Out of the room, for whatever reason."""
        waiter.waiting = False
        self.lines.step_out(waiter)
        lanes = self._lanes[waiter.route.name]
        del lanes[waiter.order][waiter.seq]
        if not lanes[waiter.order]:
            del lanes[waiter.order]
            if not lanes:
                del self._lanes[waiter.route.name]
        self.size -= 1
        if len(self._expiry) > 2 * self.size + SLACK:
            self._expiry = [row for row in self._expiry if row[2].waiting]
            heapq.heapify(self._expiry)

    def behind(self, call: Call, claims: Claims, now: float) -> Shortfall | None:
        """What a newcomer lacks because others wait for tokens of the same bucket, though it asks for less.

        Else who asks for many would wait as long as others come who ask for few.
        """
        token_keys = claims.token_keys()
        found: Shortfall | None = None
        for key, policy in claims.buckets:
            if key not in token_keys:
                continue
            cost = claims.cost(policy)
            if cost > policy.burst:
                return None  # to wait is in vain, as the store will say
            if found is None and self.lines.ahead(key, order_of(call)):
                wait_s, step_s = max(0.0, self.lines.ready_at(key) - now), cost / policy.rate_per_s
                found = Shortfall(key, Reason.BUCKET_EMPTY, wait_s, step_s, policy.label)
        return found

    def regroup(self) -> None:
        """The claims of the waiters have changed: sort them anew, keeping age and order."""
        self.lines = Lines()
        for waiter in self.waiters():
            self.lines.stand(waiter, "", float("inf"))

    def expired(self, now: float) -> Waiter | None:
        """One who has waited its time; it is still in the room. None when there is none."""
        first = self._first_to_expire()
        return first if first is not None and first.expires_at <= now else None

    def next_at(self) -> float:
        """When somebody expires or something is worth trying again; inf when never."""
        first = self._first_to_expire()
        ready_at = self.lines.next_at()
        return ready_at if first is None else min(ready_at, first.expires_at)

    def displaceable(self, route: str, order: int) -> Waiter | None:
        """The newest of the least important in the route's queue, if less important than `order`."""
        lanes = self._lanes.get(route)
        if not lanes:
            return None
        last = max(lanes)
        return next(reversed(lanes[last].values())) if last > order else None

    def depth(self, route: str, up_to: int | None = None) -> int:
        """How many of a route wait, or how many of them with an order of at most `up_to`."""
        lanes = self._lanes.get(route, {})
        return sum(len(lane) for order, lane in lanes.items() if up_to is None or order <= up_to)

    def oldest(self, route: str, up_to: int | None = None, since: int = 0) -> float | None:
        """When the oldest waiter of a route, with an order from `since` to `up_to`, began to wait."""
        lanes = self._lanes.get(route, {})
        heads = [
            next(iter(lane.values())).since
            for order, lane in lanes.items()
            if order >= since and (up_to is None or order <= up_to)
        ]
        return min(heads) if heads else None

    def waiters(self) -> list[Waiter]:
        """Everybody, lane by lane."""
        return [
            waiter for lanes in self._lanes.values() for lane in lanes.values() for waiter in lane.values()
        ]

    def _first_to_expire(self) -> Waiter | None:
        while self._expiry and not self._expiry[0][2].waiting:
            heapq.heappop(self._expiry)
        return self._expiry[0][2] if self._expiry else None
