"""What is told to those who are refused, and what is kept for them until they return."""

from __future__ import annotations

from typing import Final

from proxy.core.advice import Advice
from proxy.core.book import Ticket
from proxy.core.call import Call
from proxy.core.claims import Claims, Shortfall, Store, is_own, longer, scope_of
from proxy.core.instants import Instants
from proxy.core.orders import GUARD_SHARE
from proxy.core.pause import PAUSE
from proxy.core.policy import BucketPolicy
from proxy.core.repeats import EARLY_S
from proxy.core.rounding import NEVER, ROUNDING_S
from proxy.core.target import Target
from proxy.core.tickets import Tickets
from proxy.core.told import Pool
from proxy.core.verdict import LONGEST_RETRY_AFTER_S, Reason, Refusal
from proxy.core.waiting import Waiter, WaitingRoom

DRAIN_S: Final = (2.0, 5.0)
"""A draining proxy is replaced within seconds (reference/clients.md, statuses table)."""

SOONEST_S: Final = 1.0
"""The least that `Retry-After` can say: it counts whole seconds."""

UNBOOKED_S: Final = 45.0
"""Who gets no ticket is told 45 to 55 seconds, each another time: the longest that clients heed."""

PAUSED_S: Final = 20.0
"""A pause is over when the upstream is fast again, which nobody knows: as for who is shed."""

MIB: Final = 2**20

AFTER_FAILURE_S: Final = 1.0
"""A failure may be over in a second; a breaker that opens meanwhile says the rest."""


class Promises:
    """All refusals of one gate."""

    __slots__ = ("_instants", "_room", "_store", "_tickets")

    def __init__(self, room: WaitingRoom, store: Store) -> None:
        self._room = room
        self._store = store
        self._tickets = Tickets()
        self._instants = Instants()

    # ── what was promised ───────────────────────────────────────────────────────────────────────────

    def before_time(self, call: Call, now: float) -> Refusal | None:
        """The answer to who returns before the time told, while others wait: the same once more."""
        ticket = call.ticket
        if ticket is None or now >= ticket.due_at - EARLY_S or not self._room.size:
            return None
        return self._again(ticket, now)

    def redeem(self, call: Call, now: float) -> bool:
        """Does the call return as it was told? Then its place is taken: to be asked once."""
        ticket = call.ticket
        return ticket is not None and now >= ticket.due_at - EARLY_S and ticket.redeem(now)

    def kept_from(self, claims: Claims, seq: float, now: float) -> Shortfall | None:
        """What the `seq`th to wait (inf: a newcomer) lacks because others hold tickets for it."""
        found: Shortfall | None = None
        for key, policy in claims.buckets:
            cost, rate = claims.cost(policy), self._store.rate(key, policy)
            if cost > policy.burst:
                return None  # it can never pass, as the store will say
            line = self._tickets.line_of(key)
            if line is None or not line.out:
                continue
            part = rate / policy.rate_per_s
            free = line.kept_free_s(now, seq, self._store.most(key, policy) / rate, part) * rate
            lacking = free + cost - self._store.level(key, policy, now)
            if free and lacking > ROUNDING_S * rate:
                kept = Shortfall(
                    key,
                    Reason.BUCKET_EMPTY,
                    max(ROUNDING_S, lacking / rate),
                    cost / rate,
                    policy.label,
                    kept=True,
                    look_s=max(ROUNDING_S, line.lapses_at(now) - now),
                    part=part,
                )
                found = kept if found is None else longer(found, kept)
        return found

    def kept_free_s(self, key: str, seq: float, now: float) -> float:
        """As `Line.kept_free_s`, of a key by itself."""
        line = self._tickets.line_of(key)
        return 0.0 if line is None or not line.out else line.kept_free_s(now, seq)

    def left(self, key: str, policy: BucketPolicy, now: float) -> float:
        """What of a bucket a newcomer may take: all but what is kept for those who hold tickets for it."""
        level, line = self._store.level(key, policy, now), self._tickets.line_of(key)
        if line is None or not line.out:
            return level
        rate = self._store.rate(key, policy)
        part, burst_s = rate / policy.rate_per_s, self._store.most(key, policy) / rate
        return level - line.kept_free_s(now, NEVER, burst_s, part) * rate

    @property
    def any(self) -> bool:
        """Is anything promised that a newcomer might take?"""
        return self._tickets.has_lines

    # ── what is told ────────────────────────────────────────────────────────────────────────────────

    def short(
        self,
        shortfall: Shortfall,
        call: Call,
        target: Target,
        ready_s: float,
        now: float,
        *,
        reason: Reason | None = None,
        scope: str = "",
        limit: str = "",
    ) -> Refusal:
        """Refused for what it lacked; `reason`, `scope` and `limit` where the queue adds its own.

        `ready_s` is when there will be room for it, were no ticket sold.
        """
        if shortfall.reason is Reason.TOO_DEAR:
            return Refusal(Reason.TOO_DEAR, scope_of(shortfall), limit=shortfall.label)
        if shortfall.reason is Reason.RUN_BUDGET_SPENT:
            budget = shortfall.key.partition("|")[0].rpartition("/")[2]
            return Refusal(shortfall.reason, scope_of(shortfall), limit=shortfall.label, budget=budget)
        if shortfall.reason is Reason.STORE_DOWN:
            back_s = shortfall.wait_s if shortfall.wait_s < NEVER else shortfall.step_s
            return self.apart_from(Reason.STORE_DOWN, "store", back_s, 0.0, now)
        if shortfall.key.startswith(PAUSE):
            scope = f"upstream:{target.name}"
            return self.in_line(Reason.PAUSED, scope, PAUSED_S, target.step_s, now, call=call)
        reason = reason or shortfall.reason
        scope = scope or scope_of(shortfall)
        limit = limit or shortfall.label
        if shortfall.reason is Reason.CAP_REACHED:
            return self.crowded(reason, scope, call, target, ready_s, now, limit, shortfall)
        step_s, key, part = shortfall.step_s, shortfall.key, shortfall.part
        return self.in_line(reason, scope, ready_s, step_s, now, limit, call, key, part)

    def crowded(
        self,
        reason: Reason,
        scope: str,
        call: Call,
        target: Target,
        earliest_s: float,
        now: float,
        limit: str = "",
        shortfall: Shortfall | None = None,
    ) -> Refusal:
        """Refused because too many are here: a place in the calendar of its class."""
        if (again := self._still_told(call, now)) is not None:
            return again
        key, slots = (target.cap.key, 0) if shortfall is None else (shortfall.key, shortfall.slots)
        own = is_own(key)  # all of it is this caller's, and what it wants is taken from nobody
        step_s = target.flow.turn_s(call, slots, now, own=own)
        # Who waits costs nothing; who is told to come back learns nothing sooner than one call takes.
        earliest_s = max(earliest_s, target.flow.service_s)
        patience_s = call.until - now - target.flow.service_s
        share = 1.0
        if not own:
            target.flow.pace.refused(call.rank, now)
            share = min(1.0, call.weight / target.flow.shares(call.rank).callers)
        advice: Advice | None = None
        if slots:
            advice = Advice(parallel=slots if own else max(1, slots // target.flow.callers(call, now)))
        calendar = self._tickets.calendar(f"{key}/{call.rank}", now)
        sold = calendar.book(call.caller, share, earliest_s, step_s, patience_s, now)
        if sold is None and call.going:
            # Its run would be cut, and all that it did be in vain. They are few: the guard's share is enough.
            step_s = target.step_s / GUARD_SHARE
            line = self._tickets.line(f"{key}/{call.rank}/runs", now)
            sold = line.book(max(SOONEST_S, target.flow.service_s), step_s, now, patience_s)
        if sold is None:
            told_s = self._instants.apart(UNBOOKED_S, LONGEST_RETRY_AFTER_S)
            return Refusal(reason, scope, told_s, limit, come_back=False, advice=advice)
        return self._told(sold, reason, scope, limit, now, advice)

    def in_line(
        self,
        reason: Reason,
        scope: str,
        earliest_s: float,
        step_s: float,
        now: float,
        limit: str = "",
        call: Call | None = None,
        key: str = "",
        part: float = 1.0,
    ) -> Refusal:
        """Refused until a time that is known: the next instant in its line.

        A wait longer than can be told is told as nearly 55 seconds, again and again. Where others have booked
        all that comes before, the caller is told so much too, and not to return by itself.
        """
        if call is not None:
            if (again := self._still_told(call, now)) is not None:
                return again
            if now + earliest_s >= call.until:
                at = now + min(earliest_s, float(LONGEST_RETRY_AFTER_S))
                told_s = _at_most_55(self._instants.distinct(at, now) - now)
                return Refusal(reason, scope, told_s, limit, come_back=False)
        patience_s = NEVER if call is None else call.until - now
        sold = self._tickets.line(key or scope, now).book(earliest_s, step_s, now, patience_s, part)
        if sold is not None:
            return self._told(sold, reason, scope, limit, now)
        least_s, is_long = UNBOOKED_S, earliest_s >= LONGEST_RETRY_AFTER_S - ROUNDING_S
        if least_s < earliest_s and not is_long:  # else all would be told 55 s
            least_s = earliest_s
        told_s = self._instants.apart(least_s, LONGEST_RETRY_AFTER_S)
        return Refusal(reason, scope, told_s, limit, come_back=is_long and told_s < patience_s)

    def apart_from(
        self, reason: Reason, scope: str, earliest_s: float, step_s: float, now: float, limit: str = ""
    ) -> Refusal:
        """As `in_line`, where no place is kept: who returns competes as it can."""
        line = self._tickets.line(scope, now)
        at = line.next_after(earliest_s, step_s, now)
        at = None if at is None else self._instants.distinct(at, now)
        if at is None or at > now + LONGEST_RETRY_AFTER_S:
            return Refusal(reason, scope, self._instants.apart(UNBOOKED_S, LONGEST_RETRY_AFTER_S), limit)
        return Refusal(reason, scope, _at_most_55(at - now), limit)

    def of_queue(
        self,
        reason: Reason,
        shortfall: Shortfall | None,
        waiter: Waiter,
        now: float,
    ) -> Refusal:
        """Refused by the bounds of a queue: full, too full for its class, too old, or displaced."""
        call, target, route = waiter.call, waiter.target, waiter.route
        if reason is Reason.SHED:
            limit = ""
        elif reason is Reason.WAITED_TOO_LONG:
            limit = f"{route.queue.max_age_s:g}s in the queue"
        elif self._room.lanes.depth(route.name) >= route.queue.size:
            limit = f"{route.queue.size} waiting"
        else:
            limit = f"{route.queue.max_bytes / MIB:g} MiB waiting"
        scope = route.scope
        if shortfall is None or shortfall.reason is Reason.CAP_REACHED:
            slots = 0 if shortfall is None else shortfall.slots
            ahead = self._room.lanes.of_class(route.name, call.rank)
            earliest_s = ahead * target.flow.turn_s(call, slots, now)
            return self.crowded(reason, scope, call, target, earliest_s, now, limit, shortfall)
        # Those who wait for the same go first, and spend what refills meanwhile.
        ahead, _ = self._room.lines.ahead(shortfall.key, waiter)
        ready_s = shortfall.wait_s + shortfall.step_s * ahead
        return self.short(shortfall, call, target, ready_s, now, reason=reason, scope=scope, limit=limit)

    def by_upstream(self, call: Call, target: Target, pool: Pool, now: float) -> Refusal | None:
        """The upstream itself has refused a call: when this one should come again; None if nobody knows."""
        wait_s, step_s, label = pool.wait(call, target.service_s, 0.0, now)
        if not wait_s:
            return None
        scope = pool.key.partition("|")[2]
        return self.in_line(Reason.BUCKET_EMPTY, scope, wait_s, step_s, now, label, call, pool.key)

    def failed(self, call: Call, target: Target, reason: Reason, now: float) -> Refusal:
        """The upstream failed: come back soon, if the retry budgets will pay."""
        scope = f"upstream:{target.name}"
        if target.retry_wait_s(call, now)[1]:
            return Refusal(reason, scope)
        return self.apart_from(reason, scope, AFTER_FAILURE_S, target.step_s, now)

    def draining(self) -> Refusal:
        """Refused because this proxy ends."""
        return Refusal(Reason.DRAINING, "proxy", self._instants.apart(*DRAIN_S))

    def _told(
        self,
        ticket: Ticket,
        reason: Reason,
        scope: str,
        limit: str,
        now: float,
        advice: Advice | None = None,
    ) -> Refusal:
        at = min(self._instants.distinct(ticket.due_at, now), now + LONGEST_RETRY_AFTER_S)
        ticket.due_at = at
        ticket.after = self._room.joined
        ticket.told = (reason, scope, limit)
        return Refusal(reason, scope, _at_most_55(at - now), limit, ticket, advice=advice)

    def _still_told(self, call: Call, now: float) -> Refusal | None:
        """Who holds a ticket for a later time buys no second one."""
        ticket = call.ticket
        if ticket is None or not ticket.is_open:
            return None
        if ticket.due_at > now:
            return self._again(ticket, now)
        ticket.give_back()  # it came before, and waited in vain until now
        return None

    def _again(self, ticket: Ticket, now: float) -> Refusal:
        told = ticket.told
        assert told is not None, "a ticket is told when it is sold"  # noqa: S101
        reason, scope, limit = told
        return Refusal(reason, scope, max(0.0, ticket.due_at - now), limit, ticket)


def _at_most_55(seconds: float) -> float:
    """The difference of two instants is rounded."""
    return min(seconds, float(LONGEST_RETRY_AFTER_S))
