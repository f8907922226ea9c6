"""Fairness between the callers of one class: what each has had of one upstream, and whose turn that makes it.

Start-time fair queueing (Goyal, Vin, Cheng 1996) with the names of the virtual token counter (Sheng et al.,
OSDI 2024): a caller's counter grows by the cost of each of its calls over its weight, and of those who wait
the one that has had least goes next. Whoever comes back after a pause is *lifted* to where the others are,
or it would have the upstream for itself until it had caught up.

A cost is counted in mean calls of the upstream: 1.0 is one that holds a permit as long as most do.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

SWEEP_FROM: Final = 1024

MOST: Final = 65_536
"""Callers remembered at most. A stream of callers who each call once leaves no turn behind to forget them by;
those whose last call is longest ago are lifted."""

ORDERED_FROM: Final = MOST // 4
"""Among so many it is kept in mind whose call was the last: long before any of them must be forgotten."""

RECENT_S: Final = 5.0
"""Callers of whom nothing was granted for so long, or twice that, take no part."""


class Shares:
    """The counters of one class of calls to one upstream.

    A caller at the floor needs none, so only those who are ahead of it are remembered. `lately` are those of
    whom something was granted `since` then, `before` those of the span before.
    """

    __slots__ = ("_had", "_sweep_at", "before", "floor", "lately", "since")

    def __init__(self) -> None:
        self.lately: set[str] = set()
        self.before: set[str] = set()
        self.since = 0.0
        self._had: dict[str, float] = {}  # of many, whose last call was longest ago is first
        self._sweep_at = SWEEP_FROM
        self.floor = 0.0
        """Where the callers are whose turn it is; nobody counts as having had less."""

    def start(self, caller: str) -> float:
        """Where this caller stands: the smallest goes next."""
        had = self._had.get(caller, 0.0)
        return max(self.floor, had)

    def ahead(self, caller: str) -> float:
        """By how many mean calls this caller is ahead of those whose turn it is."""
        return self.start(caller) - self.floor

    @property
    def callers(self) -> int:
        """How many callers share, of late."""
        return max(len(self.lately), len(self.before), 1)

    def charge(self, caller: str, cost: float, now: float, *, in_turn: bool) -> None:
        """A call of `cost` (already over the caller's weight) was granted.

        `in_turn`: it was the turn of this caller, which lifts all who have had less. Not so one that went
        before its turn (a booked return, a run that goes on): its caller pays by being ahead.
        """
        if now - self.since >= RECENT_S:
            self.before, self.lately, self.since = self.lately, set(), now
        self.lately.add(caller)
        start = self.start(caller)
        if len(self._had) > ORDERED_FROM:
            self._had.pop(caller, None)
        self._had[caller] = start + cost
        if in_turn:
            self.floor = start
        if len(self._had) > self._sweep_at:
            self._sweep()

    def correct(self, caller: str, by: float) -> None:
        """The call cost so much more (or less) than was charged."""
        had = self._had.get(caller)
        if had is not None:
            self._had[caller] = had + by

    def __len__(self) -> int:
        """Callers remembered."""
        return len(self._had)

    def _sweep(self) -> None:
        ahead = [(name, had) for name, had in self._had.items() if had > self.floor]
        self._had = dict(islice(ahead, max(0, len(ahead) - MOST // 2), None))
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._had))
