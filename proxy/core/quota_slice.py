"""A replica's slice of one shared quota: what it may grant by itself until its lease ends.

It answers calls at once, gathers what it was asked for, and takes part in trips to the ledger (`ledger.py`):
`ask` before, `told` after, or `missed` where no answer came. While a trip lasts nothing is granted that it
might take away. Times are monotonic seconds of this process.
"""

from __future__ import annotations

from math import ceil

from proxy.core.demand import TRIP_S, Demand
from proxy.core.quota_trade import QuotaAsk, QuotaTold
from proxy.core.rounding import NEVER


class QuotaSlice:
    """Of one quota: `held` that are counted and not used yet, in the window that ends at `until`.

    `left` is what was left in the ledger when it was last told.
    """

    __slots__ = (
        "alone", "amount", "back", "demand", "ends_at", "held", "known", "left", "need", "until", "window_s",
    )  # fmt: skip

    def __init__(self, amount: int, window_s: float, now: float) -> None:
        self.amount = amount
        self.window_s = window_s
        self.demand = Demand(now)
        self.held = 0
        self.back = 0
        self.need = 0
        self.left = -1
        self.alone = False
        self.known = False
        self.until = NEVER
        self.ends_at = 0.0  # the same on the store's clock: the window's name

    def turn_over(self, now: float) -> None:
        """When the window has ended nothing is left of it."""
        if now >= self.until:
            self.held = self.back = 0
            self.alone = self.known = False
            self.left = -1
            self.until = NEVER
            self.ends_at = 0.0

    def has_one(self, now: float) -> bool:
        """Is one here?"""
        self.turn_over(now)
        return self.held > 0

    @property
    def may_fetch(self) -> bool:
        """Is it worth a trip?"""
        return not self.known or self.left > 0

    def is_over(self, now: float) -> bool:
        """Is there nothing to remember?"""
        self.turn_over(now)
        return self.is_idle and not self.ends_at and not self.demand.is_hot

    def stand_alone(self, parts: int, now: float) -> None:
        """The ledger is lost: of what was left in it, one part is its own."""
        self.turn_over(now)
        if self.alone:
            return
        self.alone = self.known = True
        self.held += (self.amount if self.left < 0 else self.left) // parts
        self.left = 0
        if self.until == NEVER:
            self.until = now + self.window_s

    def end_lease(self) -> None:
        """What is held is its own no longer."""
        self.held = self.back = 0
        self.alone = self.known = False

    def want(self, _cost: float) -> None:
        """A call lacks one of it."""
        self.need += 1

    @property
    def is_idle(self) -> bool:
        """Is there nothing to say of it on a trip?"""
        return not (self.held or self.back or self.need)

    def ask(self, now: float) -> QuotaAsk:
        """Set out. What is kept was counted, and stays."""
        self.turn_over(now)
        self.demand.look(now)
        stock = ceil(self.demand.calls_per_s * 2 * TRIP_S) if self.demand.is_hot else 0
        surplus = max(0, self.held - stock - self.need)
        self.held -= surplus
        ask = QuotaAsk(
            self.amount,
            self.window_s,
            back=self.back + surplus,
            need=max(self.need, stock - self.held, 0),
            left=self.left if self.left < 0 else self.left + self.held,
            ends_at=self.ends_at,
        )
        self.back = 0
        self.need = 0
        return ask

    def leave(self, now: float) -> QuotaAsk:
        """Hand back all there is: this replica will not come again."""
        ask = self.ask(now)
        ask.back, ask.need = ask.back + self.held, 0
        self.held = 0
        return ask

    def told(self, told: QuotaTold, sent_at: float) -> None:
        """Back with an answer."""
        if told.ends_at != self.ends_at:
            self.held = 0
        self.held += told.granted
        self.left = told.left
        self.ends_at = told.ends_at
        self.until = sent_at + told.ends_s if told.ends_at else NEVER
        self.known = True

    def missed(self) -> None:
        """No answer came: what it would have granted is lost for this window."""
        self.known = False
