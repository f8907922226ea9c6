"""Pauses in which an upstream begins no answer at all: whoever waits meanwhile does not wait in a line.

A model reads one prompt after the other. A very long one holds up all that come behind it, for seconds, and
then they begin in one instant; in a line somebody's turn comes all the time.
"""

from __future__ import annotations

from typing import Final

LONG: Final = 4.0
"""A pause is longer than the usual time between two answers by this factor: by chance one in 55 is."""

LEARN: Final = 0.05

MOST: Final = 0.5
"""A wait of which a pause is more than this part is explained by it."""


class Stalls:
    """When answers began, and the last pause between two."""

    __slots__ = ("_at", "_between_s", "_since", "_until")

    def __init__(self) -> None:
        self._at = -1.0
        self._between_s = 0.0
        self._since = self._until = -1.0

    def explain(self, silent_s: float, now: float) -> bool:
        """An answer began, after `silent_s`. Was it late only because nobody was answered?"""
        if self._at >= 0.0:
            gap_s = now - self._at
            if self._between_s and gap_s > LONG * self._between_s:
                self._since, self._until = self._at, now
                gap_s = LONG * self._between_s
            self._between_s += (LEARN if self._between_s else 1.0) * (gap_s - self._between_s)
        self._at = now
        return self._until - max(self._since, now - silent_s) > MOST * silent_s
