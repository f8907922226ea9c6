"""The oracle's own books: what was granted, recounted from the list of grants and from nothing else."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from proxy.core.gate import Grant
from proxy.core.policy import BucketPolicy, Policy, QuotaPolicy, Unit
from proxy.core.used import Estimate, Used

GRAIN_S = 1e-5

RESERVED = {Unit.TOKENS: 1.0, Unit.INPUT: 0.75, Unit.OUTPUT: 0.25}
USED = {Unit.TOKENS: 1.0, Unit.INPUT: 0.5, Unit.OUTPUT: 0.5}
"""Of a call's tokens, what each unit counts: as it is estimated, and as it turns out."""


def estimated(tokens: float) -> Estimate:
    """What a call of so many tokens is estimated to cost, all of it certain."""
    given, taken = tokens * RESERVED[Unit.INPUT], tokens * RESERVED[Unit.OUTPUT]
    return Estimate(given, taken, given, taken)


def used_of(tokens: float | None) -> Used | None:
    """What it used in the end."""
    return None if tokens is None else Used(tokens * USED[Unit.INPUT], tokens * USED[Unit.OUTPUT])


@dataclass
class Row:
    """What a bucket lost at one instant: what was reserved and is used, or what was used beyond it."""

    at: float
    cost: float
    grant: Grant
    policy: BucketPolicy


class Ledger:
    """Every grant, in order of time; those that were not used are struck out again, estimates corrected."""

    def __init__(self) -> None:
        self.held: list[Grant] = []
        self._of_bucket: dict[str, list[Row]] = defaultdict(list)
        self._quota: dict[str, tuple[float, list[Grant]]] = {}
        self._cap_allows: dict[str, int] = {}

    def granted(self, grant: Grant) -> None:
        """Write it down and check every promise that a grant could break."""
        self.held.append(grant)
        for key, policy in grant.claims.buckets:
            cost = 1.0 if policy.unit is Unit.REQUESTS else grant.call.tokens * RESERVED[policy.unit]
            self._of_bucket[key].append(Row(grant.at, cost, grant, policy))
            self._check_rate(key, policy)
        for key, quota in grant.claims.quotas:
            self._check_quota(key, quota, grant)

    def settled(self, grant: Grant, now: float, *, unused: bool, used_tokens: float | None = None) -> None:
        self.held.remove(grant)
        if not unused and used_tokens is not None:
            self._trued_up(grant, used_tokens, now)
        if unused:
            for key, _ in grant.claims.buckets:
                self._of_bucket[key] = [row for row in self._of_bucket[key] if row.grant is not grant]
            for key, _ in grant.claims.quotas:
                counted = self._quota[key][1]
                if grant in counted:
                    counted.remove(grant)

    def _trued_up(self, grant: Grant, used_tokens: float, now: float) -> None:
        for key, policy in grant.claims.buckets:
            rows = self._of_bucket[key]
            if policy.unit is Unit.REQUESTS:
                continue
            used = used_tokens * USED[policy.unit]
            for row in [row for row in rows if row.grant is grant]:
                if used > row.cost:
                    rows.append(Row(now, used - row.cost, grant, policy))
                row.cost = min(row.cost, used)

    def adopted(self, policy: Policy) -> None:
        """Buckets with other numbers begin a new count; caps that shrank let their holders finish."""
        states = [
            bucket
            for route in policy.routes.values()
            for bucket in (*route.buckets, *(each for tool in route.tools.values() for each in tool.buckets))
        ]
        for key, rows in self._of_bucket.items():
            kept = [bucket for bucket in states if key.startswith(f"{bucket.key}|")]
            self._of_bucket[key] = [row for row in rows if row.policy in kept]
        self._cap_allows = self._held_by_key()

    def check_held(self, counted: dict[str, int], slots: dict[str, int]) -> None:
        """What was granted and not settled is held; above the cap only who was there before it shrank."""
        own = self._held_by_key()
        assert counted == own
        for key, count in own.items():
            allowed = max(slots.get(key, 0), self._cap_allows.get(key, 0))
            assert count <= allowed, f"{count} in flight under {key}, which allows {allowed}"
        self._cap_allows = {key: count for key, count in own.items() if count > slots.get(key, 0)}

    def _held_by_key(self) -> dict[str, int]:
        own: dict[str, int] = defaultdict(int)
        for grant in self.held:
            for key, _ in grant.claims.caps:
                own[key] += 1
        return dict(own)

    def check_level(self, key: str, policy: BucketPolicy, level: float, now: float) -> None:
        """The bucket has lost what was used, and nothing else."""
        full_at = float("-inf")
        for row in self._of_bucket[key]:
            full_at = max(full_at, row.at) + row.cost / policy.rate_per_s
        used = max(0.0, full_at - now) * policy.rate_per_s
        assert level <= max(0.0, policy.burst - used) + GRAIN_S * policy.rate_per_s

    def bucket_rows(self) -> list[tuple[str, BucketPolicy]]:
        return [(key, rows[-1].policy) for key, rows in self._of_bucket.items() if rows]

    def _check_rate(self, key: str, policy: BucketPolicy) -> None:
        """At a grant: what was reserved in any window that ends with it, corrected as far as is known."""
        rows = [row for row in self._of_bucket[key] if row.policy == policy]
        spent, now = 0.0, rows[-1].at
        for row in reversed(rows):
            spent += row.cost
            may = policy.burst + policy.rate_per_s * (now - row.at + GRAIN_S)
            assert spent <= may, f"{spent} of {key} in {now - row.at}s, {may} are allowed"

    def _check_quota(self, key: str, quota: QuotaPolicy, grant: Grant) -> None:
        began, counted = self._quota.get(key, (float("-inf"), []))
        if grant.at >= began + quota.window_s - GRAIN_S:
            began, counted = grant.at, []
        counted.append(grant)
        self._quota[key] = (began, counted)
        assert len(counted) <= quota.amount, f"{len(counted)} of {quota.amount} under {key}"
