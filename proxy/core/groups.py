"""Who is next among those who ask for the same: class by class, caller by caller, call by call.

    Group   all who share the same caps and buckets, apart who returned with a ticket and who did not
      Level   of one class, and within it of one kind: `order_of` in orders.py has the list
        Bay     that ask for the same tool's caps and buckets: as many as there are names of tools
          Party   of one caller: whoever has had least goes next (fairness.py)
            Row     that go with the same run's allowances: first come, first served; newest first
                    when stale

What a group, a bay, a party or a row lacks, all of it lack: it is closed until that key has room, and is not
looked at until then. A group may be closed from one level on: what the less important lack the more important
may find, where room is held back for them. Callers choose the names of tools, hence the bays: to serve one
of a level never walks them.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from proxy.core.fairness import Shares
from proxy.core.orders import first_order
from proxy.core.rounding import NEVER

if TYPE_CHECKING:
    from proxy.core.target import Target
    from proxy.core.waiting import Waiter


SLACK: Final = 64
"""A heap is rebuilt when more than half of it, and more than this, is stale."""


class Place:
    """What may be closed for want of a key. `because_of`: the one for whom alone that was proven, if so.

    Of a bucket of tokens each call asks another amount; and what is kept for those with a ticket is not kept
    from them, nor from who came before it was sold. All who come after the one wait behind it, lest the dear
    and the important never pass, and the place is opened again when it leaves.
    """

    __slots__ = ("because_of", "keys", "lacks")

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self.lacks = ""
        self.because_of: Waiter | None = None


class Row(Place):
    """Calls of one caller in one level, of runs under way or not: a queue."""

    __slots__ = ("_due", "going", "is_posted", "is_stale", "party", "waiters")

    def __init__(self, keys: tuple[str, ...], party: Party, *, going: bool) -> None:
        super().__init__(keys)
        self.party = party
        self.going = going
        self.waiters: OrderedDict[int, Waiter] = OrderedDict()
        self.is_stale = False
        self.is_posted = False
        self._due: list[tuple[float, int]] | None = None  # until when who is to go, if they were told
        if party.bay.level.group.booked:
            self._due = []

    def join(self, waiter: Waiter) -> None:
        """One more."""
        self.waiters[waiter.seq] = waiter
        if self._due is None:
            return
        heapq.heappush(self._due, (waiter.stale_at, waiter.seq))
        if len(self._due) > 2 * len(self.waiters) + SLACK:
            self._due = [entry for entry in self._due if entry[1] in self.waiters]
            heapq.heapify(self._due)

    def head(self, now: float) -> Waiter:
        """The oldest; once the oldest has waited too long the newest, until the row is empty.

        An overload that outlasts patience would else serve only those whose callers have just given up
        (Facebook, "Fail at Scale", ACM Queue 2015: adaptive LIFO). Of those who were told a time each it is
        the one whose time is over first, but is not over yet.
        """
        while self._due:
            until, seq = self._due[0]
            if now < until and seq in self.waiters:
                return self.waiters[seq]
            heapq.heappop(self._due)
        oldest = next(iter(self.waiters.values()))
        if not self.is_stale:
            if now < oldest.stale_at:
                return oldest
            self.is_stale = True
        return next(reversed(self.waiters.values()))


class Party(Place):
    """Those of one caller in one bay."""

    __slots__ = ("_heap", "bay", "caller", "is_posted", "open", "rows", "size")

    def __init__(self, keys: tuple[str, ...], caller: str, bay: Bay) -> None:
        super().__init__(keys)
        self.caller = caller
        self.bay = bay
        self.rows: dict[tuple[str, ...], Row] = {}
        self.size = 0
        self.open = 0  # how many of them stand in open rows
        self.is_posted = False
        self._heap: list[tuple[bool, int, Row]] = []  # rows by what they were worth, or better

    def head(self, now: float) -> Waiter | None:
        """Of the runs under way first, then the first come; None when every row is closed."""
        heap = self._heap
        while heap:
            fresh, seq, row = heap[0]
            if row.lacks or not row.waiters:
                heapq.heappop(heap)
                row.is_posted = False
                continue
            head = row.head(now)
            if head.seq == seq:
                return head
            heapq.heapreplace(heap, (fresh, head.seq, row))
        return None

    def trim(self) -> None:
        """Drop the rows that are gone once they are more than half of what is posted, or all."""
        if not self.rows or len(self._heap) > 2 * len(self.rows) + SLACK:
            self._heap = [entry for entry in self._heap if entry[2].waiters]
            heapq.heapify(self._heap)

    def post(self, row: Row, now: float) -> None:
        """`row` is open and not empty."""
        if not row.is_posted:
            row.is_posted = True
            heapq.heappush(self._heap, (not row.going, row.head(now).seq, row))


class Bay(Place):
    """Those of one tool in one level: all of the level where no tool has allowances of its own."""

    __slots__ = ("_heap", "level", "open", "parties", "posted_at")

    def __init__(self, keys: tuple[str, ...], level: Level) -> None:
        super().__init__(keys)
        self.level = level
        self.parties: dict[tuple[str, ...], Party] = {}
        self.open = 0  # how many stand in open rows of open parties
        self.posted_at = NEVER  # as what it is posted in its level; inf: it is not
        self._heap: list[tuple[float, int, Party]] = []  # by where their callers stood, or before

    def head(self, now: float) -> Waiter | None:
        """The next of whoever has had least; None when every party is closed."""
        heap = self._heap
        while heap:
            start, seq, party = heap[0]
            head = None if party.lacks or not party.size else party.head(now)
            if head is None:
                heapq.heappop(heap)
                party.is_posted = False
                continue
            stands = self.level.shares.start(party.caller)
            if stands <= start:
                return head
            heapq.heapreplace(heap, (stands, seq, party))
        return None

    def trim(self) -> None:
        """Drop the parties that are gone once they are more than half of what is posted, or all."""
        if not self.parties or len(self._heap) > 2 * len(self.parties) + SLACK:
            self._heap = [entry for entry in self._heap if entry[2].size]
            heapq.heapify(self._heap)

    def post(self, party: Party, seq: int) -> None:
        """`party` is open and has an open row."""
        if not party.is_posted:
            party.is_posted = True
            heapq.heappush(self._heap, (self.level.shares.start(party.caller), seq, party))

    def ahead_of(self, waiter: Waiter) -> tuple[int, int]:
        """About how many of these go before a newcomer; and those of its own class among them."""
        level, ahead = self.level, self.open
        if level.order > waiter.order:
            return 0, 0
        if level.order == waiter.order and level.group.keys == waiter.shared_keys:
            party = self.parties.get(waiter.party_key)
            ahead = _ahead(ahead, 0 if party is None else party.size, len(self.parties))
        return ahead, ahead if level.order >= first_order(waiter.call.rank) else 0


class Level:
    """Those of one order in one group."""

    __slots__ = ("_heap", "bays", "callers", "group", "open", "order", "shares")

    def __init__(self, group: Group, order: int, shares: Shares) -> None:
        self.group = group
        self.order = order
        self.shares = shares
        self.bays: dict[tuple[str, ...], Bay] = {}
        self.callers: dict[str, int] = {}  # how many each has here
        self.open = 0  # how many stand in open bays
        self._heap: list[tuple[float, int, Bay]] = []  # by where the first of their callers stood, or before

    def head(self, now: float) -> Waiter | None:
        """The next of whoever has had least; None when every bay is closed."""
        if len(self.bays) == 1:  # as where no tool has allowances of its own: there is nobody to compare
            bay = next(iter(self.bays.values()))
            return None if bay.lacks else bay.head(now)
        heap = self._heap
        while heap:
            start, seq, bay = heap[0]
            if start != bay.posted_at:
                heapq.heappop(heap)  # it is posted as another by now
                continue
            head = None if bay.lacks or not bay.parties else bay.head(now)
            if head is None:
                heapq.heappop(heap)
                bay.posted_at = NEVER
                continue
            stands = self.shares.start(head.call.caller)
            if (stands, head.seq) <= (start, seq):
                return head
            bay.posted_at = stands
            heapq.heapreplace(heap, (stands, head.seq, bay))
        return None

    def trim(self) -> None:
        """Drop the bays that are gone once they are more than half of what is posted, or all."""
        if not self.bays or len(self._heap) > 2 * len(self.bays) + SLACK:
            self._heap = [
                entry for entry in self._heap if entry[2].parties and entry[0] == entry[2].posted_at
            ]
            heapq.heapify(self._heap)

    def post(self, bay: Bay, caller: str, seq: int) -> None:
        """`bay` is open, and somebody of `caller` may go."""
        start = self.shares.start(caller)
        if start < bay.posted_at:
            bay.posted_at = start
            heapq.heappush(self._heap, (start, seq, bay))
            self.trim()

    def joined(self, caller: str) -> None:
        """One more of this caller."""
        self.callers[caller] = self.callers.get(caller, 0) + 1

    def left(self, caller: str) -> None:
        """One less."""
        self.callers[caller] -= 1
        if not self.callers[caller]:
            del self.callers[caller]

    def ahead_of(self, caller: str) -> int:
        """About how many go before one more of `caller`."""
        return _ahead(self.open, self.callers.get(caller, 0), len(self.callers))


class Group(Place):
    """All who ask for `keys`. Closed, it is closed for those of order `closed_from` and after.

    Those who are `booked` are by themselves: what is kept from all others is not kept from them.
    """

    __slots__ = ("booked", "closed_from", "levels", "orders", "target")

    def __init__(self, keys: tuple[str, ...], target: Target, *, booked: bool) -> None:
        super().__init__(keys)
        self.target = target
        self.booked = booked
        self.closed_from = 0
        self.levels: dict[int, Level] = {}
        self.orders: list[int] = []  # of the levels, sorted

    def level(self, order: int, shares: Shares) -> Level:
        """The level of an order, made if need be."""
        level = self.levels.get(order)
        if level is None:
            level = self.levels[order] = Level(self, order, shares)
            insort(self.orders, order)
        return level

    def head(self, now: float) -> Waiter | None:
        """The next to be served of the open levels."""
        for order in self.orders:
            if self.lacks and order >= self.closed_from:
                return None
            head = self.levels[order].head(now)
            if head is not None:
                return head
        return None

    def ahead_of(self, waiter: Waiter) -> tuple[int, int]:
        """About how many of these go before a newcomer; and those of its own class among them."""
        ahead = of_class = 0
        for order in self.orders:
            if order > waiter.order:
                break
            level = self.levels[order]
            count = level.open
            if order == waiter.order and self.keys == waiter.shared_keys:
                count = level.ahead_of(waiter.call.caller)
            ahead += count
            if order >= first_order(waiter.call.rank):
                of_class += count
        return ahead, of_class

    def last(self, now: float) -> Waiter | None:
        """The next of the least important class of which somebody can go."""
        last: Waiter | None = None
        for order in reversed(self.orders):
            if self.lacks and order >= self.closed_from:
                continue
            if last is not None and order < first_order(last.call.rank):
                break
            last = self.levels[order].head(now) or last
        return last


def _ahead(open_: int, own: int, callers: int) -> int:
    """How many of so many who may go do so before one more of a caller that has so many of its `own` here.

    Callers take turns: before its own next one, every other of the `callers` has at most as many.
    """
    return min(open_, (own + 1) * (callers + (not own)) - 1)
