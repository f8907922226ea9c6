"""The gate: whether and when a call may proceed. READ the order of the checks in `offer`.

The gate decides and never waits: it returns a grant, a refusal, or a `Waiter` that is decided later. Every
method may decide waiters besides its own answer; they lie in `decided` until somebody takes them with
`take_decided` and tells them. Time comes in as `now`, monotonic seconds that never run backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.core.breaker import OPEN, Machine
from proxy.core.call import Call
from proxy.core.claims import Claims, Shortfall, Store
from proxy.core.events import Admitted, BreakerMoved, Emit, Left, Queued, Settled
from proxy.core.lines import NEVER, Group, first_of
from proxy.core.plan import Plans, scope_of
from proxy.core.policy import Policy, RoutePolicy
from proxy.core.pressure import pressure
from proxy.core.target import Target
from proxy.core.tickets import Line
from proxy.core.verdict import LONGEST_RETRY_AFTER_S, UNUSED, Outcome, Reason, Refusal
from proxy.core.waiting import Waiter, WaitingRoom, order_of

SHED_FOR_S: Final = 20.0
"""Who is shed comes back late: the others need the room first (reference/clients.md, statuses table)."""

DRAIN_S: Final = (2.0, 5.0)
"""A draining proxy is replaced within seconds (reference/clients.md, statuses table)."""

AFTER_FAILURE_S: Final = 1.0
"""A failure may be over in a second; a breaker that opens meanwhile says the rest."""


class Grant:
    """Proof of what one call was granted. Settle it exactly once, with `silent_s` as for `Target.settle`."""

    __slots__ = ("at", "call", "claims", "settled", "silent_s", "target", "turn", "waited_s")

    def __init__(
        self, call: Call, target: Target, claims: Claims, turn: int, at: float, waited_s: float
    ) -> None:
        self.call = call
        self.target = target
        self.claims = claims
        self.turn = turn
        self.at = at
        self.waited_s = waited_s
        self.silent_s: float | None = None
        self.settled = False


class Gate:
    """All admission of one process: the policies, the counts behind a store, and the waiting room."""

    def __init__(self, policy: Policy, store: Store, machine: Callable[[str], Machine], emit: Emit) -> None:
        self._machine = machine
        self._emit = emit
        self._line = Line()
        self._plans = Plans()
        self._decided: list[Waiter] = []
        self.store = store
        self.room = WaitingRoom()
        self.targets: dict[str, Target] = {}
        self.draining = False
        self.policy = policy
        self._routes: dict[str, RoutePolicy] = {}  # also those a reload removed: a call may be on its way
        self.adopt(policy, now=0.0)

    # ── the way in ──────────────────────────────────────────────────────────────────────────────────

    def offer(
        self, call: Call, upstream: str, now: float, *, may_wait: bool = True
    ) -> Grant | Refusal | Waiter:
        """Ask for everything `call` needs to go to `upstream`. A refused call has spent nothing."""
        if self.room.size:
            self.advance(now)  # whoever became ready before this moment goes before this call
        target = self.targets[upstream]
        route = self._routes[call.route]

        # The free checks first, cheapest first: nothing is spent before the last of them has passed.
        if self.draining:
            return Refusal(Reason.DRAINING, "proxy", self._line.spread(*DRAIN_S))
        refusal = (
            self._in_time(call, target, now)  # an answer after the deadline is worthless
            or self._shed(call, target, route, now)  # too full for this class
            or self._recheck(call, target, now)  # upstream down, or retries spent
        )
        if refusal is not None:
            return refusal

        # Then one atomic reserve of permits, buckets and quotas; the probe slot and the retry budget, which
        # were free a moment ago, go with it because nothing can happen in between.
        claims = self._plans.claims_of(call, target, route)
        behind = self.room.behind(call, claims, now) if call.tokens and self.room.size else None
        shortfall = behind or self.store.reserve(claims, now)
        if shortfall is None:
            return self._grant(call, target, claims, now, waited_s=0.0)

        # No room: wait, holding nothing but a place, if room can come in time; else refuse.
        return self._wait_or_refuse(call, target, route, claims, shortfall, now, may_wait=may_wait)

    def _in_time(self, call: Call, target: Target, now: float) -> Refusal | None:
        if call.deadline > now:
            return None
        return self._refuse(Reason.WAITED_TOO_LONG, f"route:{call.route}", 0.0, target.step_s, now)

    def _shed(self, call: Call, target: Target, route: RoutePolicy, now: float) -> Refusal | None:
        at = route.shed_at[min(call.rank, len(route.shed_at) - 1)]
        if at > 1 or not self.room.size or not route.queue.size:
            return None
        if pressure(self.room, route.name, route.queue, now, order=2 * call.rank + 1) < at:
            return None
        earliest = max(SHED_FOR_S, self._drain_s(route, target))
        return self._refuse(Reason.SHED, f"route:{route.name}", earliest, target.step_s, now)

    def _recheck(self, call: Call, target: Target, now: float) -> Refusal | None:
        """The free checks that hold at the door and again at dispatch."""
        scope, retry_wait_s = target.retry_wait_s(call.caller, now) if call.is_retry else ("", 0.0)
        wait_s = target.breaker.wait_s(now) if target.breaker is not None else 0.0
        if wait_s is None:  # all probes are out: a probe takes about as long as a call
            wait_s = max(1.0, target.service_s)
        if not wait_s and not retry_wait_s:
            return None
        # Who comes back when this is over must not be refused for a bucket that was empty all along.
        shortfall = self.store.peek(self._plans.claims_of(call, target, self._routes[call.route]), now)
        longest_s = max(wait_s, retry_wait_s, shortfall.wait_s if shortfall is not None else 0.0)
        if wait_s:
            return self._refuse(Reason.BREAKER_OPEN, f"upstream:{target.name}", longest_s, target.step_s, now)
        return self._refuse(
            Reason.RETRY_BUDGET_SPENT, scope, longest_s, 0.0, now, "retries are a share of calls"
        )

    def _wait_or_refuse(
        self,
        call: Call,
        target: Target,
        route: RoutePolicy,
        claims: Claims,
        shortfall: Shortfall,
        now: float,
        *,
        may_wait: bool,
    ) -> Refusal | Waiter:
        expires_at = min(now + route.queue.max_age_s, call.deadline)
        ahead = self.room.lines.ahead(shortfall.key, order_of(call))
        ready_s = shortfall.wait_s + shortfall.step_s * ahead
        if not may_wait or not route.queue.size or _in_vain(ready_s, expires_at, call, now):
            return self._refuse_short(shortfall, call, target, ready_s, now)
        waiter = Waiter(call, target, route, claims, since=now, expires_at=expires_at)
        if self.room.depth(route.name) >= route.queue.size:
            last = self.room.displaceable(route.name, waiter.order)
            if last is None:
                return self._refuse_waiting(Reason.QUEUE_FULL, route, target, now)
            self._decide(last, self._refuse_waiting(Reason.DISPLACED, last.route, last.target, now))
        self.room.join(waiter, shortfall.key, _ready_at(shortfall, now))
        self._emit(Queued(call, target.name))
        return waiter

    # ── what happens afterwards ─────────────────────────────────────────────────────────────────────

    def settle(self, grant: Grant, outcome: Outcome, now: float, *, used_tokens: float | None = None) -> None:
        """End a grant: permits return, breaker and budgets learn, and whoever waited for it is served.

        `used_tokens` is what the call used as its answer told; None lets the estimate stand.
        """
        if grant.settled:
            raise RuntimeError(f"settled twice: {grant.call!r}")
        grant.settled = True
        target, claims = grant.target, grant.claims
        unused = outcome is UNUSED
        self.store.settle(claims, now, unused=unused, used_tokens=used_tokens)
        old = target.breaker.phase if target.breaker is not None else ""
        why = target.settle(grant.call, grant.turn, outcome, grant.at, now, grant.silent_s)
        self._emit(Settled(grant.call, target.name, outcome, now - grant.at))
        if why is not None:
            self._breaker_moved(target, old, why)
            self._refuse_all(lambda waiter: waiter.target is target, now)
        if self.room.size:
            came_back = claims.keys() if unused else [key for key, _ in claims.caps]
            if used_tokens is not None and not unused:
                came_back += claims.token_keys()
            self._serve(self.room.lines.opened(came_back, now), now)

    def leave(self, waiter: Waiter, now: float) -> None:
        """A waiter's caller has gone: out of the queue at once, or its refusal can be told to nobody.

        Call it once. A waiter that was granted meanwhile is not left: settle its grant as unused.
        """
        if waiter.waiting:
            self.room.leave(waiter)
            self._emit(Left(waiter.call, waiter.target.name, now - waiter.since))
        elif isinstance(waiter.verdict, Refusal):
            self._emit(Left(waiter.call, waiter.target.name, now - waiter.since))

    def advance(self, now: float) -> None:
        """Serve whose time has come, and refuse who has waited too long. Call at `next_at`, or any time."""
        opened = self.room.lines.opened((), now)
        if opened:
            self._serve(opened, now)
        while (waiter := self.room.expired(now)) is not None:
            self._expire(waiter, now)

    def next_at(self) -> float:
        """When `advance` will next have something to do; inf when never."""
        return self.room.next_at()

    def take_decided(self) -> list[Waiter]:
        """The waiters decided since this was last called; the caller of this must tell each of them."""
        decided, self._decided = self._decided, []
        return decided

    @property
    def has_decided(self) -> bool:
        """Is there somebody to tell?"""
        return bool(self._decided)

    def drain(self, now: float) -> None:
        """Refuse whoever waits and whoever comes. Who holds a grant keeps it."""
        self.draining = True
        self._refuse_all(lambda _: True, now)

    def adopt(self, policy: Policy, now: float) -> None:
        """Follow a new policy from now on. Counts stay; waiters keep their place and their queue's terms."""
        self.policy = policy
        self._plans.forget()
        self._routes.update(policy.routes)
        for name, upstream in policy.upstreams.items():
            if name in self.targets:
                self.targets[name].adopt(upstream)
            else:
                self.targets[name] = Target(upstream, self._machine(name))
        if self.room.size:
            for waiter in self.room.waiters():  # those of a removed route too: its upstream's cap may be new
                waiter.claims = self._plans.claims_of(
                    waiter.call, waiter.target, self._routes[waiter.call.route]
                )
            self.room.regroup()
            self._serve(self.room.lines.everyone(), now)

    def refuse_failed(self, call: Call, upstream: str, reason: Reason, now: float) -> Refusal:
        """The answer to a call whose upstream failed: come back soon, if the retry budgets will pay."""
        target = self.targets[upstream]
        scope = f"upstream:{upstream}"
        if target.retry_wait_s(call.caller, now)[1]:
            return Refusal(reason, scope)
        return self._refuse(reason, scope, AFTER_FAILURE_S, target.step_s, now)

    # ── serving the waiters ─────────────────────────────────────────────────────────────────────────

    def _serve(self, opened: list[Group], now: float) -> None:
        """Room may have come for the `opened`: dispatch from their heads, the most important first."""
        while (waiter := first_of(opened)) is not None:
            call, target = waiter.call, waiter.target
            if waiter.expires_at < now:
                self._expire(waiter, now)
                continue
            # No second look at the pressure: its turn has come, and to shed it now would waste the room.
            refusal = self._in_time(call, target, now) or self._recheck(call, target, now)
            if refusal is not None:
                self._decide(waiter, refusal)
                continue
            shortfall = self.store.reserve(waiter.claims, now)
            if shortfall is None:
                waited_s = now - waiter.since
                self._decide(waiter, self._grant(call, target, waiter.claims, now, waited_s=waited_s))
            elif _in_vain(shortfall.wait_s, waiter.expires_at, call, now):
                self._decide(waiter, self._refuse_short(shortfall, call, target, shortfall.wait_s, now))
            else:
                self.room.lines.lacks(waiter, shortfall.key, _ready_at(shortfall, now), opened)

    def _expire(self, waiter: Waiter, now: float) -> None:
        refusal = self._refuse_waiting(Reason.WAITED_TOO_LONG, waiter.route, waiter.target, now)
        self._decide(waiter, refusal)

    def _grant(self, call: Call, target: Target, claims: Claims, now: float, *, waited_s: float) -> Grant:
        old = target.breaker.phase if target.breaker is not None else ""
        turn = target.enter(call, now)
        if old == OPEN:
            self._breaker_moved(target, old, "time to probe")
        self._emit(Admitted(call, target.name, waited_s))
        return Grant(call, target, claims, turn, now, waited_s)

    def _decide(self, waiter: Waiter, verdict: Grant | Refusal) -> None:
        self.room.leave(waiter)
        waiter.verdict = verdict
        self._decided.append(waiter)

    def _refuse_all(self, concerns: Callable[[Waiter], bool], now: float) -> None:
        for waiter in [waiter for waiter in self.room.waiters() if concerns(waiter)]:
            refusal = (
                Refusal(Reason.DRAINING, "proxy", self._line.spread(*DRAIN_S))
                if self.draining
                else self._recheck(waiter.call, waiter.target, now)
            )
            if refusal is not None:
                self._decide(waiter, refusal)

    def _breaker_moved(self, target: Target, old: str, why: str) -> None:
        assert target.breaker is not None, "only a breaker moves"  # noqa: S101
        self._emit(BreakerMoved(target.name, old, target.breaker.phase, why))

    # ── refusals: who, why, until when ──────────────────────────────────────────────────────────────

    def _refuse(
        self, reason: Reason, scope: str, earliest_s: float, step_s: float, now: float, limit: str = ""
    ) -> Refusal:
        earliest_s = min(earliest_s, LONGEST_RETRY_AFTER_S + 1.0)
        return Refusal(reason, scope, self._line.book(scope, earliest_s, step_s, now), limit)

    def _refuse_short(
        self, shortfall: Shortfall, call: Call, target: Target, ready_s: float, now: float
    ) -> Refusal:
        step_s = shortfall.step_s
        if shortfall.reason is Reason.TOO_DEAR:
            return Refusal(Reason.TOO_DEAR, scope_of(shortfall), limit=shortfall.label)
        if shortfall.reason is Reason.CAP_REACHED:
            step_s = target.step_s
            ahead = self.room.lines.ahead(shortfall.key, order_of(call))
            ready_s = max(ready_s, step_s * (1 + ahead))
        return self._refuse(shortfall.reason, scope_of(shortfall), ready_s, step_s, now, shortfall.label)

    def _refuse_waiting(self, reason: Reason, route: RoutePolicy, target: Target, now: float) -> Refusal:
        match reason:
            case Reason.WAITED_TOO_LONG:
                limit = f"{route.queue.max_age_s:g}s in the queue"
            case _:
                limit = f"{route.queue.size} waiting"
        # No sooner than one call takes: whoever waited in vain learns nothing by asking again at once.
        earliest = max(self._drain_s(route, target), target.service_s)
        return self._refuse(reason, f"route:{route.name}", earliest, target.step_s, now, limit)

    def _drain_s(self, route: RoutePolicy, target: Target) -> float:
        """How long the route's queue takes to empty at the pace of its upstream."""
        return self.room.depth(route.name) * target.step_s


def _in_vain(ready_s: float, expires_at: float, call: Call, now: float) -> bool:
    """Would room that comes after `ready_s` come too late? At the deadline itself it does."""
    return now + ready_s > expires_at or now + ready_s >= call.deadline


def _ready_at(shortfall: Shortfall, now: float) -> float:
    return NEVER if shortfall.reason is Reason.CAP_REACHED else now + shortfall.wait_s
