"""One process's counts, in dictionaries, with the arithmetic of `core/`."""

from __future__ import annotations

from proxy.core import bucket
from proxy.core.claims import Claims, Shortfall
from proxy.core.policy import BucketPolicy
from proxy.core.verdict import Reason
from proxy.stores.quotas import Quotas

SWEEP_FROM = 1024
"""Below this many buckets nothing is swept; above, a sweep runs each time their number has doubled."""


class MemoryStore:
    """A `core.claims.Store` for one process.

    Memory is bounded by what is in use: a bucket that is full again, a cap that nobody holds and a quota
    whose window has ended are forgotten.
    """

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}  # bucket key → theoretical arrival time
        self._held: dict[str, int] = {}
        self._quotas = Quotas()
        self._sweep_at = SWEEP_FROM

    def reserve(self, claims: Claims, now: float) -> Shortfall | None:
        """Grant every claim, or spend nothing and say what was lacking."""
        if self._lacks(claims, now):
            return self._shortfall(claims, now)
        held, full_at = self._held, self._full_at
        for key, _ in claims.caps:
            held[key] = held.get(key, 0) + 1
        for key, policy in claims.buckets:
            full_at[key] = bucket.spend(full_at.get(key, bucket.FULL), 1.0, policy, now)
        for key, quota in claims.quotas:
            self._quotas.spend(key, quota, now)
        if len(full_at) > self._sweep_at:
            self._sweep(now)
        return None

    def settle(self, claims: Claims, now: float, *, unused: bool) -> None:
        """Return the permits, and with `unused` everything else too."""
        held = self._held
        for key, _ in claims.caps:
            left = held[key] - 1
            if left:
                held[key] = left
            else:
                del held[key]
        if not unused:
            return
        for key, policy in claims.buckets:
            if key in self._full_at:
                self._full_at[key] = bucket.refund(self._full_at[key], 1.0, policy)
        for key, quota in claims.quotas:
            self._quotas.refund(key, quota, now)

    def in_flight(self, key: str) -> int:
        """Permits held under one cap."""
        return self._held.get(key, 0)

    def level(self, key: str, policy: BucketPolicy, now: float) -> float:
        """What is left in one bucket."""
        return bucket.level(self._full_at.get(key, bucket.FULL), policy, now)

    def bucket_keys(self, prefix: str) -> list[str]:
        """The buckets with something spent whose key begins with `prefix`. Walks them all: not for a call."""
        return [key for key in self._full_at if key.startswith(prefix)]

    def cap_keys(self, prefix: str) -> list[str]:
        """The caps in use whose key begins with `prefix`. Walks them all: not for a call."""
        return [key for key in self._held if key.startswith(prefix)]

    def _lacks(self, claims: Claims, now: float) -> bool:
        held, full_at = self._held, self._full_at
        for key, cap in claims.caps:
            if held.get(key, 0) >= cap.slots:
                return True
        for key, policy in claims.buckets:
            if bucket.wait_s(full_at.get(key, bucket.FULL), 1.0, policy, now):
                return True
        return any(self._quotas.wait_s(key, quota, now) for key, quota in claims.quotas)

    def _shortfall(self, claims: Claims, now: float) -> Shortfall:
        """What is lacking, all claims considered: the slow path of a reserve that failed."""
        worst: Shortfall | None = None
        wait = 0.0
        for key, policy in claims.buckets:
            lacking = bucket.wait_s(self._full_at.get(key, bucket.FULL), 1.0, policy, now)
            if lacking > wait:
                wait = lacking
                worst = Shortfall(key, Reason.BUCKET_EMPTY, wait, 1 / policy.rate_per_s, policy.label)
        for key, quota in claims.quotas:
            lacking = self._quotas.wait_s(key, quota, now)
            if lacking > wait:
                wait = lacking
                worst = Shortfall(key, Reason.QUOTA_SPENT, wait, 0.0, quota.label)
        for key, cap in claims.caps:
            if self._held.get(key, 0) >= cap.slots:
                return Shortfall(key, Reason.CAP_REACHED, wait, 0.0, f"{cap.slots} in flight")
        assert worst is not None, "reserve found a claim short and the second look did not"  # noqa: S101
        return worst

    def _sweep(self, now: float) -> None:
        self._full_at = {key: tat for key, tat in self._full_at.items() if tat > now}
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._full_at))
