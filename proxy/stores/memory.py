"""One process's counts, in dictionaries, with the arithmetic of `core/`."""

from __future__ import annotations

from typing import Final

from proxy.core import bucket
from proxy.core.claims import Claims, Shortfall, Store, never
from proxy.core.policy import REQUESTS, BucketPolicy, QuotaPolicy
from proxy.core.rounding import NEVER
from proxy.core.used import Used
from proxy.core.verdict import Reason
from proxy.stores.quotas import Quotas, Window

SWEEP_FROM: Final = 1024
"""Below this many buckets nothing is swept; above, a sweep runs each time their number has doubled."""


class _Bucket:
    """One bucket: its `tat` (`core/bucket.py`), and by how many seconds it was ever set back."""

    __slots__ = ("refunded_s", "tat")

    def __init__(self) -> None:
        self.tat = bucket.FULL
        self.refunded_s = 0.0


class _Receipt:
    """What one reserve did: each bucket with its `tat` and `refunded_s` after it, the window of each quota.

    It holds the states themselves, not their keys: once a bucket was full and forgotten there is nothing
    left to give back, whatever was spent under the same key since.
    """

    __slots__ = ("buckets", "windows")

    def __init__(self, buckets: list[tuple[_Bucket, float, float]], windows: list[Window]) -> None:
        self.buckets = buckets
        self.windows = windows


class MemoryStore(Store):
    """The counts of one process.

    Memory is bounded by what is in use: a bucket that is full again, a cap that nobody holds and a quota
    whose window has ended are forgotten.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._held: dict[str, int] = {}
        self._quotas = Quotas()
        self._sweep_at = SWEEP_FROM

    def reserve(self, claims: Claims, now: float) -> Shortfall | None:
        """Grant every claim, or spend nothing and say what was lacking."""
        if self._lacks(claims, now):
            return self._shortfall(claims, now)
        held = self._held
        for key, _ in claims.caps:
            held[key] = held.get(key, 0) + 1
        if claims.buckets or claims.quotas:
            self._spend(claims, now)
        return None

    def peek(self, claims: Claims, now: float) -> Shortfall | None:
        """What `reserve` would answer; spends nothing."""
        return self._shortfall(claims, now) if self._lacks(claims, now) else None

    def settle(self, claims: Claims, now: float, *, unused: bool, used: Used | None = None) -> None:
        """Return the permits, with `unused` whatever else has not come back by itself, and true tokens up."""
        held = self._held
        for key, _ in claims.caps:
            left = held[key] - 1
            if left:
                held[key] = left
            else:
                del held[key]
        if claims.receipt is not None:
            if unused:
                self._refund(claims, claims.receipt, now)
            elif used is not None:
                self._true_up(claims, claims.receipt, used, now)

    def in_flight(self, key: str) -> int:
        """Permits held under one cap."""
        return self._held.get(key, 0)

    def level(self, key: str, policy: BucketPolicy, now: float) -> float:
        """What is left in one bucket."""
        return bucket.level(self._tat(key), policy, now)

    def counted(self, key: str, quota: QuotaPolicy, now: float) -> int | None:
        """How much of one quota is spent."""
        return self._quotas.counted(key, quota, now)

    def bucket_keys(self, prefix: str) -> list[str]:
        """The buckets with something spent whose key begins with `prefix`. Walks them all: not for a call."""
        return [key for key in self._buckets if key.startswith(prefix)]

    def cap_keys(self, prefix: str) -> list[str]:
        """The caps in use whose key begins with `prefix`. Walks them all: not for a call."""
        return [key for key in self._held if key.startswith(prefix)]

    def _tat(self, key: str) -> float:
        state = self._buckets.get(key)
        return bucket.FULL if state is None else state.tat

    def _lacks(self, claims: Claims, now: float) -> bool:
        held = self._held
        for key, cap in claims.caps:
            if held.get(key, 0) >= cap.slots:
                return True
        for key, policy in claims.buckets:
            state = self._buckets.get(key)
            tat = bucket.FULL if state is None else state.tat
            if bucket.wait_s(tat, claims.cost(policy), policy, now):
                return True
        return bool(claims.quotas) and any(
            self._quotas.wait_s(key, quota, now, claims.quota_cost(quota)) for key, quota in claims.quotas
        )

    def _shortfall(self, claims: Claims, now: float) -> Shortfall:
        """What is lacking, all claims considered: the slow path of a reserve that failed."""
        worst: Shortfall | None = None
        wait = 0.0
        for key, policy in claims.buckets:
            cost = claims.cost(policy)
            lacking = bucket.wait_s(self._tat(key), cost, policy, now)
            if lacking == NEVER:
                return Shortfall(key, Reason.TOO_DEAR, lacking, 0.0, policy.label)
            if lacking > wait:
                wait = lacking
                worst = Shortfall(key, Reason.BUCKET_EMPTY, wait, cost / policy.rate_per_s, policy.label)
        for key, quota in claims.quotas:
            spends = claims.quota_cost(quota)
            lacking = self._quotas.wait_s(key, quota, now, spends)
            if lacking and (quota.lasts or spends > quota.amount):
                return never(key, quota, spends)
            if lacking > wait:
                wait = lacking
                worst = Shortfall(key, Reason.QUOTA_SPENT, wait, 0.0, quota.label)
        for key, cap in claims.caps:
            if self._held.get(key, 0) >= cap.slots:
                return Shortfall(key, Reason.CAP_REACHED, wait, 0.0, f"{cap.slots} in flight", cap.slots)
        assert worst is not None, "reserve found a claim short and the second look did not"  # noqa: S101
        return worst

    def _spend(self, claims: Claims, now: float) -> None:
        spent = []
        for key, policy in claims.buckets:
            state = self._buckets.get(key)
            if state is None:
                state = self._buckets[key] = _Bucket()
            state.tat = bucket.spend(state.tat, claims.cost(policy), policy, now)
            spent.append((state, state.tat, state.refunded_s))
        windows = [
            self._quotas.spend(key, quota, now, claims.quota_cost(quota)) for key, quota in claims.quotas
        ]
        claims.receipt = _Receipt(spent, windows)
        if len(self._buckets) > self._sweep_at:
            self._sweep(now)

    def _refund(self, claims: Claims, receipt: _Receipt, now: float) -> None:
        for (_, policy), spend in zip(claims.buckets, receipt.buckets, strict=True):
            _give_back(spend, claims.cost(policy), policy, now)
        for (key, quota), window in zip(claims.quotas, receipt.windows, strict=True):
            self._quotas.refund(key, quota, window, now, claims.quota_cost(quota))

    def _true_up(self, claims: Claims, receipt: _Receipt, used: Used, now: float) -> None:
        """The estimate was another: the rest comes back, or a debt is made that the next callers wait for."""
        for at, (key, policy) in enumerate(claims.buckets):  # `zip(strict=True)` is 2 % of a call
            if policy.unit is REQUESTS:
                continue
            over = used.of(policy.unit) - claims.cost(policy)
            if over <= 0:
                _give_back(receipt.buckets[at], -over, policy, now)
                continue
            state = self._buckets.get(key)  # the bucket that was spent from may be full again, and forgotten
            if state is None:
                state = self._buckets[key] = _Bucket()
            state.tat = bucket.spend(state.tat, over, policy, now)
        for at, (key, quota) in enumerate(claims.quotas):
            beyond = claims.quota_over(quota, used)
            if beyond < 0:
                self._quotas.refund(key, quota, receipt.windows[at], now, -beyond)
            elif beyond:
                self._quotas.charge(key, quota, beyond, now)

    def _sweep(self, now: float) -> None:
        self._buckets = {key: state for key, state in self._buckets.items() if state.tat > now}
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._buckets))


def _give_back(spend: tuple[_Bucket, float, float], cost: float, policy: BucketPolicy, now: float) -> None:
    """Give back the last `cost` of one spend, as far as it has not refilled."""
    state, spent_to, refunded_s = spend
    # Of the refunds since, those of later spends did not bring this one's turn forward; to count them all
    # gives back too little at worst, never too much.
    refunded_since_s = state.refunded_s - refunded_s
    back_s = bucket.refundable_s(spent_to - refunded_since_s, cost, policy, now)
    state.tat -= back_s
    state.refunded_s += back_s
