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

    For caps per caller the unnamed are one row, `caller:*`: that of the caller with most in flight. Of a cap
    that replicas share, `slots` are those of all replicas, and `leased` this one's for now; else None.
    """

    key: str
    in_flight: int
    slots: int
    dry_run: bool = False
    leased: int | None = None


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
class ToolState:
    """A tool with a queue or a breaker of its own, as it is configured: by its name, or `*`.

    `depth` calls wait in its queue, the oldest for `oldest_s`; of `*`, of all its tools. `breaker` is that of
    the tool, of `*` the worst of them, under the tool's `label` for its `upstream`; None: it has none, or
    nobody has called it. `down` counts the tools whose breaker is open.
    """

    route: str
    label: str
    depth: int
    oldest_s: float
    breaker: BreakerState | None
    down: int


@dataclass(frozen=True, slots=True)
class RetryBudgetState:
    """How many retries one upstream's budget would pay for now."""

    upstream: str
    balance: float


@dataclass(frozen=True, slots=True)
class ToldState:
    """One allowance of an upstream by its own words: what is left for this replica, of its share of all.

    Where several keys have one each, that with least left.
    """

    allowance: str
    left: float
    whole: float


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How full one upstream is, from 0 (nothing waits) to 1 (its queue is full, or as old as it may get).

    `paused`: the classes of its `pause_when` are held. `refused_share`: of the calls to it, from 0 to 1, that
    are refused because it accepts so few. `told`: what the upstream itself says is left; for `held_s` it
    has asked not to be called.
    """

    upstream: str
    pressure: float
    paused: bool = False
    refused_share: float = 0.0
    told: tuple[ToldState, ...] = ()
    held_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StoreState:
    """How this replica stands with the store that it shares with others: `stores/contact.py` has the phases.

    `shown` is its URL without the password. `why` and `since_s` are of the latest move: empty and None before
    the first. `lost_s` is for how long it has been out of reach (0.0: it is in reach), `moves_in_s` how long
    until time alone moves the phase on (None: it does not). `joined`: it was in touch at any time.
    `learning`: the store is in reach, and gathers counts that it does not know. `replicas` are those last
    seen, this one among them. Of the `trips` made, `missed` had no answer, and together they carried `asks`,
    one for each key. `unread` are hints of other replicas that made no sense to this release. The last three
    are how many keys are held here.
    """

    kind: str
    shown: str
    phase: str
    why: str = ""
    since_s: float | None = None
    lost_s: float = 0.0
    moves_in_s: float | None = None
    joined: bool = True
    learning: bool = False
    replicas: int = 1
    trips: int = 0
    missed: int = 0
    asks: int = 0
    unread: int = 0
    buckets: int = 0
    caps: int = 0
    quotas: int = 0


@dataclass(frozen=True, slots=True)
class RunState:
    """One run and the budget that it has least left of: `used` is the share of it, 1 and more when spent.

    `budget` is its name; `calls` and `agents` are those of this process, which has known the run for `age_s`.
    """

    run: str
    budget: str
    used: float
    calls: int
    agents: int
    age_s: float


@dataclass(frozen=True, slots=True)
class GateState:
    """Everything the gate counts, at one instant.

    `store` is None where each process counts for itself. `banner` is what an operator should know, in one
    sentence; empty when all is as it should be. Of the runs with a budget `runs_known` are remembered, and
    `runs` are the nearest to their end among those that called last.
    """

    draining: bool
    lanes: tuple[LaneState, ...]
    caps: tuple[CapState, ...]
    buckets: tuple[BucketState, ...]
    breakers: tuple[BreakerState, ...]
    retry_budgets: tuple[RetryBudgetState, ...]
    upstreams: tuple[UpstreamState, ...]
    routes: tuple[RouteState, ...] = ()
    tools: tuple[ToolState, ...] = ()
    store: StoreState | None = None
    banner: str = ""
    runs: tuple[RunState, ...] = ()
    runs_known: int = 0
