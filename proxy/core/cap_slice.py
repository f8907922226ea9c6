"""A replica's slice of one shared cap: what it may grant by itself until its lease ends.

It answers calls at once, gathers what it was asked for, and takes part in trips to the ledger (`ledger.py`):
`ask` before, `told` after, or `missed` where no answer came. While a trip lasts nothing is granted that it
might take away. Times are monotonic seconds of this process.
"""

from __future__ import annotations

from math import ceil

from proxy.core.cap_trade import CapAsk, CapTold
from proxy.core.demand import LATEST
from proxy.core.ledger import LEASE_S
from proxy.core.rounding import NEVER


class CapSlice:
    """Of one cap: up to `limit` in flight until `until`; those beyond, of the `held`, may finish."""

    __slots__ = (
        "_failed", "_peak", "_sent_at", "counted", "fails", "free", "held", "known", "limit", "need", "owed",
        "peak", "slots", "until",
    )  # fmt: skip

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.held = 0
        self.limit = 0
        self.until = NEVER
        self.counted = 0
        self.free = 0
        self.owed = 0
        self.known = False
        self.need = 0
        self.peak = 0  # the most in flight since the last trip in turn
        self.fails = 0  # how many found it full since then
        self._peak = 0
        self._failed = 0.0
        self._sent_at = 0.0

    def has_room(self, now: float) -> bool:
        """May one more go?"""
        if now >= self.until:
            self.limit, self.until, self.known = 0, NEVER, False
        return self.held < self.limit

    def take(self) -> None:
        """One more goes."""
        self.held += 1
        self.peak = max(self.peak, self.held)

    @property
    def may_fetch(self) -> bool:
        """Is it worth a trip, out of turn?"""
        return not self.known or self.free > 0

    @property
    def lets_go(self) -> bool:
        """Did one come free that others wait for?"""
        return self.known and self.counted > max(self.limit, self.held)

    def want(self, _cost: float) -> None:
        """A call lacks one of it."""
        self.need += 1

    @property
    def is_idle(self) -> bool:
        """Is there nothing to say of it on a trip?"""
        return not (self.held or self.limit or self.counted or self.need or self.fails or self._failed)

    def ask(self, now: float, *, in_turn: bool, alone: bool = False) -> CapAsk:
        """Set out: from here on no more are in flight than are kept; while alone, as many as before."""
        if in_turn:
            self._peak, self.peak = self.peak, self.held
            self._failed = LATEST * (self._failed + self.fails)
            if self._failed < LATEST:
                self._failed = 0.0
            self.fails = 0
        waiting = max(self.need, ceil(self._failed), self.fails)
        wanted = max(self._peak, self.peak, self.held + waiting)
        self.has_room(now)
        keep = max(self.held, self.limit if alone else min(self.limit, wanted))
        self.limit = min(self.limit, keep)
        self.need = 0
        self._sent_at = now
        return CapAsk(self.slots, keep=keep, wanted=min(wanted, 100 * self.slots))

    def told(self, told: CapTold) -> None:
        """Back with an answer."""
        self.limit = told.limit
        self.counted = told.counted
        self.free = told.free
        self.owed = told.owed
        self.known = True
        self.until = self._sent_at + LEASE_S

    def missed(self) -> None:
        """No answer came: what was kept holds until the lease before ends."""
        self.known = False

    def stand_alone(self, limit: int) -> None:
        """The ledger is lost: from now on so many are its own."""
        self.limit, self.until, self.counted = limit, NEVER, 0
        self.known, self.free = True, 0

    def end_lease(self) -> None:
        """What is held is its own no longer; who is in flight finishes."""
        self.limit, self.until, self.known = 0, NEVER, False
