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

LEAST_CALLS: Final = 3
"""A slice with a rate holds so many calls at least: in a smaller one too much would run over."""

LEASED_SHARE: Final = 0.95
"""So much of a rate is leased at most: what is left is for replicas that ask too seldom for a slice."""


class BucketAsk:
    """Of a bucket of `rate` a second and `burst` at once, in its own unit.

    `keep` is what the replica goes on spending of its slice while the trip lasts, `hand` what it hands back
    of it; `back` what comes back besides, of calls that did not use it (below 0: what was used beyond).
    `demand` is what it was asked for lately, a second; 0.0 where that is too little for a slice with a rate.
    `need` is what its waiting calls lack now, with what it keeps; `room` what it would like to hold. `unit`
    is the dearest call of late. `left` is the level that it last knew, brought forward, for a ledger that
    has lost it.
    """

    __slots__ = ("back", "burst", "demand", "hand", "keep", "left", "need", "rate", "room", "unit")

    def __init__(
        self,
        rate: float,
        burst: float,
        *,
        keep: float = 0.0,
        hand: float = 0.0,
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
        self.hand = hand
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
    """What one replica holds of a bucket, until `held_until`. Its `demand` counts until `until`."""

    __slots__ = ("bound", "demand", "held_until", "rate", "replica", "until")

    def __init__(
        self, replica: str, rate: float, bound: float, demand: float, held_until: float, until: float
    ) -> None:
        self.replica = replica
        self.rate = rate
        self.bound = bound
        self.demand = demand
        self.held_until = held_until
        self.until = until


class BucketAccount:
    """What nobody holds of a bucket, `level` at the time `at`, and who holds the rest.

    A replica that needs more than could be given is `first` in line until `first_until`: so much of the
    level as it needs, `due`, is not given to others. From `gone_at` on the account is full, and as good as
    never heard of.
    """

    __slots__ = ("at", "due", "first", "first_until", "gone_at", "level", "shares")

    def __init__(self, level: float, at: float) -> None:
        self.level = level
        self.at = at
        self.gone_at = at
        self.first = ""
        self.first_until = 0.0
        self.due = 0.0
        self.shares: list[BucketShare] = []


def trade_bucket(
    account: BucketAccount | None, ask: BucketAsk, replica: str, now: float, lease_s: float
) -> tuple[BucketAccount, BucketTold]:
    """Hand back, then take: a rate in proportion to the demand, and tokens as far as there are any."""
    if account is None or account.gone_at <= now:
        account = BucketAccount(ask.burst, now)
    level = _brought_forward(account, ask, now)
    void = not any(share.replica == replica and share.held_until > now for share in account.shares)
    others = [share for share in account.shares if share.replica != replica and share.until > now]
    keep, hand = (0.0, 0.0) if void else (ask.keep, ask.hand)
    others_bound = sum(share.bound for share in others)
    pool = min(level + hand + ask.back, ask.burst - others_bound - keep)
    due = account.due if account.first != replica and now < account.first_until else 0.0

    demand = ask.demand + sum(share.demand for share in others)
    part = ask.demand / demand if demand > 0.0 else 0.0
    room = min(ask.room, (ask.burst - due) * part / 2)
    rate = 0.0
    if ask.demand > 0.0 and room >= LEAST_CALLS * ask.unit:
        others_rate = sum(share.rate for share in others)
        leased = LEASED_SHARE * ask.rate * (1.0 - due / ask.burst / 2)
        rate = max(0.0, min(2 * ask.demand, leased * part, leased - others_rate))
    most = max(keep, ask.burst - others_bound - due)
    wanted = max(ask.need, room if rate > 0.0 else 0.0) - keep
    tokens = max(0.0, min(wanted, most - keep, pool - due))
    bound = min(most, max(room, keep + tokens)) if rate > 0.0 else keep + tokens

    if due == 0.0:
        unmet = ask.need > max(bound if rate > 0.0 else 0.0, keep + tokens)
        account.first = replica if unmet else ""
        account.due = ask.need if unmet else 0.0
        account.first_until = now + lease_s if unmet else 0.0
    account.level = min(pool - tokens, max(0.0, ask.burst - others_bound - bound))
    account.at = max(now, account.at)
    account.shares = others
    if bound > 0.0 or ask.demand > 0.0:
        held_s = lease_s if rate > 0.0 else at_once_s(ask.burst, ask.rate)
        share = BucketShare(replica, rate, bound, ask.demand, now + held_s, now + lease_s)
        account.shares = sorted([*others, share], key=lambda each: each.replica)
    account.gone_at = now + lease_s + (ask.burst - account.level) / ask.rate
    free = max(0.0, ask.rate - sum(share.rate for share in account.shares))
    return account, BucketTold(tokens, rate, bound, account.level - due, free, void=void)


def at_once_s(burst: float, rate: float) -> float:
    """How long tokens without a rate count as held: until then they are spent, or on their way back."""
    return min(AT_ONCE_S, burst / rate / 4)


def _brought_forward(account: BucketAccount, ask: BucketAsk, now: float) -> float:
    """The level at `now`: it grows faster, and may be higher, once a replica holds nothing any more."""
    level = account.level
    for share in sorted(account.shares, key=lambda each: (each.held_until, each.replica)):
        if share.held_until > now:
            break
        level = _grown(level, account, ask, share.held_until)
        account.at = max(account.at, share.held_until)
        share.rate = share.bound = 0.0
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
