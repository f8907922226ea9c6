"""No proxy at all: every call goes to its upstream at once. For comparison."""

from __future__ import annotations

from loadtests.simulate.callers import Callers
from loadtests.simulate.calls import Attempt, Logical
from loadtests.simulate.clock import Timeline
from loadtests.simulate.ledger import Ledger
from loadtests.simulate.upstreams import Upstream


class NoDoor:
    """No proxy: whoever asks is sent."""

    def __init__(self, timeline: Timeline, upstream: Upstream, callers: Callers, ledger: Ledger) -> None:
        self._timeline = timeline
        self._upstream = upstream
        self._callers = callers
        self._ledger = ledger

    def enter(self, call: Logical) -> None:
        """Sent at once."""
        self._ledger.arrivals.append(self._timeline.now)
        call.attempt = Attempt(call, None, self._timeline.now)
        self._upstream.send(call.attempt)

    def leave(self, call: Logical) -> None:
        """The connection is closed."""
        attempt, call.attempt = call.attempt, None
        if attempt is not None:
            self._upstream.leave(attempt)

    def first_byte(self, attempt: Attempt) -> None:
        """Passed on."""
        self._callers.first_byte(attempt.call)

    def answered(self, attempt: Attempt, status: int, told_s: float | None) -> None:
        """Passed on."""
        attempt.call.attempt = None
        self._callers.answered(attempt.call, status, told_s, may_return=True, ours=False)

    def sample(self) -> None:
        """Nothing waits here."""
        self._ledger.samples.append((self._timeline.now, 0, self._upstream.here, 0.0, 0.0, 0.0))

    def check(self) -> None:
        """Nothing is held here."""
