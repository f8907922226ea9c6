"""One bucket's exchange between a replica and the shared ledger (`ledger.py`).

`stores/lua/trade.lua` says the same to Redis; a differential test holds the two together. Each function
takes the account as it was (None: never heard of, or as good as that) and returns it as it is.
"""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = -1.0
"""In place of a number that a replica does not know."""

AT_ONCE_S: Final = 0.1
"""Tokens without a rate are spent when they come, or go back: a reply takes no longer. Of a bucket that
refills in less than four times that, a quarter of its own time: else hardly any of it would be in use."""

LEASED_SHARE: Final = 0.95
"""So much of a rate is leased at most: what is left is for replicas that ask too seldom for a slice."""


class BucketAsk:
    """Of a bucket of `rate` a second and `burst` at once, in its own unit.

    `keep` is what the replica goes on spending of its slice while the trip lasts, `back` what it hands back
    (below 0: what it spent beyond). `demand` is what it was asked for lately, a second; 0.0 where that is
    too little for a slice with a rate. `need` is what its waiting calls lack now, `room` what it would like
    to hold besides. A slice of less than `unit`, the dearest call of late, is of no use to it. `left` is the
    level that it last knew, brought forward, for a ledger that has lost it.
    """

    __slots__ = ("back", "burst", "demand", "keep", "left", "need", "rate", "room", "unit")

    def __init__(
        self,
        rate: float,
        burst: float,
        *,
        keep: float = 0.0,
        back: float = 0.0,
        demand: float = 0.0,
        need: float = 0.0,
        room: float = 0.0,
        unit: float = 1.0,
        left: float = UNKNOWN,
    ) -> None:
        self.rate = rate
        self.burst = burst
        self.keep = keep
        self.back = back
        self.demand = demand
        self.need = need
        self.room = room
        self.unit = unit
        self.left = left


class BucketTold:
    """The replica's slice until its lease ends: `tokens` more than it kept, `rate` a second, at most `bound`.

    Where `rate` is 0.0 they are to be spent at once. `void`: it held no slice any more, and what it kept is
    gone. `level` is what nobody holds, and `free` the rate at which that grows.
    """

    __slots__ = ("bound", "free", "level", "rate", "tokens", "void")

    def __init__(
        self, tokens: float, rate: float, bound: float, level: float, free: float, *, void: bool
    ) -> None:
        self.tokens = tokens
        self.rate = rate
        self.bound = bound
        self.level = level
        self.free = free
        self.void = void


class BucketShare:
    """What one replica holds of a bucket."""

    __slots__ = ("bound", "demand", "rate", "replica", "until")

    def __init__(self, replica: str, rate: float, bound: float, demand: float, until: float) -> None:
        self.replica = replica
        self.rate = rate
        self.bound = bound
        self.demand = demand
        self.until = until


class BucketAccount:
    """What nobody holds of a bucket, `level` at the time `at`, and who holds the rest.

    From `gone_at` on it is full, and as good as never heard of.
    """

    __slots__ = ("at", "gone_at", "level", "shares")

    def __init__(self, level: float, at: float) -> None:
        self.level = level
        self.at = at
        self.gone_at = at
        self.shares: list[BucketShare] = []


def trade_bucket(
    account: BucketAccount | None, ask: BucketAsk, replica: str, now: float, lease_s: float
) -> tuple[BucketAccount, BucketTold]:
    """Hand back, then take: a rate in proportion to the demand, and tokens as far as there are any."""
    if account is None or account.gone_at <= now:
        account = BucketAccount(ask.burst, now)
    level = _brought_forward(account, ask, now)
    void = not any(share.replica == replica for share in account.shares)
    others = [share for share in account.shares if share.replica != replica]
    keep = 0.0 if void else ask.keep
    others_bound = sum(share.bound for share in others)
    pool = min(level + ask.back, ask.burst - others_bound - keep)
    demand = ask.demand + sum(share.demand for share in others)

    part = ask.demand / demand if demand > 0.0 else 0.0
    room = min(ask.room, ask.burst * part / 2)
    rate = 0.0
    if ask.demand > 0.0 and max(room, keep) >= ask.unit:
        others_rate = sum(share.rate for share in others)
        leased = LEASED_SHARE * ask.rate
        rate = max(0.0, min(2 * ask.demand, leased * part, leased - others_rate))
    most = max(keep, ask.burst - others_bound)
    wanted = max(ask.need, room) - keep
    tokens = max(0.0, min(wanted, most - keep, pool))
    bound = min(most, max(room, keep + tokens)) if rate > 0.0 else keep + tokens

    account.level = min(pool - tokens, max(0.0, ask.burst - others_bound - bound))
    account.at = max(now, account.at)
    account.shares = others
    if bound > 0.0 or rate > 0.0:
        for_s = lease_s if rate > 0.0 else at_once_s(ask.burst, ask.rate)
        share = BucketShare(replica, rate, bound, ask.demand, now + for_s)
        account.shares = sorted([*others, share], key=lambda each: each.replica)
    account.gone_at = now + lease_s + (ask.burst - account.level) / ask.rate
    free = max(0.0, ask.rate - sum(share.rate for share in account.shares))
    return account, BucketTold(tokens, rate, bound, account.level, free, void=void)


def at_once_s(burst: float, rate: float) -> float:
    """How long tokens without a rate count as held: until then they are spent, or on their way back."""
    return min(AT_ONCE_S, burst / rate / 4)


def _brought_forward(account: BucketAccount, ask: BucketAsk, now: float) -> float:
    """The level at `now`: it grew faster, and may be higher, whenever a share had run out. These are gone."""
    level = account.level
    for share in sorted(account.shares, key=lambda each: (each.until, each.replica)):
        upto = min(share.until, now)
        level = _grown(level, account, ask, upto)
        account.at = max(account.at, upto)
        if share.until > now:
            return level
        account.shares.remove(share)
    return _grown(level, account, ask, now)


def _grown(level: float, account: BucketAccount, ask: BucketAsk, upto: float) -> float:
    """The level at `upto`, with the shares that there are."""
    bounds = sum(share.bound for share in account.shares)
    free = max(0.0, ask.rate - sum(share.rate for share in account.shares))
    return min(max(0.0, ask.burst - bounds), level + free * max(0.0, upto - account.at))


def recall_bucket(
    account: BucketAccount | None, ask: BucketAsk, now: float, until: float, lease_s: float
) -> BucketAccount | None:
    """While the ledger learns, and gives nothing: what a replica last knew, which grows from `until` on."""
    if account is None or account.gone_at <= now:
        if ask.left < 0.0:
            return None
        account = BucketAccount(ask.burst, until)
    account.level = min(account.level, ask.left) if ask.left >= 0.0 else account.level
    account.at = max(account.at, until)
    account.gone_at = until + lease_s + (ask.burst - account.level) / ask.rate
    return account
