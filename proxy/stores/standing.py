"""How a replica stands with the ledger, told to those who look on: as a state, and in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxy.core.policy import OnStoreFailure, RoutePolicy
from proxy.core.rounding import NEVER
from proxy.core.state import StoreState
from proxy.stores.contact import Contact, Phase
from proxy.stores.holdings import Holdings

EACH_AS_IT_SAYS: Final = "each route does as its on_store_failure says"
OPEN: Final = OnStoreFailure.OPEN


def standing(
    holdings: Holdings,
    kind: str,
    shown: str,
    now: float,
    *,
    trips: int,
    missed: int,
    asks: int,
    unread: int = 0,
) -> StoreState:
    """The state at `now`: changes nothing, and costs nothing."""
    contact = holdings.contact
    moves_in_s = contact.moves_in_s(now)
    return StoreState(
        kind=kind,
        shown=shown,
        phase=contact.phase,
        why=contact.why,
        since_s=None if contact.moved_at == NEVER else now - contact.moved_at,
        lost_s=contact.lost_s(now),
        moves_in_s=None if moves_in_s == NEVER else moves_in_s,
        joined=contact.has_joined,
        learning=contact.is_learning,
        replicas=contact.replicas,
        trips=trips,
        missed=missed,
        asks=asks,
        unread=unread,
        buckets=len(holdings.buckets),
        caps=len(holdings.caps),
        quotas=len(holdings.quotas),
    )


def not_ready(contact: Contact, routes: Iterable[RoutePolicy]) -> str | None:
    """Why a replica should get no calls yet; None when it should.

    One that once was in touch stays ready when the ledger is lost: so do all others at the same time, and a
    refusal that says when to come back is more than no answer.
    """
    if contact.has_joined:
        return None
    match contact.phase:
        case Phase.GIVEN_UP if all(route.on_store_failure is OPEN for route in routes):
            return None
        case Phase.GIVEN_UP:
            return "the store was never reached"
        case Phase.LEARNING:
            return "the store gathers its counts"
        case _:
            return "the store was not reached yet"


def banner(store: StoreState) -> str:
    """What an operator should know, in one sentence; empty when all is as it should be."""
    if store.phase == Phase.SHARED:
        return ""
    return f"The shared store {store.shown} {_where(store)}: {_what(store)}."


def _where(store: StoreState) -> str:
    if store.learning:
        return "is in reach, and gathers the counts that it does not know"
    if store.phase == Phase.JOINING:
        return "was not reached yet"
    if store.phase == Phase.GIVEN_UP and not store.joined:
        return "was never reached"
    return f"is out of reach for {store.lost_s:.1f} s"


def _what(store: StoreState) -> str:
    """What this replica does, and until when."""
    on_s = store.moves_in_s or 0.0
    part = f"1/{store.replicas} of every limit" if store.replicas > 1 else "the whole of every limit"
    match store.phase:
        case Phase.JOINING:
            return "calls under its limits wait for it"
        case Phase.LEARNING:
            return f"for {on_s:.1f} s more nothing is given out beyond what the replicas hold"
        case Phase.LOST:
            return f"this replica spends what it holds, and in {on_s:.1f} s enforces {part}"
        case Phase.ALONE if store.learning:
            return f"for {on_s:.1f} s more this replica enforces {part}"
        case Phase.ALONE:
            return f"this replica enforces {part}, and in {on_s:.1f} s {EACH_AS_IT_SAYS}"
    says = EACH_AS_IT_SAYS
    if not store.joined:  # there is no share to go on with
        says = "calls under its limits are refused, except on routes with on_store_failure: open"
    return f"for {on_s:.1f} s more {says}" if store.learning else says
