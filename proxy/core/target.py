"""One upstream as the gate knows it: its breaker, its retry budgets, its pace."""

from __future__ import annotations

from typing import Final

from proxy.core.breaker import Breaker, Machine
from proxy.core.call import Call
from proxy.core.policy import BreakerPolicy, UpstreamPolicy
from proxy.core.retry_budget import RetryBudget
from proxy.core.verdict import SUCCEEDED, UNUSED, Outcome

UNKNOWN_SERVICE_S: Final = 1.0
"""The service time assumed until a first call has succeeded."""

LEARN: Final = 0.1
"""Weight of the newest service time in the running mean."""

SWEEP_FROM: Final = 1024


class Target:
    """What is known of one upstream, over reloads too."""

    __slots__ = ("_budgets", "_machine", "_removed", "_sweep_at", "breaker", "budget", "policy", "service_s")

    def __init__(self, policy: UpstreamPolicy, machine: Machine) -> None:
        self._machine = machine
        self._budgets: dict[str, RetryBudget] = {}  # by caller
        self._sweep_at = SWEEP_FROM
        self.service_s = (
            UNKNOWN_SERVICE_S  # running mean of how long a permit is held by a call that succeeds
        )
        self.breaker: Breaker | None = None
        self._removed: Breaker | None = None  # by a reload; calls that began under it are still on their way
        self.budget: RetryBudget | None = None
        self.adopt(policy)

    @property
    def name(self) -> str:
        """The upstream's configured name."""
        return self.policy.name

    @property
    def step_s(self) -> float:
        """The mean time between two permits that come free when all are taken."""
        return self.service_s / self.policy.cap.slots

    def adopt(self, policy: UpstreamPolicy) -> None:
        """Follow a new policy; what was counted stays."""
        self.policy = policy
        self._adopt_breaker(policy.breaker)
        if policy.retry_budget is None:
            self.budget = None
            self._budgets.clear()
        elif self.budget is None:
            self.budget = RetryBudget(policy.retry_budget)
        else:
            for budget in (self.budget, *self._budgets.values()):
                budget.policy = policy.retry_budget

    def retry_wait_s(self, caller: str, now: float) -> tuple[str, float]:
        """Whose budget makes a retry wait longest, and how many seconds; ("", 0.0) when it is paid for.

        A retry is paid by the upstream's budget and by its caller's own: one loud caller cannot spend
        the retries of all.
        """
        if self.budget is None:
            return "", 0.0
        wait, own_wait = self.budget.wait_s(now), self._budget_of(caller, now).wait_s(now)
        if wait >= own_wait:
            return (f"upstream:{self.name}", wait) if wait else ("", 0.0)
        return f"caller:{caller}", own_wait

    def enter(self, call: Call, now: float) -> int:
        """A call was granted: pay for it, take its probe slot. Returns the breaker's turn."""
        if self.budget is not None:
            own = self._budget_of(call.caller, now)
            for budget in (self.budget, own):
                if call.is_retry:
                    budget.withdraw(now)
                else:
                    budget.deposit(now)
        return self.breaker.enter(now) if self.breaker is not None else 0

    def settle(
        self,
        call: Call,
        turn: int,
        outcome: Outcome,
        granted_at: float,
        now: float,
        silent_s: float | None = None,
    ) -> str | None:
        """A call ended: learn from it. Returns why the breaker moved, or None.

        `silent_s` as for `Breaker.settle`; None: as long as the permit was held.
        """
        took_s = now - granted_at
        if outcome is SUCCEEDED:
            self.service_s += LEARN * (took_s - self.service_s)
        elif outcome is UNUSED and call.is_retry and self.budget is not None:
            self.budget.refund(granted_at)
            self._budget_of(call.caller, now).refund(granted_at)
        if self.breaker is None:
            return None
        return self.breaker.settle(turn, outcome, took_s if silent_s is None else silent_s, now)

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

    def _budget_of(self, caller: str, now: float) -> RetryBudget:
        budget = self._budgets.get(caller)
        if budget is None:
            assert self.policy.retry_budget is not None, "asked only where the upstream has a budget"  # noqa: S101
            if len(self._budgets) >= self._sweep_at:
                self._budgets = {c: b for c, b in self._budgets.items() if not b.idle(now)}
                self._sweep_at = max(SWEEP_FROM, 2 * len(self._budgets))
            budget = self._budgets[caller] = RetryBudget(self.policy.retry_budget)
        return budget
