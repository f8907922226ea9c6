"""What the operator asked for, in the terms of the decision: plain, frozen, in seconds and units.

`settings/policies.py` builds these from the YAML; nothing here knows how they were written.
`key` is the stable name under which a count is kept, so that a reload finds it again. What has `enforce`
false decides, is counted and keeps nobody out (`dry_run.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Per(StrEnum):
    """Whose allowance a bucket or a quota is: one count for each distinct value."""

    CALLER = "caller"
    RUN = "run"
    ROUTE = "route"
    UPSTREAM = "upstream"
    TOOL = "tool"
    MODEL = "model"


class Unit(StrEnum):
    """What is counted: each call as one; the tokens that it costs, all or those of one way; by a quota the
    money."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT = "input_tokens"
    OUTPUT = "output_tokens"
    MONEY = "money"


class OnStoreFailure(StrEnum):
    """What a route does once the shared store has been out of reach for longer than `safe_for`.

    `share`: each replica goes on with its part, the limit over the replicas last seen. `refuse`: no call
    goes. `open`: each replica enforces the whole limit by itself.
    """

    SHARE = "share"
    REFUSE = "refuse"
    OPEN = "open"


REQUESTS: Final = Unit.REQUESTS
MONEY: Final = Unit.MONEY
"""For the speed of `is`: to read a member from its class costs 110 ns in Python 3.11."""


@dataclass(frozen=True, slots=True)
class BucketPolicy:
    """An allowance per time: `rate_per_s` of its unit a second on average, `burst` at once after a pause."""

    key: str
    per: Per
    rate_per_s: float
    burst: float
    label: str
    unit: Unit = Unit.REQUESTS
    enforce: bool = True


@dataclass(frozen=True, slots=True)
class QuotaPolicy:
    """An allowance per long window: at most `amount` of its unit in each `window_s`, counted from the first.

    Money is counted in millionths (`prices.py`). With `lasts` it is what a run may have in all: the window
    ends `window_s` after the last call that was granted, and who finds it spent is not to come back.
    """

    key: str
    per: Per
    amount: int
    window_s: int
    label: str
    enforce: bool = True
    unit: Unit = Unit.REQUESTS
    lasts: bool = False


@dataclass(frozen=True, slots=True)
class AdaptivePolicy:
    """A cap is to be learnt: never below `least` nor above `most`, from `start` on."""

    least: int
    start: int
    most: int


@dataclass(frozen=True, slots=True)
class CapPolicy:
    """At most `slots` calls in flight at once under `key` (`upstream:openai`, `tool:github/search`).

    With `adaptive` they are learnt, and `slots` is where it starts.
    """

    key: str
    slots: int
    enforce: bool = True
    adaptive: AdaptivePolicy | None = None


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """At most `size` calls of a route wait, none longer than `max_age_s`. A size of 0 means: never wait.

    What they keep in memory is at most `max_bytes` in all. `dry_size` is the size that a queue in dry run
    would have; its `size` is 0.
    """

    size: int
    max_age_s: float
    dry_size: int = 0
    max_bytes: float = float("inf")


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When an upstream counts as down, over a rolling window, and how it is tried again.

    Trips when, among at least `minimum_calls` that ended within `window_s`, a share of `failure_ratio`
    failed or a share of `slow_ratio` waited `slow_call_s` or longer for the beginning of an answer; or when
    `minimum_calls` in a row failed, or were not answered. Then one call goes as a probe every
    `probe_every_s`, `probes` at a time, and so many answers close it; who is refused is told to stay away for
    up to `open_for_s`. While it is closed no more than `brownout` calls go for each that is accepted (0.0: as
    many as come).
    """

    failure_ratio: float
    slow_call_s: float
    slow_ratio: float
    window_s: float
    minimum_calls: int
    open_for_s: float
    probes: int
    enforce: bool = True
    probe_every_s: float = 0.25
    brownout: float = 0.0


@dataclass(frozen=True, slots=True)
class PausePolicy:
    """Calls of a rank in `ranks` are held while the time to the first byte is long.

    Long: its 95th percentile has been above `above_s` for `for_s`.
    """

    above_s: float
    for_s: float
    ranks: frozenset[int]


@dataclass(frozen=True, slots=True)
class RetryBudgetPolicy:
    """Retries may be `ratio` of the first attempts, plus `floor_per_s` a second."""

    ratio: float
    floor_per_s: float


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """What holds for one tool (or for `*`, each tool without a policy of its own) of a route."""

    slots: int | None = None
    buckets: tuple[BucketPolicy, ...] = ()
    enforce: bool = True  # the slots; each bucket says so itself
    queue: QueuePolicy | None = None  # of its own, in place of its route's
    breaker: BreakerPolicy | None = None  # of its own, in place of its upstream's

    @property
    def is_apart(self) -> bool:
        """Does it wait, or fail, apart from the rest of its route?"""
        return self.queue is not None or self.breaker is not None


@dataclass(frozen=True, slots=True)
class CallerPolicy:
    """At most `slots` calls in flight of one caller (or of `*`, each without a policy of its own)."""

    slots: int
    enforce: bool = True


@dataclass(frozen=True, slots=True)
class RunBudgetPolicy:
    """What one run may have in all, until it is forgotten `forget_s` after its last call was granted.

    `quotas` are spent by every call, `retries` by those that repeat another. Not more than `slots` calls in
    flight; `wall_s` from its first call on; not more than `agents` sub-agents, none of them further than
    `depth` from the agent that the run began with (0: that one alone). None: as many as there are.
    """

    forget_s: float
    quotas: tuple[QuotaPolicy, ...] = ()
    retries: QuotaPolicy | None = None
    slots: int | None = None
    wall_s: float = float("inf")
    depth: int | None = None
    agents: int | None = None
    enforce: bool = True


@dataclass(frozen=True, slots=True)
class UpstreamPolicy:
    """What holds for every call to one upstream, whichever route it came by.

    `paced`: by what it says itself is left of its allowances (`told.py`).
    """

    name: str
    cap: CapPolicy
    breaker: BreakerPolicy | None
    retry_budget: RetryBudgetPolicy | None
    pause: PausePolicy | None = None
    paced: bool = False


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What holds for every call of one route.

    `shed_at[rank]` is the pressure (0 to 1) from which calls of that rank are shed; above 1 means never.
    `upstream` is the first choice, whose allowances `per: upstream` state; "" stands for any. `scope` is how
    a refusal names its queue: the terms of one tool's own queue are a route policy too (`tools.py`).
    """

    name: str
    queue: QueuePolicy
    shed_at: tuple[float, ...]
    buckets: tuple[BucketPolicy, ...] = ()
    quotas: tuple[QuotaPolicy, ...] = ()
    cap: CapPolicy | None = None
    tools: Mapping[str, ToolPolicy] = field(default_factory=dict)
    upstream: str = ""
    on_store_failure: OnStoreFailure = OnStoreFailure.SHARE
    scope: str = ""
    counts_tokens: bool = field(init=False)
    sets_apart: bool = field(init=False)

    def __post_init__(self) -> None:
        """Look once, for every call asks."""
        object.__setattr__(self, "scope", self.scope or f"route:{self.name}")
        object.__setattr__(self, "sets_apart", any(tool.is_apart for tool in self.tools.values()))
        units = [*(bucket.unit for bucket in self.buckets), *(quota.unit for quota in self.quotas)]
        counts_tokens = any(unit is not REQUESTS for unit in units)
        object.__setattr__(self, "counts_tokens", counts_tokens)


@dataclass(frozen=True, slots=True)
class Policy:
    """All of it: what one gate enforces until the next reload. `classes` names the priorities by rank.

    What `callers` says holds over all routes together; so do the budgets of the runs of each caller.
    """

    classes: tuple[str, ...]
    routes: Mapping[str, RoutePolicy]
    upstreams: Mapping[str, UpstreamPolicy]
    callers: Mapping[str, CallerPolicy] = field(default_factory=dict)
    run_budgets: Mapping[str, RunBudgetPolicy | None] = field(default_factory=dict)
