"""From a call and its policies to its claims: which counts it must find room in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, assert_never

from proxy.core.call import Call
from proxy.core.claims import Claims, Shortfall
from proxy.core.policy import BucketPolicy, CapPolicy, Per, QuotaPolicy, RoutePolicy
from proxy.core.target import Target
from proxy.core.verdict import Reason

ANY_TOOL = "*"

P = TypeVar("P", BucketPolicy, QuotaPolicy)


def claims_of(call: Call, target: Target, route: RoutePolicy) -> Claims:
    """Every claim of `call` on its way to `target`: one request of each, allowances already paid left out."""
    caps: list[tuple[str, CapPolicy]] = [(target.policy.cap.key, target.policy.cap)]
    if route.cap is not None:
        caps.append((route.cap.key, route.cap))
    buckets = _keyed(route.buckets, call, target, route)
    if call.tool:
        tool = route.tools.get(call.tool) or route.tools.get(ANY_TOOL)
        if tool is not None:
            if tool.slots is not None:
                key = f"tool:{route.name}/{call.tool}"
                caps.append((key, CapPolicy(key, tool.slots)))
            buckets += _keyed(tool.buckets, call, target, route)
    return Claims(caps, buckets, _keyed(route.quotas, call, target, route))


def scope_of(shortfall: Shortfall) -> str:
    """The thing that had no room, as a refusal names it."""
    if shortfall.reason is Reason.CAP_REACHED:
        return shortfall.key
    return shortfall.key.partition("|")[2]


def _keyed(policies: Iterable[P], call: Call, target: Target, route: RoutePolicy) -> list[tuple[str, P]]:
    # What a route states per upstream is its own upstream's: a fallback elsewhere spends none of it.
    elsewhere = bool(route.upstream) and target.name != route.upstream
    return [
        (f"{policy.key}|{_scope(policy.per, call, target)}", policy)
        for policy in policies
        if not (elsewhere if policy.per is Per.UPSTREAM else call.paid)
    ]


def _scope(per: Per, call: Call, target: Target) -> str:
    match per:
        case Per.CALLER:
            return f"caller:{call.caller}"
        case Per.RUN:
            return f"run:{call.run}"
        case Per.ROUTE:
            return f"route:{call.route}"
        case Per.UPSTREAM:
            return f"upstream:{target.name}"
        case Per.TOOL:
            return f"tool:{call.route}/{call.tool}"
        case _ as unreachable:
            assert_never(unreachable)
