"""A replica's slice of one shared quota: what it may grant by itself until its lease ends.

It answers calls at once, gathers what it was asked for, and takes part in trips to the ledger (`ledger.py`):
`ask` before, `told` after, or `missed` where no answer came. While a trip lasts nothing is granted that it
might take away. Times are monotonic seconds of this process.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from proxy.core.demand import TRIP_S, Demand
from proxy.core.quota_trade import QuotaAsk, QuotaTold
from proxy.core.rounding import NEVER

KEPT_S: Final = 600.0
"""What is known of a run's budget is kept for so long after it was last asked for: then the ledger alone
knows. To keep it for as long as the ledger would be a list of all runs of a day."""


class QuotaSlice:
    """Of one quota: `held` that are counted and not used yet, in the window that ends at `until`.

    `left` is what was left in the ledger when it was last told. `out` are the calls in flight that took of
    it: as long as there are any it is remembered. `debt` is what calls used beyond what was
    counted for them, and the ledger does not know yet. `looks`: a call was refused for what is known of it.

    Of one that `lasts` nothing is held in stock: who finds a run's budget spent is told to stop, which must
    not be said while another replica holds some of it that nobody uses.
    """

    __slots__ = (
        "_sent", "_told_at", "_used_at", "alone", "amount", "debt", "demand", "ends_at", "held", "known",
        "lasts", "left", "looks", "need", "out", "until", "window_s",
    )  # fmt: skip

    def __init__(self, amount: int, window_s: float, now: float, *, lasts: bool = False) -> None:
        self.amount = amount
        self.window_s = window_s
        self.lasts = lasts
        self.demand = Demand(now)
        self.held = 0
        self.out = 0
        self.debt = 0
        self._sent = 0  # of the debt, with the trip that is under way
        self.need = 0
        self.left = -1
        self.looks = False
        self.alone = False
        self.known = False
        self.until = NEVER
        self.ends_at = 0.0  # the window's name: its end on the store's clock, as it was when it began
        self._used_at = now
        self._told_at = -NEVER

    def turn_over(self, now: float) -> None:
        """When the window has ended nothing is left of it, but what is owed."""
        if now >= self.until:
            self.held = 0
            self.alone = self.known = False
            self.left = -1
            self.until = NEVER
            self.ends_at = 0.0

    def has(self, cost: int, now: float) -> bool:
        """Is so much here?"""
        self.turn_over(now)
        return self.held >= cost

    def take(self, cost: int, now: float) -> float:
        """A call spends it, of what is here. Returns the name of the window."""
        self.held -= cost
        self.out += 1
        self._used_at = now
        if self.lasts and self.until < NEVER:
            self.until = now + self.window_s
        return self.ends_at

    def give_back(self, cost: int, window: float, now: float) -> bool:
        """Spent in that window, and not used. False when the window is over: nothing is to be given back."""
        self.turn_over(now)
        if self.ends_at != window:
            return False
        self.held += cost
        return True

    def overspend(self, cost: int, now: float) -> None:
        """Used beyond what was granted: what is not here of it is owed to the ledger."""
        self.turn_over(now)
        here = min(max(self.held, 0), cost)
        self.held -= here
        self.debt += cost - here
        self._used_at = now

    @property
    def spent(self) -> int | None:
        """How much of it is spent, as far as is known; None: it is not."""
        return self.amount - self._left if self.known and self.left >= 0 else None

    @property
    def _left(self) -> int:
        return self.left + self.held - self.debt

    def may_fetch(self, cost: int, now: float) -> bool:
        """Is it worth a trip? Of what `lasts` also when what is known is old: others may have handed some
        back, and a run is not told to stop by what was true once.
        """
        if not self.known or self._left >= cost:
            return True
        return self.lasts and not self.alone and now - self._told_at >= TRIP_S

    def is_over(self, now: float) -> bool:
        """Is there nothing to remember?"""
        self.turn_over(now)
        if not self.is_idle or self.out or self.demand.is_hot:
            return False
        return not self.ends_at or (self.lasts and now - self._used_at > KEPT_S)

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
        self.held = 0
        self.alone = self.known = False

    def want(self, cost: float) -> None:
        """A call lacks so much of it."""
        self.need += ceil(cost)

    def lack(self, now: float) -> None:
        """A call was refused for it, or waits: the next trip in turn is to ask whether it still has to."""
        self.looks = True
        self._used_at = now

    @property
    def is_idle(self) -> bool:
        """Is there nothing to say of it on a trip?"""
        return not (self.held or self.need or self.debt or self.looks)

    def ask(self, now: float) -> QuotaAsk:
        """Set out. What is kept was counted, and stays."""
        self.turn_over(now)
        self.demand.look(now)
        stock = 0
        if self.demand.is_hot and not self.lasts:
            stock = ceil(self.demand.per_s * 2 * TRIP_S)
        surplus = 0 if self.alone else max(0, self.held - stock - self.need)
        self.held -= surplus
        ask = QuotaAsk(
            self.amount,
            self.window_s,
            back=surplus,
            over=self.debt,
            need=max(self.need - self.held, stock - self.held, 0),
            left=self.left if self.left < 0 else max(0, self._left),
            ends_at=self.ends_at,
            lasts=self.lasts,
        )
        if self.left >= 0:
            self.left = max(0, self.left - self.debt)
        self._sent = self.debt
        self.need = self.debt = 0
        self.looks = False
        return ask

    def leave(self, now: float) -> QuotaAsk:
        """Hand back all there is: this replica will not come again."""
        ask = self.ask(now)
        ask.back, ask.need = ask.back + self.held, 0
        self.held = 0
        return ask

    def told(self, told: QuotaTold, sent_at: float, now: float) -> None:
        """Back with an answer."""
        self._told_at = now
        if told.ends_at != self.ends_at:
            self.held = 0
        self.held += told.granted
        self.left = told.left
        self.ends_at = told.ends_at
        self.until = sent_at + told.ends_s if told.ends_at else NEVER
        self.known = True
        self._sent = 0

    def missed(self) -> None:
        """No answer came: what it would have granted is lost for this window; what is owed is told again."""
        self.known = False
        self.debt += self._sent
        self._sent = 0

    def put_back(self) -> bool:
        """Whoever waited has been served: is there something that should not lie here?"""
        return self.lasts and not self.alone and (self.held > 0 or self.debt > 0)
