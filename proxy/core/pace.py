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


class Pace:
    """Grants a second by rank, as exponential means."""

    __slots__ = ("_at", "_rates", "_wanted", "_wanted_at")

    def __init__(self) -> None:
        self._wanted: list[float] = []
        self._wanted_at: list[float] = []
        self._rates: list[float] = []
        self._at: list[float] = []

    def granted(self, rank: int, now: float) -> None:
        """A call of this rank was granted."""
        while rank >= len(self._rates):
            self._rates.append(0.0)
            self._at.append(float("-inf"))
        since_s = now - self._at[rank]
        self._rates[rank] = self._rates[rank] * exp(-since_s / MEMORY_S) + 1.0 / MEMORY_S
        self._at[rank] = now

    def refused(self, rank: int, now: float) -> None:
        """A call of this rank found no room: what comes free is wanted by its class."""
        while rank >= len(self._wanted):
            self._wanted.append(0.0)
            self._wanted_at.append(now)
        since_s = now - self._wanted_at[rank]
        self._wanted[rank] = self._wanted[rank] * exp(-since_s / MEMORY_S) + 1.0 / MEMORY_S
        self._wanted_at[rank] = now

    def above(self, rank: int, now: float) -> float:
        """How many calls a second are granted to the classes before this one, or wanted in vain by them."""
        above = 0.0
        for each in range(min(rank, len(self._rates))):
            above += self._rates[each] * exp(-(now - self._at[each]) / MEMORY_S)
        for each in range(min(rank, len(self._wanted))):
            above += self._wanted[each] * exp(-(now - self._wanted_at[each]) / MEMORY_S)
        return above

    def any_above(self, rank: int, now: float) -> bool:
        """Was anything granted to a class before this one, lately?"""
        return any(now - at <= SEEN_S for at in self._at[:rank])
