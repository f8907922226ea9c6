"""One cap's exchange between a replica and the shared ledger (`ledger.py`).

`stores/lua/trade.lua` says the same to Redis; a differential test holds the two together. `trade_cap`
takes the account as it was (None: never heard of, or as good as that) and returns it as it is.
"""

from __future__ import annotations

from math import floor
from typing import Final

TURN_S: Final = 0.5
"""Permits that do not divide evenly go round: each stays with one replica for so long, if others want it."""


class CapAsk:
    """Of a cap of `slots`: `keep` is the most that the replica will have in flight while the trip lasts.

    `wanted` is how many it would have in flight if it could.
    """

    __slots__ = ("keep", "slots", "wanted")

    def __init__(self, slots: int, *, keep: int = 0, wanted: int = 0) -> None:
        self.slots = slots
        self.keep = keep
        self.wanted = wanted


class CapTold:
    """The replica may have `limit` in flight until its lease ends; whoever is beyond may finish.

    `counted` is how many are counted as its own, `free` how many it would be given if it wanted more, and
    `owed` how many more it will be given when others let go of them.
    """

    __slots__ = ("counted", "free", "limit", "owed")

    def __init__(self, limit: int, counted: int, free: int, owed: int) -> None:
        self.limit = limit
        self.counted = counted
        self.free = free
        self.owed = owed


class CapShare:
    """What one replica holds of a cap. `turn` is when it last got a permit that goes round."""

    __slots__ = ("counted", "replica", "turn", "until", "wanted")

    def __init__(self, replica: str, counted: int, wanted: int, turn: float, until: float) -> None:
        self.replica = replica
        self.counted = counted
        self.wanted = wanted
        self.turn = turn
        self.until = until


class CapAccount:
    """Who holds how much of a cap. From `gone_at` on nobody does."""

    __slots__ = ("gone_at", "shares")

    def __init__(self) -> None:
        self.gone_at = 0.0
        self.shares: list[CapShare] = []


def trade_cap(
    account: CapAccount | None, ask: CapAsk, replica: str, now: float, lease_s: float, *, learning: bool
) -> tuple[CapAccount, CapTold]:
    """Take permits in proportion to what all want; what is in flight stays counted, whatever comes."""
    account = account or CapAccount()
    turn = 0.0
    for share in account.shares:
        if share.replica == replica:
            turn = share.turn
    others = [share for share in account.shares if share.replica != replica and share.until > now]
    spare = ask.slots - ask.keep - sum(share.counted for share in others)
    wanted = ask.wanted + sum(share.wanted for share in others)

    target = ask.keep
    if not learning:
        if wanted <= ask.slots:
            # What is left over is shared out by half, so that who comes next finds some.
            more = (ask.slots - wanted) * ask.wanted / wanted / 2 if wanted else 0.0
            target = ask.wanted + floor(more)
        else:
            target, turn = _turn(ask, turn, others, wanted, replica, now)
    limit = min(target, ask.keep + max(0, spare))
    counted = max(limit, ask.keep)
    account.shares = others
    if counted or ask.wanted:
        share = CapShare(replica, counted, ask.wanted, turn, now + lease_s)
        account.shares = sorted([*others, share], key=lambda each: each.replica)
    account.gone_at = now + lease_s
    left = ask.slots - counted - sum(share.counted for share in others)
    free = max(0, left) if wanted <= ask.slots else 0  # else it is for those who have not come for it yet
    return account, CapTold(limit, counted, free, max(0, target - limit))


def _turn(
    ask: CapAsk, turn: float, others: list[CapShare], wanted: int, replica: str, now: float
) -> tuple[int, float]:
    """Too few for all: to each its part, and what does not divide goes round. The part, and its `turn`."""
    whole = floor(ask.slots * ask.wanted / wanted)
    over = ask.slots - whole
    before = 0  # of those whose part is no whole number: how many come before this one
    fresh = now - turn < TURN_S
    for other in others:
        its_whole = floor(ask.slots * other.wanted / wanted)
        over -= its_whole
        if its_whole * wanted == ask.slots * other.wanted:
            continue
        its_fresh = now - other.turn < TURN_S
        if its_fresh != fresh:
            before += its_fresh
        elif (other.turn, other.replica) < (turn, replica):
            before += 1
    if whole * wanted == ask.slots * ask.wanted or before >= over:
        return whole, turn
    return whole + 1, turn if fresh else now
