"""One upstream as the gate knows it: its breaker, its retry budgets, its pace."""

from __future__ import annotations

from dataclasses import replace

from proxy.core.adaptive import Learner
from proxy.core.breaker import CLOSED, OPEN, Breaker, Machine
from proxy.core.call import Call
from proxy.core.cap import Cap
from proxy.core.flow import Flow
from proxy.core.grant import Grant, Unanswered
from proxy.core.pause import Pause
from proxy.core.policy import BreakerPolicy, CapPolicy, PausePolicy, UpstreamPolicy
from proxy.core.retry_budgets import RetryBudgets
from proxy.core.verdict import OVERLOADED, SUCCEEDED, UNUSED, Outcome


class Target:
    """What is known of one upstream, over reloads too."""

    __slots__ = (
        "_among",
        "_held",
        "_machine",
        "_made_way",
        "_removed",
        "_unanswered",
        "breaker",
        "budgets",
        "cap",
        "cap_moved",
        "flow",
        "learner",
        "pause",
        "policy",
    )  # fmt: skip

    def __init__(self, policy: UpstreamPolicy, machine: Machine) -> None:
        self._machine = machine
        self.breaker: Breaker | None = None
        self._removed: Breaker | None = None  # by a reload; calls that began under it are still on their way
        self.budgets: RetryBudgets | None = None  # of retries
        self.cap = Cap(policy.cap.key, policy.cap.slots)
        self.flow = Flow(self.cap)
        self.pause: Pause | None = None
        self._held = 0  # calls in flight
        self._among = 1  # so many replicas
        self.learner: Learner | None = None
        self.cap_moved = ""  # why the learnt cap moved just now
        self._unanswered = Unanswered()
        self._made_way = 0  # the latest turn of the breaker for which one was given up
        self.adopt(policy)

    @property
    def name(self) -> str:
        """The upstream's configured name."""
        return self.policy.name

    @property
    def service_s(self) -> float:
        """How long a permit is held by a call that succeeds, on average."""
        return self.flow.service_s

    @property
    def step_s(self) -> float:
        """The mean time between two permits that come free when all are taken."""
        return self.flow.service_s / self.cap.here

    def adopt(self, policy: UpstreamPolicy) -> None:
        """Follow a new policy; what was counted stays."""
        self.policy = policy
        self._adopt_breaker(policy.breaker)
        self._adopt_pause(policy.pause)
        self._adopt_cap(policy.cap)
        self._fit()
        if policy.retry_budget is None:
            self.budgets = None
        elif self.budgets is None:
            self.budgets = RetryBudgets(policy.retry_budget, policy.name)
        else:
            self.budgets.adopt(policy.retry_budget)

    def retry_wait_s(self, call: Call, now: float) -> tuple[str, float]:
        """As `RetryBudgets.wait_s`; ("", 0.0) where there is no budget."""
        return ("", 0.0) if self.budgets is None else self.budgets.wait_s(call, now)

    def share(self, slots: int | None, replicas: int) -> None:
        """It is shared with so many replicas, and so much of its cap is this one's; None: all of it."""
        self.cap.lease(slots)
        if self.budgets is not None:
            self.budgets.divide(replicas)
        if replicas != self._among:
            self._among = replicas
            if not (self._held or self.flow.is_known):
                self.learner = None
            self._adopt_cap(self.policy.cap)
            self._fit()

    @property
    def enforces(self) -> bool:
        """Is there a breaker, and not in dry run?"""
        return self.breaker is not None and self.breaker.enforced

    def enter(self, call: Call, now: float, *, in_turn: bool = True) -> int:
        """A call was granted: pay for it, take its probe slot. Returns the breaker's turn.

        `in_turn` as for `Shares.charge`.
        """
        self.flow.granted(call, now, in_turn=in_turn)
        if self.budgets is not None:
            self.budgets.pay(call, now)
        self._held += 1
        if self.learner is not None:
            self.learner.enter(self._held, self.cap.held_back, now)
        return self.breaker.enter(now, call.rank, call.is_retry) if self.breaker is not None else 0

    def begun(self, grant: Grant) -> None:
        """A call goes under this grant."""
        if self.breaker is not None:
            self._unanswered.begun(grant)

    def answered(self, grant: Grant, silent_s: float, now: float) -> str | None:
        """A good answer to a call has begun, after `silent_s`. Returns why the breaker moved, or None."""
        grant.answered = True
        self._unanswered.over(grant)
        if self.pause is not None:
            self.pause.add(silent_s, now)
        if self.learner is not None:
            self._learnt(self.learner.answered(grant.at, silent_s, grant.call.tokens, now))
        if self.breaker is None:
            return None
        self.breaker.in_flight = self._held
        why = self.breaker.answered(grant.turn, silent_s, now)
        if self.breaker.ramp.on:
            self._fit()
        return why

    def notice(self, now: float) -> str | None:
        """Has it gone silent? Returns why the breaker moved, or None."""
        if self.breaker is None or (why := self.breaker.notice(now)) is None:
            return None
        if self.learner is not None:
            self.learner.outage()
        self._fit()  # a slow start may be over
        return why

    def give_up(self, now: float) -> Grant | None:
        """A call that hangs since an outage, to be cut; None when there is none. Ask until then.

        It began before the end of it, was not answered, and has waited for longer than any other did lately,
        and others are answered again: it is no slow answer, and holds a permit for nothing. While the outage
        lasts, one that has waited so long makes way for each probe: else they might hold every permit.
        """
        breaker = self.breaker
        if breaker is None or not breaker.proven:
            return None
        before, oldest_at = now - breaker.patience_s, self._unanswered.oldest_at
        if breaker.phase == OPEN:
            if self._made_way == breaker.latest or breaker.due_s(now):
                return None
            self._made_way = breaker.latest
        else:
            before = min(before, breaker.recovered_at)
            if breaker.phase == CLOSED and oldest_at >= breaker.recovered_at:
                breaker.proven = False  # nobody is left of it: nothing more to ask
        return self._unanswered.give_up() if oldest_at < before else None

    def settle(
        self,
        call: Call,
        turn: int,
        outcome: Outcome,
        granted_at: float,
        now: float,
        silent_s: float | None = None,
        grant: Grant | None = None,
    ) -> str | None:
        """A call ended: learn from it. Returns why the breaker moved, or None.

        `silent_s` as for `Breaker.settle`; None: as long as the permit was held. `grant` is what it was
        granted, where `begun` was told of it.
        """
        took_s = now - granted_at
        self.flow.ended(call, outcome, took_s, silent_s)
        if outcome is UNUSED and call.is_retry and self.budgets is not None:
            self.budgets.refund(call, granted_at, now)
        silent_s = took_s if silent_s is None else silent_s
        answered, crowded = False, False
        self._held -= 1
        if grant is not None:
            # What an outage leaves unanswered is no crowd.
            crowded = grant.crowded and (
                self.breaker is None
                or (self.breaker.phase == CLOSED and granted_at >= self.breaker.recovered_at)
            )
            self._unanswered.over(grant)
            answered = grant.answered
        if self.pause is not None and not answered and self._is_telling(outcome, silent_s):
            self.pause.add(silent_s, now)
        if self.learner is not None:
            if outcome is SUCCEEDED and not answered:
                self._learnt(self.learner.answered(granted_at, silent_s, call.tokens, now))
            told = answered or outcome is SUCCEEDED
            self._learnt(self.learner.settle(granted_at, outcome, now, answered=told, crowded=crowded))
        if self.breaker is None:
            return None
        self.breaker.in_flight = self._held
        fits = self.breaker.ramp.on
        why = self.breaker.settle(turn, outcome, silent_s, now, began_at=granted_at, answered=answered)
        if why is not None and self.breaker.phase == OPEN and self.learner is not None:
            self.learner.outage()
            fits = True
        if fits or self.breaker.ramp.on:
            self._fit()
        return why

    def _is_telling(self, outcome: Outcome, silent_s: float) -> bool:
        """Does it say how late answers begin? Who left, or failed, says so only by being late already."""
        assert self.pause is not None, "asked only where there is one"  # noqa: S101
        if outcome is OVERLOADED or outcome is UNUSED:
            return False
        return outcome is SUCCEEDED or silent_s > self.pause.policy.above_s

    def _fit(self) -> None:
        """The cap is what is stated or learnt, and no more than an upstream that was down is given yet."""
        slots = self.policy.cap.slots if self.learner is None else self.learner.slots
        if self.breaker is not None and self.breaker.ramp.on:
            if self.breaker.ramp.slots >= slots:
                self.breaker.ramp.end()
            elif self.breaker.enforced:
                slots = min(slots, self.breaker.ramp.ceiling)
        self.cap.slots = slots

    def _learnt(self, why: str) -> None:
        if why:
            self.cap_moved = why
            self._fit()

    def _adopt_cap(self, policy: CapPolicy) -> None:
        # What is learnt is each replica's own: it answers to what this one sends. Each begins with its part.
        self.cap.shared = policy.slots if policy.adaptive is None and policy.enforce else 0
        if policy.adaptive is None:
            self.learner = None
            return
        start = max(policy.adaptive.least, policy.adaptive.start // self._among)
        part = replace(policy.adaptive, start=start)
        if self.learner is None:
            self.learner = Learner(part)
        else:
            self.learner.adopt(part)

    def _adopt_pause(self, policy: PausePolicy | None) -> None:
        if policy is None:
            self.pause = None
        elif self.pause is None:
            self.pause = Pause(policy, self.name)
        else:
            self.pause.adopt(policy)

    def _adopt_breaker(self, policy: BreakerPolicy | None) -> None:
        if policy is None:
            if self.breaker is not None:
                self.breaker.reset()
                self._removed, self.breaker = self.breaker, None
        elif self.breaker is not None:
            self.breaker.adopt(policy)
        elif self._removed is not None:
            self.breaker, self._removed = self._removed, None
            self.breaker.adopt(policy)
        else:
            self.breaker = Breaker(policy, self._machine)
