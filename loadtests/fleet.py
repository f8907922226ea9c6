"""Replicas of the shared store in virtual time, with one ledger behind delays: nothing of it is real but
the arithmetic. Whatever is granted is written down with its instant, and can be held against the limit."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from proxy.core.cap import Cap
from proxy.core.claims import Claims
from proxy.core.ledger import Ledger, Reply, Trip
from proxy.core.policy import BucketPolicy, OnStoreFailure, QuotaPolicy
from proxy.core.used import Used
from proxy.stores.contact import Contact, Phase
from proxy.stores.holdings import Holdings
from proxy.stores.shared import SharedStore

TIMEOUT_S = 0.05


class Replica:
    """One process: its store, and the trip that is on its way."""

    def __init__(self, fleet: Fleet, name: str, safe_for_s: float) -> None:
        self.fleet = fleet
        self.name = name
        self.alive = True
        self.phases: list[Phase] = []
        # No two processes have the same clock.
        self.skew = fleet.chance.uniform(1e3, 1e6)
        contact = Contact(
            safe_for_s=safe_for_s,
            timeout_s=TIMEOUT_S,
            chance=fleet.chance.random,
            moved=lambda _old, new, _why: self.phases.append(new),
        )
        self.holdings = Holdings(name, contact)
        self.holdings.wake = self._wake
        self.store = SharedStore(self.holdings)
        self.waiting: list[Callable[[], bool]] = []
        self.trips = 0
        self._packed: Trip | None = None
        self._at = float("inf")
        self._wake()

    @property
    def clock(self) -> float:
        return self.fleet.now + self.skew

    def offer(
        self, claims: Claims, granted: Callable[[], None] = lambda: None, patience_s: float = 0.0
    ) -> None:
        """One call; refused at once, unless the ledger is asked, or for as long as it has patience."""
        until = self.fleet.now + patience_s
        self.store.asked(claims, self.clock)

        def attempt() -> bool:
            if not self.alive:
                return True
            shortfall = self.store.reserve(claims, self.clock)
            if shortfall is None:
                self.fleet.grant(claims)
                granted()
                return True
            return not shortfall.pending and self.fleet.now >= until

        if not attempt():
            self.waiting.append(attempt)

    def settle(self, claims: Claims, *, unused: bool = False, used_tokens: float | None = None) -> None:
        """A call ended; of a replica that was killed nobody hears."""
        if self.alive:
            self.store.settle(
                claims, self.clock, unused=unused, used=None if used_tokens is None else Used(used_tokens)
            )

    def kill(self) -> None:
        self.alive = False

    def _wake(self) -> None:
        if self._packed is None and self.alive:
            at = max(self.fleet.now, self.holdings.due_at(self.clock) - self.skew)
            if at < self._at:
                self._at = at
                self.fleet.at(at, self._set_out)

    def _set_out(self) -> None:
        if self._packed is not None or not self.alive or self.fleet.now < self._at:
            return
        self._at = float("inf")
        if self.holdings.due_at(self.clock) - self.skew > self.fleet.now:
            self._wake()
            return
        self.trips += 1
        trip = self._packed = self.holdings.pack(self.clock)
        self.fleet.carry(trip, self._back)

    def _back(self, trip: Trip, reply: Reply | None) -> None:
        if trip is not self._packed or not self.alive:
            return  # too late: it was given up
        self._packed = None
        if reply is None or reply.stale:
            opened = self.holdings.missed("no answer", self.clock)
        else:
            opened = self.holdings.unpack(reply, self.clock)
        if opened:
            self.look()
        self.holdings.put_back()
        self._wake()

    def look(self) -> None:
        """Everybody who waits tries again."""
        waiting, self.waiting = self.waiting, []
        self.waiting += [attempt for attempt in waiting if not attempt()]


@dataclass
class Fleet:
    """All replicas, the ledger, and virtual time."""

    chance: Random
    delay_s: tuple[float, float] = (0.0001, 0.002)
    now: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    replicas: list[Replica] = field(default_factory=list)
    granted: list[tuple[float, str, float]] = field(default_factory=list)
    down: bool = False  # the store does not answer
    slow_s: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def join(self, name: str = "", safe_for_s: float = 60.0) -> Replica:
        replica = Replica(self, name or f"r{len(self.replicas)}", safe_for_s)
        self.replicas.append(replica)
        return replica

    def at(self, at: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._order), what))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = until

    def grant(self, claims: Claims) -> None:
        for key, policy in claims.buckets:
            self.granted.append((self.now, key, claims.cost(policy)))
        for key, _ in claims.quotas:
            self.granted.append((self.now, key, 1.0))

    def carry(self, trip: Trip, back: Callable[[Trip, Reply | None], None]) -> None:
        """Bring a trip to the ledger and its reply home; or neither, when the store is down."""
        there = self.chance.uniform(*self.delay_s) + self.slow_s
        ends = self.now + 2 * TIMEOUT_S
        self.at(ends, lambda: back(trip, None))
        if self.down:
            return

        def arrives() -> None:
            if self.down:
                return
            reply = self.ledger.trip(trip, self.now)
            self.at(self.now + self.chance.uniform(*self.delay_s), lambda: back(trip, reply))

        self.at(self.now + there, arrives)

    def over(self, key: str, rate: float, burst: float) -> float:
        """By how much `key` was ever granted beyond `burst + rate * window`, in any window: 0.0 is right."""
        level, at, worst = burst, 0.0, 0.0
        for now, granted, cost in self.granted:
            if granted == key:
                level = min(burst, level + rate * (now - at)) - cost
                at = now
                worst = max(worst, -level)
        return worst

    def total(self, key: str, since: float, until: float) -> float:
        return sum(cost for at, granted, cost in self.granted if granted == key and since <= at < until)


def claims(
    *,
    caps: tuple[Cap, ...] = (),
    buckets: tuple[tuple[str, BucketPolicy], ...] = (),
    quotas: tuple[tuple[str, QuotaPolicy], ...] = (),
    tokens: float = 0.0,
    on_store_failure: OnStoreFailure = OnStoreFailure.SHARE,
) -> Claims:
    made = Claims([(cap.key, cap) for cap in caps], list(buckets), list(quotas), tokens)
    made.on_store_failure = on_store_failure
    return made
