"""Settings → the core's Policy.

Keys say what is counted, not how much: a changed amount or burst finds its count again after a reload. A
period is part of a key, since a route may state several allowances that differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.core.policy import (
    AdaptivePolicy,
    BreakerPolicy,
    BucketPolicy,
    CallerPolicy,
    CapPolicy,
    OnStoreFailure,
    PausePolicy,
    Per,
    Policy,
    QueuePolicy,
    QuotaPolicy,
    RetryBudgetPolicy,
    RoutePolicy,
    RunBudgetPolicy,
    ToolPolicy,
    Unit,
    UpstreamPolicy,
)
from proxy.core.prices import MICRO
from proxy.core.run_budgets import ANY_CALLER
from proxy.settings.breakers import BreakerSection
from proxy.settings.checks_of_allowances import default_burst
from proxy.settings.concurrency import Slots, UpstreamSlots
from proxy.settings.pauses import PauseWhen
from proxy.settings.routes import NEVER, Bucket, Queue, Quota, Route, Tool, ToolBucket, ToolQueue
from proxy.settings.run_budget import run_budget_policy
from proxy.settings.schema import Callers, Settings
from proxy.settings.upstreams import Upstream

LAST_SHED_AT = 0.5
"""The pressure from which the last class is shed, where the route states none."""


def to_policy(settings: Settings) -> Policy:
    """What one gate enforces under these settings."""
    classes = settings.priority.classes
    return Policy(
        classes=classes,
        routes={route.name: _route(route, classes) for route in settings.routes},
        upstreams={name: _upstream(name, upstream, classes) for name, upstream in settings.upstreams.items()},
        callers=_callers(settings.callers),
        run_budgets=_run_budgets(settings.callers),
    )


def shed_at(stated: dict[str, float], classes: Sequence[str]) -> tuple[float, ...]:
    """By rank, the pressure from which a class is shed.

    Unless stated: the first class never, the last from 0.5, the others linearly between 1 and 0.5. A
    default gives way to what is stated for other classes, so that no class is shed before a less urgent one.
    """
    last = len(classes) - 1
    result = []
    for rank, name in enumerate(classes):
        if name in stated:
            result.append(stated[name])
            continue
        default = NEVER if rank == 0 else 1.0 - (1.0 - LAST_SHED_AT) * rank / last
        lowest = max((stated[each] for each in classes[rank + 1 :] if each in stated), default=0.0)
        highest = min((stated[each] for each in classes[:rank] if each in stated), default=NEVER)
        result.append(min(max(default, lowest), highest))
    return tuple(result)


def _callers(callers: Callers) -> dict[str, CallerPolicy]:
    stated = {ANY_CALLER: callers.default.concurrency} | {
        caller.name: caller.concurrency for caller in callers.known
    }
    return {
        name: CallerPolicy(concurrency.slots, concurrency.enforce)
        for name, concurrency in stated.items()
        if concurrency is not None
    }


def _run_budgets(callers: Callers) -> dict[str, RunBudgetPolicy | None]:
    """By caller; empty where no run has one. Who is known and says nothing has that of the default."""
    stated = {ANY_CALLER: callers.default.run_budget} | {
        caller.name: caller.run_budget for caller in callers.known if "run_budget" in caller.model_fields_set
    }
    if all(budget is None for budget in stated.values()):
        return {}
    return {name: None if budget is None else run_budget_policy(budget) for name, budget in stated.items()}


def _upstream(name: str, upstream: Upstream, classes: Sequence[str]) -> UpstreamPolicy:
    budget = upstream.retry_budget
    return UpstreamPolicy(
        name=name,
        cap=_upstream_cap(f"upstream:{name}", upstream.concurrency, upstream.connections.max),
        breaker=_breaker(upstream.breaker) if upstream.breaker else None,
        pause=_pause(upstream.pause_when, classes) if upstream.pause_when else None,
        paced=upstream.pace is not None,
        retry_budget=RetryBudgetPolicy(budget.ratio, budget.floor.per_s) if budget else None,
    )


def _breaker(breaker: BreakerSection) -> BreakerPolicy:
    return BreakerPolicy(
        failure_ratio=breaker.failure_ratio,
        slow_call_s=breaker.slow_call_s,
        slow_ratio=breaker.slow_ratio,
        window_s=breaker.window_s,
        minimum_calls=breaker.minimum_calls,
        open_for_s=breaker.open_for_s,
        probes=breaker.probes,
        enforce=breaker.enforce,
        probe_every_s=breaker.probe_every_s,
        brownout=breaker.brownout,
    )


def _pause(pause: PauseWhen, classes: Sequence[str]) -> PausePolicy:
    ranks = frozenset(rank for rank, name in enumerate(classes) if name in pause.lanes)
    return PausePolicy(pause.p95_above_s, pause.for_s, ranks)


def _cap(key: str, concurrency: Slots) -> CapPolicy:
    return CapPolicy(key, concurrency.slots, concurrency.enforce)


def _upstream_cap(key: str, concurrency: UpstreamSlots, most_connections: int | None) -> CapPolicy:
    adaptive = concurrency.adaptive
    if adaptive is None:
        return _cap(key, concurrency)
    # Calls beyond the connections would wait for one, and teach nothing.
    most = min(adaptive.max, most_connections or adaptive.max)
    least = min(adaptive.min, most)
    start = max(least, min(adaptive.start, most))
    return CapPolicy(key, start, adaptive=AdaptivePolicy(least, start, most))


def _queue(queue: Queue) -> QueuePolicy:
    """In dry run nobody waits: to the gate it is a queue without places."""
    if queue.enforce:
        return QueuePolicy(queue.size, queue.max_age_s, max_bytes=queue.max_bytes)
    return QueuePolicy(0, queue.max_age_s, dry_size=queue.size, max_bytes=queue.max_bytes)


def _route(route: Route, classes: Sequence[str]) -> RoutePolicy:
    here = f"route:{route.name}"
    return RoutePolicy(
        name=route.name,
        queue=_queue(route.queue),
        shed_at=shed_at(route.shed, classes),
        buckets=tuple(_bucket(each, _bucket_key(each, route)) for each in route.buckets),
        quotas=tuple(_quota(each, route) for each in route.quotas),
        cap=None if route.concurrency is None else _cap(here, route.concurrency),
        tools={name: _tool(tool, f"tool:{route.name}/{name}") for name, tool in route.tools.items()},
        upstream=route.upstream,
        on_store_failure=OnStoreFailure(route.on_store_failure),
    )


def _tool(tool: Tool, here: str) -> ToolPolicy:
    return ToolPolicy(
        slots=tool.concurrency.slots if tool.concurrency else None,
        enforce=tool.concurrency is None or tool.concurrency.enforce,
        queue=_tool_queue(tool.queue) if tool.queue else None,
        breaker=_breaker(tool.breaker) if tool.breaker else None,
        buckets=tuple(
            _bucket(each, f"{here}/{each.per}/{each.rate.unit}/{each.rate.period_s:g}s")
            for each in tool.buckets
        ),
    )


def _tool_queue(queue: ToolQueue) -> QueuePolicy:
    return QueuePolicy(queue.size, queue.max_age_s, max_bytes=queue.max_bytes)


def _bucket_key(bucket: Bucket, route: Route) -> str:
    if bucket.per == "upstream":
        return f"upstream:{route.upstream}/{bucket.rate.unit}"
    return f"route:{route.name}/{bucket.per}/{bucket.rate.unit}/{bucket.rate.period_s:g}s"


def _bucket(bucket: Bucket | ToolBucket, key: str) -> BucketPolicy:
    return BucketPolicy(
        key=key,
        per=Per(bucket.per),
        rate_per_s=bucket.rate.per_s,
        burst=default_burst(bucket.rate) if bucket.burst is None else float(bucket.burst),
        label=bucket.rate.label,
        unit=Unit(bucket.rate.unit),
        enforce=bucket.enforce,
    )


def _quota(quota: Quota, route: Route) -> QuotaPolicy:
    window_s, unit = int(quota.allow.period_s), Unit(quota.allow.unit)
    kind = "quota" if unit is Unit.REQUESTS else f"quota/{unit}"
    amount = quota.allow.amount * MICRO if unit is Unit.MONEY else quota.allow.amount
    here = f"upstream:{route.upstream}" if quota.per == "upstream" else f"route:{route.name}/{quota.per}"
    return QuotaPolicy(
        key=f"{here}/{kind}/{window_s}s",
        per=Per(quota.per),
        amount=round(amount),
        window_s=window_s,
        label=quota.allow.label,
        enforce=quota.enforce,
        unit=unit,
    )
