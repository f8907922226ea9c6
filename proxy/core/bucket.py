"""The bucket: an allowance per time, as GCRA (ITU-T I.371, the virtual scheduling algorithm).

A bucket's whole state is one number: the theoretical arrival time `tat`, in monotonic seconds, at which it
will be full again. An unknown bucket is full, so its `tat` is `FULL`. All functions are pure.
"""

from __future__ import annotations

from typing import Final

from proxy.core.policy import BucketPolicy
from proxy.core.rounding import NEVER, ROUNDING_S

FULL: Final = float("-inf")


def wait_s(tat: float, cost: float, policy: BucketPolicy, now: float) -> float:
    """Seconds until `cost` could be spent; 0.0 when it can be spent now. Spends nothing.

    Infinite when `cost` exceeds the burst: such a call can never pass.
    """
    if cost > policy.burst:
        return NEVER
    wait = max(now, tat) + (cost - policy.burst) / policy.rate_per_s - now
    return wait if wait > ROUNDING_S else 0.0


def spend(tat: float, cost: float, policy: BucketPolicy, now: float) -> float:
    """The new `tat` after `cost` was spent at `now`."""
    return max(now, tat) + cost / policy.rate_per_s


def refundable_s(spent_to: float, cost: float, policy: BucketPolicy, now: float) -> float:
    """By how much `tat` may be set back at `now` for a `cost` that was spent and not used.

    `spent_to` is the `tat` that its `spend` returned, less what was set back since. Spends refill in turn:
    this one from `spent_to - cost / rate` to `spent_to`. What has refilled by itself is not given back a
    second time, or the bucket would let `burst` go twice in one moment. Of a spend that was used in part,
    `cost` is the rest: the last to refill.
    """
    return min(max(0.0, spent_to - now), cost / policy.rate_per_s)


def level(tat: float, policy: BucketPolicy, now: float) -> float:
    """What could be spent at once, from 0.0 to the burst."""
    if tat <= now:
        return policy.burst
    return max(0.0, policy.burst - (tat - now) * policy.rate_per_s)
