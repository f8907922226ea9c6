"""A replica's slice of one shared cap: what it may grant by itself until its lease ends.

It answers calls at once, gathers what it was asked for, and takes part in trips to the ledger (`ledger.py`):
`ask` before, `told` after, or `missed` where no answer came. While a trip lasts nothing is granted that it
might take away. Times are monotonic seconds of this process.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from proxy.core.cap_trade import CapAsk, CapTold
from proxy.core.demand import LATEST, TRIP_S
from proxy.core.ledger import LEASE_S
from proxy.core.rounding import NEVER

QUICK_S: Final = 1.0
SOON_S: Final = 0.25
"""Of calls that last no longer, the permits of others may be used while they lie idle: they are soon back. Or
of which, with all permits in use, one ends so soon."""

MANY_PER_S: Final = 100.0
SOONEST_S: Final = 0.01
LATEST_S: Final = 0.25
"""How often to ask for a permit that others hold: about once for each call that comes, and where so many
come that trips would be many, seldom."""


class CapSlice:
    """Of one cap: up to `limit` in flight until `until`; those beyond, of the `held`, may finish."""

    __slots__ = (
        "_area_s", "_at", "_calls_per_s", "_hold_s", "_sent_at", "_since", "_told", "_took", "asked",
        "counted", "free", "held", "known", "limit", "need", "owed", "short", "slots", "until",
    )  # fmt: skip

    def __init__(self, slots: int, now: float) -> None:
        self.slots = slots
        self.held = 0
        self.limit = 0
        self._told = 0
        self.until = NEVER
        self.counted = 0
        self.free = 0
        self.owed = 0
        self.known = False
        self.need = 0
        self.asked = 0  # how many calls came since the last trip in turn
        self.short = 0  # how many tries found it full since the last trip
        self._took = 0  # how many took one since the last trip in turn
        self._area_s = 0.0  # and how long all held one meanwhile
        self._since = self._at = now
        self._calls_per_s = 0.0
        self._hold_s = 0.0
        self._sent_at = now

    def has_room(self, now: float) -> bool:
        """May one more go?"""
        if now >= self.until:
            self.limit, self.until, self.known = 0, NEVER, False
        return self.held < self.limit

    def take(self, now: float) -> None:
        """One more goes."""
        self._area_s += self.held * (now - self._at)
        self._at = now
        self._took += 1
        self.held += 1

    def give(self, now: float) -> None:
        """One has ended."""
        self._area_s += self.held * (now - self._at)
        self._at = now
        self.held -= 1

    def fail(self) -> None:
        """One found it full."""
        self.short += 1

    @property
    def may_fetch(self) -> bool:
        """Is it worth a trip, out of turn?"""
        return not self.known or self.free > 0

    @property
    def lets_go(self) -> bool:
        """Does it have one that others want more?"""
        if not self.known or self.counted <= self.held:
            return False
        return self.counted > self.limit or (self.free < 0 and self._is_quick)

    def asks_again_s(self) -> float:
        """How long after a trip to ask for what others hold; NEVER: with the trip in turn."""
        if self.may_fetch or not self.short or not (self.owed or self._is_quick):
            return NEVER
        if self._calls_per_s > MANY_PER_S:
            return LATEST_S
        return min(LATEST_S, max(SOONEST_S, 1.0 / max(self._calls_per_s, 1.0)))

    @property
    def _is_quick(self) -> bool:
        return self._hold_s <= max(QUICK_S, SOON_S * self.slots)

    def want(self, _cost: float) -> None:
        """A call lacks one of it."""
        self.need += 1

    @property
    def is_idle(self) -> bool:
        """Is there nothing to say of it on a trip?"""
        return not (self.held or self.limit or self.counted or self.need or self.asked or self._calls_per_s)

    def ask(self, now: float, *, in_turn: bool, alone: bool = False) -> CapAsk:
        """Set out: from here on no more are in flight than are kept; while alone, as many as before."""
        if in_turn:
            self._look(now)
        self.has_room(now)
        waiting = max(self.need, self.short) if self.held >= self.limit else self.need
        load = ceil(self._calls_per_s * self._hold_s)
        wanted = max(self.held + min(waiting, 1), self.held + self.need, load)
        spare = wanted if self.free >= 0 or not self._is_quick else self.held
        keep = max(self.held, self.limit if alone else min(self.limit, spare))
        self.limit = min(self.limit, keep)
        self.need = self.short = 0
        self._sent_at = now
        return CapAsk(
            self.slots,
            keep=keep,
            wanted=min(wanted, 100 * self.slots),
            waiting=waiting,
            quick=self._is_quick,
        )

    def leave(self, now: float) -> CapAsk:
        """Hand back all but what is in flight: this replica will not come again."""
        self.limit = min(self.limit, self.held)
        ask = self.ask(now, in_turn=False)
        ask.wanted, ask.waiting = self.held, 0
        return ask

    def told(self, told: CapTold) -> None:
        """Back with an answer."""
        self.limit = self._told = told.limit
        self.counted = told.counted
        self.free = told.free
        self.owed = told.owed
        self.known = True
        self.until = self._sent_at + LEASE_S

    def missed(self) -> None:
        """No answer came: what was kept holds until the lease before ends."""
        self.known = False

    def stand_alone(self, parts: int) -> None:
        """The ledger is lost: its part is its own; of too few to divide, what it was told last."""
        limit = self.slots // parts or self._told
        self.limit, self.until, self.counted = limit, NEVER, 0
        self.known, self.free, self.owed = True, 0, 0

    def end_lease(self) -> None:
        """What is held is its own no longer; who is in flight finishes."""
        self.limit, self.until, self.known = 0, NEVER, False

    def _look(self, now: float) -> None:
        """What came, and how long it lasted, since the last trip in turn."""
        span_s = now - self._since
        if span_s < TRIP_S / 2:
            return
        self._area_s += self.held * (now - self._at)
        calls_per_s = self.asked / span_s
        weight = LATEST if self._calls_per_s else 1.0
        self._calls_per_s += weight * (calls_per_s - self._calls_per_s)
        if self._calls_per_s * TRIP_S < LATEST / 4:
            self._calls_per_s = 0.0
        if self._took or self.held:
            hold_s = self._area_s / max(self._took, 1)
            self._hold_s += (LATEST if self._hold_s else 1.0) * (hold_s - self._hold_s)
        self._took = self.asked = 0
        self._area_s = 0.0
        self._since = self._at = now
