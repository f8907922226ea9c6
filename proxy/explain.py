"""`backpressure explain`: which route, lane, buckets and caps a call would meet, and what it would be called.

Built from the same table, identity and claims as a running proxy; nothing is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.app import identity_of, table_of, upstreams_of
from proxy.core.call import Call
from proxy.core.plan import claims_of
from proxy.core.policy import UpstreamPolicy
from proxy.core.target import Target
from proxy.identity import Identity, Standing, deadline_s, run_of, sdk_says_retry
from proxy.routing import Match
from proxy.settings import Settings, to_policy
from proxy.stores.breakers import BreakerMachine


class NoRoute(Exception):
    """No route has the path; the message names those that there are."""


def explain(settings: Settings, method: str, path: str, headers: dict[bytes, bytes]) -> Iterator[str]:
    """Lines of plain text about the call `method path` with `headers` (lower-case names).

    Raises NoRoute, and BadHeader for a header that the proxy would answer with 400.
    """
    raw_path, _, query = path.partition("?")
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
    yield f"run        {call.run}"
    yield f"lane       {route.name} / {policy.classes[call.rank]}"
    if call.tool:
        yield f"tool       {call.tool}"
    elif match.route.dialect.needs_body(method.encode(), raw_path.encode()):
        yield "tool       named in the body: caps and buckets of the tool come on top"
    if call.deadline != float("inf"):
        yield f"deadline   {call.deadline:g}s from now"
    if sdk_says_retry(headers):
        yield "retry      yes, by the SDK's own count: the retry budget pays"
    forwarded = first.upstream.target(match.rest, query.encode())
    yield f"upstream   {first.upstream.name}: {method} {forwarded.decode('latin-1')}"
    for rung in match.route.ladder[1:]:
        yield f"fallback   {rung.upstream.name}" + (f", model {rung.model}" if rung.model else "")

    claims = claims_of(call, target, route)
    for key, cap in claims.caps:
        yield f"cap        {key}: {cap.slots} in flight"
    for key, bucket in claims.buckets:
        yield f"bucket     {key.partition('|')[2]}: {bucket.label}, burst {bucket.burst:g}"
    for key, quota in claims.quotas:
        yield f"quota      {key.partition('|')[2]}: {quota.label}"
    queue = route.queue
    yield f"queue      {queue.size} calls, {queue.max_age_s:g}s" if queue.size else "queue      none"
    shed_at = route.shed_at[call.rank]
    yield "shed       never" if shed_at > 1 else f"shed       from a pressure of {shed_at:g}"
    yield from _protection(target.policy)


def _call(match: Match, identity: Identity, standing: Standing, headers: dict[bytes, bytes]) -> Call:
    return Call(
        route=match.route.name,
        caller=standing.name,
        run=run_of(headers, standing.name),
        tool=match.tool,
        rank=identity.rank(headers, standing)[0],
        arrived_at=0.0,
        deadline=deadline_s(headers)[1],
    )


def _protection(upstream: UpstreamPolicy) -> Iterator[str]:
    breaker, budget = upstream.breaker, upstream.retry_budget
    if breaker is not None:
        slow = f"{breaker.slow_ratio:.0%} unanswered for {breaker.slow_call_s:g}s"
        trips = f"{breaker.failure_ratio:.0%} failed or {slow}"
        yield f"breaker    opens for {breaker.open_for_s:g}s when {trips}"
        yield f"           of at least {breaker.minimum_calls} calls within {breaker.window_s:g}s"
    if budget is not None:
        yield f"retries    {budget.ratio:.0%} of first attempts plus {budget.floor_per_s * 60:g} a minute"
