"""What stands between a call and its grant, each check by itself: free, and without a trace."""

from __future__ import annotations

from typing import Final

from proxy.core.advice import Advice
from proxy.core.call import Call
from proxy.core.claims import Claims, Shortfall, Store, is_own, longer
from proxy.core.orders import BOOKED, FIRST, RETRY, UNDER_WAY, last_order, order_of
from proxy.core.plan import Plans
from proxy.core.policy import REQUESTS, RoutePolicy, Unit
from proxy.core.pressure import pressure
from proxy.core.promises import Promises
from proxy.core.rounding import NEVER, ROUNDING_S
from proxy.core.target import Target
from proxy.core.told import LABEL
from proxy.core.verdict import Reason, Refusal
from proxy.core.waiting import Waiter, WaitingRoom

SHED_FOR_S: Final = 20.0
"""Who is shed comes back late: the others need the room first (reference/clients.md, statuses table)."""

_TOKENS: Final = Unit.TOKENS
_EMPTY: Final = Reason.BUCKET_EMPTY
_TOO_DEAR: Final = Reason.TOO_DEAR
"""For the speed of `is`, as `policy.REQUESTS`."""

MOST_AHEAD: Final = 32.0
"""A run under way goes first until its caller has had so many calls more than others, over its weight."""


class Checks:
    """The checks of one gate. Those that refuse return the refusal, or None."""

    __slots__ = ("_budgets", "_plans", "_promises", "_room", "_store", "routes")

    def __init__(self, room: WaitingRoom, store: Store, promises: Promises, plans: Plans) -> None:
        self._room = room
        self._store = store
        self._promises = promises
        self._plans = plans
        self._budgets = plans.budgets
        self.routes: dict[str, RoutePolicy] = {}

    def still_wanted(self, call: Call, target: Target, now: float) -> Refusal | None:
        """An answer after the deadline is worthless; and a run that is to stop has no use for one."""
        if call.deadline > now:
            return self._budgets.stops(call, now) if self._budgets.any else None
        scope = f"route:{call.route}"
        return self._promises.apart_from(Reason.WAITED_TOO_LONG, scope, 0.0, target.step_s, now)

    def shed(self, call: Call, target: Target, route: RoutePolicy, now: float) -> Refusal | None:
        at = route.shed_at[min(call.rank, len(route.shed_at) - 1)]
        if at > 1 or not self._room.size or not route.queue.size:
            return None
        if pressure(self._room, route.name, route.queue, now, order=last_order(call.rank)) < at:
            return None
        # A run under way is not cut for a new one, nor a quiet caller for the crowd of a loud one. Nor is a
        # first attempt for its caller's retries: these wait until nobody else does, and it would as long.
        kind = self.kind(call, target)
        if call.going or not self._room.lanes.crowds(route.name, call, order_of(call.rank, kind)):
            return None
        claims = self._plans.claims_of(call, target, route)
        self._store.asked(claims, now)
        shortfall = self.lacking(call, target, claims, now)
        waiter = Waiter(call, target, route, claims, kind, going=False, since=now, expires_at=now)
        return self._promises.of_queue(Reason.SHED, shortfall, waiter, now)

    def recheck(self, call: Call, target: Target, now: float) -> Refusal | None:
        """The free checks that hold at the door and again at dispatch."""
        scope, retry_wait_s = target.retry_wait_s(call, now) if call.is_retry else ("", 0.0)
        wait_s, breaker, down = 0.0, target.breaker, ""
        if breaker is not None and (wait_s := breaker.wait_s(now, call.rank, call.is_retry)):
            wait_s = breaker.told_s(wait_s, now)
        if call.apart is not None and (own_s := call.apart.wait_s(call, now)) > wait_s:
            wait_s, down = own_s, call.apart.scope
        if not wait_s and not retry_wait_s:
            return None
        # Who comes back when this is over must not be refused for a bucket that was empty all along.
        shortfall = self._store.peek(self._plans.claims_of(call, target, self.routes[call.route]), now)
        longest_s = max(wait_s, retry_wait_s, shortfall.wait_s if shortfall is not None else 0.0)
        if wait_s:
            scope = down or f"upstream:{target.name}"
            return self._promises.in_line(
                Reason.BREAKER_OPEN, scope, longest_s, target.step_s, now, call=call
            )
        limit = "retries are a share of calls"
        return self._promises.apart_from(Reason.RETRY_BUDGET_SPENT, scope, longest_s, 0.0, now, limit)

    def brown_out(self, call: Call, target: Target, now: float) -> Refusal | None:
        """The upstream accepts so few that it is spared some."""
        # 429, as for any lack of room: it is not down, and a 503 brings some clients back thirty times
        # (reference/clients.md, finding 5).
        if target.breaker is not None and target.breaker.browns_out(call.rank, now):
            scope = f"upstream:{target.name}"
        elif call.apart is not None and call.apart.browns_out(call, now):
            scope = call.apart.scope
        else:
            return None
        return self._promises.crowded(Reason.SHED, scope, call, target, SHED_FOR_S, now)

    def take(
        self,
        call: Call,
        target: Target,
        claims: Claims,
        seq: float,
        now: float,
        *,
        booked: bool,
        guarded: bool = False,
    ) -> Shortfall | None:
        """Grant all that is claimed (None), or none of it: what was lacking, or is `kept` from this one.

        What is kept may be had sooner than what is lacking besides: whoever comes back for the one must not
        be refused for the other.
        """
        if seq == NEVER:
            self._store.asked(claims, now)
        kept = self.kept(call, target, claims, seq, now, booked=booked, guarded=guarded)
        if target.told is not None:
            kept = self._told(call, target, seq, now, booked=booked, besides=kept)
        if kept is None:
            return self._store.reserve(claims, now)
        return longer(kept, self._store.peek(claims, now))

    def lacking(self, call: Call, target: Target, claims: Claims, now: float) -> Shortfall | None:
        """What a newcomer would lack, or be kept from; None: nothing."""
        kept = self.kept(call, target, claims, NEVER, now, booked=False)
        if target.told is not None:
            kept = self._told(call, target, NEVER, now, booked=False, besides=kept)
        found = self._store.peek(claims, now)
        return found if kept is None else longer(kept, found)

    def short(
        self,
        claims: Claims,
        shortfall: Shortfall,
        call: Call,
        target: Target,
        ready_s: float,
        now: float,
    ) -> Refusal:
        """Refused for what it lacked. Where that was tokens, it is told with how many it would pass."""
        if not call.tokens:
            return self._promises.short(shortfall, call, target, ready_s, now)
        tokens = self._passing(claims, shortfall, call, target, now)  # before a place is booked for it
        refusal = self._promises.short(shortfall, call, target, ready_s, now)
        if tokens:
            refusal.advice = Advice(tokens)
        return refusal

    def _passing(self, claims: Claims, shortfall: Shortfall, call: Call, target: Target, now: float) -> int:
        """With how many tokens this call would pass at once, or, where it never can, some time; 0: none."""
        too_dear = shortfall.reason is _TOO_DEAR
        if not too_dear and (shortfall.reason is not _EMPTY or not claims.counts_tokens(shortfall.key)):
            return 0  # a call of fewer tokens would lack it too
        most = call.tokens
        for key, policy in claims.buckets:
            if policy.unit is _TOKENS:
                most = min(most, policy.burst if too_dear else self._promises.left(key, policy, now))
            elif policy.unit is not REQUESTS:
                return 0  # how many of what it sends, and of its answer, is not to be said in one number
        for _, quota in claims.quotas if too_dear else ():
            if quota.unit is _TOKENS:
                most = min(most, quota.amount)
            elif claims.quota_cost(quota) > max(1, quota.amount):
                return 0  # nor what would cost little enough
        tokens = int(most)
        if too_dear or tokens < 1:
            return max(0, tokens)
        rows = claims.caps, claims.buckets, claims.quotas
        smaller = Claims(*rows, float(tokens), claims.sharing, money=claims.money, price=claims.price)
        return tokens if self.lacking(call, target, smaller, now) is None else 0

    def has_room(self, call: Call, target: Target, now: float) -> bool:
        """Would this call go at once, were it to come now? As can be told for free, and without a trace."""
        breaker, route = target.breaker, self.routes[call.route]
        if breaker is not None and (breaker.wait_s(now, call.rank, call.is_retry) or breaker.brownout.share):
            return False
        if call.deadline <= now or (call.is_retry and target.retry_wait_s(call, now)[1]):
            return False
        at = route.shed_at[min(call.rank, len(route.shed_at) - 1)]
        if at <= 1 and self._room.size and pressure(self._room, route.name, route.queue, now) >= at:
            return False
        return self.lacking(call, target, self._plans.claims_of(call, target, route), now) is None

    def kept(
        self,
        call: Call,
        target: Target,
        claims: Claims,
        seq: float,
        now: float,
        *,
        booked: bool,
        guarded: bool = False,
    ) -> Shortfall | None:
        """What there is, but not for the `seq`th to wait (inf: who comes only now).

        For whom is `guarded`, whose turn it is lest it starve, nothing is held back.
        """
        if call.tokens and self._room.size and seq == NEVER:
            kind = BOOKED if booked else self.kind(call, target)
            behind = self._room.behind(order_of(call.rank, kind), claims, now)
            if behind is not None:
                return behind
        if not booked and self._promises.any and (kept := self._promises.kept_from(claims, seq, now)):
            return kept
        if call.rank and not guarded:
            cap = target.cap
            cap.held_back = places = target.flow.held_back(call.rank, now)
            if places and self._store.in_flight(cap.key) + places >= cap.here:
                return Shortfall(cap.key, Reason.CAP_REACHED, 0.0, 0.0, f"{cap.slots} in flight", cap.here)
        return None

    def _told(
        self, call: Call, target: Target, seq: float, now: float, *, booked: bool, besides: Shortfall | None
    ) -> Shortfall | None:
        """What the upstream itself has told to be lacking, if that is longer than what lacks `besides`."""
        told = target.told
        assert told is not None, "asked only where there is one"  # noqa: S101
        found = besides
        for pool in told.pools_of(call):
            key = pool.key
            kept_s = 0.0 if booked else self._promises.kept_free_s(key, seq, now)
            lack = told.lacks(call, pool, target.service_s, kept_s, now, booked=booked)
            if lack is None and seq == NEVER and self._room.size:
                kind = BOOKED if booked else self.kind(call, target)
                if self._room.lines.is_wanted(key, order_of(call.rank, kind)):  # by one who asks for more
                    wait_s = max(ROUNDING_S, self._room.lines.ready_at(key) - now)
                    lack = Shortfall(key, Reason.BUCKET_EMPTY, wait_s, ROUNDING_S, LABEL, kept=not booked)
            if lack is not None:
                found = longer(lack, found)
        return found

    def short_of(self, waiter: Waiter, now: float) -> Shortfall | None:
        """What one who waits has not got yet, as far as it comes by itself."""
        target, found = waiter.target, self._store.peek(waiter.claims, now)
        if target.told is None:
            return found
        return self._told(waiter.call, target, waiter.seq, now, booked=False, besides=found)

    def kind(self, call: Call, target: Target) -> int:
        if call.is_retry:
            return RETRY
        ahead = target.flow.shares(call.rank).ahead(call.caller) * call.weight
        return UNDER_WAY if ahead <= MOST_AHEAD and call.going else FIRST

    def prospect(self, shortfall: Shortfall, waiter: Waiter, now: float) -> tuple[float, bool]:
        """When a newcomer will have its turn, and whether to wait for that is in vain."""
        ready_s = self.ready_s(shortfall, waiter, now)
        in_vain = too_late(ready_s, waiter.expires_at, waiter.call, now)
        if shortfall.reason is Reason.CAP_REACHED:
            # Predicted and not known: half the patience is for the error of it.
            in_vain = in_vain or ready_s > waiter.route.queue.max_age_s / 2
            waiter.expect(ready_s)
        if waiter.kind == BOOKED:  # it goes next, whatever stands there
            in_vain = too_late(shortfall.wait_s, waiter.expires_at, waiter.call, now)
        return ready_s, in_vain

    def gives_up(self, waiter: Waiter, shortfall: Shortfall, now: float) -> bool:
        """Is there no point in waiting on, for what was just found lacking?

        Who waited for a store's answer alone has it now, and waits on only as any newcomer would.
        """
        if waiter.asking and not shortfall.pending:
            route, call = waiter.route, waiter.call
            has_place = waiter.kind == BOOKED or (
                route.queue.size > 0 and not self._room.lanes.is_full(route, call.size)
            )
            self._room.heard(waiter)
            return not has_place or self.prospect(shortfall, waiter, now)[1]
        return too_late(shortfall.wait_s, waiter.expires_at, waiter.call, now)

    def ready_s(self, shortfall: Shortfall, waiter: Waiter, now: float) -> float:
        """When a newcomer will have its turn: what it lacks must come, and for those before it too."""
        ahead, of_class = self._room.lines.ahead(shortfall.key, waiter) if self._room.size else (0, 0)
        if shortfall.reason is not Reason.CAP_REACHED:
            return shortfall.wait_s + shortfall.step_s * ahead
        if not waiter.target.flow.is_known:
            return shortfall.wait_s
        call, flow, slots = waiter.call, waiter.target.flow, shortfall.slots
        own = is_own(shortfall.key)
        behind_s = 0.0
        if own or not flow.is_starved(call.rank, slots, now):  # who is starved has turns of its own
            behind_s = flow.step_of(0, slots, now, own=own) * (ahead - of_class)
        return max(shortfall.wait_s, behind_s + flow.turn_s(call, slots, now, own=own) * (1 + of_class))


def too_late(ready_s: float, expires_at: float, call: Call, now: float) -> bool:
    """Would room that comes after `ready_s` come too late? At the deadline itself it does."""
    return now + ready_s > expires_at or now + ready_s >= call.deadline
