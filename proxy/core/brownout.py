"""The brown-out: an upstream that answers some calls well and refuses or fails the others.

A breaker would make a whole outage of it. What is sent is kept in proportion to what is accepted instead: no
more than `k` calls for each that was accepted lately, and the rest is refused here, the least important
classes first. (Client-side throttling of Google SRE, ch. 21: `max(0, (requests - K * accepts) / (requests +
1))`, where requests count those refused here too; Envoy's admission control.)
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.core.window import SLICES

CLOSE: Final = 0.9
"""With so much of what it takes to refuse any who comes is counted: to split among them what is refused."""

LOOKS: Final = 100
"""The share is reckoned anew so many times in a window."""

MOST: Final = 0.8
"""Some always go: how else should it be seen that it is over? (Envoy: `max_rejection_probability` 80 %)"""

LEAST_PER_S: Final = 5.0
"""Fewer calls are too few to tell from (Envoy: `rps_threshold`)."""

WELL: Final = 0.95
"""Where so much of what was sent lately is accepted, more may be: what is older is forgotten faster. The
formula alone doubles what goes with each window, which is a minute after all is well."""

FEWEST: Final = 5

FADE: Final = 0.95
"""What is left of an old arrival with each look, where the shares of the classes are counted."""


class Row:
    """A tenth of the window: calls asked for, accepted by the upstream, and refused here."""

    __slots__ = ("accepted", "asked", "number", "refused")

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = self.accepted = self.refused = 0


class Brownout:
    """What share of the calls to one upstream is refused, and which. `k` 0.0: none ever is."""

    __slots__ = (
        "_accepted", "_arrived", "_asked", "_carried", "_drops", "_is_close", "_k", "_look_at", "_newest",
        "_rows", "_until", "_window_s", "share",
    )  # fmt: skip

    def __init__(self, k: float, window_s: float) -> None:
        self._k = k
        self._window_s = window_s
        self._rows: deque[Row] = deque()  # oldest first
        self._newest = Row(0)  # the last of them, if there are any
        self._until = float("-inf")  # so long it lasts
        self._asked = self._accepted = 0
        self._look_at = 0.0
        self._is_close = False  # is it time to count who comes?
        self._arrived: list[float] = []  # by rank, the older the less
        self._drops: list[float] = []  # by rank, the share to refuse
        self._carried: list[float] = []  # by rank, what is left of a whole call since the last was refused
        self.share = 0.0

    def add(self, *, accepted: bool, now: float) -> None:
        """A call was answered, well or not, or failed."""
        if not self._k:
            return
        row = self._newest if now < self._until else self._row(now)
        row.asked += 1
        self._asked += 1
        if accepted:
            row.accepted += 1
            self._accepted += 1

    def refuses(self, rank: int, now: float) -> bool:
        """Is this call one of those to be refused? Ask once for each that comes."""
        if not self._k:
            return False
        if now >= self._look_at:
            self._look(now)
        if not self._is_close:
            return False
        arrived = self._arrived
        while len(arrived) <= rank:
            arrived.append(0.0)
            self._drops.append(0.0)
            self._carried.append(0.0)
        arrived[rank] += 1.0
        if not self.share:
            return False
        carried = self._carried[rank] + self._drops[rank]
        if carried < 1.0:
            self._carried[rank] = carried
            return False
        self._carried[rank] = carried - 1.0
        row = self._row(now)
        row.asked += 1
        row.refused += 1
        self._asked += 1
        return True

    def forget_all(self) -> None:
        """What was counted is of another time."""
        self._rows.clear()
        self._until = float("-inf")
        self._asked = self._accepted = 0
        self._look_at = 0.0
        self._is_close = False
        self.share = 0.0

    def _look(self, now: float) -> None:
        self._look_at = now + self._window_s / LOOKS
        self._forget(now)
        if self.share and len(self._rows) > 1 and self._is_well():
            self._drop()
        allowed, share = self._k * self._accepted, 0.0
        self._is_close = self._asked > CLOSE * allowed
        if self._asked >= LEAST_PER_S * self._window_s:
            share = min(MOST, max(0.0, (self._asked - allowed) / (self._asked + 1)))
        self.share = share
        arrived = self._arrived
        for rank in range(len(arrived)):
            arrived[rank] *= FADE
        left = share * sum(arrived)
        for rank in range(len(arrived) - 1, -1, -1):
            dropped = min(left, arrived[rank])
            self._drops[rank] = dropped / arrived[rank] if arrived[rank] else 0.0
            left -= dropped

    def _row(self, now: float) -> Row:
        current = int(now * SLICES / self._window_s)
        rows = self._rows
        if not rows or rows[-1].number < current:
            self._forget(now)
            rows.append(Row(current))
        self._newest = newest = rows[-1]
        self._until = (newest.number + 1) * self._window_s / SLICES
        return newest

    def _forget(self, now: float) -> None:
        oldest = int(now * SLICES / self._window_s) - SLICES
        while self._rows and self._rows[0].number <= oldest:
            self._drop()

    def _drop(self) -> None:
        gone = self._rows.popleft()
        self._asked -= gone.asked
        self._accepted -= gone.accepted
        if not self._rows:
            self._until = float("-inf")

    def _is_well(self) -> bool:
        """Was nearly all accepted that was sent in the last whole tenth of the window, and since?

        No less: a provider that counts by the second accepts the first calls of each.
        """
        sent = accepted = 0
        for row in (self._rows[-1], self._rows[-2]):
            sent += row.asked - row.refused
            accepted += row.accepted
        return sent >= FEWEST and accepted >= WELL * sent
