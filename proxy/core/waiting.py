"""The waiting room: who waits, for what, in which order, and until when.

A waiter holds nothing but a place. It stands in two orders at once: among those who ask for the same, by
class, caller and age, from where it is dispatched (`lines.py`); and in its *lane* (`lanes.py`: route and
order), by which the room is bounded, displaced and measured. No operation of a call walks the room.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from proxy.core.call import Call
from proxy.core.claims import Claims, Shortfall
from proxy.core.groups import SLACK, Row
from proxy.core.lanes import Lanes
from proxy.core.lines import Lines
from proxy.core.orders import BOOKED, order_of
from proxy.core.policy import RoutePolicy
from proxy.core.rounding import NEVER
from proxy.core.verdict import Reason

if TYPE_CHECKING:
    from proxy.core.fairness import Shares
    from proxy.core.grant import Grant
    from proxy.core.target import Target
    from proxy.core.verdict import Refusal


class Waiter:
    """One waiting call. `verdict` is None while it waits; `reply` belongs to whoever waits for it.

    From `stale_at` on it has waited longer than was predicted, and newer ones go first. `asking`: it waits
    for a store's answer, whatever its queue has room for.
    """

    __slots__ = (
        "asking", "call", "claims", "closed_for", "expires_at", "going", "kind", "order", "party_key",
        "reply", "route", "row", "run_keys", "seq", "shared_keys", "shares", "since", "stale_at", "target",
        "tool_keys", "verdict", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        call: Call,
        target: Target,
        route: RoutePolicy,
        claims: Claims,
        kind: int,
        *,
        going: bool,
        since: float,
        expires_at: float,
    ) -> None:
        self.call = call
        self.target = target
        self.route = route
        self.kind = kind
        self.order = order_of(call.rank, kind)
        self.going = going
        self.since = since
        self.expires_at = expires_at
        self.stale_at = NEVER
        self.shares: Shares = target.flow.shares(call.rank)
        self.seq = 0
        self.row: Row | None = None
        self.closed_for = ""  # what it alone was found lacking: it closed the way of others for that
        self.waiting = False
        self.asking = False
        self.verdict: Grant | Refusal | None = None
        self.reply: Any = None
        self.asks(claims)

    def expect(self, expected_s: float) -> None:
        """It is likely to wait so long, as far as can be predicted."""
        ticket = self.call.ticket
        if self.kind == BOOKED and ticket is not None:
            self.stale_at = ticket.until  # what it was told is broken: those first to whom it may yet be kept
            return
        max_age_s = self.route.queue.max_age_s
        self.stale_at = self.since + max(max_age_s / 2, expected_s + max_age_s / 10)

    def asks(self, claims: Claims) -> None:
        """From now on it asks for this; not while it stands in a line."""
        self.claims = claims
        shared, of_tool, of_caller, of_run = claims.keys_by_sharing()
        self.shared_keys = shared
        self.tool_keys = of_tool
        self.party_key = (self.call.caller, *of_caller)
        self.run_keys = of_run

    def precedes(self, other: Waiter) -> bool:
        """Is this one served before the other, who is of the same caller and order?"""
        return (not self.going, self.seq) < (not other.going, other.seq)


class WaitingRoom:
    """All who wait at one gate."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.lanes = Lanes()
        self._asking: dict[int, Waiter] = {}  # who waits for a store's answer, by `seq`: in no lane yet
        self._expiry: list[tuple[float, int, Waiter]] = []  # with those who left, until half of it is stale
        self.joined = 0  # how many have ever begun to wait
        self.size = 0

    def join(self, waiter: Waiter, shortfall: Shortfall, now: float) -> None:
        """Begin to wait for what was just found lacking."""
        self.joined += 1
        waiter.seq = self.joined
        waiter.waiting = True
        waiter.asking = shortfall.pending
        if waiter.asking:
            self._asking[waiter.seq] = waiter
        else:
            self.lanes.add(waiter)
        heapq.heappush(self._expiry, (waiter.expires_at, waiter.seq, waiter))
        self.size += 1
        self.lines.stand(waiter, shortfall, now)

    def heard(self, waiter: Waiter) -> None:
        """The store has answered it: it takes a place of its lane now."""
        waiter.asking = False
        del self._asking[waiter.seq]
        self.lanes.add(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Out of the room, for whatever reason."""
        waiter.waiting = False
        self.lines.step_out(waiter)
        if waiter.asking:
            del self._asking[waiter.seq]
        else:
            self.lanes.remove(waiter)
        self.size -= 1
        if len(self._expiry) > 2 * self.size + SLACK:
            self._expiry = [row for row in self._expiry if row[2].waiting]
            heapq.heapify(self._expiry)

    def behind(self, order: int, claims: Claims, now: float) -> Shortfall | None:
        """What a newcomer lacks because others wait for tokens of the same bucket, though it asks for less.

        Else who asks for many would wait as long as others come who ask for few.
        """
        token_keys = claims.token_keys()
        found: Shortfall | None = None
        for key, policy in claims.buckets:
            if key not in token_keys:
                continue
            cost = claims.cost(policy)
            if cost > policy.burst:
                return None  # to wait is in vain, as the store will say
            if found is None and self.lines.is_wanted(key, order):
                wait_s, step_s = max(0.0, self.lines.ready_at(key) - now), cost / policy.rate_per_s
                found = Shortfall(key, Reason.BUCKET_EMPTY, wait_s, step_s, policy.label)
        return found

    def regroup(self, now: float) -> None:
        """The claims of the waiters have changed: sort them anew, keeping age and order."""
        self.lines = Lines()
        for waiter in self.waiters():
            self.lines.stand(waiter, None, now)

    def expired(self, now: float) -> Waiter | None:
        """One who has waited its time; it is still in the room. None when there is none."""
        first = self._first_to_expire()
        return first if first is not None and first.expires_at <= now else None

    def next_at(self) -> float:
        """When somebody expires or something is worth trying again; inf when never."""
        first = self._first_to_expire()
        ready_at = self.lines.next_at()
        return ready_at if first is None else min(ready_at, first.expires_at)

    def waiters(self) -> list[Waiter]:
        """Everybody, lane by lane."""
        return [*self.lanes.waiters(), *self._asking.values()]

    def _first_to_expire(self) -> Waiter | None:
        while self._expiry and not self._expiry[0][2].waiting:
            heapq.heappop(self._expiry)
        return self._expiry[0][2] if self._expiry else None
