"""The counts of one replica among many: slices of a ledger that all of them share.

`reserve` answers at once, from the slices that this replica holds (`holdings.py`). What it does not hold it
asks for: the call waits (`Shortfall.pending`), and one task makes a trip for all such calls together
(`trips.py`), beside one every `TRIP_S` for all keys in use. No call ever waits for the network in a place of
its own, and a call that is refused by what is known costs no trip. What happens without the ledger is
`contact.py`'s to say.
"""

from __future__ import annotations

from proxy.core.cap import Cap
from proxy.core.claims import Claims, Shortfall, Store, never
from proxy.core.policy import REQUESTS, BucketPolicy, QuotaPolicy
from proxy.core.rounding import NEVER, ROUNDING_S
from proxy.core.used import Used
from proxy.core.verdict import Reason
from proxy.stores.holdings import Holdings, Slice


class SharedStore(Store):
    """The counts of one process, answered from what it holds."""

    def __init__(self, holdings: Holdings) -> None:
        self.holdings = holdings
        self.contact = holdings.contact
        self._buckets = holdings.buckets
        self._caps = holdings.caps
        self._quotas = holdings.quotas
        self._held: dict[str, int] = {}  # under caps that each replica has for itself

    # ── what a call asks ────────────────────────────────────────────────────────────────────────────

    def reserve(self, claims: Claims, now: float) -> Shortfall | None:
        """Grant every claim, or spend nothing and say what was lacking; or that the ledger is asked."""
        if not self.contact.is_calm and (down := self._stand(claims, now)) is not None:
            return down
        if self._lacks(claims, now):
            return self._shortfall(claims, now, asks=True)
        self._grant(claims, now)
        return None

    def peek(self, claims: Claims, now: float) -> Shortfall | None:
        """What `reserve` would answer; spends nothing, and asks nobody."""
        if not self.contact.is_calm and (down := self._stand(claims, now)) is not None:
            return down
        return self._shortfall(claims, now, asks=False)

    def settle(self, claims: Claims, now: float, *, unused: bool, used: Used | None = None) -> None:
        """Return the permits, with `unused` whatever else has not come back by itself, and true tokens up."""
        for key, cap in claims.caps:
            permits = self._caps.get(key)
            if permits is not None and permits.held and (cap.shared or key not in self._held):
                permits.give(now)
                if permits.lets_go:
                    self.holdings.lend(key, permits)
            else:  # each replica's own; or it was when the call went, before a reload
                self._held[key] -= 1
                if not self._held[key]:
                    del self._held[key]
        if claims.receipt is None:
            return
        for key, _ in claims.quotas:
            self._quotas[key].out -= 1
        if unused:
            self._refund(claims, now)
        elif used is not None:
            self._true_up(claims, used, now)

    def asked(self, claims: Claims, now: float) -> None:
        """Count the demand, by which the ledger is asked for more or less."""
        for key, cap in claims.caps:
            if cap.shared:
                self.holdings.cap(key, cap, now).asked += 1
        for key, policy in claims.buckets:
            self.holdings.bucket(key, policy, now).demand.add(claims.cost(policy))
        for key, quota in claims.quotas:
            self.holdings.quota(key, quota, now).demand.add(claims.quota_cost(quota))

    def rate(self, key: str, policy: BucketPolicy) -> float:
        """What the slice brings; where it has no rate, what the ledger does as far as nobody holds it."""
        bucket = self._buckets.get(key)
        return policy.rate_per_s if bucket is None else bucket.own_rate

    def most(self, key: str, policy: BucketPolicy) -> float:
        """What the slice can hold."""
        bucket = self._buckets.get(key)
        return policy.burst if bucket is None else bucket.most

    def in_flight(self, key: str) -> int:
        """Permits that this replica's calls hold under one cap."""
        permits = self._caps.get(key)
        return self._held.get(key, 0) if permits is None else permits.held

    def level(self, key: str, policy: BucketPolicy, now: float) -> float:
        """What is left in one bucket, here and as far as is known in the ledger."""
        bucket = self._buckets.get(key)
        if bucket is None or not bucket.heard:
            return policy.burst
        bucket.refill(now)
        return min(policy.burst, max(0.0, bucket.level + bucket.shared_at(now)))

    def counted(self, key: str, quota: QuotaPolicy, now: float) -> int | None:  # noqa: ARG002
        """How much of one quota is spent, by all replicas, as far as was told here."""
        known = self._quotas.get(key)
        return None if known is None else known.spent

    def bucket_keys(self, prefix: str) -> list[str]:
        """The buckets in use here whose key begins with `prefix`. Walks them all: not for a call."""
        return [key for key in self._buckets if key.startswith(prefix)]

    def cap_keys(self, prefix: str) -> list[str]:
        """The caps in use here whose key begins with `prefix`. Walks them all: not for a call."""
        keys = [key for key, permits in self._caps.items() if permits.held and key.startswith(prefix)]
        return keys + [key for key in self._held if key.startswith(prefix)]

    def limit_of(self, key: str) -> int | None:
        """How many this replica may have in flight under a cap that it shares; None: none in use."""
        permits = self._caps.get(key)
        return None if permits is None else permits.limit

    # ── within ──────────────────────────────────────────────────────────────────────────────────────

    def _lacks(self, claims: Claims, now: float) -> bool:
        """Is anything lacking?"""
        lacks = False
        for key, cap in claims.caps:
            if not cap.shared:
                lacks = lacks or self._held.get(key, 0) >= cap.slots
                continue
            permits = self.holdings.cap(key, cap, now)
            if permits.held >= cap.slots or not permits.has_room(now):
                permits.fail()
                self.holdings.lacks(key, permits)
                lacks = True
        for key, policy in claims.buckets:
            lacks = not self.holdings.bucket(key, policy, now).has(claims.cost(policy), now) or lacks
        for key, of_quota in claims.quotas:
            cost = claims.quota_cost(of_quota)
            lacks = not self.holdings.quota(key, of_quota, now).has(cost, now) or lacks
        return lacks

    def _grant(self, claims: Claims, now: float) -> None:
        for key, cap in claims.caps:
            if cap.shared:
                self._caps[key].take(now)
            else:
                self._held[key] = self._held.get(key, 0) + 1
        if not (claims.buckets or claims.quotas):
            return
        for key, policy in claims.buckets:
            self._buckets[key].level -= claims.cost(policy)
        windows = [self._quotas[key].take(claims.quota_cost(policy), now) for key, policy in claims.quotas]
        claims.receipt = (now, windows)

    def _shortfall(self, claims: Claims, now: float, *, asks: bool) -> Shortfall | None:
        """What is lacking, all claims considered; to be asked for only where nothing else is lacking."""
        lack = _Lack()
        for key, policy in claims.buckets:
            cost = claims.cost(policy)
            if cost > policy.burst:
                return Shortfall(key, Reason.TOO_DEAR, NEVER, 0.0, policy.label)
            self._look_at_bucket(lack, key, policy, cost, now)
        for key, quota in claims.quotas:
            spends = claims.quota_cost(quota)
            if spends > quota.amount:
                return never(key, quota, spends)
            self._look_at_quota(lack, key, quota, spends, now)
        for key, cap in claims.caps:
            self._look_at_cap(lack, key, cap, now)
        if asks and lack.is_pending:
            for key, each, cost in lack.pending:
                each.want(cost)
                self.holdings.hurry(key, each)
        return lack.shortfall()

    def _look_at_bucket(self, lack: _Lack, key: str, policy: BucketPolicy, cost: float, now: float) -> None:
        bucket = self.holdings.bucket(key, policy, now)
        if bucket.has(cost, now):
            return
        if not bucket.alone and bucket.may_fetch(cost, now):
            away_s = self.contact.wait_s(now)
            if not away_s:
                lack.ask(key, bucket, Reason.BUCKET_EMPTY, policy.label, cost)
            else:
                lack.wait(Shortfall(key, Reason.STORE_DOWN, away_s, bucket.step_s(cost), policy.label))
            return
        if cost > bucket.bound:
            bucket.want_dear(cost)
        wait_s, step_s = bucket.wait_s(cost, now), bucket.step_s(cost)
        part = bucket.own_rate / policy.rate_per_s
        lack.wait(Shortfall(key, Reason.BUCKET_EMPTY, wait_s, step_s, policy.label, part=part))

    def _look_at_quota(self, lack: _Lack, key: str, policy: QuotaPolicy, cost: int, now: float) -> None:
        quota = self.holdings.quota(key, policy, now)
        if quota.has(cost, now):
            return
        if not quota.may_fetch(cost, now):
            quota.lack(now)
            if not policy.lasts:
                wait_s = max(ROUNDING_S, quota.until - now)
                lack.wait(Shortfall(key, Reason.QUOTA_SPENT, wait_s, 0.0, policy.label))
            elif quota.alone:  # its part is spent, which is not the whole: to be told to stop would be untrue
                lack.wait(Shortfall(key, Reason.STORE_DOWN, self.contact.back_s(now), 0.0, policy.label))
            else:
                lack.wait(never(key, policy, cost))
        elif away_s := self.contact.wait_s(now):
            lack.wait(Shortfall(key, Reason.STORE_DOWN, away_s, 0.0, policy.label))
        else:
            lack.ask(key, quota, Reason.QUOTA_SPENT, policy.label, cost)

    def _look_at_cap(self, lack: _Lack, key: str, cap: Cap, now: float) -> None:
        slots, label = cap.slots, f"{cap.shared or cap.slots} in flight"
        if not cap.shared:
            if self._held.get(key, 0) >= slots:
                lack.fill(Shortfall(key, Reason.CAP_REACHED, 0.0, 0.0, label, slots))
            return
        permits = self.holdings.cap(key, cap, now)
        if permits.held < slots and permits.has_room(now):
            return
        if permits.held >= slots or not permits.may_fetch:
            here = max(1, min(slots, permits.limit))
            lack.fill(Shortfall(key, Reason.CAP_REACHED, 0.0, 0.0, label, here))
        elif away_s := self.contact.wait_s(now):
            lack.wait(Shortfall(key, Reason.STORE_DOWN, away_s, 0.0, label))
        else:
            lack.ask(key, permits, Reason.CAP_REACHED, label)

    def _stand(self, claims: Claims, now: float) -> Shortfall | None:
        """The ledger is out of reach, or learning. STORE_DOWN where the call is not to go without it."""
        contact = self.contact
        self.holdings.look(now)
        if not contact.is_alone or not _is_shared(claims):
            return None
        parts = contact.parts(claims.on_store_failure)
        if not parts:
            return Shortfall("store", Reason.STORE_DOWN, NEVER, contact.back_s(now), "")
        for key, cap in claims.caps:
            if cap.shared:
                self.holdings.cap(key, cap, now).stand_alone(parts)
        for key, policy in claims.buckets:
            bound = min(policy.burst, max(policy.burst / parts, claims.cost(policy)))
            self.holdings.bucket(key, policy, now).stand_alone(policy.rate_per_s / parts, bound, now)
        for key, quota_policy in claims.quotas:
            self.holdings.quota(key, quota_policy, now).stand_alone(parts, now)
        return None

    def _refund(self, claims: Claims, now: float) -> None:
        at, windows = claims.receipt
        for key, policy in claims.buckets:
            cost = claims.cost(policy)
            self._give_back(key, policy, cost, cost, at, now)
        for (key, quota), window in zip(claims.quotas, windows, strict=True):
            self._give_quota_back(key, claims.quota_cost(quota), window, now)

    def _true_up(self, claims: Claims, used: Used, now: float) -> None:
        """The estimate was another: the rest comes back, or a debt is made that all replicas wait for."""
        at, windows = claims.receipt
        for key, policy in claims.buckets:
            if policy.unit is REQUESTS:
                continue
            cost = claims.cost(policy)
            over = used.of(policy.unit) - cost
            if over < 0.0:
                self._give_back(key, policy, -over, cost, at, now)
            elif over:
                self.holdings.bucket(key, policy, now).overspend(over, now)
        for place, (key, quota) in enumerate(claims.quotas):
            beyond = claims.quota_over(quota, used)
            if beyond < 0:
                self._give_quota_back(key, -beyond, windows[place], now)
            elif beyond:
                owing = self._quotas[key]
                owing.overspend(beyond, now)
                if owing.put_back():
                    self.holdings.hurry(key, owing)

    def _give_quota_back(self, key: str, cost: int, window: float, now: float) -> None:
        quota = self._quotas[key]
        if quota.give_back(cost, window, now) and quota.put_back():
            self.holdings.hurry(key, quota)

    def _give_back(
        self, key: str, policy: BucketPolicy, unused: float, cost: float, at: float, now: float
    ) -> None:
        """Of what was spent at `at` all has come back that the bucket's rate brought; the rest does now."""
        back = min(unused, cost - policy.rate_per_s * (now - at))
        if back > 0.0:
            self.holdings.bucket(key, policy, now).give_back(back, now)


class _Lack:
    """What was found lacking so far: worth a wait of `wait_s` at most, full, or only not asked for yet."""

    __slots__ = ("_full", "_pending", "_worst", "pending")

    def __init__(self) -> None:
        self._worst: Shortfall | None = None
        self._full: Shortfall | None = None
        self._pending: Shortfall | None = None
        self.pending: list[tuple[str, Slice, float]] = []

    def wait(self, shortfall: Shortfall) -> None:
        """It comes by itself."""
        if self._worst is None or shortfall.wait_s > self._worst.wait_s:
            self._worst = shortfall

    def fill(self, shortfall: Shortfall) -> None:
        """A cap is full."""
        self._full = self._full or shortfall

    def ask(self, key: str, each: Slice, reason: Reason, label: str, cost: float = 1.0) -> None:
        """It may be had for the asking."""
        self.pending.append((key, each, cost))
        self._pending = self._pending or Shortfall(key, reason, 0.0, 0.0, label, 1, pending=True)

    @property
    def is_pending(self) -> bool:
        """Is nothing lacking but what is to be asked for?"""
        return self._pending is not None and self._full is None and self._worst is None

    def shortfall(self) -> Shortfall | None:
        """What to tell: what can never be had; a full cap, with the time of the longest wait beside it."""
        if self._worst is not None and self._worst.is_final:
            return self._worst
        if self._full is not None:
            self._full.wait_s = 0.0 if self._worst is None else self._worst.wait_s
            return self._full
        return self._worst or self._pending


def _is_shared(claims: Claims) -> bool:
    return bool(claims.buckets or claims.quotas or any(cap.shared for _, cap in claims.caps))
