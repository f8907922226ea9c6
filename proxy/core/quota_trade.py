"""One quota's exchange between a replica and the shared ledger (`ledger.py`).

`stores/lua/trade.lua` says the same to Redis; a differential test holds the two together. `trade_quota`
takes the account as it was (None: never heard of, or as good as that) and returns it as it is.
"""

from __future__ import annotations


class QuotaAsk:
    """Of a quota of `amount` in each `window_s`: `back` were counted and not used, `need` more are wanted.

    `ends_at` is the end of the window that `back` and `left` were told of, on the store's clock; `left` is
    what the replica last knew to be left of it.
    """

    __slots__ = ("amount", "back", "ends_at", "left", "need", "window_s")

    def __init__(
        self,
        amount: int,
        window_s: float,
        *,
        back: int = 0,
        need: int = 0,
        left: int = -1,
        ends_at: float = 0.0,
    ) -> None:
        self.amount = amount
        self.window_s = window_s
        self.back = back
        self.need = need
        self.left = left
        self.ends_at = ends_at


class QuotaTold:
    """`granted` were counted for the replica; `left` are left in the window that ends at `ends_at`.

    `ends_s` is the time until then; 0.0 where no window has begun.
    """

    __slots__ = ("ends_at", "ends_s", "granted", "left")

    def __init__(self, granted: int, left: int, ends_at: float, ends_s: float) -> None:
        self.granted = granted
        self.left = left
        self.ends_at = ends_at
        self.ends_s = ends_s


class QuotaAccount:
    """How many were counted in the window that ends at `gone_at`."""

    __slots__ = ("gone_at", "spent")

    def __init__(self, gone_at: float) -> None:
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
        if ask.need <= 0:
            return None, QuotaTold(0, ask.amount, 0.0, 0.0)
        account = QuotaAccount(now + ask.window_s)
    elif account.gone_at == ask.ends_at:
        account.spent = max(0, account.spent - ask.back)
    granted = max(0, min(ask.need, ask.amount - account.spent))
    account.spent += granted
    left = max(0, ask.amount - account.spent)
    return account, QuotaTold(granted, left, account.gone_at, account.gone_at - now)


def _recall_quota(account: QuotaAccount | None, ask: QuotaAsk, now: float) -> QuotaAccount | None:
    """While the ledger learns: a replica last knew of `left`."""
    if ask.left < 0 or ask.ends_at <= now:
        return account
    if account is None:
        account = QuotaAccount(ask.ends_at)
    account.spent = max(account.spent, ask.amount - ask.left)
    return account
