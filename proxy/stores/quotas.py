"""Quotas per hour or day, and what a run may have in all: counted by `limits`, which only this file imports.

A window begins with the first call of its key, and is fixed, but for that of a quota that `lasts`: each call
granted puts its end off. `limits` reads the machine's clock in its own
memory storage; ours takes the time of the decision, so that quotas and buckets share one clock and a test
can turn it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from proxy.core.policy import QuotaPolicy
from proxy.core.rounding import NEVER, ROUNDING_S, wait_until

SWEEP_FROM: Final = 1024


class Window:
    """What was counted in one window. It is over at `ends_at`, on the clock of the decisions."""

    __slots__ = ("count", "ends_at")

    def __init__(self, ends_at: float) -> None:
        self.count = 0
        self.ends_at = ends_at


class WindowCounts(Storage):
    """A `limits` storage in a dictionary, on the clock it is given: set `now` before each use."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._windows: dict[str, Window] = {}
        self._sweep_at = SWEEP_FROM

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """None: a dictionary does not fail."""
        return ()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count `amount` in the key's window, which begins now if there is none."""
        window = self.window(key)
        if window is None:
            window = self._windows[key] = Window(self.now + expiry)
        window.count += amount
        if len(self._windows) > self._sweep_at:
            self._windows = {k: each for k, each in self._windows.items() if self._is_open(each)}
            self._sweep_at = max(SWEEP_FROM, 2 * len(self._windows))
        return window.count

    def get(self, key: str) -> int:
        """The count of the key's window."""
        window = self.window(key)
        return 0 if window is None else window.count

    def get_expiry(self, key: str) -> float:
        """When the key's window ends, on the clock of `now`."""
        window = self.window(key)
        return self.now if window is None else window.ends_at

    def check(self) -> bool:
        """A dictionary is always well."""
        return True

    def reset(self) -> int:
        """Forget every window; returns how many there were."""
        forgotten = len(self._windows)
        self._windows.clear()
        return forgotten

    def clear(self, key: str) -> None:
        """Forget one window."""
        self._windows.pop(key, None)

    def window(self, key: str) -> Window | None:
        """The key's window, where there is one that is not over."""
        window = self._windows.get(key)
        return window if window is not None and self._is_open(window) else None

    def _is_open(self, window: Window) -> bool:
        return window.ends_at - self.now > ROUNDING_S


class _Item(RateLimitItemPerSecond):
    """An item whose key leaves out the amount: a reload that changes it keeps what was counted.

    Another length of the window is another count.
    """

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return f"{identifiers[0]!s}/{self.multiples}s"


class _Lasting(_Item):
    """An item of what `lasts`: how long it is remembered may change, and what was counted stays."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return str(identifiers[0])


class Quotas:
    """Ask `wait_s` (free), then `spend`; `refund` gives back what was not used, `charge` takes what was used
    beyond that. Amounts are whole numbers of the quota's unit.
    """

    def __init__(self) -> None:
        self._counts = WindowCounts()
        self._windows = FixedWindowRateLimiter(self._counts)

    def wait_s(self, key: str, quota: QuotaPolicy, now: float, cost: int = 1) -> float:
        """Seconds until so much fits: 0.0 when it does, inf when it never can. Spends nothing."""
        if cost > quota.amount:
            return NEVER
        self._counts.now = now
        item = _item(quota.amount, quota.window_s, lasts=quota.lasts)
        if not cost or self._windows.test(item, key, cost=cost):
            return 0.0
        return wait_until(self._windows.get_window_stats(item, key).reset_time, now)

    def spend(self, key: str, quota: QuotaPolicy, now: float, cost: int = 1) -> Window:
        """Count so much; returns the window it was counted in."""
        self._counts.now = now
        item = _item(quota.amount, quota.window_s, lasts=quota.lasts)
        self._windows.hit(item, key, cost=cost)
        window = self._counts.window(item.key_for(key))
        assert window is not None, "it was counted in one just now"  # noqa: S101
        if quota.lasts:
            window.ends_at = now + quota.window_s
        return window

    def refund(self, key: str, quota: QuotaPolicy, window: Window, now: float, cost: int = 1) -> None:
        """Count so much less in `window`, unless it is over: then there is nothing to give back."""
        self._counts.now = now
        item = _item(quota.amount, quota.window_s, lasts=quota.lasts)
        if self._counts.window(item.key_for(key)) is window:
            self._windows.hit(item, key, cost=-min(cost, window.count))

    def charge(self, key: str, quota: QuotaPolicy, cost: int, now: float) -> None:
        """Count what was used beyond what fitted, in the window of now, which begins if there is none."""
        self._counts.now = now
        self._windows.hit(_item(quota.amount, quota.window_s, lasts=quota.lasts), key, cost=cost)

    def counted(self, key: str, quota: QuotaPolicy, now: float) -> int:
        """What is counted in the window of now."""
        self._counts.now = now
        return self._counts.get(_item(quota.amount, quota.window_s, lasts=quota.lasts).key_for(key))


@lru_cache(maxsize=1024)
def _item(amount: int, window_s: int, *, lasts: bool) -> RateLimitItem:
    return (_Lasting if lasts else _Item)(amount, window_s)
