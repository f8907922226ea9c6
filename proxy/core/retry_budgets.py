"""Who pays for a retry: its upstream's budget, its caller's and its run's, each as `retry_budget.py` has it.

One loud caller cannot spend the retries of all, nor one run those of its caller. With several replicas each
lets its own first attempts pay, so that the share holds for all together; the floor is divided among them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from proxy.core.call import Call
from proxy.core.policy import RetryBudgetPolicy
from proxy.core.retry_budget import RetryBudget

SWEEP_FROM: Final = 1024


class RetryBudgets:
    """The budgets of one upstream. `of_all` is its own; the others are made when they are first asked for."""

    __slots__ = ("_among", "_of_scope", "_policy", "_sweep_at", "_upstream", "of_all")

    def __init__(self, policy: RetryBudgetPolicy, upstream: str) -> None:
        self._policy = policy
        self._upstream = upstream
        self._among = 1
        self._of_scope: dict[str, RetryBudget] = {}
        self._sweep_at = SWEEP_FROM
        self.of_all = RetryBudget(policy)

    def adopt(self, policy: RetryBudgetPolicy) -> None:
        """Follow a new policy; what was counted stays."""
        self._policy = policy
        self._apply()

    def divide(self, replicas: int) -> None:
        """The floor is that of so many replicas together."""
        if replicas != self._among:
            self._among = replicas
            self._apply()

    def wait_s(self, caller: str, run: str, now: float) -> tuple[str, float]:
        """Whose budget makes a retry wait longest, and how many seconds; ("", 0.0) when it is paid for.

        `run` is "" for a call that belongs to none.
        """
        scope, longest_s = "", 0.0
        if wait_s := self.of_all.wait_s(now):
            scope, longest_s = f"upstream:{self._upstream}", wait_s
        for own in (f"caller:{caller}", f"run:{run}") if run else (f"caller:{caller}",):
            wait_s = self._of(own, now).wait_s(now)
            if wait_s > longest_s:
                scope, longest_s = own, wait_s
        return scope, longest_s

    def pay(self, call: Call, now: float) -> None:
        """A call goes: a retry is taken from its budgets, a first attempt adds to them."""
        own = self._of(f"caller:{call.caller}", now)
        of_run = self._of(f"run:{call.run}", now) if call.has_run else None
        if call.is_retry:
            self.of_all.withdraw(now)
            own.withdraw(now)
            if of_run is not None:
                of_run.withdraw(now)
            return
        self.of_all.deposit(now)
        own.deposit(now)
        if of_run is not None:
            of_run.deposit(now)

    def refund(self, call: Call, paid_at: float, now: float) -> None:
        """A retry that was paid for did not happen."""
        self.of_all.refund(paid_at)
        self._of(f"caller:{call.caller}", now).refund(paid_at)
        if call.has_run:
            self._of(f"run:{call.run}", now).refund(paid_at)

    def _apply(self) -> None:
        divided = replace(self._policy, floor_per_s=self._policy.floor_per_s / self._among)
        for budget in (self.of_all, *self._of_scope.values()):
            budget.policy = divided

    def _of(self, scope: str, now: float) -> RetryBudget:
        budget = self._of_scope.get(scope)
        if budget is None:
            if len(self._of_scope) >= self._sweep_at:
                self._of_scope = {s: b for s, b in self._of_scope.items() if not b.idle(now)}
                self._sweep_at = max(SWEEP_FROM, 2 * len(self._of_scope))
            budget = self._of_scope[scope] = RetryBudget(self.of_all.policy)
        return budget
