"""A leg: what was seen of an upstream while it had one number of calls in flight.

The cap that is learnt (`adaptive.py`) goes from leg to leg. A leg's sample are the first so many calls
granted in it, for those granted before waited under another number, and those that end first are the short
ones: it is over when nearly all of its own have been answered.
"""

from __future__ import annotations

from math import exp, log
from typing import Final

from proxy.core.rounding import NEVER

SHORTEST_S: Final = 1e-6
"""An answer on the same machine, by a clock of 1 us: its logarithm must exist."""

FULL: Final = 0.8
"""A leg tells something of its number of calls only if so many of its calls found all others in flight."""


class Leg:
    """Calls granted under `slots`, and for how long they had no answer. Times in seconds.

    Granted from `at` to `last_at`, `size` of them at most, `full` of them taking the last permit; `held` is
    the sum of those in flight when each was granted. `done` of them have been answered or have ended, of
    which `counted` gave a time, and of `late` of them its logarithm was above `late_from`. Past `until` it is
    given up as it is.
    """

    __slots__ = (
        "_log", "_logs", "_longest_s", "_sum", "_sums", "at", "counted", "done", "full", "granted", "held",
        "last_at", "late", "late_from", "size", "slots", "until",
    )  # fmt: skip

    def __init__(self, slots: int, at: float, size: int, until: float, late_from: float = NEVER) -> None:
        self.slots = slots
        self.at = at
        self.last_at = at
        self.size = size
        self.until = until
        self.late_from = late_from
        self.granted = self.full = self.held = self.done = self.counted = self.late = 0
        self._sum = self._sums = self._log = self._logs = self._longest_s = 0.0

    def enter(self, held: int, slots: int, now: float) -> None:
        """A call was granted, the `held`th in flight of `slots`."""
        if now >= self.at and self.granted < self.size:
            self.granted += 1
            self.held += held
            self.last_at = now
            if held >= slots:
                self.full += 1

    def has(self, granted_at: float) -> bool:
        """Is a call of that time one of the sample?"""
        return self.at <= granted_at <= self.last_at

    def add(self, silent_s: float, its_log: float) -> None:
        """One of the sample was answered after `silent_s`."""
        self.counted += 1
        self._sum += silent_s
        self._sums += silent_s * silent_s
        self._log += its_log
        self._logs += its_log * its_log
        if its_log > self.late_from:
            self.late += 1
        self._longest_s = max(self._longest_s, silent_s)

    def left(self, waited_s: float) -> None:
        """The caller of one left when it had no answer yet: it would have had to wait for longer."""
        waited = log(max(SHORTEST_S, waited_s))
        if waited > self.late_from:
            self.add(waited_s, waited)

    @property
    def in_flight(self) -> float:
        """How many were in flight, on average. Only when some were granted."""
        return self.held / self.granted

    @property
    def level(self) -> float:
        """The mean logarithm of the times: hardly moved by a few that are long. Only when some counted."""
        return self._log / self.counted

    @property
    def level_of_all(self) -> float:
        """The same, those of the sample that still wait counted as the longest that ended: they are not the
        short ones.
        """
        waiting = self.granted - self.done
        return (self._log + waiting * log(self._longest_s)) / (self.counted + waiting)

    @property
    def variance(self) -> float:
        """That of the logarithms."""
        level = self._log / self.counted
        return self._logs / self.counted - level * level

    @property
    def mean(self) -> float:
        """The logarithm of the mean time: what a queue adds to each shows in full."""
        return log(self._sum / self.counted)

    @property
    def spread(self) -> float:
        """The variance of the times as a share of their mean squared."""
        mean = self._sum / self.counted
        return self._sums / self.counted / (mean * mean) - 1.0


class Sizes:
    """How the silence before an answer grows with the tokens of its call, learnt as a power of them."""

    __slots__ = ("_log_s", "_log_tokens", "_of", "_power", "_product", "_square")

    def __init__(self) -> None:
        self._of = 0.0  # the size that all are counted as, set by the first
        self._log_tokens = self._log_s = self._square = self._product = 0.0
        self._power = 0.0

    def even_out(self, silent_s: float, tokens: float) -> float:
        """The silence as that of a call of usual size."""
        x, y = log(tokens), log(silent_s)
        if not self._of:
            self._of = self._log_tokens = x
            self._log_s = y
        off, late = x - self._log_tokens, y - self._log_s
        self._log_tokens += SLOWLY * off
        self._log_s += SLOWLY * late
        self._square += SLOWLY * (off * off - self._square)
        self._product += SLOWLY * (off * late - self._product)
        return silent_s * exp(self._power * (self._of - x))

    def learn(self) -> None:
        """Use what was seen so far from now on: between two legs, never within one."""
        if self._square > SLOWLY:
            self._power = min(1.0, max(0.0, self._product / self._square))


SLOWLY: Final = 0.01
"""Weight of one call in what is learnt of all: about a hundred are remembered."""
