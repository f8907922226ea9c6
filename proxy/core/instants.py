"""The instants that callers are told: never the same one twice, for no SDK adds jitter of its own."""

from __future__ import annotations

from math import ceil
from typing import Final

from proxy.core.rounding import ROUNDING_S
from proxy.core.verdict import LONGEST_RETRY_AFTER_S

SWEEP_FROM: Final = 1024
"""Below so many instants nothing is swept; above, whenever their number has doubled."""

MOST_TRIES: Final = 32
"""So many milliseconds further at most: with a thousand promises a second any instant is as good."""

GOLDEN: Final = 0.6180339887498949
"""Multiples of the golden ratio, modulo one, fill an interval evenly whatever their number."""


class Instants:
    """What one gate has told, of what still lies ahead."""

    __slots__ = ("_sweep_at", "_told", "_turn")

    def __init__(self) -> None:
        self._told: set[int] = set()  # in milliseconds: of what lies ahead there are 55,000 at most
        self._sweep_at = SWEEP_FROM
        self._turn = 0

    def distinct(self, due_at: float, now: float) -> float:
        """This instant, or one of the next milliseconds that nobody else was told."""
        told = self._told
        if len(told) > self._sweep_at:
            past = int(now * 1000)
            told = self._told = {at for at in told if at > past}
            self._sweep_at = max(SWEEP_FROM, 2 * len(told))
        at = ceil((due_at - ROUNDING_S / 2) * 1000)  # half of what is forgiven, for that is rounded too
        step = (
            1 if at + MOST_TRIES < (now + LONGEST_RETRY_AFTER_S) * 1000 else -1
        )  # no later than can be told
        for nth in range(MOST_TRIES):
            if at + step * nth not in told:
                told.add(at + step * nth)
                return min(max(now, (at + step * nth) / 1000), now + LONGEST_RETRY_AFTER_S)
        return due_at + step * self.apart(0.0, MOST_TRIES / 1000)

    def apart(self, least_s: float, most_s: float) -> float:
        """Seconds within bounds, a different share of the span each time: where nothing can be booked."""
        self._turn += 1
        return least_s + (most_s - least_s) * ((self._turn * GOLDEN) % 1.0)
