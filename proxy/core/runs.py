"""Runs that are under way: agent tasks of which a call was admitted lately.

The calls of a task are worth something together only. So under pressure what is under way goes before what
would begin, and a task that cannot be finished is refused at its first call.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from proxy.core.call import Call
from proxy.core.run_budgets import RunBudgets

PAUSE_S: Final = 120.0
"""A run of which nothing was admitted for so long begins anew: its agent thinks, or has given up."""

MOST: Final = 50_000
"""Runs remembered; the one longest without a call is forgotten first, and begins anew."""


class Runs:
    """The runs under way, by when a call of theirs was last admitted; and what each may have in all."""

    __slots__ = ("_seen", "budgets")

    def __init__(self) -> None:
        self.budgets = RunBudgets()
        self._seen: OrderedDict[str, float] = OrderedDict()

    def met(self, call: Call, now: float) -> bool:
        """A call of a run asks: is the run under way? And whose budget does it spend?"""
        if self.budgets.any:
            self.budgets.charge(call, now)
        return self.under_way(call.run, now)

    def granted(self, call: Call, now: float) -> None:
        """A call of a run was granted."""
        if call.charged:
            self.budgets.admitted(call, now)
        self.admitted(call.run, now)

    def admitted(self, run: str, now: float) -> None:
        """A call of `run` was admitted."""
        self._seen[run] = now
        self._seen.move_to_end(run)
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)

    def under_way(self, run: str, now: float) -> bool:
        """Was a call of `run` admitted lately?"""
        at = self._seen.get(run)
        return at is not None and now - at <= PAUSE_S

    def __len__(self) -> int:
        """Runs remembered."""
        return len(self._seen)
