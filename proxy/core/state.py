"""The gate, printable: what `/state`, the gauges and failing tests show of it at one instant.

`dry_run` marks what decides and is counted, but keeps nobody out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LaneState:
    """The waiting calls of one route and priority class. `oldest_s` is 0.0 when nothing waits."""

    route: str
    priority: str
    depth: int
    oldest_s: float
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RouteState:
    """What the waiting calls of one route keep in memory, and how honest its refusals were of late.

    `kept_share` is the share, from 0 to 1, of the callers back at the time told that were admitted; None
    before the first came back.
    """

    route: str
    waiting_bytes: int
    kept_share: float | None = None


@dataclass(frozen=True, slots=True)
class CapState:
    """Calls in flight under one cap, such as `upstream:openai`; in dry run there may be more than slots.

    For caps per caller the unnamed are one row, `caller:*`: that of the caller with most in flight.
    """

    key: str
    in_flight: int
    slots: int
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class BucketState:
    """What is left of one bucket: `level` of `burst` requests. Never negative.

    For buckets per caller or run, `scope` names a configured caller, and the unnamed are one row,
    `others`, with the lowest level among them: the set of rows is bounded by the configuration.
    """

    key: str
    scope: str
    level: float
    burst: float
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class BreakerState:
    """One breaker: its phase, what its window holds, and when it next lets a probe through (0.0: now)."""

    upstream: str
    phase: str
    calls: int
    failure_ratio: float
    slow_ratio: float
    next_probe_s: float
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RetryBudgetState:
    """How many retries one upstream's budget would pay for now."""

    upstream: str
    balance: float


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How full one upstream is, from 0 (nothing waits) to 1 (its queue is full, or as old as it may get).

    `paused`: the classes of its `pause_when` are held. `refused_share`: of the calls to it, from 0 to 1, that
    are refused because it accepts so few.
    """

    upstream: str
    pressure: float
    paused: bool = False
    refused_share: float = 0.0


@dataclass(frozen=True, slots=True)
class GateState:
    """Everything the gate counts, at one instant."""

    draining: bool
    lanes: tuple[LaneState, ...]
    caps: tuple[CapState, ...]
    buckets: tuple[BucketState, ...]
    breakers: tuple[BreakerState, ...]
    retry_budgets: tuple[RetryBudgetState, ...]
    upstreams: tuple[UpstreamState, ...]
    routes: tuple[RouteState, ...] = ()
