"""How long callers are willing to stay away: which of those who were told to come back came, by how long.

To promise a place for a time at which nobody returns wastes it. A few tickets of every length are sold in any
case, to see whether that has changed.
"""

from __future__ import annotations

from typing import Final

from proxy.core.verdict import LONGEST_RETRY_AFTER_S

SPAN_S: Final = 5.0
"""Waits are told apart by so much."""

SPANS: Final = int(LONGEST_RETRY_AFTER_S / SPAN_S) + 1

LEAST_KEPT: Final = 0.3
"""Of waits that fewer of the callers keep no more are sold than it takes to notice a change."""

TRIED: Final = 16
"""So many are sold of a length of which nothing is known yet, until they have come or not: when capacity is
lost many lengths are new at once, and what is sold to those who will not come is not there for the others."""

ALWAYS: Final = 2
"""So many are out in any case."""

LEARN: Final = 0.05
"""Weight of the newest in the share of those that were kept."""


def span_of(wait_s: float) -> int:
    """Which of the spans a wait belongs to."""
    return min(int(wait_s / SPAN_S), SPANS - 1)


class Patience:
    """The shares kept, by the length of the wait."""

    __slots__ = ("_ended", "_kept", "_out")

    def __init__(self) -> None:
        self._kept = [1.0] * SPANS
        self._ended = [0] * SPANS
        self._out = [0] * SPANS

    def sells(self, wait_s: float) -> bool:
        """Is a wait of this length worth a promise?"""
        span = span_of(wait_s)
        if self._ended[span] < TRIED:
            return span == 0 or self._out[span] < TRIED
        return self._kept[span] >= LEAST_KEPT or self._out[span] < ALWAYS

    def sold(self, wait_s: float) -> None:
        """One was promised."""
        self._out[span_of(wait_s)] += 1

    def closed(self, wait_s: float) -> None:
        """One of this length is not awaited any more."""
        self._out[span_of(wait_s)] -= 1

    def learn(self, wait_s: float, *, kept: bool) -> None:
        """One of this length came back in time, or did not: in the order in which they were sold."""
        span = span_of(wait_s)
        self._ended[span] += 1
        self._kept[span] += self._weight(span) * ((1.0 if kept else 0.0) - self._kept[span])

    def unlearn(self, wait_s: float) -> None:
        """One of this length was learnt as lost, and had come back in time."""
        span = span_of(wait_s)
        self._kept[span] = min(1.0, self._kept[span] + self._weight(span))

    def _weight(self, span: int) -> float:
        """Of the newest."""
        return max(LEARN, 1.0 / max(1, self._ended[span]))
