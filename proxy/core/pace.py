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


class _Rate:
    """Events a second, as an exponential mean."""

    __slots__ = ("_at", "_rate")

    def __init__(self) -> None:
        self._at = float("-inf")
        self._rate = 0.0

    def add(self, now: float) -> None:
        """One more."""
        self._rate = self.at(now) + 1.0 / MEMORY_S
        self._at = now

    def at(self, now: float) -> float:
        """How many a second there are."""
        return self._rate * exp((self._at - now) / MEMORY_S)

    def is_seen(self, now: float) -> bool:
        """Was there one lately?"""
        return now - self._at <= SEEN_S


def _of(rank: int, rates: list[_Rate]) -> _Rate:
    while rank >= len(rates):
        rates.append(_Rate())
    return rates[rank]


class Pace:
    """Grants a second by rank, and calls that found no room."""

    __slots__ = ("_granted", "_wanted")

    def __init__(self) -> None:
        self._granted: list[_Rate] = []
        self._wanted: list[_Rate] = []

    def granted(self, rank: int, now: float) -> None:
        """A call of this rank was granted."""
        _of(rank, self._granted).add(now)

    def refused(self, rank: int, now: float) -> None:
        """A call of this rank found no room: what comes free is wanted by its class."""
        _of(rank, self._wanted).add(now)

    def above(self, rank: int, now: float) -> float:
        """How many calls a second are granted to the classes before this one, or wanted in vain by them."""
        above = 0.0
        for rate in self._granted[:rank]:
            above += rate.at(now)
        for rate in self._wanted[:rank]:
            above += rate.at(now)
        return above

    def any_above(self, rank: int, now: float) -> bool:
        """Was anything granted to a class before this one, lately?"""
        return any(rate.is_seen(now) for rate in self._granted[:rank])
