"""Virtual time: a heap of what happens next. An hour costs what its events cost."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

Act = Callable[[Any], None]


class Timeline:
    """Virtual seconds. Things that are due at one instant happen in the order in which they were planned."""

    __slots__ = ("_heap", "_planned", "now")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Act, Any]] = []
        self._planned = 0
        self.now = 0.0

    def plan(self, at: float, act: Act, what: Any = None) -> None:
        """`act(what)` at `at`, or at once if that is past. There is no undoing: an act looks whether it is
        still wanted."""
        self._planned += 1
        heappush(self._heap, (max(at, self.now), self._planned, act, what))

    def run(self) -> None:
        """Until nothing is planned any more."""
        heap = self._heap
        while heap:
            self.now, _, act, what = heappop(heap)
            act(what)


def chance(seed: int, purpose: str) -> Random:
    """A stream of chance of its own: what draws from one does not shift another."""
    return Random(f"{seed}/{purpose}")
