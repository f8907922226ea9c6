"""The gate's state at one instant, for those who look on: never used to decide."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from proxy.core.claims import CALLER, RUN
from proxy.core.gate import Gate
from proxy.core.orders import first_order, last_order
from proxy.core.plan import ANY_TOOL
from proxy.core.policy import BucketPolicy, Per, RoutePolicy
from proxy.core.pressure import pressure
from proxy.core.run_budgets import ANY_CALLER
from proxy.core.state import (
    BucketState,
    CapState,
    GateState,
    LaneState,
    RetryBudgetState,
    RouteState,
    RunState,
    StoreState,
    ToldState,
    UpstreamState,
)
from proxy.core.survey_of_tools import breaker_state, of_tools, waiting, waiting_bytes
from proxy.core.target import Target
from proxy.core.told import Pool

OTHERS = "others"

LOOKED_AT: Final = 256
SHOWN: Final = 20
"""Of the runs: to look at one costs some microseconds, and the event loop stands still meanwhile."""

UNTOLD: Final[Mapping[str, float]] = {}


def survey(
    gate: Gate,
    now: float,
    known: Collection[str] = (),
    kept: Mapping[str, float] = UNTOLD,
    store: StoreState | None = None,
    banner: str = "",
) -> GateState:
    """Everything `gate` counts at `now`. Spends nothing; walks the buckets, so not for a call.

    `known` names the configured callers: they get rows of their own, all others share one. `kept` is by route
    the share of promises that were kept of late, which the gate tells and does not count. `store` is how this
    process stands with the store that it shares, if it does; that and the `banner` are shown as they come.
    """
    targets = [gate.targets[name] for name in gate.policy.upstreams]
    return GateState(
        draining=gate.draining,
        lanes=tuple(_lanes(gate, now)),
        caps=tuple(_caps(gate, shares=store is not None)),
        buckets=tuple(_buckets(gate, now, known)),
        breakers=tuple(
            state
            for target in targets
            if (state := breaker_state(target.name, target.breaker, now)) is not None
        ),
        retry_budgets=tuple(
            RetryBudgetState(target.name, target.budgets.of_all.balance(now))
            for target in targets
            if target.budgets is not None
        ),
        upstreams=tuple(_upstream(gate, target, now) for target in targets),
        routes=tuple(
            RouteState(name, waiting_bytes(gate, name), kept.get(name)) for name in gate.policy.routes
        ),
        tools=tuple(of_tools(gate, now)),
        store=store,
        banner=banner,
        runs=tuple(nearest_to_their_end(gate, now)),
        runs_known=len(gate.runs.budgets.records),
    )


def nearest_to_their_end(gate: Gate, now: float) -> list[RunState]:
    """Of the last `LOOKED_AT` runs that called, the `SHOWN` with the least left of one of their budgets."""
    budgets = gate.runs.budgets
    found: list[RunState] = []
    for run in islice(reversed(budgets.records), LOOKED_AT):
        record = budgets.records[run]
        budget = budgets.of(record.caller)
        if budget is None:
            continue
        shares = [((now - record.began_at) / budget.wall_s, "wall_time")]
        shares += [(len(record.agents) / most, "agents") for most in (budget.agents,) if most]
        for quota in (*budget.quotas, *(each for each in (budget.retries,) if each is not None)):
            spent = gate.store.counted(f"{quota.key}|{RUN}{run}", quota, now) or 0
            shares.append((spent / max(1, quota.amount), quota.key.rpartition("/")[2]))
        used, name = max(shares)
        if used > 0.0:
            age_s = now - record.began_at
            found.append(RunState(run, name, used, record.calls, len(record.agents), age_s))
    return sorted(found, key=lambda each: each.used, reverse=True)[:SHOWN]


def _lanes(gate: Gate, now: float) -> Iterator[LaneState]:
    for route, policy in gate.policy.routes.items():
        dry_run = policy.queue.dry_size > 0
        for rank, name in enumerate(gate.policy.classes):
            first, last = first_order(rank), last_order(rank)
            depth, oldest = waiting(gate, route, now, first, last)
            yield LaneState(route, name, depth, oldest, dry_run)


def _caps(gate: Gate, *, shares: bool) -> Iterator[CapState]:
    for name, upstream in gate.policy.upstreams.items():
        cap = gate.targets[name].cap
        leases = shares and cap.shared > 0
        yield _cap(gate, cap.key, cap.key, cap.slots, enforce=upstream.cap.enforce, leases=leases)
    for route in gate.policy.routes.values():
        if route.cap is not None:
            key, slots, enforce = route.cap.key, route.cap.slots, route.cap.enforce
            yield _cap(gate, key, key, slots, enforce=enforce, leases=shares and enforce)
        yield from _tool_caps(gate, route, shares=shares)
    yield from _caller_caps(gate, shares=shares)


def _cap(gate: Gate, name: str, key: str, slots: int, *, enforce: bool, leases: bool) -> CapState:
    """The row of the cap under `key`, shown as `name`. A cap that is not in use here leases nothing."""
    leased = (gate.store.limit_of(key) or 0) if leases else None
    return CapState(name, gate.store.in_flight(key), slots, not enforce, leased)


def _tool_caps(gate: Gate, route: RoutePolicy, *, shares: bool) -> Iterator[CapState]:
    """A row for each named tool; for `*` one row, of the fullest tool without a name of its own."""
    prefix = f"tool:{route.name}/"
    for name, tool in route.tools.items():
        if tool.slots is None:
            continue
        key = _fullest(gate, prefix, route.tools) if name == ANY_TOOL else prefix + name
        yield _cap(gate, prefix + name, key, tool.slots, enforce=tool.enforce, leases=shares and tool.enforce)


def _caller_caps(gate: Gate, *, shares: bool) -> Iterator[CapState]:
    """A row for each named caller; for `*` one row, of the unnamed caller with most in flight."""
    callers = gate.policy.callers
    for name, caller in callers.items():
        key = _fullest(gate, CALLER, callers) if name == ANY_CALLER else CALLER + name
        enforce = caller.enforce
        yield _cap(gate, CALLER + name, key, caller.slots, enforce=enforce, leases=shares and enforce)


def _fullest(gate: Gate, prefix: str, names: Iterable[str]) -> str:
    """The key with most in flight among those with this prefix, the named left out; or that of nobody."""
    named = {prefix + name for name in names}
    unnamed = [key for key in gate.store.cap_keys(prefix) if key not in named]
    return max(unnamed, key=gate.store.in_flight, default=prefix)


def _buckets(gate: Gate, now: float, known: Collection[str]) -> Iterator[BucketState]:
    seen: set[str] = set()
    for route in gate.policy.routes.values():
        for policy in (*route.buckets, *(bucket for tool in route.tools.values() for bucket in tool.buckets)):
            if policy.key not in seen:
                seen.add(policy.key)
                yield from _rows(gate, policy, now, known)


def _rows(gate: Gate, policy: BucketPolicy, now: float, known: Collection[str]) -> Iterator[BucketState]:
    """A bucket of few scopes has a row for each; of many, one for each known caller and one for the rest."""
    others = policy.burst
    for key in gate.store.bucket_keys(f"{policy.key}|"):
        scope = key.partition("|")[2]
        level = gate.store.level(key, policy, now)
        if policy.per in (Per.ROUTE, Per.UPSTREAM) or scope.removeprefix("caller:") in known:
            yield BucketState(policy.key, scope, level, policy.burst, not policy.enforce)
        else:
            others = min(others, level)
    if policy.per not in (Per.ROUTE, Per.UPSTREAM):
        yield BucketState(policy.key, OTHERS, others, policy.burst, not policy.enforce)


def _upstream(gate: Gate, target: Target, now: float) -> UpstreamState:
    pools = [] if target.told is None else target.told.pools()
    return UpstreamState(
        target.name,
        _pressure(gate, target, now),
        paused=target.pause is not None and target.pause.on,
        refused_share=0.0 if target.breaker is None else target.breaker.brownout.share,
        told=_told(pools, now),
        held_s=max((pool.held_until - now for pool in pools if pool.held_until > now), default=0.0),
    )


def _told(pools: list[Pool], now: float) -> tuple[ToldState, ...]:
    least: dict[str, ToldState] = {}
    for pool in pools:
        for allowance in pool.allowances:
            left = max(0.0, allowance.level(now))
            if allowance.name not in least or left < least[allowance.name].left:
                least[allowance.name] = ToldState(allowance.name, left, allowance.limit * allowance.share)
    return tuple(least.values())


def _pressure(gate: Gate, target: Target, now: float) -> float:
    """The pressure of the fullest queue among the routes of whose calls one waits for this upstream."""
    routes = {waiter.route.name: waiter.route for waiter in gate.room.waiters() if waiter.target is target}
    return max(
        (pressure(gate.room, route.name, route.queue, now) for route in routes.values()),
        default=0.0,
    )
