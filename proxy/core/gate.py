"""The gate: whether and when a call may proceed. READ the order of the checks in `offer`.

The gate decides and never waits: it returns a grant, a refusal, or a `Waiter` that is decided later. Every
method may decide waiters besides its own answer; they lie in `decided` until somebody takes them with
`take_decided` and tells them. Time comes in as `now`, monotonic seconds that never run backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.core.breaker import UNCOUNTED, Machine
from proxy.core.call import Call
from proxy.core.checks import Checks, too_late
from proxy.core.claims import Claims, Shortfall, Store, scope_of
from proxy.core.dry_run import rehearse
from proxy.core.events import Admitted, Emit, Left, Queued, Returned, Settled, WouldQueue
from proxy.core.grant import Grant
from proxy.core.groups import Group
from proxy.core.heads import next_of
from proxy.core.orders import BOOKED, FIRST, GUARD_SHARE
from proxy.core.plan import Plans
from proxy.core.policy import Policy, RoutePolicy
from proxy.core.promises import Promises
from proxy.core.rounding import NEVER
from proxy.core.runs import Runs
from proxy.core.target import Target
from proxy.core.tools import Tools
from proxy.core.used import Used
from proxy.core.verdict import UNUSED, Outcome, Reason, Refusal
from proxy.core.waiting import Waiter, WaitingRoom
from proxy.core.watch import Watch

_NONE: Final[list[str]] = []
"""Never filled: for the calls that open nothing, which are nearly all."""


class Gate:
    """All admission of one process: the policies, the counts behind a store, and the waiting room."""

    def __init__(self, policy: Policy, store: Store, machine: Callable[[str], Machine], emit: Emit) -> None:
        self._machine = machine
        self._emit = emit
        self.runs = Runs()
        self._plans = Plans(self.runs.budgets)
        self._decided: list[Waiter] = []
        self.watch = Watch(emit)
        self.tools = Tools(machine, self._plans, self.watch)
        self.store = store
        self.room = WaitingRoom()
        self.promises = Promises(self.room, store)
        self.checks = Checks(self.room, store, self.promises, self._plans)
        self.targets: dict[str, Target] = {}
        self.draining = False
        self.guarded: Waiter | None = None  # who is being served before its turn, lest it starve
        self.policy = policy
        # With the routes that a reload removed: a call may be on its way.
        self._routes: dict[str, RoutePolicy] = self.checks.routes
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
        if route.sets_apart:
            route = self.tools.terms_of(call, target, route, now)
        call.going = call.has_run and self.runs.met(call, now)
        self._look(target, now, _NONE)

        # The free checks first, cheapest first: nothing is spent before the last of them has passed.
        if self.draining:
            return self.promises.draining()
        booked = False
        if call.ticket is not None:
            again = self.promises.before_time(call, now)  # who was told when to come, and comes too early
            if again is not None:
                return again
            booked = self.promises.redeem(call, now)
            if self.room.size:  # what was kept for it is not, from now on
                self.room.lines.try_again(self._plans.claims_of(call, target, route).keys())
        refusal = (
            self.checks.still_wanted(call, target, now)  # not after its deadline, nor its run's end
            or (None if booked else self.checks.shed(call, target, route, now))  # too full for this class
            or self.checks.recheck(call, target, now)  # upstream down, or retries spent
            or self.checks.brown_out(call, target, now)  # upstream accepts too few
        )
        if refusal is not None:
            return self._turn_away(refusal, call, target, booked=booked)

        # Then one atomic reserve of permits, buckets and quotas; the probe slot and the retry budget, which
        # were free a moment ago, go with it because nothing can happen in between. What is kept for others
        # is not to be had: by those who return with a ticket, by the more important classes.
        claims = self._plans.claims_of(call, target, route)
        shortfall = self.checks.take(call, target, claims, NEVER, now, booked=booked)
        if shortfall is None:
            return self._grant(call, target, claims, now, in_turn=True, booked=booked)

        # No room: wait, holding nothing but a place, if room can come in time; else refuse.
        verdict = self._wait_or_refuse(
            call, target, route, claims, shortfall, now, may_wait=may_wait, booked=booked
        )
        if isinstance(verdict, Refusal):
            self._turn_away(verdict, call, target, booked=booked)
        return verdict

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
        booked: bool,
    ) -> Refusal | Waiter:
        expires_at = min(now + route.queue.max_age_s, call.deadline)
        pending = shortfall.pending  # then no queue is too full, nor off, to wait for the answer to come
        if not pending and not self.room.size and too_late(shortfall.wait_s, expires_at, call, now):
            return self.checks.short(claims, shortfall, call, target, shortfall.wait_s, now)  # the cheap way
        kind = BOOKED if booked else self.checks.kind(call, target)
        waiter = Waiter(call, target, route, claims, kind, going=call.going, since=now, expires_at=expires_at)
        ready_s, in_vain = self.checks.prospect(shortfall, waiter, now)
        if not pending and (not may_wait or in_vain or not (route.queue.size or booked)):
            if route.queue.dry_size and may_wait and not in_vain:
                self._emit(WouldQueue(call, target.name, shortfall.reason, scope_of(shortfall)))
            return self.checks.short(claims, shortfall, call, target, ready_s, now)
        is_full = not (booked or pending) and self.room.lanes.is_full(route, call.size)
        displaces = is_full
        while is_full:
            last = self.room.lanes.displaceable(route, waiter)
            if last is None:
                return self.promises.of_queue(Reason.QUEUE_FULL, shortfall, waiter, now)
            self._decide(last, self._refuse_waiting(Reason.DISPLACED, last, now))
            is_full = self.room.lanes.is_heavy(route, call.size)  # one place it has now
        self.room.join(waiter, shortfall, now)
        if displaces:  # whom it stood behind, perhaps, and for nothing else
            self.room.lines.try_again([shortfall.key])
        self._emit(Queued(call, target.name))
        return waiter

    # ── what happens afterwards ─────────────────────────────────────────────────────────────────────

    def settle(self, grant: Grant, outcome: Outcome, now: float, *, used: Used | None = None) -> None:
        """End a grant: permits return, breaker and budgets learn, and whoever waited for it is served.

        `used` is what the call used, as far as anybody knows; None lets the estimate stand.
        """
        if grant.settled:
            raise RuntimeError(f"settled twice: {grant.call!r}")
        grant.settled = True
        target, claims, unused = grant.target, grant.claims, outcome is UNUSED
        if unused and grant.call.charged:
            self.runs.budgets.unused(grant.call)
        self.store.settle(claims, now, unused=unused, used=used)
        if claims.dry is not None:
            self.store.settle(claims.dry, now, unused=unused, used=used)
        self.watch.settled(grant, outcome, now)
        self._emit(Settled(grant.call, target.name, outcome, now - grant.at))
        came_back = claims.come_back(unused=unused, used=used) if self.room.size else _NONE
        self._look(target, now, came_back)

    def answered(self, grant: Grant, silent_s: float, now: float) -> None:
        """A good answer to a call has begun, after `silent_s`: what that tells is known before its end."""
        if not (grant.answered or grant.settled):
            self._look(grant.target, now, self.watch.answered(grant, silent_s, now))

    def leave(self, waiter: Waiter, now: float) -> None:
        """A waiter's caller has gone: out of the queue at once, or its refusal can be told to nobody.

        Call it once. A waiter that was granted meanwhile is not left: settle its grant as unused.
        """
        if waiter.waiting or isinstance(waiter.verdict, Refusal):
            self._emit(Left(waiter.call, waiter.target.name, now - waiter.since))
        if waiter.waiting:
            self.room.leave(waiter)

    def advance(self, now: float) -> None:
        """Serve whose time has come, and refuse who has waited too long. Call at `next_at`, or any time."""
        if self.watch.paused:
            for target in self.watch.due(now):
                self._look(target, now, _NONE)
        if opened := self.room.lines.opened((), now):
            self._serve(opened, now)
        while (waiter := self.room.expired(now)) is not None:
            self._decide(waiter, self._refuse_waiting(Reason.WAITED_TOO_LONG, waiter, now))

    def opened(self, keys: list[str], replicas: int, now: float) -> None:
        """A shared store has answered: there may be room under these that was not before."""
        for target in self.targets.values():
            target.share(self.store.limit_of(target.cap.key), replicas)
        self._serve(self.room.lines.opened(keys, now), now)

    def next_at(self) -> float:
        """When `advance` will next have something to do; inf when never."""
        at = self.room.next_at()
        return min(at, self.watch.looks_at()) if self.watch.paused and self.room.size else at

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
        self._refuse_all(None, now)

    def adopt(self, policy: Policy, now: float) -> None:
        """Follow a new policy from now on. Counts stay; waiters keep their place and their queue's terms."""
        self.policy = policy
        self._plans.adopt(policy)
        self._routes.update(policy.routes)
        self.tools.adopt(self._routes)
        for name, upstream in policy.upstreams.items():
            if name in self.targets:
                self.targets[name].adopt(upstream)
            else:
                self.targets[name] = Target(upstream, self._machine(name))
        if self.room.size:
            for waiter in self.room.waiters():  # those of a removed route too: its upstream's cap may be new
                call, target = waiter.call, waiter.target
                route = self.tools.terms_of(call, target, self._routes[call.route], now)
                waiter.asks(self._plans.claims_of(call, target, route))
            self.room.regroup(now)
            for waiter in self.room.waiters():
                shortfall = self.store.peek(waiter.claims, now)
                if shortfall is not None and shortfall.is_final:  # by the new policy
                    self._decide(waiter, self.promises.short(shortfall, waiter.call, waiter.target, 0.0, now))
            self._serve(self.room.lines.everyone(), now)

    def refuse_failed(self, call: Call, upstream: str, reason: Reason, now: float) -> Refusal:
        """The answer to a call whose upstream failed: come back soon, if the retry budgets will pay."""
        return self.promises.failed(call, self.targets[upstream], reason, now)

    # ── serving the waiters ─────────────────────────────────────────────────────────────────────────

    def _serve(self, opened: list[Group], now: float) -> None:
        """Room may have come for the `opened`: dispatch from their heads, the most important first."""
        while (waiter := self._next(opened, now)) is not None:
            call, target = waiter.call, waiter.target
            if waiter.expires_at < now:
                self._decide(waiter, self._refuse_waiting(Reason.WAITED_TOO_LONG, waiter, now))
                continue
            # No second look at the pressure: its turn has come, and to shed it now would waste the room.
            refusal = self.checks.still_wanted(call, target, now) or self.checks.recheck(call, target, now)
            if refusal is not None:
                self._decide(waiter, refusal)
                continue
            booked = waiter.kind == BOOKED
            guarded = waiter is self.guarded
            shortfall = self.checks.take(
                call, target, waiter.claims, waiter.seq, now, booked=booked, guarded=guarded
            )
            if shortfall is None:
                self._dispatch(waiter, now, booked=booked)
            elif self.checks.gives_up(waiter, shortfall, now):
                self._decide(waiter, self.promises.short(shortfall, call, target, shortfall.wait_s, now))
            else:
                self.room.lines.lacks(waiter, shortfall, now, opened)

    def _next(self, opened: list[Group], now: float) -> Waiter | None:
        first, self.guarded = next_of(opened, now)
        return self.guarded or first

    def _dispatch(self, waiter: Waiter, now: float, *, booked: bool) -> None:
        flow = waiter.target.flow
        flow.guard = 0.0 if waiter is self.guarded else min(1.0, flow.guard + GUARD_SHARE)
        grant = self._grant(
            waiter.call,
            waiter.target,
            waiter.claims,
            now,
            waited_s=now - waiter.since,
            in_turn=waiter.kind >= FIRST,
            booked=booked,
        )
        self._decide(waiter, grant)

    def _look(self, target: Target, now: float, opened: list[str]) -> None:
        """See what has become of an upstream, and serve those who wait for a key that was `opened`."""
        if key := self.watch.look(target, now):
            opened = [*opened, key]
        if self.watch.moved:
            self.watch.moved = False
            self._refuse_all(target, now)
        if opened and self.room.size:
            self._serve(self.room.lines.opened(opened, now), now)

    def _refuse_waiting(self, reason: Reason, waiter: Waiter, now: float) -> Refusal:
        shortfall = self.checks.short_of(waiter, now)
        return self.promises.of_queue(reason, shortfall, waiter, now)

    def _grant(
        self,
        call: Call,
        target: Target,
        claims: Claims,
        now: float,
        *,
        in_turn: bool,
        booked: bool,
        waited_s: float = 0.0,
    ) -> Grant:
        turn = target.enter(call, now, in_turn=in_turn)
        if booked:
            self._emit(Returned(call, target.name, admitted=True))
        elif call.ticket is not None:
            call.ticket.give_back()
            self.room.lines.try_again(claims.keys())  # what was kept for it is not, from now on
        self._emit(Admitted(call, target.name, waited_s))
        if claims.dry is not None or turn == UNCOUNTED:
            rehearse(self.store, claims, call, target.name, turn, now, self._emit, self.runs.budgets)
        if call.has_run:
            self.runs.granted(call, now)
        grant = Grant(call, target, claims, turn, now, waited_s)
        self.watch.begun(grant)
        return grant

    def _turn_away(self, refusal: Refusal, call: Call, target: Target, *, booked: bool) -> Refusal:
        if booked:
            self._emit(Returned(call, target.name, admitted=False))
        return refusal

    def _decide(self, waiter: Waiter, verdict: Grant | Refusal) -> None:
        self.room.leave(waiter)
        if waiter.kind == BOOKED and isinstance(verdict, Refusal):
            self._turn_away(verdict, waiter.call, waiter.target, booked=True)
        waiter.verdict = verdict
        self._decided.append(waiter)

    def _refuse_all(self, target: Target | None, now: float) -> None:  # None: whatever they wait for
        for waiter in [each for each in self.room.waiters() if target is None or each.target is target]:
            call, of = waiter.call, waiter.target
            refusal = self.promises.draining() if self.draining else self.checks.recheck(call, of, now)
            if refusal is not None:
                self._decide(waiter, refusal)
