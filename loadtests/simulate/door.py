"""The product at work: its gate as `proxy.admission` and `proxy.pipeline` use it. The one file that knows it.

What those two do in words of asyncio is done here at an instant of virtual time: recognise (is it a repeat?),
offer, wait, relay, settle, refuse. Nothing is repeated by the proxy itself: `retries` are off by default.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from loadtests.simulate.callers import Callers
from loadtests.simulate.calls import Attempt, Logical
from loadtests.simulate.clock import Timeline
from loadtests.simulate.ledger import Ledger, VoidRunError
from loadtests.simulate.no_door import NoDoor
from loadtests.simulate.upstreams import NO_ANSWER, Upstream
from proxy.admission import LEAST_TIMER_S
from proxy.core.book import Ticket
from proxy.core.call import Call
from proxy.core.events import Event
from proxy.core.gate import Gate
from proxy.core.grant import Grant
from proxy.core.hearing import hear
from proxy.core.policy import Policy
from proxy.core.repeats import Repeats
from proxy.core.survey import survey
from proxy.core.verdict import FAILED, IGNORED, OVERLOADED, SUCCEEDED, Kind, Outcome, Reason, Refusal
from proxy.core.waiting import Waiter
from proxy.core.word import Word
from proxy.dialects.refusal import Facts
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore

FIRST_BYTE_S: Final = 120.0
"""The relay's own patience: the default of `timeouts: first_byte`."""

PROMPT_BYTES: Final = 4.2
"""What a token of a prompt takes, its JSON among it."""

STREAMED_BYTES: Final = 150.0
"""What an event with one token takes on the wire."""

CROWDED: Final = (503, 529)
"""What an upstream says that has no room, besides 429."""


def _unheard(_: Event) -> None:
    """Telemetry is not simulated."""


class GateDoor(NoDoor):
    """The gate, over the store, breakers and memory of repeats that it has in production."""

    def __init__(
        self, timeline: Timeline, upstream: Upstream, callers: Callers, ledger: Ledger, policy: Policy
    ) -> None:
        super().__init__(timeline, upstream, callers, ledger)
        self._gate = Gate(policy, MemoryStore(), BreakerMachine, _unheard)
        self._repeats = Repeats()
        (self._route,) = policy.routes
        (self._name,) = policy.upstreams
        self._held = 0
        self._promised: set[Ticket] = set()
        self._wake_at = float("inf")

    @property
    def cap(self) -> int:
        """How many may be in flight now."""
        return self._gate.targets[self._name].cap.slots

    # ── the way in: recognise, offer, and what comes of it ──────────────────────────────────────────

    def enter(self, call: Logical) -> None:
        """One request of a caller, from its first byte to a grant, a place in the queue or a refusal."""
        now = self._timeline.now
        self._ledger.arrivals.append(now)
        asked = Call(
            route=self._route,
            caller=call.key[0],
            run=call.key[1],
            rank=call.rank,
            arrived_at=now,
            deadline=call.deadline,
            until=call.deadline,
            size=int(call.tokens_in * PROMPT_BYTES) or call.key[3],
        )
        if self._repeats:
            mark = call.mark if self._repeats.wants_digest(call.key, now) else None
            trace = self._repeats.match(call.key, mark, now)
        else:
            trace = None
        if trace is not None:
            asked.is_retry = not trace.invites(now)
            asked.ticket = trace.ticket
        else:
            asked.is_retry = call.behaviour.is_sdk and call.arrivals > 1  # x-stainless-retry-count
        verdict = self._gate.offer(asked, self._name, now)
        if isinstance(verdict, Waiter):
            verdict.reply = call
            call.waiter = verdict
        elif isinstance(verdict, Grant):
            self._returned(call, 0.0)
            self._send(call, verdict)
        else:
            self._returned(call, -1.0)
            self._refuse(call, verdict)
        self._tell()

    def leave(self, call: Logical) -> None:
        """The caller disconnects: out of the queue, or the connection to the upstream is closed."""
        now = self._timeline.now
        if call.waiter is not None:
            waiter, call.waiter = call.waiter, None
            self._gate.leave(waiter, now)
            self._arm()
        elif call.attempt is not None:
            attempt, call.attempt = call.attempt, None
            self._upstream.leave(attempt)
            self._settle(attempt, IGNORED)

    def _send(self, call: Logical, grant: Grant) -> None:
        self._held += 1
        if self._held > self.cap:
            raise VoidRunError(f"{self._held} are held under a cap of {self.cap}")
        call.attempt = Attempt(call, grant, self._timeline.now)
        grant.cut = partial(self._cut, call.attempt)
        self._upstream.send(call.attempt)
        if self._upstream.is_down or self._upstream.is_slow_to_speak:
            self._timeline.plan(self._timeline.now + FIRST_BYTE_S, self._give_up, call.attempt)

    def _refuse(self, call: Logical, refusal: Refusal) -> None:
        """Say no as the dialects do, and remember who was told to come back when."""
        now = self._timeline.now
        facts = Facts(refusal)
        reason = refusal.reason
        self._ledger.refusals[reason] = self._ledger.refusals.get(reason, 0) + 1
        is_again = refusal.ticket in self._promised  # the same promise
        if refusal.ticket is not None:
            self._promised.add(refusal.ticket)
        is_upstreams = facts.kind is Kind.UPSTREAM  # then it is remembered as a failure
        if refusal.retry_after_s is not None and not is_upstreams:
            self._repeats.refused(call.key, call.mark, refusal.retry_after_s, now, ticket=refusal.ticket)
        told_s = facts.wait_ms / 1000 if facts.wait_ms else None
        may_return = facts.comes_back and not facts.is_final
        if is_upstreams:
            may_return = may_return and told_s is not None
        elif told_s is not None and may_return and not is_again:
            self._ledger.promises.append((now, now + told_s))
        self._callers.answered(call, facts.status, told_s, may_return=may_return, ours=not is_upstreams)

    def _returned(self, call: Logical, waited_s: float) -> None:
        """Somebody who came back when told has got a verdict; `waited_s` -1: refused again."""
        if call.due_at >= 0.0:
            self._ledger.returns.append((call.told_at, call.told_s, call.due_at, waited_s, call.rank))
            call.due_at = -1.0

    # ── the way out: relayed, settled ───────────────────────────────────────────────────────────────

    def answered(self, attempt: Attempt, status: int, told_s: float | None) -> None:
        """The upstream has ended an attempt: learn from it, and pass its answer on, or one of ours."""
        call, asked, now = attempt.call, attempt.grant.call, self._timeline.now
        call.attempt = None
        if status == 200:
            self._settle(attempt, SUCCEEDED)
            self._callers.answered(call, 200, None, may_return=True, ours=False)
            return
        attempt.grant.crowded = status in CROWDED
        told = self._hear(attempt, status == 429, told_s) if status == 429 else None
        self._settle(attempt, OVERLOADED if status == 429 else FAILED)
        if told is not None and told.retry_after_s is not None:
            told_s = told.retry_after_s
            self._repeats.refused(call.key, call.mark, told_s, now, ticket=told.ticket)
        else:
            self._repeats.failed(call.key, call.mark, now)
        if status != NO_ANSWER:
            self._callers.answered(call, status, told_s, may_return=True, ours=False)
            return
        self._answer_failed(call, asked, Reason.UPSTREAM_FAILED)

    def _give_up(self, attempt: Attempt) -> None:
        """The relay's patience is over, if the upstream has not said a thing."""
        if not (attempt.is_over or attempt.is_left or attempt.first_at >= 0.0):
            self._cut(attempt)

    def _cut(self, attempt: Attempt) -> None:
        """It hangs: the connection to the upstream is closed, and its caller told so."""
        asked = attempt.grant.call
        attempt.call.attempt = None
        self._upstream.leave(attempt)
        attempt.grant.crowded = True
        self._settle(attempt, FAILED)
        self._repeats.failed(attempt.call.key, attempt.call.mark, self._timeline.now)
        self._answer_failed(attempt.call, asked, Reason.UPSTREAM_TIMEOUT)

    def _answer_failed(self, call: Logical, asked: Call, reason: Reason) -> None:
        self._refuse(call, self._gate.refuse_failed(asked, self._name, reason, self._timeline.now))

    def first_byte(self, attempt: Attempt) -> None:
        """A good answer begins: that much is known before its end. One that is whole is settled at once."""
        now = self._timeline.now
        self._callers.first_byte(attempt.call)
        if attempt.word is not None:
            self._hear(attempt, False, None)
        self._gate.answered(attempt.grant, now - attempt.sent_at, now)
        self._tell()

    def _hear(self, attempt: Attempt, refused: bool, told_s: float | None) -> Refusal | None:
        """What the head of an answer says of the upstream's own limits."""
        word = Word(attempt.word or [], refused=refused, wait_s=told_s)
        return hear(self._gate, attempt.grant, word, self._timeline.now)

    def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        now = self._timeline.now
        first_at = attempt.first_at if attempt.first_at >= 0.0 else now
        grant, attempt.grant = attempt.grant, None
        grant.cut = None
        if attempt.first_at >= 0.0:
            grant.answered_bytes = int(attempt.call.tokens_out * STREAMED_BYTES)
        grant.silent_s = first_at - attempt.sent_at
        self._held -= 1
        self._gate.settle(grant, outcome, now)
        self._tell()

    # ── the shell around the gate: verdicts that came later, and the timer ──────────────────────────

    def _tell(self) -> None:
        gate = self._gate
        while gate.has_decided:
            for waiter in gate.take_decided():
                call = waiter.reply
                call.waiter = None
                verdict = waiter.verdict
                if isinstance(verdict, Grant):
                    self._returned(call, verdict.waited_s)
                    self._send(call, verdict)
                elif verdict is not None:
                    self._returned(call, -1.0)
                    self._refuse(call, verdict)
        hung = gate.watch.hung
        while hung:
            cut = hung.pop().cut
            if cut is not None:
                cut()
        self._arm()

    def _arm(self) -> None:
        at = self._gate.next_at()
        if at < self._wake_at:
            self._wake_at = at
            self._timeline.plan(max(at, self._timeline.now + LEAST_TIMER_S), self._wake, at)

    def _wake(self, at: float) -> None:
        if at == self._wake_at:  # else an earlier one was planned since
            self._wake_at = float("inf")
            self._gate.advance(self._timeline.now)
            self._tell()

    def sample(self) -> None:
        """How the queue and the cap are at this instant."""
        now = self._timeline.now
        oldest = [lane.oldest_s for lane in survey(self._gate, now).lanes]
        self._ledger.samples.append((now, self.cap, self._upstream.here, oldest[0], oldest[1], oldest[2]))

    def check(self) -> None:
        """Whatever was granted has been given back, and nobody waits."""
        key = self._gate.policy.upstreams[self._name].cap.key
        left = self._gate.store.in_flight(key)
        if self._held or left or self._gate.room.size:
            raise VoidRunError(
                f"{self._held} held, {left} counted, {self._gate.room.size} waiting at the end"
            )
