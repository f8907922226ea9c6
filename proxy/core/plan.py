"""From a call and its policies to its claims: which counts it must find room in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from proxy.core import dry_run
from proxy.core.call import Call
from proxy.core.cap import Cap
from proxy.core.claims import CALLER, TOOL, Claims, Sharing
from proxy.core.policy import (
    REQUESTS,
    BucketPolicy,
    CallerPolicy,
    Per,
    Policy,
    QuotaPolicy,
    RoutePolicy,
    RunBudgetPolicy,
)
from proxy.core.run_budgets import ANY_CALLER, RunBudgets, cap_of, rows
from proxy.core.target import Target

ANY_TOOL: Final = "*"

NOBODY: Final[Mapping[str, CallerPolicy]] = {}

MOST_KNOWN: Final = 4096
"""Plans remembered at once, by caller, run and tool. Beyond it all are made anew, which costs 1 us."""

P = TypeVar("P", BucketPolicy, QuotaPolicy)


class Plans:
    """The claims of calls, by who asks for what: nearly every call asks for what one before it did.

    `adopt` a policy when it changes. `budgets` are those of the runs.
    """

    __slots__ = ("_callers", "_known", "budgets")

    def __init__(self, budgets: RunBudgets) -> None:
        self._callers = NOBODY
        self._known: dict[tuple[object, ...], Claims] = {}
        self.budgets = budgets

    def claims_of(self, call: Call, target: Target, route: RoutePolicy) -> Claims:
        """As the function of this name, with fresh claims that share their rows."""
        pausable = target.pause is not None and call.rank in target.pause.policy.ranks
        asked: tuple[object, ...] = (
            call.caller,
            call.run,
            call.tool,
            call.model,
            route.name,
            target.name,
            call.paid,
            call.paid_model == call.model,
            call.tokens > 0,
            pausable,
        )
        budget: RunBudgetPolicy | None = None
        if call.charged:
            budget = self.budgets.of(call.caller)
            asked = (*asked, call.charged, call.is_retry)
        known = self._known.get(asked)
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[asked] = claims_of(call, target, route, self._callers, budget)
        sharing, dry = known.keys_by_sharing(), known.dry
        if target.told is not None and (pools := target.told.pools_of(call)):
            sharing = ((*sharing[0], *[pool.key for pool in pools]), *sharing[1:])
        claims = _fresh(known, call, sharing)
        claims.on_store_failure = route.on_store_failure
        if dry is not None:
            claims.dry = _fresh(dry, call, None)
        return claims

    def forget(self) -> None:
        """What stood for a tool that is told apart stands for it no longer."""
        self._known.clear()

    def adopt(self, policy: Policy) -> None:
        """The policies have changed."""
        self._callers = policy.callers
        self.budgets.adopt(policy.run_budgets)
        self._known.clear()


def _fresh(known: Claims, call: Call, sharing: Sharing | None) -> Claims:
    return Claims(
        known.caps,
        known.buckets,
        known.quotas,
        call.tokens,
        sharing,
        call.estimate,
        call.money,
        call.price,
    )


def claims_of(
    call: Call,
    target: Target,
    route: RoutePolicy,
    callers: Mapping[str, CallerPolicy] = NOBODY,
    budget: RunBudgetPolicy | None = None,
) -> Claims:
    """Every claim of `call` on its way to `target`, allowances already paid left out.

    `budget` is that of its run, None where it has none.
    """
    caps = [(target.cap, target.policy.cap.enforce)]
    if target.pause is not None and call.rank in target.pause.policy.ranks:
        caps.insert(0, (target.pause.cap, True))  # first: it is the reason to tell
    if route.cap is not None:
        caps.append((Cap(route.cap.key, route.cap.slots, route.cap.slots), route.cap.enforce))
    buckets = _keyed(route.buckets, call, target, route)
    quotas = _keyed(route.quotas, call, target, route)
    if route.counts_tokens and not call.tokens:
        buckets = [row for row in buckets if row[1].unit is REQUESTS]
        quotas = [row for row in quotas if row[1].unit is REQUESTS]
    if call.tool:
        tool = route.tools.get(call.tool) or route.tools.get(ANY_TOOL)
        if tool is not None:
            if call.apart is not None:
                caps.append((call.apart.cap, tool.enforce))
            elif tool.slots is not None:
                key = f"{TOOL}{call.route}/{call.tool}"
                caps.append((Cap(key, tool.slots, tool.slots), tool.enforce))
            buckets += _keyed(tool.buckets, call, target, route)
    caller = callers.get(call.caller) or callers.get(ANY_CALLER)
    if caller is not None:
        caps.append((Cap(CALLER + call.caller, caller.slots, caller.slots), caller.enforce))
    if budget is not None:
        return _with_budget(budget, call, caps, buckets, quotas)
    return dry_run.claims_in(caps, buckets, quotas, call.tokens)


def _with_budget(
    budget: RunBudgetPolicy,
    call: Call,
    caps: list[tuple[Cap, bool]],
    buckets: list[tuple[str, BucketPolicy]],
    quotas: list[tuple[str, QuotaPolicy]],
) -> Claims:
    if budget.slots is not None:
        caps.append((cap_of(budget.slots, call), budget.enforce))
    claims = dry_run.claims_in(caps, buckets, quotas + rows(budget, call), call.tokens)
    if not budget.enforce and claims.dry is None:
        claims.dry = Claims([], [], [])  # to be looked at, though a store counts nothing of it
    return claims


def _keyed(policies: Iterable[P], call: Call, target: Target, route: RoutePolicy) -> list[tuple[str, P]]:
    # What a route states per upstream is its own upstream's: a fallback elsewhere spends none of it.
    elsewhere = bool(route.upstream) and target.name != route.upstream
    keyed = []
    for policy in policies:
        per = policy.per
        if per is _UPSTREAM:
            spent = elsewhere
        else:
            spent = call.paid and (per is not _MODEL or call.paid_model == call.model)
            # Of tokens and money each attempt is charged for what it used, and one that failed for little.
            spent = spent and (policy.unit is REQUESTS or not isinstance(policy, QuotaPolicy))
        if not spent:
            keyed.append((f"{policy.key}|{_scope(per, call, target)}", policy))
    return keyed


def _scope(per: Per, call: Call, target: Target) -> str:
    if per is _CALLER:
        return f"caller:{call.caller}"
    if per is _ROUTE:
        return f"route:{call.route}"
    if per is _UPSTREAM:
        return f"upstream:{target.name}"
    if per is _RUN:
        return f"run:{call.run}"
    if per is _MODEL:
        return f"model:{call.model}"
    return f"tool:{call.route}/{call.tool}"


_CALLER: Final = Per.CALLER
_RUN: Final = Per.RUN
_ROUTE: Final = Per.ROUTE
_MODEL: Final = Per.MODEL
_UPSTREAM: Final = Per.UPSTREAM
"""For the speed of `is`, as `policy.REQUESTS`."""
