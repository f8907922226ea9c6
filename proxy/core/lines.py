"""Who is next: the waiters, grouped by what they ask for, so that nobody is asked in vain.

Waiters who share the same caps and buckets make a *group*; within it, those of one caller with allowances
of its own make a smaller one, and within that those of one run. What a group lacks, all of it lack: so it
waits for that one key as a whole, and when the key has room again, only the heads of the few groups that
lacked it are looked at, however many wait.

A bucket of tokens is the exception: each call asks another amount of it. Such a lack is proven for one waiter
alone; all who come after it wait behind it, lest the dear never pass, and the group is looked at again when
it leaves or when somebody more important joins.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from proxy.core.rounding import wait_until

if TYPE_CHECKING:
    from proxy.core.waiting import Waiter

SLACK: Final = 64
"""A heap is rebuilt when more than half of it, and more than this, is stale."""

NEVER: Final = float("inf")
NOW: Final = float("-inf")


class Group:
    """Waiters who ask for all of `keys` (and for those of the groups around theirs).

    It is closed while it `lacks` one of `keys`, and open ("") otherwise. Where that was proven for one waiter
    alone, `because_of` is the one. Its heap holds those who ask for no
    more than that, and the heads of the open groups within; what has become stale stays until it surfaces.
    """

    __slots__ = ("around", "because_of", "counts", "depth", "heap", "keys", "lacks", "within")

    def __init__(self, keys: tuple[str, ...], around: Group | None) -> None:
        self.keys = keys
        self.around = around
        self.depth: int = 0 if around is None else around.depth + 1
        self.within: dict[tuple[str, ...], Group] = {}
        self.lacks = ""
        self.because_of: Waiter | None = None
        self.counts: dict[int, int] = {}  # order → how many, without the closed groups within
        self.heap: list[Waiter] = []

    def head(self) -> Waiter | None:
        """The next to be served: the most important in the open groups, were this one open."""
        heap = self.heap
        while heap:
            first = heap[0]
            head = self._head_beside(first)
            if head is first:
                return first
            heapq.heappop(heap)
            if head is not None:
                heapq.heappush(heap, head)
        return None

    def post(self, waiter: Waiter) -> None:
        """`waiter` is new here, or has become the head of an open group within."""
        heapq.heappush(self.heap, waiter)
        self.trim()

    def trim(self) -> None:
        """Drop what is stale once it is more than half of the heap."""
        if len(self.heap) > 2 * sum(self.counts.values()) + SLACK:
            heads = [group.head() for group in self.within.values() if not group.lacks]
            own = [waiter for waiter in self.heap if waiter.waiting and waiter.group is self]
            self.heap = own + [head for head in heads if head is not None]
            heapq.heapify(self.heap)

    def count(self, order: int, by: int) -> None:
        """So many more of `order` in this open group, and in those around it that count it."""
        group: Group | None = self
        while group is not None:
            left = group.counts.get(order, 0) + by
            if left:
                group.counts[order] = left
            else:
                del group.counts[order]
            group = None if group.lacks else group.around

    def path(self) -> list[Group]:
        """From the outermost group to this one."""
        path = [self]
        while (around := path[-1].around) is not None:
            path.append(around)
        return path[::-1]

    def _head_beside(self, waiter: Waiter) -> Waiter | None:
        """The head of the group within in which `waiter` stands, or stood; if that is this one, itself."""
        group = waiter.group
        if group is self:
            return waiter if waiter.waiting else None
        assert group is not None, "who is in a heap stands in a group"  # noqa: S101
        while group.depth > self.depth + 1:
            assert group.around is not None, "only the outermost has none around it"  # noqa: S101
            group = group.around
        return None if group.lacks else group.head()


class Lines:
    """Everybody who waits, by what they lack. What is said to be lacking is lacking until `opened`."""

    __slots__ = ("_groups", "_lacking", "_ready", "_ready_at")

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], Group] = {}  # the outermost
        self._lacking: dict[str, list[Group]] = {}  # key → the groups closed for want of it
        self._ready: list[tuple[float, str]] = []  # when a key is worth trying, with stale ones
        self._ready_at: dict[str, float] = {}

    def stand(self, waiter: Waiter, key: str, ready_at: float) -> None:
        """Begin to wait. `key` was just found lacking ("": not known) until `ready_at` (inf: a settle)."""
        group: Group | None = None
        groups, missing = self._groups, None
        for keys in waiter.claims.keys_by_sharing():
            inner = groups.get(keys)
            if inner is None:
                inner = groups[keys] = Group(keys, group)
            if key in keys:
                missing = inner
            group, groups = inner, inner.within
        assert group is not None, "there is a first group of keys in any case"  # noqa: S101
        waiter.group = group
        group.count(waiter.order, 1)
        self._post(group, waiter)
        closed: Group | None = group
        while closed is not None and closed is not missing:
            if _is_first(waiter, closed):
                self._forget(closed)
                self._open(closed)
            closed = closed.around
        # A group that is closed already stays closed for the same want: that is lacking still. Unless it was
        # closed because of somebody who is now second.
        if missing is not None and (not missing.lacks or _is_first(waiter, missing)):
            self._close(missing, key, ready_at, waiter)

    def step_out(self, waiter: Waiter) -> None:
        """No longer waiting, for whatever reason."""
        group = waiter.group
        assert group is not None, "who waits stands in a group"  # noqa: S101
        group.count(waiter.order, -1)
        group.trim()
        for key in waiter.claims.token_keys():
            if any(group.because_of is waiter for group in self._lacking.get(key, ())):
                self._set_ready(key, NOW)  # the next may ask for less
        empty: Group | None = group
        while empty is not None and not empty.counts and not empty.within:
            del (self._groups if empty.around is None else empty.around.within)[empty.keys]
            if empty.lacks:
                self._forget(empty)
            empty = empty.around

    def opened(self, keys: Iterable[str], now: float) -> list[Group]:
        """The outermost groups worth trying: they lacked one of `keys`, or something whose time has come.

        Try the `first_of` them until there is none: grant it, refuse it, or say what it `lacks`.
        """
        opened = []
        for key in (*keys, *self._due(now)):
            self._ready_at.pop(key, None)
            for group in self._lacking.pop(key, ()):
                outermost = self._open_up(group)
                if not outermost.lacks and outermost not in opened:
                    opened.append(outermost)
        return opened

    def everyone(self) -> list[Group]:
        """All outermost groups: to try when nothing is known of any."""
        return list(self._groups.values())

    def lacks(self, waiter: Waiter, key: str, ready_at: float, opened: list[Group]) -> None:
        """The head of an opened group lacks `key`: close all that lack it too."""
        assert waiter.group is not None, "a head stands in a group"  # noqa: S101
        outermost, *inner = waiter.group.path()
        if key in outermost.keys:
            for group in [group for group in opened if key in group.keys]:
                opened.remove(group)
                self._close(group, key, ready_at, waiter)
        else:
            self._close(next(group for group in inner if key in group.keys), key, ready_at, waiter)

    def ahead(self, key: str, order: int) -> int:
        """How many wait for `key` and would be served before a newcomer of `order`."""
        groups = self._lacking.get(key)
        if groups is None:
            return 0
        return sum(count for group in groups for its, count in group.counts.items() if its <= order)

    def ready_at(self, key: str) -> float:
        """When a key that somebody lacks is worth trying; inf when nobody knows."""
        return self._ready_at.get(key, NEVER)

    def next_at(self) -> float:
        """When a key is worth trying although nobody settles; inf when never."""
        while self._ready and self._ready_at.get(self._ready[0][1]) != self._ready[0][0]:
            heapq.heappop(self._ready)
        return self._ready[0][0] if self._ready else NEVER

    def _due(self, now: float) -> list[str]:
        due = []
        # As close as a bucket calls it time: else a newcomer of the last microsecond would overtake.
        while self._ready and not wait_until(self._ready[0][0], now):
            at, key = heapq.heappop(self._ready)
            if self._ready_at.get(key) == at:
                del self._ready_at[key]
                due.append(key)
        return due

    def _close(self, group: Group, key: str, ready_at: float, waiter: Waiter) -> None:
        if group.lacks:
            self._forget(group)
        elif group.around is not None:
            for order, count in group.counts.items():
                group.around.count(order, -count)
        group.lacks = key
        group.because_of = waiter if key in waiter.claims.token_keys() else None
        self._lacking.setdefault(key, []).append(group)
        self._set_ready(key, ready_at)

    def _set_ready(self, key: str, ready_at: float) -> None:
        if ready_at != NEVER and self._ready_at.get(key) != ready_at:
            self._ready_at[key] = ready_at
            heapq.heappush(self._ready, (ready_at, key))
            if len(self._ready) > 2 * len(self._ready_at) + SLACK:
                self._ready = [(at, key) for key, at in self._ready_at.items()]
                heapq.heapify(self._ready)

    def _open_up(self, group: Group) -> Group:
        """Open it, and around it what is closed because of one less important; returns the outermost."""
        self._open(group)
        while (around := group.around) is not None:
            head = group.head()
            if around.lacks:
                if head is None or not _is_first(head, around):
                    break
                self._forget(around)
                self._open(around)
            group = around
        return group.path()[0]

    def _open(self, group: Group) -> None:
        group.lacks = ""
        group.because_of = None
        if group.around is not None:
            for order, count in group.counts.items():
                group.around.count(order, count)
            head = group.head()
            if head is not None:
                self._post(group.around, head)

    def _post(self, group: Group, waiter: Waiter) -> None:
        """`waiter` is new in `group`: make it known as far out as it is the head of what is open."""
        at: Group | None = group
        while at is not None:
            at.post(waiter)
            at = None if at.lacks or at.head() is not waiter else at.around

    def _forget(self, group: Group) -> None:
        closed = self._lacking[group.lacks]
        closed.remove(group)
        if not closed:
            del self._lacking[group.lacks]
            self._ready_at.pop(group.lacks, None)


def _is_first(waiter: Waiter, group: Group) -> bool:
    """Is the group closed because of one who is served after `waiter`?"""
    return group.because_of is not None and waiter < group.because_of


def first_of(opened: list[Group]) -> Waiter | None:
    """The most important of the heads; groups without one are struck from `opened`."""
    first: Waiter | None = None
    for group in tuple(opened):
        head = group.head()
        if head is None:
            opened.remove(group)
        elif first is None or head < first:
            first = head
    return first
