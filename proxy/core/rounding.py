"""The grain of a wait: how close to its instant a moment counts as the instant itself."""

from __future__ import annotations

from typing import Final

NEVER: Final = float("inf")
"""The instant that does not come, and the wait for it."""

ROUNDING_S: Final = 1e-6
"""A wait shorter than this counts as none. Monotonic seconds after a year of uptime have a grain of 4 ns;
whoever comes back exactly when told must not be refused for a rounding of a sum of such numbers. It lets
a call go a microsecond early and charges it in full, so no rate is exceeded beyond `rate * 1e-6`."""


def wait_until(at: float, now: float) -> float:
    """Seconds from `now` to the instant `at`; 0.0 when it has come."""
    wait = at - now
    return wait if wait > ROUNDING_S else 0.0
