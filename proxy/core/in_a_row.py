"""Failures in a row: how many calls failed since anybody was answered well, and what a retry makes of it."""

from __future__ import annotations

from typing import Final

from proxy.core.rounding import wait_until

FEWEST_IN_A_ROW: Final = 5
"""So many must fail at least before that says anything (Envoy: `consecutive_5xx`)."""

DOUBT_S: Final = 1.0
"""Of an upstream that failed so often in a row, and so lately, a retry learns nothing that is not known."""


class InARow:
    """The calls that began after the last good answer, which came `good_at`, and failed."""

    __slots__ = ("_failed_at", "count", "good_at")

    def __init__(self) -> None:
        self.count = 0
        self.good_at = float("-inf")
        self._failed_at = float("-inf")

    def failed(self, began_at: float, now: float) -> None:
        """One more, unless it began before the last good answer.

        Most of those that one accident cut began before, and say nothing of the next.
        """
        if began_at >= self.good_at:
            self.count += 1
            self._failed_at = now

    def answered(self, now: float) -> None:
        """Somebody was answered well."""
        self.count = 0
        self.good_at = now

    def retry_s(self, now: float) -> float:
        """How long a retry waits, 0.0: not at all. While nobody is answered first attempts tell how it is."""
        return wait_until(self._failed_at + DOUBT_S, now) if self.count >= FEWEST_IN_A_ROW else 0.0

    def forget(self) -> None:
        """What comes is another time."""
        self.count = 0
