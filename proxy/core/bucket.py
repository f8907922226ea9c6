"""The bucket: an allowance per time, as GCRA (ITU-T I.371, the virtual scheduling algorithm).

A bucket's whole state is one number: the theoretical arrival time `tat`, in monotonic seconds, at which it
will be full again. An unknown bucket is full, so its `tat` is `FULL`. All functions are pure.
"""

from __future__ import annotations

from typing import Final

from proxy.core.policy import BucketPolicy

FULL: Final = float("-inf")

ROUNDING_S: Final = 1e-6
"""A wait shorter than this counts as none. Monotonic seconds after a year of uptime have a grain of 4 ns;
whoever comes back exactly when told must not be refused for a rounding of a sum of such numbers. It lets
a call go a microsecond early and charges it in full, so no rate is exceeded beyond `rate * 1e-6`."""


def wait_s(tat: float, cost: float, policy: BucketPolicy, now: float) -> float:
    """Seconds until `cost` could be spent; 0.0 when it can be spent now. Spends nothing.

    Infinite when `cost` exceeds the burst: such a call can never pass.
    """
    if cost > policy.burst:
        return float("inf")
    wait = (max(now, tat)) + (cost - policy.burst) / policy.rate_per_s - now
    return wait if wait > ROUNDING_S else 0.0


def spend(tat: float, cost: float, policy: BucketPolicy, now: float) -> float:
    """The new `tat` after `cost` was spent at `now`."""
    return (max(now, tat)) + cost / policy.rate_per_s


def refund(tat: float, cost: float, policy: BucketPolicy) -> float:
    """The new `tat` after `cost`, spent before, was given back whole."""
    return tat - cost / policy.rate_per_s


def level(tat: float, policy: BucketPolicy, now: float) -> float:
    """What could be spent at once, from 0.0 to the burst."""
    if tat <= now:
        return policy.burst
    return max(0.0, policy.burst - (tat - now) * policy.rate_per_s)
