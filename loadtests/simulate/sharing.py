"""Calls that share an upstream's speed: all advance at one pace, which their number decides."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from loadtests.simulate.calls import Attempt
from loadtests.simulate.clock import Timeline


class Sharing:
    """The attempts under way, kept in the time of the work.

    `_done` is what has been worked for each since the beginning, so that an attempt ends when that has grown
    by its own work, whatever the pace was meanwhile. `slowness(n)`: the seconds that a unit of work takes
    among n. `ended` is told of an attempt whose work is done.
    """

    def __init__(
        self, timeline: Timeline, slowness: Callable[[int], float], ended: Callable[[Attempt], None]
    ) -> None:
        self._timeline = timeline
        self._slowness = slowness
        self._ended = ended
        self._count = 0
        self._done = 0.0
        self._since = 0.0
        self._heap: list[tuple[float, int, Attempt]] = []
        self._planned = 0

    def begin(self, attempt: Attempt, work: float) -> None:
        """One more from now on."""
        self.move()
        self._count += 1
        self._planned += 1
        heappush(self._heap, (self._done + work, self._planned, attempt))
        self.plan()

    def leave(self, attempt: Attempt) -> None:
        """The rest of its work is not done."""
        self.move()
        self._count -= 1
        attempt.is_over = True
        self.plan()

    def move(self) -> None:
        """Count the work done up to now. To be called before `slowness` changes."""
        now = self._timeline.now
        if self._count:
            self._done += (now - self._since) / self._slowness(self._count)
        self._since = now

    def plan(self) -> None:
        """Plan the next end anew. To be called after a change."""
        heap = self._heap
        while heap and heap[0][2].is_over:
            heappop(heap)
        self._planned += 1
        if heap:
            left_s = max(0.0, heap[0][0] - self._done) * self._slowness(self._count)
            self._timeline.plan(self._timeline.now + left_s, self._finish, self._planned)

    def _finish(self, planned: int) -> None:
        if planned != self._planned:
            return  # somebody came or went meanwhile
        self.move()
        _, _, attempt = heappop(self._heap)
        self._count -= 1
        self.plan()
        self._ended(attempt)
