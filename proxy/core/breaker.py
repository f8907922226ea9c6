"""The breaker: when an upstream counts as down, and how it is tried again.

The three phases and their listeners are pybreaker's (`stores/breakers.py` puts it behind `Machine`). The
decision to trip, the probe slots and the clock are here: pybreaker knows one failure counter and its own
wall clock, and cannot be awaited inside. 429 from the upstream moves buckets and caps, never the breaker;
our own refusals never reach it.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from proxy.core.policy import BreakerPolicy
from proxy.core.rounding import ROUNDING_S, wait_until
from proxy.core.verdict import FAILED, IGNORED, OVERLOADED, SUCCEEDED, Outcome

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half-open"

SLICES: Final = 10
"""The rolling window moves in tenths: old results leave it at most a tenth of the window early."""


class Machine(Protocol):
    """A three-state machine. `phase` is one of CLOSED, OPEN, HALF_OPEN; the methods move it."""

    @property
    def phase(self) -> str: ...
    def open(self) -> None: ...
    def half_open(self) -> None: ...
    def close(self) -> None: ...


class Window:
    """Calls, failures and slow calls that ended within the last `window_s` seconds."""

    __slots__ = ("_rows", "_slice_s", "calls", "failed", "slow")

    def __init__(self, window_s: float) -> None:
        self._slice_s = window_s / SLICES
        self._rows: deque[list[int]] = deque()  # [slice, calls, failed, slow], oldest first
        self.calls = self.failed = self.slow = 0

    def add(self, *, failed: bool, slow: bool, now: float) -> None:
        """One call ended."""
        self.forget(now)
        current = int(now / self._slice_s)
        if not self._rows or self._rows[-1][0] < current:
            self._rows.append([current, 0, 0, 0])
        row = self._rows[-1]
        row[1] += 1
        self.calls += 1
        if failed:
            row[2] += 1
            self.failed += 1
        if slow:
            row[3] += 1
            self.slow += 1

    def forget(self, now: float) -> None:
        """Drop what has left the window."""
        oldest = int(now / self._slice_s) - SLICES
        while self._rows and self._rows[0][0] <= oldest:
            _, calls, failed, slow = self._rows.popleft()
            self.calls -= calls
            self.failed -= failed
            self.slow -= slow


class Breaker:
    """One upstream's breaker.

    Ask `wait_s` (free), then `enter` when the call is granted, then `settle` exactly once with what
    `enter` returned. An outcome counts only in the phase in which its call began: what an outage left
    running neither closes nor opens the breaker of the time after it.
    """

    __slots__ = ("_machine", "_policy", "_probed", "_probes", "_reopen_at", "_turn", "_window")

    def __init__(self, policy: BreakerPolicy, machine: Machine) -> None:
        self._policy = policy
        self._machine = machine
        self._window = Window(policy.window_s)
        self._turn = 0  # counts the moves; a call remembers in which turn it began
        self._reopen_at = 0.0  # when an open breaker lets probes through
        self._probes = 0  # probes in flight
        self._probed = 0  # probes that succeeded in this half-open phase

    @property
    def phase(self) -> str:
        """`closed`, `open` or `half-open`."""
        return self._machine.phase

    @property
    def window(self) -> Window:
        """What the decision to trip rests on."""
        return self._window

    def adopt(self, policy: BreakerPolicy) -> None:
        """Follow a new policy from now on; the phase stays, and the window unless its length changed."""
        if policy.window_s != self._policy.window_s:
            self._window = Window(policy.window_s)
        self._policy = policy

    def wait_s(self, now: float) -> float | None:
        """0.0 when a call may go now; else seconds to the next probe, None when all probes are out."""
        phase = self.phase
        if phase == CLOSED:
            return 0.0
        if phase == OPEN:
            return wait_until(self._reopen_at, now)
        # With none out one may go in any case: a reload may have lowered `probes` below those that succeeded.
        return 0.0 if not self._probes or self._probes + self._probed < self._policy.probes else None

    def reset(self) -> None:
        """Close it and forget what it counted. What is in flight will not count."""
        self._move(CLOSED)

    def enter(self, now: float) -> int:
        """A call goes; returns the turn to settle it with. Only after `wait_s` said 0.0."""
        if self.phase == OPEN and now >= self._reopen_at - ROUNDING_S:
            self._move(HALF_OPEN)
        if self.phase == HALF_OPEN:
            self._probes += 1
        return self._turn

    def settle(self, turn: int, outcome: Outcome, silent_s: float, now: float) -> str | None:
        """A call ended. Returns why the breaker moved, for the log, or None when it did not.

        `silent_s` is how long the upstream let it wait for the beginning of an answer, or in vain. How long
        an answer lasts is no measure: a stream of events is as long as its model has words, or its reader
        patience. Precedent: `header` of nginx's `least_time`.
        """
        if turn != self._turn:
            return None
        failed = outcome is FAILED
        # A slow 429 is a sign of load, not of illness: it must not open the breaker either. A caller that
        # gave up after so long says what its answer would have said: else a hang that outlasts every
        # caller's patience would never be seen.
        spoke = failed or outcome is SUCCEEDED or outcome is IGNORED
        slow = spoke and silent_s >= self._policy.slow_call_s
        counts = failed or slow or outcome is SUCCEEDED or outcome is OVERLOADED
        if self.phase == HALF_OPEN:
            return self._settle_probe(counts=counts, bad=failed or slow, now=now)
        if counts:
            self._window.add(failed=failed, slow=slow, now=now)
        # A good answer never opens it, not even the one that makes `minimum_calls` full.
        return self._trip_if_due(now) if failed or slow else None

    def _settle_probe(self, *, counts: bool, bad: bool, now: float) -> str | None:
        self._probes -= 1
        if not counts:
            return None  # says nothing about the upstream: the probe slot is free again
        if bad:
            self._trip(now)
            return "a probe failed"
        self._probed += 1
        if self._probed < self._policy.probes:
            return None
        self._move(CLOSED)
        return f"{self._policy.probes} probes succeeded"

    def _trip_if_due(self, now: float) -> str | None:
        window, policy = self._window, self._policy
        if window.calls < policy.minimum_calls:
            return None
        if window.failed / window.calls >= policy.failure_ratio:
            why = f"{window.failed} of {window.calls} calls failed"
        elif window.slow / window.calls >= policy.slow_ratio:
            waited = f"waited {policy.slow_call_s:g}s or longer for an answer"
            why = f"{window.slow} of {window.calls} calls {waited}"
        else:
            return None
        self._trip(now)
        return why

    def _trip(self, now: float) -> None:
        self._reopen_at = now + self._policy.open_for_s
        self._move(OPEN)

    def _move(self, phase: str) -> None:
        self._turn += 1
        self._probes = self._probed = 0
        self._window = Window(self._policy.window_s)
        if phase == self.phase:
            return
        match phase:
            case "open":
                self._machine.open()
            case "half-open":
                self._machine.half_open()
            case _:
                self._machine.close()
