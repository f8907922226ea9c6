"""What is usual of an upstream's times, and what they are now."""

from __future__ import annotations

from math import log, sqrt
from typing import Final

from proxy.core.leg import SHORTEST_S, Leg, Sizes
from proxy.core.rounding import NEVER

RECENT: Final = 0.05
"""Weight of one call in the level of the last 39."""

MOST_REMEMBERED: Final = 400
"""Calls that the level of usual times rests on: with each leg it drifts a little."""

OUTLIER: Final = 5.0
"""A time counts as at most so many times the mean."""

LEG_S: Final = 1.5
"""The most calls of a leg are those of this time, or of three answers."""

FEWEST: Final = 20
"""And the fewest."""

FEW: Final = 12
"""The fewest of streams that climb for the first time: what they wait for is either short or long."""

DRAW: Final = 24.0
"""Calls of a leg for a scatter and a distance of 1: its error is then a fifth of the distance."""

LATE: Final = log(2.0)
"""The beginning of a stream that comes later than most by this factor is late."""


class Usual:
    """Levels are mean logarithms of times. `silent_s` and `took_s` are running means of how long answers are
    waited for and how long permits are held; `scatter` is the variance of one time, as a share of its mean.
    `level` rests on `calls` calls of legs that were not crowded; 0: nothing is known yet.
    """

    __slots__ = (
        "_seen", "_sizes", "_waited_s", "calls", "its_log", "level", "recent", "scatter", "silent_s",
        "took_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self._sizes = Sizes()
        self._seen = 0
        self.silent_s = self.took_s = 0.0
        self._waited_s = 0.0  # as `silent_s`, but as they came: as `took_s`
        self.level = self.recent = 0.0
        self.calls = 0
        self.scatter = 0.25
        self.its_log = 0.0

    @property
    def is_streamed(self) -> bool:
        """Is the wait for its beginning the smaller part of an answer?"""
        return self._waited_s < 0.5 * self.took_s

    @property
    def longer(self) -> float:
        """By how much the last calls waited longer than usual, as a logarithm."""
        return self.recent - self.level

    @property
    def is_sure(self) -> bool:
        """Do the last calls differ from the usual by more than chance? One looks after every few calls."""
        error = sqrt(self.scatter / 39.0 + self.scatter / self.calls) if self.calls else 0.0
        return self.calls > 0 and self._seen > 60 and self.longer > 5.0 * error

    @property
    def leg_s(self) -> float:
        """How long a leg lasts at most, if its calls are granted all the time."""
        return max(LEG_S, 3.0 * self.silent_s)

    @property
    def late_from(self) -> float:
        """From which logarithm on an answer is late; of other than streams none is."""
        return self.level + LATE if self.calls and self.is_streamed else NEVER

    def leg_calls(self, rate: float, distance: float, *, is_new: bool) -> int:
        """The sample of a leg, at so many calls a second, where legs are so far apart (as a logarithm).

        `is_new`: if they are streams, they climb for the first time.
        """
        if self.is_streamed:
            return FEW if is_new else FEWEST
        return max(FEWEST, min(int(rate * self.leg_s), int(DRAW * self.scatter / distance**2)))

    def answered(self, silent_s: float, tokens: float) -> float:
        """An answer began. Returns the time that counts; `its_log` is its logarithm."""
        silent_s = came = max(SHORTEST_S, silent_s)
        if tokens > 1.0:
            silent_s = self._sizes.even_out(silent_s, tokens)
        if self._seen:
            silent_s = min(silent_s, OUTLIER * self.silent_s)
        self.its_log = log(silent_s)
        weight = 1.0 / (self._seen + 1) if self._seen < 50 else 0.02
        self._seen += 1
        self.silent_s += weight * (silent_s - self.silent_s)
        self._waited_s += weight * (came - self._waited_s)
        self.recent += max(RECENT, weight) * (self.its_log - self.recent)
        return silent_s

    def ended(self, took_s: float) -> None:
        """A call that succeeded held its permit for so long."""
        weight = 1.0 / max(1, self._seen) if self._seen < 50 else 0.02
        self.took_s += weight * (took_s - self.took_s)

    def scattered(self, spread: float) -> None:
        """So much a leg's times scattered. Use what its sizes taught from now on."""
        self.scatter += 0.2 * (max(0.01, spread) - self.scatter)
        self._sizes.learn()

    def remember(self, leg: Leg) -> None:
        """These are usual times."""
        calls = min(self.calls, MOST_REMEMBERED)
        self.level += (self._level_of(leg) - self.level) * leg.counted / (calls + leg.counted)
        self.calls = calls + leg.counted

    def replace(self, leg: Leg) -> None:
        """What was usual is over: this is."""
        self.level = self.recent = self._level_of(leg)
        self.calls = leg.counted

    def _level_of(self, leg: Leg) -> float:
        return leg.level if self.is_streamed else leg.level_of_all
