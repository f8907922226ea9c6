"""Who is next among those who ask for the same: class by class, caller by caller, call by call.

    Group   all who share the same caps and buckets
      Level   of one class, and within it of one kind: `order_of` in waiting.py has the list
        Party   of one caller: whoever has had least goes next (fairness.py)
          Row     that go with the same run's allowances: first come, first served; newest first when stale

What a group, a party or a row lacks, all of it lack: it is closed until that key has room, and is not looked
at until then. A group may be closed from one level on: what the less important lack the more important may
find, where room is held back for them.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from proxy.core.fairness import Shares
from proxy.core.orders import first_order

if TYPE_CHECKING:
    from proxy.core.target import Target
    from proxy.core.waiting import Waiter


SLACK: Final = 64
"""A heap is rebuilt when more than half of it, and more than this, is stale."""


class Place:
    """What may be closed for want of a key. `because_of`: the one for whom alone that was proven, if so.

    A bucket of tokens is why there is a `because_of`: each call asks another amount of it. All who come after
    wait behind that one, lest the dear never pass, and the place is opened again when it leaves.
    """

    __slots__ = ("because_of", "keys", "lacks")

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self.lacks = ""
        self.because_of: Waiter | None = None


class Row(Place):
    """Calls of one caller in one level, of runs under way or not: a queue."""

    __slots__ = ("going", "is_posted", "is_stale", "party", "waiters")

    def __init__(self, keys: tuple[str, ...], party: Party, *, going: bool) -> None:
        super().__init__(keys)
        self.party = party
        self.going = going
        self.waiters: OrderedDict[int, Waiter] = OrderedDict()
        self.is_stale = False
        self.is_posted = False

    def head(self, now: float) -> Waiter:
        """The oldest; once the oldest has waited too long the newest, until the row is empty.

        An overload that outlasts patience would else serve only those whose callers have just given up
        (Facebook, "Fail at Scale", ACM Queue 2015: adaptive LIFO).
        """
        oldest = next(iter(self.waiters.values()))
        if not self.is_stale:
            if now < oldest.stale_at:
                return oldest
            self.is_stale = True
        return next(reversed(self.waiters.values()))


class Party(Place):
    """Those of one caller in one level."""

    __slots__ = ("_heap", "caller", "is_posted", "level", "open", "rows", "size")

    def __init__(self, keys: tuple[str, ...], caller: str, level: Level) -> None:
        super().__init__(keys)
        self.caller = caller
        self.level = level
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
        """Drop the rows that are gone once they are more than half of what is posted."""
        if len(self._heap) > 2 * len(self.rows) + SLACK:
            self._heap = [entry for entry in self._heap if entry[2].waiters]
            heapq.heapify(self._heap)

    def post(self, row: Row, now: float) -> None:
        """`row` is open and not empty."""
        if not row.is_posted:
            row.is_posted = True
            heapq.heappush(self._heap, (not row.going, row.head(now).seq, row))


class Level:
    """Those of one order in one group."""

    __slots__ = ("_heap", "group", "open", "order", "parties", "shares")

    def __init__(self, group: Group, order: int, shares: Shares) -> None:
        self.group = group
        self.order = order
        self.shares = shares
        self.parties: dict[tuple[str, ...], Party] = {}
        self.open = 0  # how many stand in open rows of open parties
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
            stands = self.shares.start(party.caller)
            if stands <= start:
                return head
            heapq.heapreplace(heap, (stands, seq, party))
        return None

    def trim(self) -> None:
        """Drop the parties that are gone once they are more than half of what is posted."""
        if len(self._heap) > 2 * len(self.parties) + SLACK:
            self._heap = [entry for entry in self._heap if entry[2].size]
            heapq.heapify(self._heap)

    def post(self, party: Party, seq: int) -> None:
        """`party` is open and has an open row."""
        if not party.is_posted:
            party.is_posted = True
            heapq.heappush(self._heap, (self.shares.start(party.caller), seq, party))

    def ahead_of(self, party: Party | None) -> int:
        """About how many go before one more of `party` (None: of a caller who has nobody here yet).

        Callers take turns: before its own next one, every other caller has at most as many.
        """
        own = 1 if party is None else party.size + 1
        callers = len(self.parties) + (party is None)
        return min(self.open, own * callers - 1)


class Group(Place):
    """All who ask for `keys`. Closed, it is closed for those of order `closed_from` and after."""

    __slots__ = ("closed_from", "levels", "orders", "target")

    def __init__(self, keys: tuple[str, ...], target: Target) -> None:
        super().__init__(keys)
        self.target = target
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


def first_of(opened: list[Group], now: float) -> Waiter | None:
    """The most important of the heads; groups without one are struck from `opened`."""
    first: Waiter | None = None
    first_stands = 0.0
    for group in tuple(opened):
        head = group.head(now)
        if head is None:
            opened.remove(group)
            continue
        stands = head.shares.start(head.call.caller)
        if (
            first is None
            or head.order < first.order
            or (head.order == first.order and (stands, head.seq) < (first_stands, first.seq))
        ):
            first, first_stands = head, stands
    return first


def next_of(opened: list[Group], now: float) -> tuple[Waiter | None, Waiter | None]:
    """The most important; and, of every fifty once, the least important, that none starves."""
    first = first_of(opened, now)
    if first is None or first.target.flow.guard < 1.0:
        return first, None
    last = last_of([group for group in opened if group.target is first.target], now)
    if last is None or last.call.rank == first.call.rank:
        return first, None  # nobody less important can go at this moment: the turn is saved up
    return first, last


def last_of(opened: list[Group], now: float) -> Waiter | None:
    """The next of the least important class."""
    last: Waiter | None = None
    for group in opened:
        head = group.last(now)
        if head is None:
            continue
        if last is None or (-head.call.rank, head.order) < (-last.call.rank, last.order):
            last = head
    return last
