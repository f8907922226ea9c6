"""Quotas per hour or day: counted by `limits`, and this is the one file that imports it.

A fixed window that begins with the first call of its key. `limits` reads the machine's clock in its own
memory storage; ours takes the time of the decision, so that quotas and buckets share one clock and a test
can turn it.
"""

from __future__ import annotations

from typing import Final

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from proxy.core.policy import QuotaPolicy
from proxy.core.rounding import ROUNDING_S, wait_until

SWEEP_FROM: Final = 1024


class WindowCounts(Storage):
    """A `limits` storage in a dictionary, on the clock it is given: set `now` before each use."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._windows: dict[str, tuple[int, float]] = {}  # key → (count, end of the window)
        self._sweep_at = SWEEP_FROM

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """None: a dictionary does not fail."""
        return ()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count `amount` in the key's window, which begins now if there is none."""
        count, ends_at = self._window(key, expiry)
        self._windows[key] = (count + amount, ends_at)
        if len(self._windows) > self._sweep_at:
            self._windows = {k: window for k, window in self._windows.items() if self._is_open(window[1])}
            self._sweep_at = max(SWEEP_FROM, 2 * len(self._windows))
        return count + amount

    def get(self, key: str) -> int:
        """The count of the key's window."""
        return self._window(key, 0)[0]

    def get_expiry(self, key: str) -> float:
        """When the key's window ends, on the clock of `now`."""
        return self._window(key, 0)[1]

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

    def _window(self, key: str, expiry: int) -> tuple[int, float]:
        count, ends_at = self._windows.get(key, (0, 0.0))
        return (count, ends_at) if self._is_open(ends_at) else (0, self.now + expiry)

    def _is_open(self, ends_at: float) -> bool:
        return ends_at - self.now > ROUNDING_S


class _Item(RateLimitItemPerSecond):
    """An item whose key leaves out the amount: a reload that changes it keeps what was counted.

    Another length of the window is another count.
    """

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return f"{identifiers[0]!s}/{self.multiples}s"


class Quotas:
    """Ask `wait_s` (free), then `spend`; `refund` gives back a spend that was not used."""

    def __init__(self) -> None:
        self._counts = WindowCounts()
        self._windows = FixedWindowRateLimiter(self._counts)

    def wait_s(self, key: str, quota: QuotaPolicy, now: float) -> float:
        """Seconds until one more fits: 0.0 when it does, else until the window ends. Spends nothing."""
        self._counts.now = now
        item = _item(quota)
        if self._windows.test(item, key):
            return 0.0
        return wait_until(self._windows.get_window_stats(item, key).reset_time, now)

    def spend(self, key: str, quota: QuotaPolicy, now: float) -> float:
        """Count one call; returns the end of the window it was counted in."""
        self._counts.now = now
        item = _item(quota)
        self._windows.hit(item, key)
        return self._counts.get_expiry(item.key_for(key))

    def refund(self, key: str, quota: QuotaPolicy, window: float, now: float) -> None:
        """Count one call less in the window that ends at `window`, unless it has ended."""
        self._counts.now = now
        item = _item(quota)
        count_key = item.key_for(key)
        if self._counts.get(count_key) > 0 and self._counts.get_expiry(count_key) == window:
            self._windows.hit(item, key, cost=-1)


def _item(quota: QuotaPolicy) -> RateLimitItem:
    return _Item(quota.amount, quota.window_s)
