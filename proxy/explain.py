"""`backpressure explain`: which route, lane, buckets and caps a call would meet, and what it would be called.

Built from the same table, identity and claims as a running proxy; nothing is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proxy.assembly import identity_of, table_of, upstreams_of
from proxy.core.call import Call
from proxy.core.cap import UNBOUNDED
from proxy.core.claims import Claims
from proxy.core.dry_run import APART
from proxy.core.plan import claims_of
from proxy.core.policy import (
    CapPolicy,
    OnStoreFailure,
    Policy,
    QueuePolicy,
    RoutePolicy,
    RunBudgetPolicy,
    UpstreamPolicy,
)
from proxy.core.run_budgets import ANY_CALLER
from proxy.core.target import Target
from proxy.dialects.in_body import InBody
from proxy.identity import Identity, Standing, deadline_s, sdk_says_retry
from proxy.routing import Match
from proxy.settings import Settings, to_policy
from proxy.settings.retries import Retries
from proxy.settings.store import Store
from proxy.stores.breakers import BreakerMachine

MIB: Final = 2**20

_WITHOUT_STORE: Final = {
    OnStoreFailure.SHARE: "each replica goes on with its share",
    OnStoreFailure.REFUSE: "503, store_down",
    OnStoreFailure.OPEN: "each replica enforces the whole of it alone",
}


class NoRoute(Exception):
    """No route has the path; the message names those that there are."""


def explain(settings: Settings, method: str, path: str, headers: dict[bytes, bytes]) -> Iterator[str]:
    """Lines of plain text about the call `method path` with `headers` (lower-case names).

    Raises NoRoute, and BadHeader for a header that the proxy would answer with 400.
    """
    raw_path, mark, query = path.partition("?")
    table = table_of(settings, upstreams_of(settings))
    match = table.find(raw_path.encode())
    if match is None:
        raise NoRoute(f"no route has the path {raw_path}; configured prefixes: {', '.join(table.prefixes)}")
    identity = identity_of(settings)
    standing = identity.caller(headers)
    call, policy = _call(match, identity, standing, headers), to_policy(settings)
    route = policy.routes[match.route.name]
    first = match.route.ladder[0]
    target = Target(policy.upstreams[first.upstream.name], BreakerMachine(first.upstream.name))

    yield f"route      {route.name} ({match.route.dialect.name})"
    yield f"caller     {standing.name}"
    yield f"run        {call.run}" + (f", agent {call.agent}" if call.agent else "")
    yield f"lane       {route.name} / {policy.classes[call.rank]}"
    yield from _asked(identity, match.route.in_body, headers)
    yield from _named(match, call, method, raw_path)
    if call.deadline != float("inf"):
        yield f"deadline   {call.deadline:g}s from now"
    if sdk_says_retry(headers):
        yield "retry      yes, by the SDK's own count: the retry budget pays"
    forwarded = first.upstream.target(match.rest, query.encode() if mark else None)
    yield f"upstream   {first.upstream.name}: {method} {forwarded.decode('latin-1')}"
    for rung in match.route.ladder[1:]:
        yield f"fallback   {rung.upstream.name}" + (f", model {rung.model}" if rung.model else "")

    budget = _budget(call, policy)
    yield from _claims(claims_of(call, target, route, policy.callers, budget))
    yield from _run_budget(budget)
    yield from _learnt(target.policy.cap)
    yield from _store(settings.store, route)
    yield _queue(route.queue)
    shed_at = route.shed_at[call.rank]
    yield "shed       never" if shed_at > 1 else f"shed       from a pressure of {shed_at:g}"
    yield from _pause(target.policy, policy, call)
    stated = next(each for each in settings.routes if each.name == route.name)
    if stated.retries is not None:
        yield from _retries(stated.retries)
    yield from _protection(target.policy)


def _named(match: Match, call: Call, method: str, path: str) -> Iterator[str]:
    """The tool, or where it will be named; the same for the model."""
    dialect = match.route.dialect
    model = dialect.model_in(match.rest)
    if call.tool:
        yield f"tool       {call.tool}"
    elif dialect.needs_body(method.encode(), path.encode()):
        yield "tool       named in the body: caps and buckets of the tool come on top"
    elif model:
        yield f"model      {model}" + (", streamed" if dialect.streams(match.rest) else "")
    elif match.route.reads_body:
        yield "model      named in the body: what is per model is that one's"


def _asked(identity: Identity, in_body: InBody | None, headers: dict[bytes, bytes]) -> Iterator[str]:
    """What these headers leave to the body."""
    if in_body is not None and identity.asks(in_body, headers):
        what = ["run"] if identity.asks_run(in_body, headers) else []
        if identity.asks_urgency(in_body, headers):
            what.append("lane")
        yield f"body       may name another {' and '.join(what)}"


def _budget(call: Call, policy: Policy) -> RunBudgetPolicy | None:
    """That of the call's run."""
    call.charged = call.run if call.has_run else ""
    budgets = policy.run_budgets
    return budgets.get(call.caller, budgets.get(ANY_CALLER)) if call.charged else None


def _run_budget(budget: RunBudgetPolicy | None) -> Iterator[str]:
    """What no store counts of it."""
    if budget is None:
        return
    note = "" if budget.enforce else " (dry run)"
    wall_s = budget.wall_s if budget.wall_s < float("inf") else None
    parts = ((wall_s, "{:g}s of time"), (budget.depth, "depth {:g}"), (budget.agents, "{:g} agents"))
    stated = [words.format(amount) for amount, words in parts if amount is not None]
    if stated:
        yield f"run        may have {', '.join(stated)}{note}"


def _learnt(cap: CapPolicy) -> Iterator[str]:
    if (adaptive := cap.adaptive) is not None:
        bounds = f"{adaptive.least} to {adaptive.most} in flight"
        yield f"learnt     {cap.key}: from {adaptive.start} on, {bounds}"


def _store(store: Store, route: RoutePolicy) -> Iterator[str]:
    if store.shared:
        yield f"store      {store.shown}"
        yield f"           lost for {store.safe_for_s:g}s: {_WITHOUT_STORE[route.on_store_failure]}"


def _queue(queue: QueuePolicy) -> str:
    if queue.dry_size:
        return f"queue      {queue.dry_size} calls, {queue.max_age_s:g}s (dry run: nobody waits)"
    if not queue.size:
        return "queue      none"
    return f"queue      {queue.size} calls, {queue.max_age_s:g}s, {queue.max_bytes / MIB:g} MiB"


def _pause(upstream: UpstreamPolicy, policy: Policy, call: Call) -> Iterator[str]:
    pause = upstream.pause
    if pause is None:
        return
    held = ", ".join(name for rank, name in enumerate(policy.classes) if rank in pause.ranks)
    this = "this call too" if call.rank in pause.ranks else "not this call"
    yield f"pause      holds {held} ({this}) once for {pause.for_s:g}s"
    yield f"           more than one answer in twenty began later than {pause.above_s:g}s"


def _retries(retries: Retries) -> Iterator[str]:
    calls = "any call" if retries.calls == "all" else "calls that may come twice"
    yield f"retries    {calls}, once more by us after {', '.join(retries.when)}"
    yield f"           and a pause of up to {retries.backoff_s:g}s, if the budget pays"


def _claims(claims: Claims) -> Iterator[str]:
    """What is enforced, then what is in dry run."""
    for part, note in ((claims, ""), (claims.dry, " (dry run)")):
        if part is None:
            continue
        for key, cap in part.caps:
            if cap.slots < UNBOUNDED:
                yield f"cap        {key.removeprefix(APART)}: {cap.slots} in flight{note}"
        for key, bucket in part.buckets:
            yield f"bucket     {key.partition('|')[2]}: {bucket.label}, burst {bucket.burst:g}{note}"
        for key, quota in part.quotas:
            yield f"quota      {key.partition('|')[2]}: {quota.label}{note}"


def _call(match: Match, identity: Identity, standing: Standing, headers: dict[bytes, bytes]) -> Call:
    run, agent, parent = identity.runs.of(headers, standing.name)
    return Call(
        route=match.route.name,
        caller=standing.name,
        run=run,
        agent=agent,
        parent=parent,
        tool=match.tool,
        rank=identity.rank(headers, standing)[0],
        arrived_at=0.0,
        model=match.ask.model if match.ask is not None else "",
        deadline=deadline_s(headers)[1],
    )


def _protection(upstream: UpstreamPolicy) -> Iterator[str]:
    breaker, budget = upstream.breaker, upstream.retry_budget
    if breaker is not None:
        slow = f"{breaker.slow_ratio:.0%} unanswered for {breaker.slow_call_s:g}s"
        trips = f"{breaker.failure_ratio:.0%} failed or {slow}"
        note = "" if breaker.enforce else "(dry run) "
        yield f"breaker    {note}opens when {trips}"
        yield f"           of at least {breaker.minimum_calls} calls within {breaker.window_s:g}s,"
        yield f"           or so many in a row failed; a probe goes every {breaker.probe_every_s:g}s"
        if breaker.brownout:
            yield f"brown-out  {note}at most {breaker.brownout:g} calls for each that is accepted"
    if budget is not None:
        share = f"{budget.ratio:.0%} of first attempts plus {budget.floor_per_s * 60:g} a minute"
        yield f"budget     of retries, the callers' and ours: {share}"
