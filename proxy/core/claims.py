"""What a call asks for, what it lacks, and the port to whoever keeps the counts (`stores/`)."""

from __future__ import annotations

from typing import Protocol

from proxy.core.policy import BucketPolicy, CapPolicy, QuotaPolicy
from proxy.core.verdict import Reason


class Claims:
    """All that one call needs at once: granted together or not at all.

    Each claim pairs the key of the count (`chat/caller/requests|3fa9c1`) with the policy it must satisfy.
    Every claim costs one request; a cap's permit is held until the lease is settled.
    """

    __slots__ = ("buckets", "caps", "quotas")

    def __init__(
        self,
        caps: list[tuple[str, CapPolicy]],
        buckets: list[tuple[str, BucketPolicy]],
        quotas: list[tuple[str, QuotaPolicy]],
    ) -> None:
        self.caps = caps
        self.buckets = buckets
        self.quotas = quotas

    def keys(self) -> list[str]:
        """Every key asked for."""
        return [key for key, _ in (*self.caps, *self.buckets, *self.quotas)]


class Shortfall:
    """What a reserve lacked. Nothing was spent.

    `key` is the claim to wait for: a full cap before an empty bucket, and of several buckets the last to
    refill. `wait_s` is the time until *every* bucket and quota asked for would do; 0.0 when only caps were
    full, for nobody knows when a permit returns. `step_s` is how much later one more call in line would go.
    """

    __slots__ = ("key", "label", "reason", "step_s", "wait_s")

    def __init__(self, key: str, reason: Reason, wait_s: float, step_s: float, label: str) -> None:
        self.key = key
        self.reason = reason
        self.wait_s = wait_s
        self.step_s = step_s
        self.label = label


class Store(Protocol):
    """Where the counts live. Synchronous: a store that is far away keeps a slice of the counts here."""

    def reserve(self, claims: Claims, now: float) -> Shortfall | None:
        """Grant every claim (None) or none of them (what was lacking)."""
        ...

    def settle(self, claims: Claims, now: float, *, unused: bool) -> None:
        """Return the permits; if the grant was not used, also what was spent from buckets and quotas.

        Call exactly once for each grant.
        """
        ...

    def in_flight(self, key: str) -> int:
        """Permits held under one cap."""
        ...

    def level(self, key: str, policy: BucketPolicy, now: float) -> float:
        """What is left in one bucket."""
        ...

    def bucket_keys(self, prefix: str) -> list[str]:
        """The buckets that are not full and whose key begins with `prefix`."""
        ...

    def cap_keys(self, prefix: str) -> list[str]:
        """The caps under which a permit is held and whose key begins with `prefix`."""
        ...
