"""One quota's exchange between a replica and the shared ledger (`ledger.py`).

`stores/lua/trade.lua` says the same to Redis; a differential test holds the two together. `trade_quota`
takes the account as it was (None: never heard of, or as good as that) and returns it as it is.
"""

from __future__ import annotations


class QuotaAsk:
    """Of a quota of `amount` in each `window_s`: `back` were counted and not used, `need` more are wanted.

    `over` were used beyond what was counted, and count whether there is room or not, in whatever window.
    `ends_at` names the window that `back` and `left` were told of: its end on the store's clock, as it was
    when it began. `lasts`: each grant puts the end off, to `window_s` from then. `left` is what the replica
    last knew to be left of it.
    """

    __slots__ = ("amount", "back", "ends_at", "lasts", "left", "need", "over", "window_s")

    def __init__(
        self,
        amount: int,
        window_s: float,
        *,
        back: int = 0,
        over: int = 0,
        need: int = 0,
        left: int = -1,
        ends_at: float = 0.0,
        lasts: bool = False,
    ) -> None:
        self.amount = amount
        self.window_s = window_s
        self.back = back
        self.over = over
        self.need = need
        self.left = left
        self.ends_at = ends_at
        self.lasts = lasts


class QuotaTold:
    """`granted` were counted for the replica; `left` are left in the window that is named `ends_at`.

    `ends_s` is the time until its end; 0.0 where no window has begun.
    """

    __slots__ = ("ends_at", "ends_s", "granted", "left")

    def __init__(self, granted: int, left: int, ends_at: float, ends_s: float) -> None:
        self.granted = granted
        self.left = left
        self.ends_at = ends_at
        self.ends_s = ends_s


class QuotaAccount:
    """How much was counted in the window that ends at `gone_at`. `name` is the end that it had at first."""

    __slots__ = ("gone_at", "name", "spent")

    def __init__(self, name: float, gone_at: float) -> None:
        self.name = name
        self.gone_at = gone_at
        self.spent = 0


def trade_quota(
    account: QuotaAccount | None, ask: QuotaAsk, now: float, *, learning: bool
) -> tuple[QuotaAccount | None, QuotaTold]:
    """Give back, then count: a window begins with the first that is counted."""
    if account is not None and account.gone_at <= now:
        account = None
    if learning:
        return _recall_quota(account, ask, now), QuotaTold(0, 0, 0.0, 0.0)
    if account is None:
        if ask.need <= 0 and ask.over <= 0:
            return None, QuotaTold(0, ask.amount, 0.0, 0.0)
        account = QuotaAccount(now + ask.window_s, now + ask.window_s)
    elif account.name == ask.ends_at:
        account.spent = max(0, account.spent - ask.back)
    account.spent += ask.over
    granted = max(0, min(ask.need, ask.amount - account.spent))
    account.spent += granted
    if ask.lasts and granted:
        account.gone_at = now + ask.window_s
    left = max(0, ask.amount - account.spent)
    return account, QuotaTold(granted, left, account.name, account.gone_at - now)


def _recall_quota(account: QuotaAccount | None, ask: QuotaAsk, now: float) -> QuotaAccount | None:
    """While the ledger learns: a replica last knew of `left`. Of what lasts, and is known, the end is not."""
    if ask.left < 0 or not ask.ends_at or (ask.ends_at <= now and not ask.lasts):
        return account
    if account is None:
        account = QuotaAccount(ask.ends_at, now + ask.window_s if ask.lasts else ask.ends_at)
    account.spent = max(account.spent, ask.amount - ask.left)
    return account
