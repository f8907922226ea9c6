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

    __slots__ = ("_among", "_callers", "_policy", "_runs", "_upstream", "of_all")

    def __init__(self, policy: RetryBudgetPolicy, upstream: str) -> None:
        self._policy = policy
        self._upstream = upstream
        self._among = 1
        self._callers = _Budgets()
        self._runs = _Budgets()
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

    def wait_s(self, call: Call, now: float) -> tuple[str, float]:
        """Whose budget makes a retry wait longest, and how many seconds; ("", 0.0) when it is paid for."""
        scope, longest_s = "", 0.0
        if wait_s := self.of_all.wait_s(now):
            scope, longest_s = f"upstream:{self._upstream}", wait_s
        if (wait_s := self._of_caller(call, now).wait_s(now)) > longest_s:
            scope, longest_s = f"caller:{call.caller}", wait_s
        of_run = self._of_run(call, now)
        if of_run is not None and (wait_s := of_run.wait_s(now)) > longest_s:
            scope, longest_s = f"run:{call.run}", wait_s
        return scope, longest_s

    def pay(self, call: Call, now: float) -> None:
        """A call goes: a retry is taken from its budgets, a first attempt adds to them."""
        for budget in self._payers(call, now):
            if call.is_retry:
                budget.withdraw(now)
            else:
                budget.deposit(now)

    def refund(self, call: Call, paid_at: float, now: float) -> None:
        """A retry that was paid for did not happen."""
        for budget in self._payers(call, now):
            budget.refund(paid_at)

    def _payers(self, call: Call, now: float) -> list[RetryBudget]:
        payers = [self.of_all, self._of_caller(call, now)]
        if (of_run := self._of_run(call, now)) is not None:
            payers.append(of_run)
        return payers

    def _of_caller(self, call: Call, now: float) -> RetryBudget:
        return self._callers.of(call.caller, self.of_all.policy, now)

    def _of_run(self, call: Call, now: float) -> RetryBudget | None:
        return self._runs.of(call.run, self.of_all.policy, now) if call.has_run else None

    def _apply(self) -> None:
        divided = replace(self._policy, floor_per_s=self._policy.floor_per_s / self._among)
        for budget in (self.of_all, *self._callers.by_name.values(), *self._runs.by_name.values()):
            budget.policy = divided


class _Budgets:
    """One for each name. Those in which nothing happened for long are forgotten."""

    __slots__ = ("_sweep_at", "by_name")

    def __init__(self) -> None:
        self.by_name: dict[str, RetryBudget] = {}
        self._sweep_at = SWEEP_FROM

    def of(self, name: str, policy: RetryBudgetPolicy, now: float) -> RetryBudget:
        budget = self.by_name.get(name)
        if budget is None:
            if len(self.by_name) >= self._sweep_at:
                self.by_name = {name: each for name, each in self.by_name.items() if not each.idle(now)}
                self._sweep_at = max(SWEEP_FROM, 2 * len(self.by_name))
            budget = self.by_name[name] = RetryBudget(policy)
        return budget
