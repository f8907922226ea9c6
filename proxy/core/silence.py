"""How long an upstream usually lets its callers wait for the beginning of an answer, and when that is over.

A call that hangs says nothing until its time is over, and may hold its permit for two minutes. That nobody at
all is answered says it sooner: after twice the longest wait known, while many wait.
"""

from __future__ import annotations

from typing import Final

from proxy.core.rounding import NEVER

LEARN: Final = 0.1
"""Weight of the newest wait in the running mean."""

FADE: Final = 1 - 1 / 500
"""What is left of the longest wait with each answer: it counts for half after 350 of them."""

TIMES_LONGEST: Final = 2.0
LEAST_S: Final = 2.0
"""Silence is more than twice the longest wait, and more than a pause for breath (a garbage collection, a new
leader): to trip for those would refuse everybody for what is over before they come back."""

TIMES_USUAL: Final = 4.0
UNKNOWN_S: Final = 1.0
UNKNOWN: Final = -1.0


class Silence:
    """The waits of one upstream's calls: `begun` by each, `broken` by an answer to any of them."""

    __slots__ = ("_begun", "_fewest", "_longest_s", "_since", "_usual_s")

    def __init__(self) -> None:
        self._usual_s = UNKNOWN_S
        self._longest_s = UNKNOWN
        self._begun = 0  # since the last answer, without those who left
        self._fewest = 0
        self._since = NEVER  # when as many as it takes had begun

    def begun(self, now: float, fewest: int) -> None:
        """A call was sent. `fewest` must wait before anything is concluded."""
        self._begun += 1
        if self._since == NEVER and self._begun >= fewest:
            self._since = now
            self._fewest = fewest

    def broken(self, silent_s: float | None) -> None:
        """Somebody was answered, after `silent_s`; None where that says nothing of others (a 429 is fast)."""
        self._begun = 0
        self._since = NEVER
        if silent_s is None:
            return
        if self._longest_s == UNKNOWN:
            self._usual_s = silent_s
        self._usual_s += LEARN * (silent_s - self._usual_s)
        self._longest_s = max(silent_s, self._longest_s * FADE)

    def left(self, silent_s: float, unknown_s: float) -> None:
        """One of those waits no more: it failed, its caller left, or it was never sent.

        Who waited longer than anybody should has waited for nothing, and counts on.
        """
        if self._begun and silent_s < self.patience_s(unknown_s):
            self._begun -= 1
            if self._begun < self._fewest:
                self._since = NEVER

    def forget(self) -> None:
        """Count anew who waits; what is usual stays."""
        self._begun = 0
        self._since = NEVER

    def is_over(self, now: float, unknown_s: float) -> bool:
        """Is this no longer a wait as there were others?"""
        return self._since != NEVER and now - self._since >= self.patience_s(unknown_s)

    def patience_s(self, unknown_s: float) -> float:
        """A longer wait is one for nothing; `unknown_s` where no wait has ended yet."""
        return unknown_s if self._longest_s == UNKNOWN else max(LEAST_S, TIMES_LONGEST * self._longest_s)

    def probe_s(self, least_s: float) -> float:
        """A probe that waits longer is not waited for: another goes beside it."""
        return max(least_s, TIMES_USUAL * self._usual_s)
