"""Who is next among groups: the most important of their heads; now and then the least."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.core.groups import Group

if TYPE_CHECKING:
    from proxy.core.waiting import Waiter


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
