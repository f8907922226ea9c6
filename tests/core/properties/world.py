"""The real gate over the real store, on a manual clock, with an oracle that looks at every step."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from proxy.core.book import Ticket
from proxy.core.call import Call
from proxy.core.claims import Claims, Shortfall
from proxy.core.events import Admitted, BreakerMoved, Event, Left, Returned, Settled
from proxy.core.gate import Gate
from proxy.core.grant import Grant
from proxy.core.orders import BOOKED, order_of
from proxy.core.policy import Policy, Unit
from proxy.core.repeats import EARLY_S
from proxy.core.survey import survey
from proxy.core.verdict import LONGEST_RETRY_AFTER_S, Outcome, Reason, Refusal
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore
from tests.core.properties.ledger import RESERVED, Ledger, estimated, used_of
from tests.core.properties.policies import CALLERS
from tests.kit.clock import ManualClock


def windows(store: MemoryStore) -> dict[str, tuple[int, float]]:
    """What every quota has counted, and until when that holds."""
    found = store._quotas._counts._windows
    return {key: (window.count, window.ends_at) for key, window in found.items()}


class WatchedStore(MemoryStore):
    """The memory store; before each grant it lets the oracle compare who else could have had it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def reserve(self, claims: Claims, now: float) -> Shortfall | None:
        if self.peek(claims, now) is None:
            self._world.check_next(claims)
        return super().reserve(claims, now)


class World:
    """One gate and everything that the oracle remembers of it."""

    def __init__(self, policy: Policy, start: float = 1000.0) -> None:
        self.clock = ManualClock(start)
        self.ledger = Ledger()
        self.store = WatchedStore(self)
        self.offered: Call | None = None
        self.is_return = False  # is what is offered a return in time?
        self.invited: list[tuple[Call, str, Ticket]] = []  # who was told when to come back, and has not come
        self.waiters: list[Waiter] = []
        self.ended: dict[int, str] = {}
        self.upstream_of: dict[int, str] = {}
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.told: dict[tuple[str, float], list[float]] = defaultdict(list)
        self.firsts: dict[str, list[float]] = defaultdict(list)
        self.retries: dict[str, list[Grant]] = defaultdict(list)
        self.depth_allows: dict[str, int] = {}
        self.probes_allow: dict[str, int] = {}
        self.ramp_allows: dict[str, int] = {}
        self.gate = Gate(policy, self.store, BreakerMachine, self.events.append)

    @property
    def now(self) -> float:
        return self.clock()

    # ── what happens ────────────────────────────────────────────────────────────────────────────────

    def offer(
        self, call: Call, upstream: str, *, may_wait: bool = True, timer_is_late: bool = False
    ) -> Grant | Refusal | Waiter:
        if not timer_is_late:
            self.gate.advance(self.now)
        self._take()
        self.gate._look(self.gate.targets[upstream], self.now, [])  # what is noticed now is taught by nobody
        before = self.books()
        call.estimate = estimated(call.tokens) if call.tokens else None
        self.calls.append(call)
        self.upstream_of[id(call)] = upstream
        self.offered, self.is_return = call, self._returns_in_time(call)
        if self.is_return:
            assert not timer_is_late, "what is kept for it can be told from what is free only at rest"
            self._check_nobody_waits_in_vain()
        verdict = self.gate.offer(call, upstream, self.now, may_wait=may_wait)
        self.offered = None
        if self.is_return:
            returned = [event for event in self.events if isinstance(event, Returned) and event.call is call]
            assert isinstance(verdict, Waiter) or len(returned) == 1, "what became of a return is told once"
            assert not isinstance(verdict, Refusal) or verdict.reason is not Reason.QUEUE_FULL
        self._take()  # who was ready before it went before it: their first attempts pay for its retry
        if isinstance(verdict, Waiter):
            self.waiters.append(verdict)
        else:
            self._end(call, verdict)
        if not isinstance(verdict, Grant) and not timer_is_late:
            assert self.books() == before, "who was not admitted has spent nothing, and taught nothing"
        self._go_on()
        self.check()
        return verdict

    def settle(self, grant: Grant, outcome: Outcome, used_tokens: float | None = None) -> None:
        target, took_s = grant.target, self.now - grant.at
        phase, service_s = target.breaker and target.breaker.phase, target.service_s
        self.gate.settle(grant, outcome, self.now, used=used_of(used_tokens))
        assert outcome is Outcome.SUCCEEDED or target.service_s == service_s
        if target.breaker is not None and target.breaker.phase == "open" != phase:
            slow = target.policy.breaker is not None and took_s >= target.policy.breaker.slow_call_s
            why = next(event.why for event in reversed(self.events) if isinstance(event, BreakerMoved))
            by_silence = why == "no answer to anybody" and outcome in (Outcome.IGNORED, Outcome.UNUSED)
            by_slowness = slow and outcome in (Outcome.SUCCEEDED, Outcome.IGNORED)
            assert outcome is Outcome.FAILED or by_slowness or by_silence
        unused = outcome is Outcome.UNUSED
        self.ledger.settled(grant, self.now, unused=unused, used_tokens=used_tokens)
        if outcome is Outcome.UNUSED and grant.call.is_retry:
            for payer in (grant.target.name, f"{grant.target.name}/{grant.call.caller}"):
                self.retries[payer] = [other for other in self.retries[payer] if other is not grant]
        self._take()
        self._go_on()
        self.check()

    def leave(self, waiter: Waiter) -> None:
        before = self.books()
        self.gate.leave(waiter, self.now)
        self.gate.leave(waiter, self.now)  # it may be told twice that it has gone
        self.waiters.remove(waiter)
        self._once(waiter.call, "left")
        assert self.books() == before, "who leaves costs nothing"
        self._take()
        self._go_on()
        self.check()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.gate.advance(self.now)
        self._take()
        self.check()
        for waiter in self.waiters:
            assert self.now < waiter.expires_at <= waiter.since + waiter.route.queue.max_age_s
            assert self.now < waiter.call.deadline

    def adopt(self, policy: Policy) -> None:
        # The oracle counts anew what has other numbers now, before the gate grants anything under them.
        self.ledger.adopted(policy)
        self.depth_allows = {name: self.gate.room.lanes.depth(name) for name in policy.routes}
        for name, target in self.gate.targets.items():
            if target.budgets is None:  # its retries were nobody's business until now
                for payer in (name, *[f"{name}/{caller}" for caller in CALLERS]):
                    self.retries.pop(payer, None)
        self.gate.adopt(policy, self.now)
        self._take()
        self.check()

    def drain(self) -> None:
        self.gate.drain(self.now)
        self._take()
        assert not self.waiters
        self.check()

    def come_again(self, which: int, late_s: float) -> None:
        """One of those who were told when to come back comes so much later (or earlier), with its ticket."""
        call, upstream, ticket = self.invited.pop(which % len(self.invited))
        self.advance(max(0.0, ticket.due_at + late_s - self.now))
        again = Call(
            route=call.route, caller=call.caller, run=call.run, tool=call.tool, rank=call.rank,
            arrived_at=self.now, deadline=call.deadline, until=call.until, tokens=call.tokens,
            size=call.size, ticket=ticket,
        )  # fmt: skip
        verdict = self.offer(again, upstream)
        if isinstance(verdict, Refusal) and verdict.ticket is ticket:
            self.invited.append((again, upstream, ticket))

    def _returns_in_time(self, call: Call) -> bool:
        ticket = call.ticket
        if ticket is None or not ticket.is_open or self.gate.draining:
            return False
        return ticket.due_at - EARLY_S <= self.now <= ticket.until

    def _go_on(self) -> None:
        """The timer fires for whoever stood behind one that asked for more tokens and has gone."""
        if self.gate.next_at() == float("-inf"):
            self.gate.advance(self.now)
            self._take()

    def _take(self) -> None:
        for waiter in self.gate.take_decided():
            assert waiter.verdict is not None
            self.waiters.remove(waiter)  # and raises if it was decided before
            if isinstance(waiter.verdict, Grant):
                assert self.now <= waiter.expires_at
                assert self.now < waiter.call.deadline
            self._end(waiter.call, waiter.verdict)
        assert not self.gate.has_decided

    def _end(self, call: Call, verdict: Grant | Refusal) -> None:
        if isinstance(verdict, Grant):
            self._once(call, "admitted")
            self.ledger.granted(verdict)
            self._check_retries(verdict)
            return
        self._once(call, "refused")
        told = verdict.retry_after_s
        if verdict.ticket is not None:
            assert verdict.come_back
            assert verdict.ticket.is_open
            assert verdict.ticket.due_at <= call.until + 0.032  # the next instant that nobody else was told
            if verdict.ticket is call.ticket:  # too early: the same once more
                assert abs(self.now + (told or 0.0) - verdict.ticket.due_at) < 1e-6
                return
            self.invited.append((call, self.upstream_of[id(call)], verdict.ticket))
        if verdict.reason is Reason.TOO_DEAR:
            assert told is None
            return
        assert told is not None
        assert 0.0 <= told <= LONGEST_RETRY_AFTER_S
        others = self.told[verdict.scope, self.now]
        assert all(abs(told - other) > 1e-9 for other in others), f"{told} was told before: {others}"
        others.append(told)

    def _once(self, call: Call, end: str) -> None:
        assert id(call) not in self.ended, f"{call} was {self.ended[id(call)]}, and now {end}"
        self.ended[id(call)] = end

    # ── what must hold ──────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """Every invariant that can be seen from outside at rest."""
        gate, now = self.gate, self.now
        slots = {
            f"upstream:{name}": max(target.cap.slots, target.policy.cap.slots)
            for name, target in gate.targets.items()
        }
        for route in gate._routes.values():
            if route.cap is not None:
                slots[route.cap.key] = route.cap.slots
        for key in self.store.cap_keys("caller:"):
            callers = gate.policy.callers
            caller = callers.get(key.removeprefix("caller:")) or callers.get("*")
            slots[key] = 0 if caller is None else caller.slots
        for key in self.store.cap_keys("tool:"):
            name, _, tool = key.removeprefix("tool:").partition("/")
            tools = gate._routes[name].tools
            policy = tools.get(tool) or tools.get("*")
            slots[key] = policy.slots if policy is not None and policy.slots is not None else 0
        self.ledger.check_held({key: self.store.in_flight(key) for key in self.store.cap_keys("")}, slots)
        for key, policy in self.ledger.bucket_rows():
            self.ledger.check_level(key, policy, self.store.level(key, policy, now), now)
        self._check_room()
        self._check_probes()
        self._check_nobody_waits_in_vain()

    def check_next(self, claims: Claims) -> None:
        """`claims` are about to be granted: nobody who comes before them could have had it instead."""
        whose = next((waiter for waiter in self.waiters if waiter.claims is claims), None)
        call = self.offered if whose is None else whose.call
        assert call is not None
        if whose is not None and whose is self.gate.guarded:
            return  # one of fifty goes before its turn
        if whose is None and self.is_return:
            return  # it takes what is kept for it; without that nobody could go a moment ago
        if whose is None:
            target = self.gate.targets[self.upstream_of[id(call)]]
            order = order_of(call.rank, self.gate.checks.kind(call, target))
        else:
            order = whose.order
        for waiter in self.waiters:
            if waiter.verdict is not None:
                continue
            same = whose is not None and waiter.row is whose.row and waiter.row is not None
            first = waiter.order < order or (same and waiter is not whose and waiter.precedes(whose))
            if first and not (same and waiter.row.is_stale):
                assert not self.could_go(waiter), f"{call} goes before {waiter.call}"

    def is_too_dear(self, claims: Claims) -> bool:
        """Does it ask for more than a bucket ever holds?"""
        counting = [policy for _, policy in claims.buckets if policy.unit is not Unit.REQUESTS]
        return any(claims.tokens * RESERVED[policy.unit] > policy.burst for policy in counting)

    def is_behind(self, waiter: Waiter) -> bool:
        """Does somebody who is served before this waiter wait for tokens of the same bucket?"""
        wanted = set(waiter.claims.token_keys())
        return any(
            other.verdict is None
            and other is not waiter
            and other.order <= waiter.order
            and wanted & set(other.claims.token_keys())
            for other in self.waiters
        )

    def could_go(self, waiter: Waiter) -> bool:
        """By brute force: would this waiter pass every check at this moment?"""
        if self.is_behind(waiter):
            return False
        call, target = waiter.call, waiter.target
        if waiter.expires_at < self.now or call.deadline <= self.now:
            return False
        if target.breaker is not None and target.breaker.wait_s(self.now, call.rank, call.is_retry):
            return False
        if call.is_retry and target.retry_wait_s(call, self.now)[1]:
            return False
        return (
            self.kept_from(waiter) is None
            and self.store.peek(waiter.claims, self.now) is None
            and not self.is_behind_a_promise(waiter)
        )

    def kept_from(self, waiter: Waiter) -> Shortfall | None:
        """What is there, but not for this one."""
        return self.gate.checks.kept(
            waiter.call, waiter.target, waiter.claims, waiter.seq, self.now, booked=waiter.kind == BOOKED
        )

    def is_behind_a_promise(self, waiter: Waiter) -> bool:
        """Does somebody more important wait for the same bucket, of which the rest is promised to others?

        Who came before the promise may have of it, but not before those who are more important. Who returned
        as it was promised may have its own.
        """
        if waiter.kind == BOOKED:
            return False
        keys = {key for key, _ in waiter.claims.buckets}
        for other in self.waiters:
            if other.verdict is None and other is not waiter and other.order <= waiter.order:
                kept = self.kept_from(other)
                if kept is not None and kept.key in keys:
                    return True
        return False

    def books(self) -> Any:
        """Everything that a refusal must leave as it was, without the queue."""
        state = survey(self.gate, self.now, CALLERS)
        targets = self.gate.targets.values()
        return (
            state.caps,
            state.buckets,
            state.breakers,
            state.retry_budgets,
            [(key, self.store.in_flight(key)) for key in self.store.cap_keys("")],
            [self.store.level(key, policy, self.now) for key, policy in self.ledger.bucket_rows()],
            windows(self.store),
            [target.service_s for target in targets],
            [
                target.retry_wait_s(Call(route="", caller=caller, arrived_at=self.now), self.now)
                for target in targets
                for caller in CALLERS
            ],
            [(len(b._out), b._good, b._count, b.ramp.slots) for t in targets if (b := t.breaker) is not None],
        )

    def _check_nobody_waits_in_vain(self) -> None:
        for waiter in self.waiters:
            assert not self.could_go(waiter), f"{waiter.call} waits although it could go"
            assert not self.is_too_dear(waiter.claims), f"{waiter.call} waits in vain"

    def _check_room(self) -> None:
        room, policy = self.gate.room, self.gate.policy
        assert room.size == len(self.waiters)
        assert {id(waiter) for waiter in room.waiters()} == {id(waiter) for waiter in self.waiters}
        for name in ("chat", "code", "work"):
            here = [waiter for waiter in self.waiters if waiter.route.name == name]
            assert room.lanes.depth(name) == len(here)
            assert room.lanes.bytes_of(name) == sum(waiter.call.size for waiter in here)
            assert room.lanes.oldest(name) == min((waiter.since for waiter in here), default=None)
            size = policy.routes[name].queue.size if name in policy.routes else 0
            here = [waiter for waiter in here if waiter.kind != BOOKED]  # for whom places were kept
            sizes = sorted(waiter.call.size for waiter in here)
            if (
                any(sizes[:-1]) and name not in self.depth_allows and name in policy.routes
            ):  # else one has it all
                assert sum(sizes) <= policy.routes[name].queue.max_bytes
            allowed = max(size, self.depth_allows.get(name, len(here)))
            assert len(here) <= allowed, f"{len(here)} wait for {name}, which allows {allowed}"
            if name in self.depth_allows:
                self.depth_allows[name] = min(len(here), self.depth_allows[name])
        if not self.waiters:
            assert room.lines.everyone() == []
            assert self.gate.next_at() == float("inf")

    def _check_probes(self) -> None:
        for name, target in self.gate.targets.items():
            breaker = target.breaker
            policy = target.policy.breaker
            if breaker is None or policy is None:
                continue
            mine = [grant for grant in self.ledger.held if grant.target is target]
            assert target._held == len(mine)
            assert set(breaker._out) <= {grant.turn for grant in mine}
            assert len(breaker._out) <= max(policy.probes, self.probes_allow.get(name, 0))
            self.probes_allow[name] = len(breaker._out)
            if not breaker.ramp.on:
                self.ramp_allows.pop(name, None)
                assert target.cap.slots == target.policy.cap.slots
                continue
            since = sum(grant.turn >= breaker.ramp.turn for grant in mine)
            assert since == breaker.ramp.since
            assert since <= max(breaker.ramp.slots, self.ramp_allows.get(name, 0))
            self.ramp_allows[name] = since

    def _check_retries(self, grant: Grant) -> None:
        """In each minute that ends with a retry: at most a share of the firsts, plus the floor."""
        budget = grant.target.policy.retry_budget
        if budget is None:
            return
        for payer in (grant.target.name, f"{grant.target.name}/{grant.call.caller}"):
            if not grant.call.is_retry:
                self.firsts[payer].append(grant.at)
                continue
            self.retries[payer].append(grant)
            since = grant.at - 60 + 1e-5
            retries = sum(other.at > since for other in self.retries[payer])
            firsts = sum(at > since for at in self.firsts[payer])
            assert retries <= budget.ratio * firsts + budget.floor_per_s * 60 + 1e-6

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────

    def finish(self) -> None:
        """Everybody goes; then nothing is held, and whoever comes alone is told the truth."""
        for waiter in list(self.waiters):
            if waiter in self.waiters:
                self.leave(waiter)
        for grant in list(self.ledger.held):
            self.settle(grant, Outcome.IGNORED)
        assert self.store.cap_keys("") == []
        assert set(self.ended) == {id(call) for call in self.calls}
        admitted = sum(end == "admitted" for end in self.ended.values())
        assert admitted == sum(isinstance(event, Admitted) for event in self.events)
        assert admitted == sum(isinstance(event, Settled) for event in self.events)
        left = sum(end == "left" for end in self.ended.values())
        assert left == sum(isinstance(event, Left) for event in self.events)

    def come_back(self, call: dict[str, Any], upstream: str) -> int:
        """Offer one call, alone, as often as it is refused, each time after the wait told; how often."""
        was_told: float = LONGEST_RETRY_AFTER_S
        ticket: Ticket | None = None
        for refusals in range(100):
            verdict = self.offer(Call(arrived_at=self.now, ticket=ticket, **call), upstream, may_wait=False)
            if isinstance(verdict, Grant):
                self.settle(verdict, Outcome.IGNORED)
                return refusals
            assert isinstance(verdict, Refusal)
            if verdict.reason is Reason.TOO_DEAR:
                return refusals
            # Told again: only because the wait told before was longer than what can be told.
            assert was_told >= LONGEST_RETRY_AFTER_S - 10.0, f"told {was_told}, then {verdict}"
            assert verdict.retry_after_s is not None
            was_told, ticket = verdict.retry_after_s, verdict.ticket
            self.advance(was_told)
        raise AssertionError(f"never admitted, at last: {verdict}")
