"""The breaker: when an upstream counts as down, and how it is tried again.

The three phases and their listeners are pybreaker's (`stores/breakers.py` puts it behind `Machine`). The
decision to trip, the probes and the clock are here: pybreaker knows one failure counter and its own wall
clock, and cannot be awaited inside. 429 from the upstream moves buckets and caps, never the breaker; our own
refusals never reach it.

While it is open one call goes as a probe every quarter of a second, the most important first. The first that
is answered makes it half-open: all calls may go, as many at once as the slow start lets (`ramp.py`), until a
few are answered and it closes, or one fails and it is open again.
"""

from __future__ import annotations

from typing import Final, Protocol

from proxy.core.brownout import Brownout
from proxy.core.in_a_row import FEWEST_IN_A_ROW, InARow
from proxy.core.policy import BreakerPolicy
from proxy.core.ramp import Ramp
from proxy.core.rounding import NEVER, wait_until
from proxy.core.silence import Silence
from proxy.core.verdict import FAILED, IGNORED, OVERLOADED, SUCCEEDED, Outcome
from proxy.core.window import Window

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half-open"

UNCOUNTED: Final = -1
"""The turn of a call that the breaker would have refused, were it not in dry run."""

LEAST_TOLD_S: Final = 1.0
"""An outage may be over in a second."""

GOLDEN: Final = 0.6180339887498949
"""Multiples of the golden ratio, modulo one: as good as chance for keeping many proxies out of step."""


class Machine(Protocol):
    """A three-state machine. `phase` is one of CLOSED, OPEN, HALF_OPEN; the methods move it."""

    @property
    def phase(self) -> str: ...
    def open(self) -> None: ...
    def half_open(self) -> None: ...
    def close(self) -> None: ...


class Breaker:
    """One upstream's breaker.

    Ask `wait_s` (free), then `enter` when the call is granted, then `answered` when its answer begins, if
    that is known before its end, and `settle` exactly once, with what `enter` returned. An outcome counts
    only in the phase in which its call began: what an outage left running neither closes nor opens the
    breaker of the time after it, where half-open and closed are one. But any answer ends a silence.

    `phase` is `closed`, `open` or `half-open`; `window` is what the decision to trip rests on, `brownout`
    what is refused while it is closed, `silence` how long this upstream usually lets its callers wait, `ramp`
    what it may be given after an outage. `proven`: calls of the outage that was over at `recovered_at`
    did fail, or a probe of it waited in vain; else it was only that nobody was answered.

    Keep `in_flight` up to date before telling of an answer or an end: all the calls to this upstream, those
    from before the reload that brought the breaker too.
    """

    __slots__ = (
        "_count", "_down_since", "_good", "_machine", "_out", "_policy", "_probe_at", "_row", "_rumour",
        "_turn", "brownout", "in_flight", "phase", "proven", "ramp", "recovered_at", "silence", "window",
    )  # fmt: skip

    def __init__(self, policy: BreakerPolicy, machine: Machine) -> None:
        self._policy = policy
        self._machine = machine
        self.phase = CLOSED
        self.window = Window(policy.window_s)
        self.brownout = Brownout(policy.brownout, policy.window_s)
        self.silence = Silence()
        self.ramp = Ramp()
        self.in_flight = 0
        self._count = 0  # of moves and probes, for turns of which no two are alike
        self._turn = 0  # of the calls that begin in this phase; a probe has one of its own, which is greater
        self._row = InARow()
        self._good = 0  # calls of this recovery that were answered
        self._out: dict[int, float] = {}  # probes that may be answered yet: turn → when it went
        self._probe_at = 0.0  # when the next may go
        self._down_since = 0.0  # when it last was closed
        self._rumour = NEVER  # since when it is down at another replica
        self.recovered_at = float("-inf")
        self.proven = False

    def adopt(self, policy: BreakerPolicy) -> None:
        """Follow a new policy from now on; the phase stays, and the window unless its length changed."""
        if policy.window_s != self._policy.window_s:
            self.window = Window(policy.window_s)
        if (policy.window_s, policy.brownout) != (self._policy.window_s, self._policy.brownout):
            self.brownout = Brownout(policy.brownout, policy.window_s)
        self._policy = policy

    @property
    def enforced(self) -> bool:
        """Or is it in dry run?"""
        return self._policy.enforce

    @property
    def latest(self) -> int:
        """The latest turn: another with each move and each probe."""
        return self._count

    @property
    def patience_s(self) -> float:
        """Who waits longer for an answer to begin waits in vain, as far as is known of this upstream."""
        return self.silence.patience_s(self._policy.slow_call_s)

    def reset(self) -> None:
        """Close it and forget what it counted. What is in flight will not count."""
        self._begin_turn()
        self._move(CLOSED)
        self.ramp.end()

    # ── before a call ───────────────────────────────────────────────────────────────────────────────

    def wait_s(self, now: float, rank: int = 0, is_retry: bool = False) -> float:
        """0.0 when a call of this class may go now; else seconds until it may go as a probe.

        While nobody is answered any more a retry waits too, though it is closed yet: others tell how it is.
        In dry run every call may go.
        """
        if not self._policy.enforce or (self.phase != OPEN and not is_retry):
            return 0.0
        if self.phase == OPEN:
            return self.due_s(now, rank, is_retry)
        return self._row.retry_s(now)

    def due_s(self, now: float, rank: int = 0, is_retry: bool = False) -> float:
        """The same, as it is or would be enforced.

        The first quarter of the time in which a probe is due belongs to the most important class, the second
        to those of the next too, and so on: whatever comes more often would take every one of them else. A
        call that has failed before goes last of all.
        """
        if self.phase != OPEN:
            return 0.0
        every_s = self._policy.probe_every_s
        at = self._probe_at
        if len(self._out) >= self._policy.probes:  # its answer may come yet; but not for ever
            at = max(at, next(iter(self._out.values())) + self.silence.probe_s(every_s))
        return wait_until(at + (every_s if is_retry else every_s * min(rank, 3) / 4), now)

    def told_s(self, wait_s: float, now: float) -> float:
        """What to tell one who is refused, and may go in `wait_s`: as long as the outage has lasted.

        So long it can be expected to last; `open_for_s` at most. A probe may find it over long before that,
        and new calls then go: but were all told the time of the next probe, each would come, one would go,
        and a client of three attempts would have made them within a second.
        """
        lasted_s = now - self._down_since if self.phase == OPEN else 0.0
        return max(wait_s, min(max(LEAST_TOLD_S, lasted_s), self._policy.open_for_s))

    def browns_out(self, rank: int, now: float) -> bool:
        """Is this call of a class one of those that are not sent, because so few are accepted?"""
        return self._policy.enforce and self.brownout.refuses(rank, now)

    @property
    def down_since(self) -> float:
        """Since when it has been down, proven by calls of this replica; inf: it is not."""
        return self._down_since if self.phase == OPEN and self.proven else NEVER

    def hear(self, since: float) -> None:
        """It has been down `since` at another replica: here too, unless somebody was answered after that."""
        self._rumour = since

    def notice(self, now: float) -> str | None:
        """Is it silent, or down elsewhere? Returns why the breaker moved. Ask before each call."""
        rumour, self._rumour = self._rumour, NEVER
        if rumour < NEVER and self.phase == CLOSED and self._row.good_at < rumour:
            self._trip(now, proven=False)
            self._down_since = rumour
            return "down at another replica"
        if self.phase == OPEN or not self.silence.is_over(now, self._policy.slow_call_s):
            return None
        self._trip(now, proven=False)
        return "no answer to anybody"

    # ── a call ──────────────────────────────────────────────────────────────────────────────────────

    def enter(self, now: float, rank: int = 0, is_retry: bool = False) -> int:
        """A call goes; returns the turn to settle it with. Only after `wait_s` said 0.0.

        The turn is UNCOUNTED for a call that goes only because of the dry run: it is no probe, and what comes
        of it was not to be known.
        """
        if self.phase != OPEN:
            if self.ramp.on:
                if self.ramp.is_full and not self._policy.enforce:
                    return UNCOUNTED
                self.ramp.begun()
            # The first calls after an outage are few, and all that there are.
            fewest = 1 if self.ramp.on else max(FEWEST_IN_A_ROW, self._policy.minimum_calls)
            self.silence.begun(now, fewest)
            return self._turn
        if not self._policy.enforce and self.due_s(now, rank, is_retry):
            return UNCOUNTED
        if len(self._out) >= self._policy.probes:
            del self._out[next(iter(self._out))]
            self.proven = True
        self._count += 1
        self._out[self._count] = now
        self._probe_at = now + self._spacing_s()
        return self._count

    def answered(self, turn: int, silent_s: float, now: float) -> str | None:
        """The answer of a call has begun, and well. Returns why the breaker moved, or None.

        Only the end of a call says that it was none of the slow ones, or was not cut.
        """
        if silent_s >= self._policy.slow_call_s:
            return None
        if not self._concerns(turn):
            self.silence.broken(None)
            return None
        return self._answered(turn, silent_s, now)

    def settle(
        self,
        turn: int,
        outcome: Outcome,
        silent_s: float,
        now: float,
        *,
        began_at: float = NEVER,
        answered: bool = False,
    ) -> str | None:
        """A call ended. Returns why the breaker moved, for the log, or None when it did not.

        `silent_s` is how long the upstream let it wait for the beginning of an answer, or in vain. How long
        an answer lasts is no measure: a stream of events is as long as its model has words, or its reader
        patience. Precedent: `header` of nginx's `least_time`. `began_at`: when the call was sent. `answered`:
        that its answer began was told before.
        """
        if self.ramp.on:
            self.ramp.ended(turn)
        failed = outcome is FAILED
        # A slow 429 is a sign of load, not of illness: it must not open the breaker either. A caller that
        # gave up after so long says what its answer would have said: else a hang that outlasts every
        # caller's patience would never be seen.
        spoke = failed or outcome is SUCCEEDED or outcome is IGNORED
        slow = spoke and silent_s >= self._policy.slow_call_s
        good = not failed and not slow and (outcome is SUCCEEDED or outcome is OVERLOADED)
        if not self._concerns(turn):
            if good and not answered:
                self.silence.broken(None)
            return None
        self._out.pop(turn, None)
        if self.phase != OPEN and (failed or slow or good):
            self.window.add(failed=failed, slow=slow, now=now)
            self.brownout.add(accepted=outcome is SUCCEEDED, now=now)
        if good:
            taught_s = None if outcome is OVERLOADED else silent_s
            return None if answered else self._answered(turn, taught_s, now)
        if not answered and began_at >= self._row.good_at:
            self.silence.left(silent_s, self._policy.slow_call_s)
        return self._failed(failed=failed, began_at=began_at, now=now) if failed or slow else None

    def _concerns(self, turn: int) -> bool:
        """Did the call begin in this phase? Of an open one: is it a probe of this outage?"""
        return turn == self._turn or (turn > self._turn and self.phase == OPEN)

    def _answered(self, turn: int, silent_s: float | None, now: float) -> str | None:
        self._row.answered(now)
        self.silence.broken(silent_s)
        phase = self.phase
        if self.ramp.on:
            self.ramp.answered()
        if phase == CLOSED:
            return None
        if phase == OPEN:
            self.recovered_at = now
            self.ramp.begin(self._policy.probes, self._count + 1, self.in_flight)
        self._out.pop(turn, None)
        good = self._good + 1
        if good >= self._policy.probes:
            self._move(CLOSED)
            return "1 probe succeeded" if good == 1 else f"{good} probes succeeded"
        if phase == OPEN:
            self._move(HALF_OPEN)
        self._good = good
        return "a probe was answered" if phase == OPEN else None

    def _failed(self, *, failed: bool, began_at: float, now: float) -> str | None:
        phase, policy = self.phase, self._policy
        if phase == OPEN:
            self.proven = True
            return None
        if phase == HALF_OPEN:
            self._trip(now, proven=True)
            return "a probe failed"
        if self.ramp.on:
            self.ramp.failed()
        if failed:
            self._row.failed(began_at, now)
        window = self.window
        if self._row.count >= max(FEWEST_IN_A_ROW, policy.minimum_calls):
            why = f"{self._row.count} calls in a row failed"
        elif window.calls < policy.minimum_calls:
            return None
        elif window.failed / window.calls >= policy.failure_ratio:
            why = f"{window.failed} of {window.calls} calls failed"
        elif window.slow / window.calls >= policy.slow_ratio:
            waited = f"waited {policy.slow_call_s:g}s or longer for an answer"
            why = f"{window.slow} of {window.calls} calls {waited}"
        else:
            return None
        self._trip(now, proven=True)
        return why

    def _trip(self, now: float, *, proven: bool) -> None:
        if self.phase == CLOSED:
            self._down_since = now
            self.proven = False
        self.proven |= proven
        self.ramp.end()
        self._move(OPEN)
        self._probe_at = now + self._spacing_s()

    def _spacing_s(self) -> float:
        return self._policy.probe_every_s * (0.75 + 0.5 * ((self._count * GOLDEN) % 1.0))

    def _begin_turn(self) -> None:
        self._count += 1
        self._turn = self._count

    def _move(self, phase: str) -> None:
        if OPEN in (phase, self.phase):  # from half-open to closed the same calls go on
            self._begin_turn()
        self._row.forget()
        self._good = 0
        self._out.clear()
        self.window = Window(self._policy.window_s)
        self.brownout.forget_all()
        self.silence.forget()
        if phase == self.phase:
            return
        self.phase = phase
        if phase == OPEN:
            self._machine.open()
        elif phase == HALF_OPEN:
            self._machine.half_open()
        else:
            self._machine.close()
