"""One upstream as the gate knows it: its breaker, its retry budgets, its pace."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from proxy.core.adaptive import Learner
from proxy.core.breaker import CLOSED, OPEN, Machine
from proxy.core.call import Call
from proxy.core.cap import Cap
from proxy.core.flow import Flow
from proxy.core.grant import Grant
from proxy.core.guarded import Guarded
from proxy.core.pause import Pause
from proxy.core.policy import CapPolicy, PausePolicy, UpstreamPolicy
from proxy.core.retry_budgets import RetryBudgets
from proxy.core.told import Pool, Told
from proxy.core.verdict import FAILED, IGNORED, OVERLOADED, SUCCEEDED, UNUSED, Outcome
from proxy.core.word import Word

BESIDE: Final = -2
"""The turn of a call whose tool has a breaker of its own: the upstream's learns only of its answers."""


class Target(Guarded):
    """What is known of one upstream, over reloads too."""

    __slots__ = ("_among", "budgets", "cap_moved", "flow", "learner", "pause", "policy", "told")

    def __init__(self, policy: UpstreamPolicy, machine: Machine) -> None:
        super().__init__(Cap(policy.cap.key, policy.cap.slots), machine)
        self.budgets: RetryBudgets | None = None  # of retries
        self.flow = Flow(self.cap)
        self.pause: Pause | None = None
        self._among = 1  # so many replicas
        self.learner: Learner | None = None
        self.cap_moved = ""  # why the learnt cap moved just now
        self.told: Told | None = None  # nothing, as by most
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
        self.adopt_breaker(policy.breaker)
        self._adopt_pause(policy.pause)
        self._adopt_cap(policy.cap)
        self._fit()
        if not policy.paced:
            self.told = None
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
        if self.told is not None:
            self.told.divide(replicas)
        if replicas != self._among:
            self._among = replicas
            if not (self._held or self.flow.is_known):
                self.learner = None
            self._adopt_cap(self.policy.cap)
            self._fit()

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
        if self.breaker is None:
            return 0
        if call.fails_apart and self._is_well:
            return BESIDE
        return self.breaker.enter(now, call.rank, call.is_retry)

    @property
    def _is_well(self) -> bool:
        """Is its breaker closed, and no slow start to be ended by answers?"""
        return self.breaker is not None and self.breaker.phase == CLOSED and not self.breaker.ramp.on

    def begun(self, grant: Grant) -> None:
        """A call goes under this grant."""
        super().begun(grant)
        if grant.call.apart is not None:
            grant.call.apart.begun(grant)
        if self.told is not None:
            self.told.begun(grant)

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

    def hear(self, grant: Grant, word: Word, now: float) -> Pool | None:
        """The upstream's own word, with the answer to a call. None where none is heeded."""
        if not self.policy.paced:
            return None
        if not (word.said or word.refused):
            return None if self.told is None else self.told.hear_nothing(grant.call)
        if self.told is None:
            if not (word.said or word.holds):
                return None
            self.told = Told(self.name)
            self.told.divide(self._among)
        return self.told.hear(grant, word, self._held, now)

    def notice(self, now: float) -> str | None:
        """Has it gone silent? Returns why the breaker moved, or None."""
        if self.breaker is None or (why := self.breaker.notice(now)) is None:
            return None
        if self.learner is not None:
            self.learner.outage()
        self._fit()  # a slow start may be over
        return why

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
        apart = call.fails_apart
        self._held -= 1
        if grant is not None:
            # What an outage leaves unanswered is no crowd; nor is what one tool leaves.
            crowded = grant.crowded and not apart and self._is_up_since(granted_at)
            answered = grant.answered
            self._over(grant, outcome, now)
        if not answered:
            self._pause_by(outcome, silent_s, now)
        learner = self.learner
        if learner is not None:
            was_good = answered or outcome is SUCCEEDED
            if was_good and not answered:
                self._learnt(learner.answered(granted_at, silent_s, call.tokens, now))
            self._learnt(learner.settle(granted_at, outcome, now, answered=was_good, crowded=crowded))
        if self.breaker is None:
            return None
        self.breaker.in_flight = self._held
        fits = self.breaker.ramp.on
        if apart and outcome is FAILED:
            turn, outcome, silent_s = self._as_told(turn, silent_s, grant)
        why = self.breaker.settle(turn, outcome, silent_s, now, began_at=granted_at, answered=answered)
        if why is not None and self.breaker.phase == OPEN and learner is not None:
            learner.outage()
            fits = True
        if fits or self.breaker.ramp.on:
            self._fit()
        return why

    def _over(self, grant: Grant, outcome: Outcome, now: float) -> None:
        self._unanswered.over(grant)
        if self.told is not None and grant.marks:
            self.told.ended(grant, outcome, now)

    def _is_up_since(self, granted_at: float) -> bool:
        """Was it never down, as far as is known, since a call was granted?"""
        breaker = self.breaker
        return breaker is None or (breaker.phase == CLOSED and granted_at >= breaker.recovered_at)

    def _as_told(self, turn: int, silent_s: float, grant: Grant | None) -> tuple[int, Outcome, float]:
        """How the breaker hears that a call failed whose tool has one: as if its caller had left at once.

        But what never got as far as the tool counts as a call without one.
        """
        if grant is None or not grant.unsent or self.breaker is None:
            return turn, IGNORED, 0.0
        if turn == BESIDE and self._is_well:
            turn = self.breaker.latest
        return turn, FAILED, silent_s

    def _pause_by(self, outcome: Outcome, silent_s: float, now: float) -> None:
        """How late answers begin. Who left, or failed, says so only by being late already."""
        pause = self.pause
        if pause is None or outcome is OVERLOADED or outcome is UNUSED:
            return
        if outcome is SUCCEEDED or silent_s > pause.policy.above_s:
            pause.add(silent_s, now)

    def _fit(self) -> None:
        self.fit(self.policy.cap.slots if self.learner is None else self.learner.slots)

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
