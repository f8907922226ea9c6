"""The upstreams: what a call costs there, by how many others there are. Each keeps its own ledger.

An upstream has no mercy and no opinion: it takes whatever it is sent, and works for it until it is done or
its caller leaves.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Protocol

from loadtests.simulate.calls import Attempt
from loadtests.simulate.clock import Timeline
from loadtests.simulate.ledger import Ledger
from loadtests.simulate.sharing import Sharing

NO_ANSWER = 0
"""The status of a connection that was refused or cut."""


class Asker(Protocol):
    """Who is told what became of an attempt. `told_s`: the upstream's own Retry-After."""

    def first_byte(self, attempt: Attempt) -> None: ...
    def answered(self, attempt: Attempt, status: int, told_s: float | None) -> None: ...


class Upstream:
    """What all have in common: outages, errors, deafness, the ledger. `best_n` is how many it serves best."""

    best_n = 32
    is_slow_to_speak = False  # may it be silent for longer than a proxy's patience although it is healthy?

    def __init__(self, timeline: Timeline, ledger: Ledger, luck: Random) -> None:
        self.timeline = timeline
        self.ledger = ledger
        self.luck = luck
        self.asker: Asker
        self.here = 0  # attempts that have not ended, hung ones too
        self.is_down = False
        self.error_share = 0.0
        self.is_deaf = False  # it works on for callers who left
        self._hung: dict[int, Attempt] = {}

    def send(self, attempt: Attempt) -> None:
        """An attempt arrives."""
        self.ledger.sent.append(attempt)
        attempt.call.attempts += 1
        self.here += 1
        self.ledger.peak = max(self.ledger.peak, self.here)
        if not self.is_down:
            self._admit(attempt)
        elif self.luck.random() < 0.5:
            self._hung[id(attempt)] = attempt
        else:
            self.timeline.plan(self.timeline.now + 0.001, self._no_answer, attempt)

    def leave(self, attempt: Attempt) -> None:
        """Its caller has closed the connection."""
        attempt.is_left = True
        if self._hung.pop(id(attempt), None) is not None:
            self._over(attempt)
        elif not self.is_deaf and not attempt.is_over:
            self._remove(attempt)
            self._over(attempt)

    def go_down(self) -> None:
        """From now on half of the calls are refused a connection, half never hear anything."""
        self.is_down = True

    def come_up(self) -> None:
        """Healthy at once; what hung is reset."""
        self.is_down = False
        hung, self._hung = self._hung, {}
        for attempt in hung.values():
            self._no_answer(attempt)

    def shrink(self, share: float) -> None:
        """So much of its capacity is left from now on; 1 restores it."""
        raise NotImplementedError

    def _admit(self, attempt: Attempt) -> None:
        raise NotImplementedError

    def _remove(self, attempt: Attempt) -> None:
        raise NotImplementedError

    def _no_answer(self, attempt: Attempt) -> None:
        if not attempt.is_over:
            self._over(attempt)
            self._answer(attempt, NO_ANSWER)

    def _done(self, attempt: Attempt) -> None:
        failed = self.error_share and self.luck.random() < self.error_share
        self._over(attempt)
        self._answer(attempt, 500 if failed else 200)

    def _over(self, attempt: Attempt) -> None:
        """The upstream has done with it; what it cost is written down."""
        now = self.timeline.now
        attempt.is_over = True
        attempt.ended_at = now
        self.here -= 1
        if attempt.begun_at >= 0.0:
            attempt.call.slot_s += now - attempt.begun_at

    def _answer(self, attempt: Attempt, status: int, told_s: float | None = None) -> None:
        if not attempt.is_left:
            self.asker.answered(attempt, status, told_s)


class Fixed(Upstream):
    """U1: 32 slots, each busy for the call's work; whoever comes beyond stands in line, first come first."""

    def __init__(self, timeline: Timeline, ledger: Ledger, luck: Random) -> None:
        super().__init__(timeline, ledger, luck)
        self.slots = self.best_n
        self.busy = 0
        self._line: deque[Attempt] = deque()

    def shrink(self, share: float) -> None:
        self.slots = max(1, round(share * self.best_n))
        self._next()

    def _admit(self, attempt: Attempt) -> None:
        if self.busy < self.slots:
            self._begin(attempt)
        else:
            self._line.append(attempt)

    def _begin(self, attempt: Attempt) -> None:
        self.busy += 1
        attempt.begun_at = self.timeline.now
        self.timeline.plan(self.timeline.now + attempt.call.work_s, self._finish, attempt)

    def _finish(self, attempt: Attempt) -> None:
        if not attempt.is_over:
            self.busy -= 1
            self._next()  # who stands in line goes before who comes because of this answer
            self._done(attempt)

    def _remove(self, attempt: Attempt) -> None:
        if attempt.begun_at >= 0.0:
            self.busy -= 1
            self._next()

    def _next(self) -> None:
        while self.busy < self.slots and self._line:
            attempt = self._line.popleft()
            if not attempt.is_over:
                self._begin(attempt)


class Knee(Upstream):
    """U2: congestion collapse. All that is here is worked for, at a pace that falls with their number."""

    def __init__(self, timeline: Timeline, ledger: Ledger, luck: Random) -> None:
        super().__init__(timeline, ledger, luck)
        self._share = 1.0
        self._working = Sharing(timeline, self.slowness, self._done)

    def shrink(self, share: float) -> None:
        self._working.move()
        self._share = share
        self._working.plan()

    def slowness(self, working: int) -> float:
        """How many times longer a call takes among so many."""
        beyond = max(0, working - self.best_n)
        return (1.0 + beyond / 32 + beyond * beyond / 768) / self._share

    def _admit(self, attempt: Attempt) -> None:
        attempt.begun_at = self.timeline.now
        self._working.begin(attempt, attempt.call.work_s)

    def _remove(self, attempt: Attempt) -> None:
        self._working.leave(attempt)
