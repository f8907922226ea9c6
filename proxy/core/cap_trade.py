"""One cap's exchange between a replica and the shared ledger (`ledger.py`).

`stores/lua/trade.lua` says the same to Redis; a differential test holds the two together. `trade_cap`
takes the replicas' shares as they were, in the order of their names, and returns them as they are.
"""

from __future__ import annotations

from math import floor
from typing import Final

TURN_S: Final = 2.0
"""Permits that do not divide evenly go round: each stays with one replica for so long, if others want it."""


class CapAsk:
    """Of a cap of `slots`: `keep` is the most that the replica will have in flight while the trip lasts.

    `wanted` is how many it would have in flight if it could, as its calls come and last; `waiting` how many
    calls wait for one just now. `quick`: they are so short that what it has beyond its part is soon back.
    """

    __slots__ = ("keep", "quick", "slots", "waiting", "wanted")

    def __init__(
        self, slots: int, *, keep: int = 0, wanted: int = 0, waiting: int = 0, quick: bool = False
    ) -> None:
        self.slots = slots
        self.keep = keep
        self.wanted = wanted
        self.waiting = waiting
        self.quick = quick


class CapTold:
    """The replica may have `limit` in flight until its lease ends; whoever is beyond may finish.

    `counted` is how many are counted as its own, `free` how many more it would be given if it wanted them
    (below 0: none, and calls of others wait for those that it has). `owed` is how many it will be given when
    others let go of them.
    """

    __slots__ = ("counted", "free", "limit", "owed")

    def __init__(self, limit: int, counted: int, free: int, owed: int) -> None:
        self.limit = limit
        self.counted = counted
        self.free = free
        self.owed = owed


class CapShare:
    """What one replica holds of a cap. `turn` is when it last got a permit that goes round."""

    __slots__ = ("counted", "replica", "turn", "until", "waiting", "wanted")

    def __init__(
        self, replica: str, counted: int, wanted: int, waiting: int, turn: float, until: float
    ) -> None:
        self.replica = replica
        self.counted = counted
        self.wanted = wanted
        self.waiting = waiting
        self.turn = turn
        self.until = until


def trade_cap(
    shares: list[CapShare], ask: CapAsk, replica: str, now: float, lease_s: float, learning_until: float
) -> tuple[list[CapShare], CapTold]:
    """Take permits, of too few an equal part; what is in flight stays counted, whatever comes.

    While it learns (`learning_until` is not 0.0) nothing is given.
    """
    turn = 0.0
    for share in shares:
        if share.replica == replica:
            turn = share.turn
    others = [share for share in shares if share.replica != replica and share.until > now]
    spare = ask.slots - ask.keep - sum(share.counted for share in others)
    wanted = ask.wanted + sum(share.wanted for share in others)
    waiting = sum(share.waiting for share in others)

    if learning_until:
        target = ask.keep
    elif wanted <= ask.slots:
        # What is left over is shared out by half, so that who comes next finds some.
        more = (ask.slots - wanted) * ask.wanted / wanted / 2 if wanted else 0.0
        target = ask.wanted + floor(more)
    else:
        part = _equal_part(ask.slots, [ask.wanted, *(other.wanted for other in others)])
        target, turn = _turn(ask, part, turn, others, replica, now)
        if ask.quick and not waiting:
            target = max(target, min(ask.wanted, ask.keep + spare))
        elif ask.quick:  # what lies idle here is of use there
            most = ask.keep + spare - _owed_to(others, floor(part), now)
            target = min(max(target, most), ask.keep + ask.waiting)
    limit = min(target, ask.keep + max(0, spare))
    counted = max(limit, ask.keep)
    left = spare + ask.keep - counted
    free = max(0, left) if wanted <= ask.slots else -int(waiting > 0)
    told = CapTold(limit, counted, free, max(0, target - limit))
    if not counted and not ask.wanted:
        return others, told
    still = max(0, ask.waiting - max(0, limit - ask.keep))
    until = max(now, learning_until) + lease_s
    share = CapShare(replica, counted, ask.wanted, still, turn, until)
    return sorted([*others, share], key=lambda each: each.replica), told


def _turn(
    ask: CapAsk, part: float, turn: float, others: list[CapShare], replica: str, now: float
) -> tuple[int, float]:
    """Too few for all: to each what it wants or an equal part, and what does not divide evenly goes round.

    The part of the asker, and its `turn`.
    """
    whole = floor(part)
    over = ask.slots - min(whole, ask.wanted) - sum(min(whole, other.wanted) for other in others)
    if ask.wanted <= part or part == whole:
        return min(whole, ask.wanted), turn
    before, fresh = 0, now - turn < TURN_S  # who want one more too, and come before this one
    for other in others:
        if other.wanted <= part:
            continue
        its_fresh = now - other.turn < TURN_S
        if its_fresh != fresh:
            before += its_fresh
        elif (other.turn, other.replica) < (turn, replica):
            before += 1
    if before >= over:
        return whole, turn
    return whole + 1, turn if fresh else now


def _owed_to(others: list[CapShare], whole: int, now: float) -> int:
    """How many of their own parts the others have calls waiting for, and do not have."""
    owed = 0
    for other in others:
        due = min(other.wanted, whole + (now - other.turn < TURN_S))
        owed += max(0, min(due - other.counted, other.waiting))
    return owed


def _equal_part(slots: int, wanted: list[int]) -> float:
    """The most that each may have when those who want less get that: max-min fairness."""
    left, rest = float(slots), len(wanted)
    for want in sorted(wanted):
        if want * rest >= left:
            break
        left -= want
        rest -= 1
    return left / rest if rest else left
