"""The pause: while an upstream begins its answers late, the classes that can wait are held.

That more than one answer in twenty is late is to say that their 95th percentile is above the bound: two
counts tell it exactly, where a percentile of a histogram would be a guess within a cell.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.core.cap import UNBOUNDED, Cap
from proxy.core.policy import PausePolicy
from proxy.core.rounding import NEVER, ROUNDING_S

PAUSE: Final = "pause:"
"""Of the key of the cap that holds the calls: none of them goes while it is paused."""

THIRDS: Final = 3
SLICES_A_THIRD: Final = 3
SLICES: Final = THIRDS * SLICES_A_THIRD

FEWEST: Final = 20
"""Answers within `for_s` of which a twentieth is one call. Fewer decide nothing, and keep nobody."""

LATE_SHARE: Final = 0.05

RELEASE_AT: Final = 0.8
"""It is over when the percentile is below so much of the bound: else those let go would bring it back."""


class Pause:
    """Whether the calls of some classes to one upstream are held: `cap` has no slots while they are.

    Late must be more than a twentieth of the answers in each third of the last `for_s`. Once paused, a last
    third with clearly fewer late ones lets go; so do too few answers to tell from, for it may be the pause
    itself that prevents them.
    """

    __slots__ = ("_looked", "_rows", "_slice_s", "cap", "policy")

    def __init__(self, policy: PausePolicy, upstream: str) -> None:
        self.cap = Cap(PAUSE + upstream, UNBOUNDED)
        self.policy = policy
        self._slice_s = policy.for_s / SLICES
        self._rows: deque[list[int]] = deque()  # [slice, answers, late, nearly late], oldest first
        self._looked = 0  # the slice in which it was last decided

    @property
    def on(self) -> bool:
        """Are they held?"""
        return not self.cap.slots

    @property
    def looks_at(self) -> float:
        """When it may be over though nothing happens: at the next `look` that decides; inf while off."""
        return (self._looked + 1) * self._slice_s + ROUNDING_S if self.on else NEVER

    def adopt(self, policy: PausePolicy) -> None:
        """Follow a new policy. What was counted by another bound is forgotten; who is held stays held."""
        if (policy.above_s, policy.for_s) != (self.policy.above_s, self.policy.for_s):
            self._rows.clear()
            looked_at, self._slice_s = self._looked * self._slice_s, policy.for_s / SLICES
            self._looked = int(looked_at / self._slice_s)
        self.policy = policy

    def add(self, silent_s: float, now: float) -> None:
        """An answer began after `silent_s`, or will never."""
        current = int(now / self._slice_s)
        rows = self._rows
        if not rows or rows[-1][0] < current:
            rows.append([current, 0, 0, 0])
            while rows[0][0] <= current - SLICES:
                rows.popleft()
        row = rows[-1]
        row[1] += 1
        if silent_s > self.policy.above_s * RELEASE_AT:
            row[3] += 1
            if silent_s > self.policy.above_s:
                row[2] += 1

    def look(self, now: float) -> str | None:
        """Decide, once in each slice. Returns why it moved, for the log, or None when it did not."""
        current = int(now / self._slice_s)
        if current == self._looked:
            return None
        self._looked = current
        thirds = [[0, 0, 0] for _ in range(THIRDS)]  # the newest first
        for at, answers, late, nearly in self._rows:
            if at > current - SLICES:
                third = thirds[(current - at) // SLICES_A_THIRD]
                third[0] += answers
                third[1] += late
                third[2] += nearly
        answers = sum(third[0] for third in thirds)
        if self.on:
            return self._release_if_over(thirds[0], answers)
        if answers < FEWEST or any(late <= LATE_SHARE * of for of, late, _ in thirds):
            return None
        self.cap.slots = 0
        late = sum(third[1] for third in thirds)
        return f"{late} of {answers} answers began later than {self.policy.above_s:g}s"

    def _release_if_over(self, last: list[int], answers: int) -> str | None:
        if answers < FEWEST:
            why = "too few answers to tell from"
        elif last[0] * THIRDS >= FEWEST and last[2] <= LATE_SHARE * last[0]:
            why = f"{last[2]} of {last[0]} answers began late"
        else:
            return None
        self.cap.slots = UNBOUNDED
        return why
