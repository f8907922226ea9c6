"""The slices that one replica holds of the shared ledger, and its trips there.

A slice is made when a key is first asked for, and forgotten when there is nothing more to say of it. A trip
carries what is urgent at once, and in turn all that is in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.core.bucket_slice import BucketSlice
from proxy.core.bucket_trade import BucketTold
from proxy.core.cap import Cap
from proxy.core.cap_slice import CapSlice
from proxy.core.cap_trade import CapTold
from proxy.core.demand import TRIP_S
from proxy.core.ledger import Ask, Reply, Trip
from proxy.core.policy import BucketPolicy, QuotaPolicy
from proxy.core.quota_slice import QuotaSlice
from proxy.core.quota_trade import QuotaTold
from proxy.core.rounding import NEVER
from proxy.stores.contact import Contact

MOST_ASKS: Final = 64
"""In one trip, which is two milliseconds of this process's time. The others go with the next, at once."""

Slice = BucketSlice | CapSlice | QuotaSlice


class Holdings:
    """The slices of one process, by key. `wake` is called when a trip should not wait for its turn.

    A trip is `pack`ed, and ends with exactly one of `unpack` and `missed`, before the next; then `put_back`.
    """

    def __init__(self, replica: str, contact: Contact) -> None:
        self.replica = replica
        self.contact = contact
        self.wake: Callable[[], None] = _nobody
        self.buckets: dict[str, BucketSlice] = {}
        self.caps: dict[str, CapSlice] = {}
        self.quotas: dict[str, QuotaSlice] = {}
        self._urgent: dict[str, Slice] = {}
        self._in_turn: dict[str, Slice] = {}  # still to go with the trip in turn
        self._lent: dict[str, CapSlice] = {}
        self._short: dict[str, CapSlice] = {}
        self._number = 0
        self._packed: list[tuple[str, Slice]] = []
        self._packed_at = 0.0
        self._came: list[tuple[str, BucketSlice | QuotaSlice]] = []
        self._turn_at = 0.0
        self.begins_turn = False  # did the last trip?
        self._leaves = False
        self._recalls = False  # alone, and in touch again: the ledger is being told

    def bucket(self, key: str, policy: BucketPolicy, now: float) -> BucketSlice:
        """The slice of a key, of nothing yet if it is new."""
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = self.buckets[key] = BucketSlice(policy, now)
        elif bucket.policy is not policy:
            bucket.adopt(policy)
        return bucket

    def cap(self, key: str, cap: Cap, now: float) -> CapSlice:
        """The slice of a key, of nothing yet if it is new."""
        permits = self.caps.get(key)
        if permits is None:
            permits = self.caps[key] = CapSlice(cap.shared, now)
        permits.slots = cap.shared
        return permits

    def quota(self, key: str, policy: QuotaPolicy, now: float) -> QuotaSlice:
        """The slice of a key, of nothing yet if it is new."""
        quota = self.quotas.get(key)
        if quota is None:
            quota = self.quotas[key] = QuotaSlice(policy.amount, policy.window_s, now, lasts=policy.lasts)
        quota.amount, quota.window_s = policy.amount, float(policy.window_s)
        return quota

    def hurry(self, key: str, each: Slice) -> None:
        """It should go with a trip at once."""
        is_first = not self._urgent
        self._urgent[key] = each
        if is_first:
            self.wake()

    def lend(self, key: str, permits: CapSlice) -> None:
        """It may have fallen idle, if nobody here takes it in this turn of the loop, and others want it."""
        self._lent[key] = permits
        if len(self._lent) == 1:
            self.wake()

    def lacks(self, key: str, permits: CapSlice) -> None:
        """A call waits for a permit that others hold."""
        if key not in self._short and permits.asks_again_s() < NEVER:
            self._short[key] = permits
            self.wake()

    def look(self, now: float) -> None:
        """Move on by what time it is: once the ledger has learnt, what was granted alone is over."""
        if self.contact.look(now):
            self._end_leases(now)

    def due_at(self, now: float) -> float:
        """When the next trip should set out."""
        contact = self.contact
        if not contact.may_hurry:
            return now if self._recalls else contact.next_at
        if self._urgent or self._in_turn:
            return now
        if any(permits.lets_go for permits in self._lent.values()):
            return now
        self._lent.clear()
        at = min(self._turn_at, contact.next_at)
        for permits in self._short.values():
            at = min(at, self._packed_at + permits.asks_again_s())
        return at

    def pack(self, now: float, *, leaving: bool = False) -> Trip:
        """Set out: what is asked of the ledger, in this one trip."""
        self.look(now)
        contact = self.contact
        self.begins_turn = now >= self._turn_at or (leaving and not self._leaves)
        if self.begins_turn:
            self._leaves = leaving
            self._turn_at = now + TRIP_S
            self._in_turn = self._in_use(now)
        self._urgent.update((key, each) for key, each in self._lent.items() if each.lets_go)
        self._urgent.update(self._short)
        self._lent.clear()
        self._short.clear()
        packed = list(self._urgent.items())[:MOST_ASKS]
        packed += [row for row in self._in_turn.items() if row[0] not in self._urgent][
            : MOST_ASKS - len(packed)
        ]
        asks: list[tuple[str, Ask]] = []
        for key, each in packed:
            in_turn = self._in_turn.pop(key, None) is not None
            asks.append((key, each.leave(now) if leaving else self._ask(each, now, in_turn=in_turn)))
            self._urgent.pop(key, None)
        self._recalls = self._recalls and bool(self._in_turn)
        self._packed, self._packed_at = packed, now
        self._number += 1
        return Trip(self.replica, self._number, asks, seq=contact.seq, safe=contact.is_alone, leaving=leaving)

    @property
    def has_more(self) -> bool:
        """Is there more to carry than went with the last trip?"""
        return bool(self._in_turn)

    def unpack(self, reply: Reply, now: float) -> list[str]:
        """Back with a reply. The keys under which there may be room that was not before."""
        contact, sent_at = self.contact, self._packed_at
        was_alone = contact.is_alone
        begins_to_learn = contact.heard(reply.seq, reply.replicas, reply.learning_s, sent_at, now)
        packed, self._packed = self._packed, []
        if begins_to_learn:  # it is to hear of everything at once, in as many trips as that takes
            self._in_turn, self._recalls = self._in_use(now), contact.is_alone
        if contact.is_alone:
            return []  # all goes on as it was until the ledger has learnt
        if was_alone:
            self._end_leases(now)
        opened: list[str] = []
        for (key, each), told in zip(packed, reply.told, strict=True):
            if isinstance(each, BucketSlice) and isinstance(told, BucketTold):
                each.told(told, now)
                self._came.append((key, each))
            elif isinstance(each, CapSlice) and isinstance(told, CapTold):
                each.told(told)
                if each.lets_go:
                    self.lend(key, each)
            elif isinstance(each, QuotaSlice) and isinstance(told, QuotaTold):
                each.told(told, sent_at, now)
                self._came.append((key, each))
            elif isinstance(each, BucketSlice):
                each.learning(now)
            opened.append(key)
        return opened

    def missed(self, why: str, now: float, *, heard: bool = True) -> list[str]:
        """Back without a reply. The keys of those who waited for it, once it is known what becomes of them.

        `heard`: the ledger may have heard it.
        """
        packed, self._packed = self._packed, []
        alone = self.contact.is_alone
        for key, each in packed:
            if isinstance(each, BucketSlice):
                if not alone:
                    each.missed(now, heard=heard)
            elif not alone:
                each.missed()
            self._urgent[key] = each
        self._recalls = False
        self.contact.missed(why, self._packed_at, now)
        if self.contact.is_hoping:
            return []
        waited = list(self._urgent)
        self._urgent.clear()
        self._lent.clear()
        self._short.clear()
        return waited

    def put_back(self) -> None:
        """Whoever waited has been served: what came for them, and is not to lie here unspent, goes back."""
        for key, each in self._came:
            if each.put_back():
                self.hurry(key, each)
        self._came.clear()

    # ── within ──────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, each: Slice, now: float, *, in_turn: bool) -> Ask:
        alone = self.contact.is_alone
        if isinstance(each, CapSlice):
            return each.ask(now, in_turn=in_turn, alone=alone)
        if isinstance(each, BucketSlice):
            return each.ask_alone(now) if alone else each.ask(now)
        return each.ask(now)

    def _in_use(self, now: float) -> dict[str, Slice]:
        """All that there is something to say of. What is as good as never heard of is forgotten."""
        for key in [key for key, each in self.buckets.items() if each.is_idle and each.is_full(now)]:
            del self.buckets[key]
        for key in [key for key, each in self.caps.items() if each.is_idle]:
            del self.caps[key]
        for key in [key for key, each in self.quotas.items() if each.is_over(now)]:
            del self.quotas[key]
        recalls = not self.contact.is_calm
        found: dict[str, Slice] = {}
        found.update((key, bucket) for key, bucket in self.buckets.items() if recalls or not bucket.is_idle)
        found.update(self.caps)
        found.update((key, quota) for key, quota in self.quotas.items() if recalls or not quota.is_idle)
        return found

    def _end_leases(self, now: float) -> None:
        """The ledger counts from here on."""
        for bucket in self.buckets.values():
            bucket.end_lease(now)
        for permits in self.caps.values():
            permits.end_lease()
        for quota in self.quotas.values():
            quota.end_lease()


def _nobody() -> None:
    """Nobody makes trips yet."""
