"""What ended lately: counts over a rolling window that moves in tenths."""

from __future__ import annotations

from collections import deque
from typing import Final

SLICES: Final = 10
"""The rolling window moves in tenths: old results leave it at most a tenth of the window early."""


class Slice:
    """A tenth of the window."""

    __slots__ = ("calls", "failed", "number", "slow")

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = self.failed = self.slow = 0


class Window:
    """Calls, failures and slow calls that ended within the last `window_s` seconds."""

    __slots__ = ("_last", "_slice_s", "_slices", "_until", "calls", "failed", "slow")

    def __init__(self, window_s: float) -> None:
        self._slice_s = window_s / SLICES
        self._slices: deque[Slice] = deque()  # oldest first
        self._last = Slice(-1)  # the newest, which lasts until
        self._until = float("-inf")
        self.calls = self.failed = self.slow = 0

    def add(self, *, failed: bool, slow: bool, now: float) -> None:
        """One call ended."""
        if now >= self._until:
            self._begin(now)
        last = self._last
        last.calls += 1
        self.calls += 1
        if failed:
            last.failed += 1
            self.failed += 1
        if slow:
            last.slow += 1
            self.slow += 1

    def forget(self, now: float) -> None:
        """Drop what has left the window."""
        oldest = int(now / self._slice_s) - SLICES
        while self._slices and self._slices[0].number <= oldest:
            gone = self._slices.popleft()
            self.calls -= gone.calls
            self.failed -= gone.failed
            self.slow -= gone.slow
        if not self._slices:
            self._until = float("-inf")

    def _begin(self, now: float) -> None:
        self.forget(now)
        number = int(now / self._slice_s)
        if not self._slices or self._slices[-1].number < number:
            self._slices.append(Slice(number))
        self._last = self._slices[-1]
        self._until = (self._last.number + 1) * self._slice_s
