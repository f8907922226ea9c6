"""The pace of one upstream: how many calls of each class are granted a second, of late.

From it a wait is predicted: who stands behind so many, and behind those of higher classes that are still to
come, will have waited so long (Little's law). It is taken from our own grants, not from a polled figure: one
that lags makes refusals oscillate (Mooncake, arXiv 2407.00079).
"""

from __future__ import annotations

from math import exp
from typing import Final

MEMORY_S: Final = 5.0
"""Time constant of the mean: a step is followed to two thirds in so long."""

SEEN_S: Final = 30.0
"""A class of which nothing was granted for so long has nobody to keep room for."""


class _Rates:
    """Events a second by rank, as exponential means."""

    __slots__ = ("_at", "_rates")

    def __init__(self) -> None:
        self._rates: list[float] = []
        self._at: list[float] = []

    def add(self, rank: int, now: float) -> None:
        """One of this rank."""
        while rank >= len(self._rates):
            self._rates.append(0.0)
            self._at.append(float("-inf"))
        since_s = now - self._at[rank]
        self._rates[rank] = self._rates[rank] * exp(-since_s / MEMORY_S) + 1.0 / MEMORY_S
        self._at[rank] = now

    def above(self, rank: int, now: float) -> float:
        """How many a second there are of the ranks before this one."""
        above = 0.0
        for each in range(min(rank, len(self._rates))):
            above += self._rates[each] * exp(-(now - self._at[each]) / MEMORY_S)
        return above

    def any_above(self, rank: int, now: float) -> bool:
        """Was there one of a rank before this, lately?"""
        return any(now - at <= SEEN_S for at in self._at[:rank])


class Pace:
    """Grants a second by rank, and calls that found no room."""

    __slots__ = ("_granted", "_wanted")

    def __init__(self) -> None:
        self._granted = _Rates()
        self._wanted = _Rates()

    def granted(self, rank: int, now: float) -> None:
        """A call of this rank was granted."""
        self._granted.add(rank, now)

    def refused(self, rank: int, now: float) -> None:
        """A call of this rank found no room: what comes free is wanted by its class."""
        self._wanted.add(rank, now)

    def above(self, rank: int, now: float) -> float:
        """How many calls a second are granted to the classes before this one, or wanted in vain by them."""
        return self._granted.above(rank, now) + self._wanted.above(rank, now)

    def any_above(self, rank: int, now: float) -> bool:
        """Was anything granted to a class before this one, lately?"""
        return self._granted.any_above(rank, now)
