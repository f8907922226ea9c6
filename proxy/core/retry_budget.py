"""The retry budget: in any minute, retries may be a share of the first attempts, plus a floor.

A budget, not a maximum of attempts: layers of retries multiply, a share of the traffic does not
(Google SRE ch. 21; finagle's RetryBudget). Counts lie in slices of one second. The window of withdrawals is
one slice longer than that of deposits, so that every window of 60 s, wherever it begins, keeps the promise.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.core.policy import RetryBudgetPolicy
from proxy.core.rounding import NEVER, wait_until

WINDOW_S: Final = 60

ONE: Final = 1 - 1e-9
"""One retry, less a rounding: 0.1 * 10 must pay for it although floats may say 0.9999999."""


class Second:
    """What happened in one second."""

    __slots__ = ("at", "deposits", "withdrawals")

    def __init__(self, at: int) -> None:
        self.at = at
        self.deposits = self.withdrawals = 0


class RetryBudget:
    """One budget: `deposit` for a first attempt, `withdraw` for a retry, `wait_s` to ask before.

    Memory is bounded by one row for each second of the window in which something happened.
    """

    __slots__ = ("_deposits", "_rows", "_until", "_withdrawals", "policy")

    def __init__(self, policy: RetryBudgetPolicy) -> None:
        self.policy = policy
        self._rows: deque[Second] = deque()  # oldest first
        self._until = float("-inf")  # so long the newest lasts
        self._deposits = 0
        self._withdrawals = 0

    def deposit(self, now: float) -> None:
        """A first attempt was admitted."""
        row = self._rows[-1] if now < self._until else self._row(now)
        row.deposits += 1
        self._deposits += 1

    def withdraw(self, now: float) -> None:
        """A retry was admitted: ask `wait_s` before."""
        row = self._rows[-1] if now < self._until else self._row(now)
        row.withdrawals += 1
        self._withdrawals += 1

    def refund(self, withdrawn_at: float) -> None:
        """A retry that was withdrawn for did not happen. What has left the window is not given back."""
        for row in reversed(self._rows):
            if row.at == int(withdrawn_at) and row.withdrawals:
                row.withdrawals -= 1
                self._withdrawals -= 1
                return

    def balance(self, now: float) -> float:
        """How many retries would be paid for now; never negative."""
        self._forget(now)
        return max(0.0, self._room(self._deposits_at(int(now)), self._withdrawals))

    def wait_s(self, now: float) -> float:
        """Seconds until one retry would be paid for if nothing else happened; 0.0 when now.

        Infinite when the policy never grants one (no floor, and nothing deposited).
        """
        self._forget(now)
        second = int(now)
        if self._room(self._deposits_at(second), self._withdrawals) >= ONE:
            return 0.0
        deposits, withdrawals = self._deposits, self._withdrawals
        rows = list(self._rows)
        for number, row in enumerate(rows):
            following = rows[number + 1] if number + 1 < len(rows) else None
            deposits -= row.deposits
            withdrawals -= row.withdrawals
            # When this row has left, the next slice (if it is a row) is the 61st: its deposits count no more.
            aged = following.deposits if following is not None and following.at == row.at + 1 else 0
            if self._room(deposits - aged, withdrawals) >= ONE:
                return wait_until(row.at + WINDOW_S + 1, now)
        return NEVER

    def idle(self, now: float) -> bool:
        """Nothing happened within the window: the budget may be forgotten."""
        self._forget(now)
        return not self._rows

    def _room(self, deposits: int, withdrawals: int) -> float:
        return self.policy.ratio * deposits + self.policy.floor_per_s * WINDOW_S - withdrawals

    def _deposits_at(self, second: int) -> int:
        """Deposits of the last 60 slices: the 61st, the oldest, counts for withdrawals alone."""
        if self._rows and self._rows[0].at == second - WINDOW_S:
            return self._deposits - self._rows[0].deposits
        return self._deposits

    def _row(self, now: float) -> Second:
        second = int(now)
        rows = self._rows
        self._forget(now)
        if not rows or rows[-1].at < second:
            rows.append(Second(second))
        self._until = rows[-1].at + 1.0
        return rows[-1]

    def _forget(self, now: float) -> None:
        rows, oldest = self._rows, int(now) - WINDOW_S
        while rows and rows[0].at < oldest:
            gone = rows.popleft()
            self._deposits -= gone.deposits
            self._withdrawals -= gone.withdrawals
        if not rows:
            self._until = float("-inf")
