"""A replica's slice of one shared bucket: what it may grant by itself until its lease ends.

It answers calls at once, gathers what it was asked for, and takes part in trips to the ledger (`ledger.py`):
`ask` before, `told` after, or `missed` where no answer came. While a trip lasts nothing is granted that it
might take away. Times are monotonic seconds of this process.
"""

from __future__ import annotations

from typing import Final

from proxy.core.bucket_trade import AT_ONCE_S, LEASED_SHARE, UNKNOWN, BucketAsk, BucketTold, at_once_s
from proxy.core.demand import TRIP_S, Demand
from proxy.core.ledger import LEASE_S
from proxy.core.policy import BucketPolicy
from proxy.core.rounding import NEVER, ROUNDING_S

STOCK_S: Final = 0.5
STOCK_CALLS: Final = 3
"""A slice is to last so long at the demand of late, beside what its rate brings, and for so many calls more:
what comes by chance is to find room in it, and what does not come is not to be lost."""


class BucketSlice:
    """Of one bucket: `level` tokens at the time `at`, growing by `rate` up to `bound`, until `until`.

    `shared` is what was left in the ledger when it was last told, and `free` the rate at which that grew.
    """

    __slots__ = (
        "_dear", "_debt", "_old_rate", "_refund", "_refund_at", "_sent_at", "alone", "at", "bound", "burst",
        "demand", "free", "full_rate", "hand", "heard", "known", "level", "need", "policy", "rate", "shared",
        "told_at", "until",
    )  # fmt: skip

    def __init__(self, policy: BucketPolicy, now: float) -> None:
        self.adopt(policy)
        self.demand = Demand(now)
        self.level = 0.0
        self.at = now
        self.rate = 0.0
        self.bound = 0.0
        self.until = NEVER
        self.hand = 0.0  # to be handed back at the next trip
        self._dear = 0.0
        self._refund = self._debt = 0.0  # to be told at the next trip
        self._refund_at = now
        self.need = 0.0
        self.known = False
        self.heard = False
        self.alone = False
        self.shared = 0.0
        self.free = 0.0
        self.told_at = now
        self._old_rate = 0.0  # while a trip is on its way, for which the rate is 0.0
        self._sent_at = now

    def adopt(self, policy: BucketPolicy) -> None:
        """Follow another policy for the same key; what was counted stays."""
        self.policy = policy
        self.full_rate = policy.rate_per_s
        self.burst = policy.burst

    def refill(self, now: float) -> None:
        """Bring the level forward; when the lease has ended nothing is left of it."""
        if now >= self.until:
            self.rate = 0.0
            self.bound = 0.0
            self.level = min(self.level, 0.0)
            self.until = NEVER
        elif self.rate > 0.0 and now > self.at and self.level < self.bound:
            self.level = min(self.bound, self.level + self.rate * (now - self.at))
        self.at = now

    def has(self, cost: float, now: float) -> bool:
        """Is so much here?"""
        self.refill(now)
        return cost - self.level <= ROUNDING_S * self.full_rate

    def shared_at(self, now: float) -> float:
        """What is left in the ledger by now if nobody else took of it, with what it is yet to be told."""
        grown = self.free * max(0.0, now - self.told_at)
        return min(self.burst, self.shared + grown + self.hand + self._refund_left(now) - self._debt)

    def may_fetch(self, cost: float, now: float) -> bool:
        """Is it worth a trip, out of turn? Of a hot key not for every token that another left."""
        if not self.known or now >= self.told_at + 2 * TRIP_S:
            return True  # nothing is known, or nothing that may still be true
        least, there = cost - self.level, self.shared_at(now)
        if self.rate > 0.0 or self._old_rate > 0.0:
            least = max(least, min(self.demand.per_s * STOCK_S, self.bound) / 2)
            # What is never leased grows for all: whoever is there next in turn takes it.
            unleased = min(self.free, (1.0 - LEASED_SHARE) * self.full_rate)
            there -= unleased * max(0.0, now - self.told_at)
        return there >= least - ROUNDING_S * self.full_rate

    def wait_s(self, cost: float, now: float) -> float:
        """Seconds until `cost` is there by itself, or is worth fetching; as far as can be told."""
        lacking = cost - self.level
        if self.rate > 0.0 and cost <= self.bound:
            return max(ROUNDING_S, lacking / self.rate)
        missing = max(0.0, lacking - self.shared_at(now))
        soon_s = 2 * TRIP_S + 4 * missing / self.full_rate  # by then its demand is known, and has its part
        if self.free > 0.0:
            soon_s = min(soon_s, max(0.0, self.told_at - now) + missing / self.free)
        return max(ROUNDING_S, soon_s)

    def step_s(self, cost: float) -> float:
        """How much later one more such call would go."""
        return cost / self.own_rate

    @property
    def own_rate(self) -> float:
        """How fast there are more for this replica, as far as can be told."""
        return self.rate or self._old_rate or self.free or self.full_rate

    @property
    def most(self) -> float:
        """What it can hold; where it has no rate, the burst, for what is in the ledger is not lost."""
        return self.bound if self.rate or self._old_rate else self.burst

    def give_back(self, cost: float, now: float) -> None:
        """Tokens that were spent and not used; what does not fit in here goes back with the next trip."""
        self.refill(now)
        fits = max(0.0, min(cost, self.bound - self.level))
        self.level += fits
        self._refund, self._refund_at = self._refund_left(now) + cost - fits, now

    def overspend(self, cost: float, now: float) -> None:
        """Tokens were used beyond what was granted: what is not here of them is owed to the ledger."""
        self.refill(now)
        self.level -= cost
        if self.level < 0.0:
            self._debt -= self.level
            self.level = 0.0

    def _refund_left(self, now: float) -> float:
        """What was not used comes back by itself, too: what the ledger has by now it is not given again."""
        return max(0.0, self._refund - self.full_rate * (now - self._refund_at))

    def want(self, cost: float) -> None:
        """A call lacks so much of it."""
        self.need += cost

    def want_dear(self, cost: float) -> None:
        """A call waits for more than the slice can hold: to be told with the trip in turn."""
        self._dear = max(self._dear, cost)

    @property
    def is_idle(self) -> bool:
        """Is there nothing to say of it on a trip?"""
        if self.rate or self.bound or self.level or self.need or self.demand.is_hot:
            return False
        return not (self.hand or self._refund or self._debt)

    def is_full(self, now: float) -> bool:
        """Is nothing missing, as far as is known?"""
        return not self.heard or self.shared_at(now) >= self.burst

    def ask(self, now: float) -> BucketAsk:
        """Set out: from here on only what is kept is granted."""
        self.refill(now)
        self.demand.look(now)
        hot = self.demand.is_hot
        room = self.demand.per_s * STOCK_S + STOCK_CALLS * self.demand.dearest if hot else 0.0
        keep = max(0.0, min(self.level, max(room, self.need, self._dear)))
        ask = BucketAsk(
            self.full_rate,
            self.burst,
            keep=keep,
            hand=self.level - keep + self.hand,
            back=self._refund_left(now) - self._debt,
            demand=self.demand.per_s if hot else 0.0,
            need=min(self.burst, max(keep + self.need, self._dear)),
            room=room,
            unit=max(self.demand.dearest, ROUNDING_S),
            left=self.shared_at(now) if self.heard else UNKNOWN,
        )
        self.level = keep
        self.hand = self.need = self._dear = self._refund = self._debt = 0.0
        self._old_rate, self.rate = self.rate, 0.0
        self._sent_at = now
        return ask

    def leave(self, now: float) -> BucketAsk:
        """Hand back all there is: this replica will not come again."""
        ask = self.ask(now)
        ask.hand, ask.keep, ask.need, ask.demand, ask.room = ask.hand + ask.keep, 0.0, 0.0, 0.0, 0.0
        self.level = 0.0
        return ask

    def ask_alone(self, now: float) -> BucketAsk:
        """Set out while alone: tell what is known, and go on as before."""
        self._old_rate, self._sent_at = 0.0, now
        left = self.shared_at(now) if self.heard else UNKNOWN
        return BucketAsk(self.full_rate, self.burst, unit=max(self.demand.dearest, ROUNDING_S), left=left)

    def told(self, told: BucketTold, now: float) -> None:
        """Back with an answer."""
        if told.void:
            self.level = min(self.level, 0.0)
        # At which instant the ledger answered is not known: it grew by the lesser of both rates at least.
        grown = min(self._old_rate, told.rate) * (now - self._sent_at)
        self.rate, self._old_rate = told.rate, 0.0
        self.bound = told.bound
        self.level = min(told.bound, self.level + told.tokens + grown)
        if told.rate <= 0.0 and now - self._sent_at > AT_ONCE_S:
            self.level = 0.0  # they count as held no longer
        self.at = now
        self.until = self._sent_at + LEASE_S
        self.known = self.heard = True
        self.alone = False
        self.shared = told.level
        self.free = told.free
        # Beside tokens that are to be spent at once the account may be full already, for so long.
        self.told_at = self._sent_at + (0.0 if told.rate > 0.0 else at_once_s(self.burst, self.full_rate))

    def learning(self, now: float) -> None:
        """Back with nothing: the ledger is learning, and what was held is held until its lease ends."""
        self.rate, self._old_rate = self._old_rate, 0.0
        self.level = min(self.bound, self.level + self.rate * (now - self._sent_at))
        self.at = now

    def put_back(self) -> bool:
        """What came to be spent at once, and was not, is to go back: is there any?"""
        if self.rate > 0.0 or self.alone or self.level <= 0.0:
            return False
        self.hand += self.level
        self.level = 0.0
        return True

    def missed(self, now: float, *, heard: bool) -> None:
        """No answer came. If the ledger may have heard, what was kept may be spent, but grows no more."""
        if not heard:
            self.learning(now)
        self._old_rate = 0.0
        self.known = False

    def stand_alone(self, rate: float, bound: float, now: float) -> None:
        """The ledger is lost: so much is its own from now on, and of what was in the ledger nothing."""
        self.refill(now)
        if self.alone and self.rate == rate:
            self.bound = max(self.bound, bound)  # for a call that is dearer than those before
            return
        self.rate, self.bound, self.until = rate, bound, NEVER
        self.level = min(self.level, bound)
        self.alone = self.heard = True  # the ledger is to know, once it is back, that nothing is left
        self.shared = self.free = 0.0

    def end_lease(self, now: float) -> None:
        """What is held is its own no longer."""
        self.until = now
        self.refill(now)
        self.alone = self.known = False
