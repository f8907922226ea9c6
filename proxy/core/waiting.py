"""The waiting room: who waits, for what, in which order, and until when.

A waiter holds nothing but a place. It stands in two lines at once: in the line of the *key* it lacks (a cap
or a bucket), most important first, from which it is dispatched; and in its *lane* (route and order), oldest
first, by which the room is bounded, displaced and measured. No operation walks the room: each costs at most
the logarithm of a line.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from proxy.core.call import Call
from proxy.core.claims import Claims
from proxy.core.policy import RoutePolicy

if TYPE_CHECKING:
    from proxy.core.gate import Grant
    from proxy.core.target import Target
    from proxy.core.verdict import Refusal


class Waiter:
    """One waiting call. `verdict` is None while it waits; `reply` belongs to whoever waits for it."""

    __slots__ = (
        "call", "claims", "expires_at", "key", "order", "reply", "route", "seq", "since", "target", "verdict",
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
        self.key = ""
        self.verdict: Grant | Refusal | None = None
        self.reply: Any = None

    def __lt__(self, other: Waiter) -> bool:
        """Is this one served before the other?"""
        return (self.order, self.seq) < (other.order, other.seq)


def order_of(call: Call) -> int:
    """The class and, within it, first attempts before retries: the smaller is served first."""
    return 2 * call.rank + call.is_retry


class _Line:
    """Those who wait for one key. The heap keeps who has left until they surface, or are half of it."""

    __slots__ = ("alive", "heap", "ready_at")

    def __init__(self) -> None:
        self.heap: list[Waiter] = []
        self.alive = 0
        self.ready_at = float("inf")  # when the head is worth trying; inf: when somebody settles


class WaitingRoom:
    """All who wait at one gate."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._lanes: dict[str, dict[int, OrderedDict[int, Waiter]]] = {}  # route → order → seq → waiter
        self._ready: list[tuple[float, str]] = []
        self._expiry: list[tuple[float, int, Waiter]] = []
        self._seq = 0
        self.size = 0

    def join(self, waiter: Waiter, key: str, ready_at: float) -> None:
        """Begin to wait for `key`, which is worth trying again at `ready_at` (inf: at the next settle)."""
        self._seq += 1
        waiter.seq = self._seq
        lanes = self._lanes.setdefault(waiter.route.name, {})
        lanes.setdefault(waiter.order, OrderedDict())[waiter.seq] = waiter
        heapq.heappush(self._expiry, (waiter.expires_at, waiter.seq, waiter))
        self.size += 1
        self._stand(waiter, key, ready_at)

    def move(self, waiter: Waiter, key: str, ready_at: float) -> None:
        """Wait for another key, keeping age and order."""
        self._step_out(waiter)
        self._stand(waiter, key, ready_at)

    def leave(self, waiter: Waiter) -> None:
        """Out of the room, for whatever reason; its `key` is "" from now on."""
        self._step_out(waiter)
        lane = self._lanes[waiter.route.name][waiter.order]
        del lane[waiter.seq]
        if not lane:
            del self._lanes[waiter.route.name][waiter.order]
        self.size -= 1
        if not self.size:
            self._ready.clear()
            self._expiry.clear()
            self._lanes.clear()
        elif len(self._expiry) > 2 * self.size + 64:
            self._expiry = [row for row in self._expiry if row[2].key]
            heapq.heapify(self._expiry)

    def head(self, key: str) -> Waiter | None:
        """The next to be served with `key`."""
        line = self._lines.get(key)
        if line is None:
            return None
        heap = line.heap
        while heap and heap[0].key != key:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def ahead(self, key: str) -> int:
        """How many wait for `key`."""
        line = self._lines.get(key)
        return line.alive if line is not None else 0

    def ready(self, key: str, at: float) -> None:
        """The line of `key` is worth trying at `at`, and not before."""
        line = self._lines.get(key)
        if line is None:
            return
        line.ready_at = at
        if at != float("inf"):
            heapq.heappush(self._ready, (at, key))

    def due(self, now: float) -> set[str]:
        """The keys worth trying now; each is named once."""
        keys = set()
        while self._ready and self._ready[0][0] <= now:
            at, key = heapq.heappop(self._ready)
            line = self._lines.get(key)
            if line is not None and line.ready_at == at:
                line.ready_at = float("inf")
                keys.add(key)
        return keys

    def expired(self, now: float) -> Waiter | None:
        """One who has waited its time; it is still in the room. None when there is none."""
        while self._expiry and (not self._expiry[0][2].key or self._expiry[0][0] <= now):
            waiter = self._expiry[0][2]
            if waiter.key:
                return waiter
            heapq.heappop(self._expiry)
        return None

    def next_at(self) -> float:
        """When `due` or `expired` will have something to say; inf when never."""
        while self._expiry and not self._expiry[0][2].key:
            heapq.heappop(self._expiry)
        expiry = self._expiry[0][0] if self._expiry else float("inf")
        return min(expiry, self._ready[0][0]) if self._ready else expiry

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

    def keys(self) -> set[str]:
        """Every key somebody waits for."""
        return set(self._lines)

    def waiters(self) -> list[Waiter]:
        """Everybody, lane by lane."""
        return [
            waiter for lanes in self._lanes.values() for lane in lanes.values() for waiter in lane.values()
        ]

    def _stand(self, waiter: Waiter, key: str, ready_at: float) -> None:
        waiter.key = key
        line = self._lines.setdefault(key, _Line())
        heapq.heappush(line.heap, waiter)
        line.alive += 1
        if ready_at < line.ready_at:
            self.ready(key, ready_at)

    def _step_out(self, waiter: Waiter) -> None:
        key, waiter.key = waiter.key, ""
        line = self._lines[key]
        line.alive -= 1
        if not line.alive:
            del self._lines[key]
        elif len(line.heap) > 2 * line.alive + 64:
            line.heap = [other for other in line.heap if other.key == key]
            heapq.heapify(line.heap)
