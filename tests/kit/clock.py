"""A clock that stands still until a test turns it."""

from __future__ import annotations


class ManualClock:
    """Monotonic seconds. Call it for the time, as `time.monotonic` is called; it only goes forward."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Let `seconds` pass; returns the new time."""
        return self.set(self.now + seconds)

    def set(self, now: float) -> float:
        """Make it `now`; returns it."""
        if now < self.now:
            raise ValueError(f"time runs forward: {now} is before {self.now}")
        self.now = now
        return now
