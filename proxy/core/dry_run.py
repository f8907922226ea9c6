"""Dry run: what is configured with `enforce: false` decides and is counted, but keeps nobody out.

It decides as it would were it enforced: who would have been refused spends nothing of it, counts for no
probe, and goes on. So its level, its phase and its refusals are those of the day on which it is enforced, as
long as the load does not answer to it. Precedent: `limit_conn_dry_run` of nginx, which counts alike;
`filter_enforced` of Envoy.

The price is paid by calls that meet such a claim: for all others it is one look at `claims.dry`.
"""

from __future__ import annotations

from typing import Final

from proxy.core.breaker import UNCOUNTED
from proxy.core.call import Call
from proxy.core.cap import UNBOUNDED, Cap
from proxy.core.claims import Claims, Store, scope_of
from proxy.core.events import Emit, WouldRefuse
from proxy.core.policy import BucketPolicy, QuotaPolicy
from proxy.core.run_budgets import RunBudgets
from proxy.core.verdict import Reason

APART: Final = "dry run of "
"""Before the key of a cap: those who would have been let in are counted apart from those in flight."""


def claims_in(
    caps: list[tuple[Cap, bool]],
    buckets: list[tuple[str, BucketPolicy]],
    quotas: list[tuple[str, QuotaPolicy]],
    tokens: float,
) -> Claims:
    """The claims of a call; those in dry run are set apart in `dry`. Each cap comes with its `enforce`."""
    claims = Claims(
        # One that is never full counts what is truly in flight.
        [(cap.key, cap if enforce else Cap(cap.key, UNBOUNDED)) for cap, enforce in caps],
        [row for row in buckets if row[1].enforce],
        [row for row in quotas if row[1].enforce],
        tokens,
    )
    dry = Claims(
        [(APART + cap.key, cap) for cap, enforce in caps if not enforce],
        [row for row in buckets if not row[1].enforce],
        [row for row in quotas if not row[1].enforce],
        tokens,
    )
    if dry.caps or dry.buckets or dry.quotas:
        claims.dry = dry
        # Nobody waits for it: those who wait stand as if it were not configured.
        enforced = [(cap.key, cap) for cap, enforce in caps if enforce]
        claims.sharing = Claims(enforced, claims.buckets, claims.quotas).keys_by_sharing()
    return claims


def rehearse(
    store: Store,
    claims: Claims,
    call: Call,
    upstream: str,
    turn: int,
    now: float,
    emit: Emit,
    budgets: RunBudgets,
) -> None:
    """Decide what is in dry run for a call that was granted all else, and tell if it would not have gone.

    The breaker has decided already, by the `turn` it gave. All other is granted together or not at all, as
    if it were enforced; what was granted is in `claims.dry` from now on, to be settled with the call.
    """
    dry = claims.dry
    if turn == UNCOUNTED:
        claims.dry = None
        emit(WouldRefuse(call, upstream, Reason.BREAKER_OPEN, f"upstream:{upstream}"))
    elif dry is not None and (shortfall := store.reserve(dry, now)) is not None:
        claims.dry = None
        if not shortfall.pending:  # else nobody knows: no call waits for the answer
            scope = scope_of(shortfall).removeprefix(APART)
            emit(WouldRefuse(call, upstream, shortfall.reason, scope))
    elif call.charged:
        budget = budgets.of(call.caller)
        if budget is not None and not budget.enforce and (spent := budgets.spent(budget, call, now)):
            emit(WouldRefuse(call, upstream, spent.reason, spent.scope))
