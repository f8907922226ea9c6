"""The gate, printable: what `/state`, the gauges and failing tests show of it at one instant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LaneState:
    """The waiting calls of one route and priority class. `oldest_s` is 0.0 when nothing waits."""

    route: str
    priority: str
    depth: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class CapState:
    """Calls in flight under one cap, such as `upstream:openai`."""

    key: str
    in_flight: int
    slots: int


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


@dataclass(frozen=True, slots=True)
class BreakerState:
    """One breaker: its phase, what its window holds, and when it next lets a probe through (0.0: now)."""

    upstream: str
    phase: str
    calls: int
    failure_ratio: float
    slow_ratio: float
    next_probe_s: float


@dataclass(frozen=True, slots=True)
class RetryBudgetState:
    """How many retries one upstream's budget would pay for now."""

    upstream: str
    balance: float


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How full one upstream is, from 0 (nothing waits) to 1 (its queue is full, or as old as it may get)."""

    upstream: str
    pressure: float


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
