"""The shared ledger: what all replicas together may grant, and how much of it each of them holds.

Here the arithmetic of the shared store is *defined*; `stores/lua/trade.lua` says the same to Redis, and a
differential test holds the two together. A replica makes a *trip* every so often: it tells what it hands
back and what it needs, key by key, and is told what it may grant by itself until its next one.

Why nothing is ever granted twice: whatever may be granted lies either in an account here or in one replica's
slice. Both refill, but the rates of the slices are taken from the account's own, and no slice nor the account
may hold more than its part of the burst. So all of it together is never more than the burst, and grows no
faster than the rate: in any window at most `burst + rate * window` is granted. What a replica held that
vanishes is lost, and never anybody else's. Times are seconds of the store's own clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.core.bucket_trade import BucketAccount, BucketAsk, BucketTold, recall_bucket, trade_bucket
from proxy.core.cap_trade import CapAsk, CapShare, CapTold, trade_cap
from proxy.core.quota_trade import QuotaAccount, QuotaAsk, QuotaTold, trade_quota

LEASE_S: Final = 3.0
"""What a replica was told holds for so long. The rate of one that was killed is lost, and its permits are
taken, until then. Four trips in turn (`demand.TRIP_S`): two may fail, and nothing runs out."""

MOST_HINTS: Final = 64
"""Kept at most; and none for longer than a lease: who missed more has missed it."""

Ask = BucketAsk | CapAsk | QuotaAsk
Told = BucketTold | CapTold | QuotaTold


class Trip:
    """What one replica sends: `number` grows by one with each of its trips.

    `seq` is what the last reply told (0: none did). `safe`: it has been on its own, and spent without asking.
    `leaving`: it will not come again. `hint` is for the other replicas (`hints.py`), and nothing to the
    ledger; empty: there is none.
    """

    __slots__ = ("asks", "hint", "leaving", "number", "replica", "safe", "seq")

    def __init__(
        self,
        replica: str,
        number: int,
        asks: list[tuple[str, Ask]],
        *,
        seq: int = 0,
        safe: bool = False,
        leaving: bool = False,
        hint: bytes = b"",
    ) -> None:
        self.hint = hint
        self.replica = replica
        self.number = number
        self.asks = asks
        self.seq = seq
        self.safe = safe
        self.leaving = leaving


class Reply:
    """What it is told: for each ask its answer, in the same order; None where the ledger is learning.

    `learning_s` is for how long it goes on gathering what it does not know, and gives nothing. `replicas`
    are those heard of within the last lease, this one among them. `stale`: a later trip of this replica came
    before this one, which was ignored. `hints` are what others gave since this replica's last trip, each with
    its age in seconds.
    """

    __slots__ = ("hints", "learning_s", "replicas", "seq", "stale", "told")

    def __init__(
        self,
        seq: int,
        replicas: int,
        learning_s: float,
        told: list[Told | None],
        *,
        stale: bool = False,
        hints: list[tuple[float, bytes]] | None = None,
    ) -> None:
        self.hints = hints or []
        self.seq = seq
        self.replicas = replicas
        self.learning_s = learning_s
        self.told = told
        self.stale = stale


class _Presence:
    """A replica that was heard of: until when that counts, its latest trip, and is it `here` still."""

    __slots__ = ("here", "number", "until")

    def __init__(self, number: int, until: float, *, here: bool) -> None:
        self.number = number
        self.until = until
        self.here = here


class Ledger:
    """All accounts of one namespace. `trip` is what the script does in Redis, as one step.

    Counts are lost when the store was flushed, came back empty, or a standby took over that had not heard of
    all: `seq` counts the trips, and is behind what some replica was told. Then, and when all replicas have
    been on their own, the ledger learns for one lease, for so long what they hold may still be spent: it
    gives nothing new, and each replica says what it knows.
    """

    def __init__(self) -> None:
        self._learning_until = 0.0
        self._seq = 0
        self._replicas: dict[str, _Presence] = {}
        self._buckets: dict[str, BucketAccount] = {}
        self._caps: dict[str, list[CapShare]] = {}
        self._quotas: dict[str, QuotaAccount] = {}
        self._hints: deque[tuple[int, str, float, bytes]] = deque(maxlen=MOST_HINTS)

    def trip(self, trip: Trip, now: float) -> Reply:
        """Exchange with one replica."""
        known = self._replicas.get(trip.replica)
        if known is not None and trip.number <= known.number:
            return Reply(self._seq, 0, 0.0, [], stale=True)
        self._replicas = {name: each for name, each in self._replicas.items() if each.until > now}
        lost = not self._seq or self._seq < trip.seq
        if lost or (trip.safe and not self._here() and self._learning_until <= now):
            self._learning_until = now + LEASE_S
        self._seq = max(self._seq, trip.seq) + 1
        hints = self._passed_on(trip, now)
        until = self._learning_until if self._learning_until > now else 0.0
        told = [self._trade(key, ask, trip, now, until) for key, ask in trip.asks]
        # Who has left is remembered: an earlier trip of it may still be on its way.
        self._replicas[trip.replica] = _Presence(trip.number, now + LEASE_S, here=not trip.leaving)
        learning_s = max(0.0, self._learning_until - now)
        return Reply(self._seq, self._here(), learning_s, told, hints=hints)

    def _passed_on(self, trip: Trip, now: float) -> list[tuple[float, bytes]]:
        """What others gave since the last trip of this replica, the latest first; and keep what it gives."""
        hints: list[tuple[float, bytes]] = []
        for seq, replica, at, hint in reversed(self._hints):
            if seq <= trip.seq or now - at > LEASE_S:
                break
            if replica != trip.replica:
                hints.append((now - at, hint))
        if trip.hint:
            self._hints.append((self._seq, trip.replica, now, trip.hint))
        return hints

    def _here(self) -> int:
        return sum(each.here for each in self._replicas.values())

    def _trade(self, key: str, ask: Ask, trip: Trip, now: float, learning_until: float) -> Told | None:
        if isinstance(ask, CapAsk):
            shares = self._caps.get(key, [])
            self._caps[key], of_cap = trade_cap(shares, ask, trip.replica, now, LEASE_S, learning_until)
            return of_cap
        if isinstance(ask, QuotaAsk):
            quota, of_quota = trade_quota(self._quotas.get(key), ask, now, learning=learning_until > 0.0)
            if quota is not None:
                self._quotas[key] = quota
            return None if learning_until else of_quota
        if learning_until:
            recalled = recall_bucket(self._buckets.get(key), ask, now, learning_until, LEASE_S)
            if recalled is not None:
                self._buckets[key] = recalled
            return None
        bucket, of_bucket = trade_bucket(self._buckets.get(key), ask, trip.replica, now, LEASE_S)
        self._buckets[key] = bucket
        return of_bucket
