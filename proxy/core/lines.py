"""Everybody who waits, by what they lack: so that nobody is asked in vain, however many wait.

Waiters who ask for the same stand in a group (`groups.py`). What one of them lacks all of them lack, so the
group waits for that one key as a whole; when the key has room again, only the heads of the few groups that
lacked it are looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from proxy.core.claims import Shortfall
from proxy.core.groups import SLACK, Bay, Group, Party, Place, Row
from proxy.core.orders import BOOKED
from proxy.core.rounding import NEVER, wait_until

if TYPE_CHECKING:
    from proxy.core.waiting import Waiter

NOW: Final = float("-inf")


class Lines:
    """Everybody who waits, by what they lack. What is said to be lacking is lacking until `opened`."""

    __slots__ = ("_groups", "_lacking", "_ready", "_ready_at")

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], Group] = {}
        self._lacking: dict[str, list[Place]] = {}  # key → what is closed for want of it
        self._ready: list[tuple[float, str]] = []  # when a key is worth trying, with stale ones
        self._ready_at: dict[str, float] = {}

    def stand(self, waiter: Waiter, shortfall: Shortfall | None, now: float) -> None:
        """Begin to wait for what was just found lacking; None: that is not known."""
        row = self._row_of(waiter)
        party, bay = row.party, row.party.bay
        group = bay.level.group
        waiter.row = row
        row.join(waiter)
        party.size += 1
        bay.level.joined(party.caller)
        if not row.lacks:
            _shift(row, 1)
        key = "" if shortfall is None else shortfall.key
        # A group that is closed already stays closed for the same want: that is lacking still. Unless it was
        # closed only from a level on that comes after this one.
        closes = not group.lacks or waiter.order < group.closed_from
        if shortfall is not None and key in group.keys and closes:
            self._close_group(group, shortfall, waiter, now)
        for place in (bay, party, row):
            overtaken = place.because_of is not None and waiter.precedes(place.because_of)
            if shortfall is not None and key in place.keys and (not place.lacks or overtaken):
                self._close_within(place, shortfall, waiter, now)
            elif overtaken:
                self._open(place, now)
        self._post(row, now)

    def step_out(self, waiter: Waiter) -> None:
        """No longer waiting, for whatever reason."""
        row = waiter.row
        assert row is not None, "who waits stands in a row"  # noqa: S101
        party, bay = row.party, row.party.bay
        level, group = bay.level, bay.level.group
        if not row.lacks:
            _shift(row, -1)
        del row.waiters[waiter.seq]
        party.size -= 1
        level.left(party.caller)
        if waiter.closed_for in self._lacking:
            self._set_ready(waiter.closed_for, NOW)  # the next may find it
        if row.waiters:
            return
        self._forget(row)
        del party.rows[(_GOING if row.going else _OTHERS, *row.keys)]
        party.trim()  # of whatever goes with its last, too: what is posted there holds it
        if party.rows:
            return
        self._forget(party)
        del bay.parties[(party.caller, *party.keys)]
        bay.trim()
        if bay.parties:
            return
        self._forget(bay)
        del level.bays[bay.keys]
        level.trim()
        if level.bays:
            return
        del group.levels[level.order]
        group.orders.remove(level.order)
        if not group.levels:
            self._forget(group)
            del self._groups[(_BOOKED if group.booked else _OTHERS, *group.keys)]

    def opened(self, keys: Iterable[str], now: float) -> list[Group]:
        """The groups worth trying: in them somebody lacked one of `keys`, or what is worth trying by now.

        Try the `first_of` them until there is none: grant it, refuse it, or say what it `lacks`.
        """
        opened: list[Group] = []
        for key in (*keys, *self._due(now)):
            self._ready_at.pop(key, None)
            for place in self._lacking.pop(key, ()):
                place.lacks = ""  # it stands in no list any more
                group = self._reopened(place, now)
                if group not in opened:
                    opened.append(group)
        return opened

    def everyone(self) -> list[Group]:
        """All groups: to try when nothing is known of any."""
        return list(self._groups.values())

    def lacks(self, waiter: Waiter, shortfall: Shortfall, now: float, opened: list[Group]) -> None:
        """The head of an opened group was just found lacking: close all that lack it too."""
        row, key = waiter.row, shortfall.key
        assert row is not None, "a head stands in a row"  # noqa: S101
        party, bay = row.party, row.party.bay
        if key in bay.level.group.keys:
            for group in opened:
                if key in group.keys and not (group.booked and shortfall.kept):
                    self._close_group(group, shortfall, waiter, now)
            return
        place: Place = bay if key in bay.keys else party if key in party.keys else row
        self._close_within(place, shortfall, waiter, now)

    def try_again(self, keys: Iterable[str]) -> None:
        """There may be room under these before it was expected: worth trying at once."""
        for key in keys:
            if key in self._lacking:
                self._set_ready(key, NOW)

    def ahead(self, key: str, waiter: Waiter) -> tuple[int, int]:
        """About how many wait for `key` and will be served before a newcomer; and those of its own class."""
        ahead = of_class = 0
        for place in self._lacking.get(key, ()):
            if isinstance(place, (Group, Bay)):
                counted, its_class = place.ahead_of(waiter)
            else:
                counted, its_class = (_open_in(place) if _order_of(place) <= waiter.order else 0), 0
            ahead += counted
            of_class += its_class
        return ahead, of_class

    def is_wanted(self, key: str, order: int) -> bool:
        """Does anybody wait for `key` before whom a newcomer of `order` would not be served?"""
        for place in self._lacking.get(key, ()):
            if (place.closed_from if isinstance(place, Group) else _order_of(place)) <= order:
                return True
        return False

    def ready_at(self, key: str) -> float:
        """When a key that somebody lacks is worth trying; inf when nobody knows."""
        return self._ready_at.get(key, NEVER)

    def next_at(self) -> float:
        """When a key is worth trying although nobody settles; inf when never."""
        while self._ready and self._ready_at.get(self._ready[0][1]) != self._ready[0][0]:
            heapq.heappop(self._ready)
        return self._ready[0][0] if self._ready else NEVER

    def _row_of(self, waiter: Waiter) -> Row:
        """Where a waiter stands, made if need be."""
        booked = waiter.kind == BOOKED
        group_key = (_BOOKED if booked else _OTHERS, *waiter.shared_keys)
        group = self._groups.get(group_key)
        if group is None:
            group = self._groups[group_key] = Group(waiter.shared_keys, waiter.target, booked=booked)
        level = group.level(waiter.order, waiter.shares)
        bay = level.bays.get(waiter.tool_keys)
        if bay is None:
            bay = level.bays[waiter.tool_keys] = Bay(waiter.tool_keys, level)
        party = bay.parties.get(waiter.party_key)
        if party is None:
            party = bay.parties[waiter.party_key] = Party(waiter.party_key[1:], waiter.call.caller, bay)
        row_key = (_GOING if waiter.going else _OTHERS, *waiter.run_keys)
        row = party.rows.get(row_key)
        if row is None:
            row = party.rows[row_key] = Row(waiter.run_keys, party, going=waiter.going)
        return row

    def _due(self, now: float) -> list[str]:
        due = []
        # As close as a bucket calls it time: else a newcomer of the last microsecond would overtake.
        while self._ready and not wait_until(self._ready[0][0], now):
            at, key = heapq.heappop(self._ready)
            if self._ready_at.get(key) == at:
                del self._ready_at[key]
                due.append(key)
        return due

    # ── closing and opening ─────────────────────────────────────────────────────────────────────────

    def _close_group(self, group: Group, shortfall: Shortfall, waiter: Waiter, now: float) -> None:
        if group.lacks:
            self._forget(group)
        group.closed_from = waiter.order
        self._lack(group, shortfall, waiter, now)

    def _close_within(self, place: Place, shortfall: Shortfall, waiter: Waiter, now: float) -> None:
        if place.lacks:
            self._forget(place)
        else:
            _shift(place, -_open_in(place))
        self._lack(place, shortfall, waiter, now)

    def _lack(self, place: Place, shortfall: Shortfall, waiter: Waiter, now: float) -> None:
        place.lacks = key = shortfall.key
        place.because_of = None
        if shortfall.kept or key in waiter.claims.token_keys():
            place.because_of = waiter
            waiter.closed_for = key
        self._lacking.setdefault(key, []).append(place)
        self._set_ready(key, shortfall.ready_at(now))

    def _open(self, place: Place, now: float) -> None:
        self._forget(place)
        self._reopened(place, now)

    def _reopened(self, place: Place, now: float) -> Group:
        """`place` lacks nothing any more; returns the group that it is in."""
        place.because_of = None
        if isinstance(place, Group):
            return place
        _shift(place, _open_in(place))
        if isinstance(place, Row):
            self._post(place, now)
            return place.party.bay.level.group
        bay = place if isinstance(place, Bay) else None
        if isinstance(place, Party):
            bay = place.bay
            if place.size:
                bay.post(place, next(iter(next(iter(place.rows.values())).waiters)))
        assert bay is not None, "there is no other place"  # noqa: S101
        if not bay.lacks and (head := bay.head(now)) is not None:
            bay.level.post(bay, head.call.caller, head.seq)
        return bay.level.group

    def _post(self, row: Row, now: float) -> None:
        """Make it known that `row` has somebody, as far out as all is open."""
        if row.lacks:
            return
        party = row.party
        party.post(row, now)
        if party.lacks:
            return
        bay, seq = party.bay, next(iter(row.waiters))
        bay.post(party, seq)
        if not bay.lacks:
            bay.level.post(bay, party.caller, seq)

    def _forget(self, place: Place) -> None:
        """It is closed no longer, or gone."""
        if not place.lacks:
            return
        closed = self._lacking[place.lacks]
        closed.remove(place)
        if not closed:
            del self._lacking[place.lacks]
            self._ready_at.pop(place.lacks, None)
        place.lacks = ""
        place.because_of = None

    def _set_ready(self, key: str, ready_at: float) -> None:
        if ready_at < self._ready_at.get(key, NEVER):  # what is kept for others is not the same for all
            self._ready_at[key] = ready_at
            heapq.heappush(self._ready, (ready_at, key))
            if len(self._ready) > 2 * len(self._ready_at) + SLACK:
                self._ready = [(at, key) for key, at in self._ready_at.items()]
                heapq.heapify(self._ready)


def _order_of(place: Place) -> int:
    """The order of those who stand in a bay or within."""
    if isinstance(place, Row):
        return place.party.bay.level.order
    if isinstance(place, Party):
        return place.bay.level.order
    assert isinstance(place, Bay), "a group has more than one"  # noqa: S101
    return place.level.order


def _open_in(place: Place) -> int:
    """How many could go from within a bay, were it open."""
    if isinstance(place, Row):
        return len(place.waiters)
    if isinstance(place, Party):
        return place.open
    assert isinstance(place, Bay), "a group does not count"  # noqa: S101
    return place.open


def _shift(place: Place, by: int) -> None:
    """So many more may go, or fewer, from within `place`: as far out as all is open."""
    if isinstance(place, Row):
        place.party.open += by
        place = place.party
        if place.lacks:
            return
    if isinstance(place, Party):
        place.bay.open += by
        place = place.bay
        if place.lacks:
            return
    assert isinstance(place, Bay), "a group does not count"  # noqa: S101
    place.level.open += by


_BOOKED: Final = "booked"
_GOING: Final = "going"
_OTHERS: Final = "others"
