"""How long an exchange waits for whom: one lazy timer for a connection's whole life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

NEVER: Final = float("inf")
_AT_NEXT_LOOK: Final = -NEVER

# Whose turn it is while an exchange goes on: what the log says when nothing happens for too long.
TAKE_REQUEST: Final = "no more of the request taken"
SEND_REQUEST: Final = "no more of the request sent by the caller"
SEND_HEAD: Final = "no answer"
SEND_BODY: Final = "no more of the answer"
TAKE_ANSWER: Final = "no more of the answer taken by the caller"

# What ends it whoever's turn it is: how the log goes on after "no answer before ...".
DEADLINE: Final = "the call's deadline"
TOTAL: Final = "the time for the whole call was over"

HUNG: Final = "no answer in all of an outage"

CALLERS: Final = frozenset({SEND_REQUEST, TAKE_ANSWER})
"""The turns of the caller: that one lasted too long says nothing about the upstream."""


class Lapse(NamedTuple):
    """What it means that a turn lasted too long.

    `stalled`: the caller's turn did. `late`: the time of the call is over, and not by the upstream's fault.
    """

    detail: str
    stalled: bool
    late: bool


def _nobody(now: float) -> None:
    """Expires for no exchange."""


class Patience:
    """Calls `expired` when somebody's turn lasted longer than it may.

    The timer is only ever set earlier. When it fires too soon it looks at what is due and sets itself again:
    an exchange in which things do happen touches it once or never.
    """

    __slots__ = (
        "_at",
        "_clock",
        "_due",
        "_expired",
        "_handle",
        "_idle_s",
        "_loop",
        "deadline",
        "span_s",
        "turn",
    )

    def __init__(self, expired: Callable[[float], None], *, idle_s: float) -> None:
        """`expired` is called with the time of the exchange's clock."""
        self._loop = asyncio.get_running_loop()
        self._expired = expired
        self._idle_s = idle_s
        self._handle: asyncio.TimerHandle | None = None
        self._at = NEVER  # when the timer fires
        self._due = NEVER  # when something must have happened
        self.deadline = NEVER
        self.turn = SEND_HEAD
        self.span_s = 0.0

    def begin(self, clock: Callable[[], float], deadline: float) -> None:
        """An exchange starts; nothing is due yet."""
        self._clock = clock
        self.deadline = deadline
        self._due = NEVER

    def awaits(self, turn: str, span_s: float) -> float:
        """It is this turn, for `span_s` seconds, and not beyond the deadline. Returns the time now."""
        now = self._clock()
        due = min(now + span_s, self.deadline)
        self.turn = turn
        self.span_s = span_s
        self._due = due
        if due < self._at:
            self._set(due, now)
        return now

    def awaits_idly(self, turn: str) -> None:
        """It is this turn, for the idle span, counted from the timer's next look: costs no look at a clock.

        For what is nearly always over at once. It lasts at most until the timer's next look and the span.
        """
        self.turn = turn
        self._due = _AT_NEXT_LOOK

    def lapse(self, now: float, ends_at: float) -> Lapse:
        """What to make of the turn that expired at `now`; the whole call had until `ends_at`."""
        by_caller = self.turn in CALLERS
        if now < self.deadline:
            return Lapse(f"{self.turn} within {self.span_s:g}s", stalled=by_caller, late=False)
        whose = TOTAL if now >= ends_at else DEADLINE
        return Lapse(
            f"{self.turn} before {whose}",
            stalled=by_caller and self.turn == TAKE_ANSWER,
            late=by_caller or whose is DEADLINE,
        )

    def rest(self) -> None:
        """Nothing is due."""
        self._due = NEVER

    def cancel(self) -> None:
        """The connection is closed."""
        self._due = self._at = NEVER
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def end(self) -> None:
        """The connection is closed and carries nothing any more: let go of it, which holds us."""
        self.cancel()
        self._expired = _nobody

    def _set(self, at: float, now: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._at = at
        self._handle = self._loop.call_later(max(0.0, at - now), self._look)

    def _look(self) -> None:
        self._handle = None
        self._at = NEVER
        if self._due == NEVER:
            return
        now = self._clock()
        if self._due == _AT_NEXT_LOOK:
            self.awaits(self.turn, self._idle_s)
        elif now < self._due:
            self._set(self._due, now)
        else:
            self._due = NEVER
            self._expired(now)
