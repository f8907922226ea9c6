"""When to come back: a booked time for every refused caller, so that who keeps it is admitted.

No SDK adds jitter to `Retry-After` (reference/clients.md, finding 2): told one time, a herd returns at one
time, and is refused again. So each refusal books a *ticket*: an instant of its own for which room is kept.

- What refills by a clock (buckets, quotas, the breaker's next probe) keeps a `Line`: instants one step apart,
  the step being the time in which room for one more call comes. Newcomers may not take what is booked.
- What comes free when somebody ends (permits, places in the queue) keeps a `Calendar`: cells of time, of
  which each sells a share of what its class is served in it. Whoever returns goes ahead of its class.

A caller whom no time within the horizon can be promised gets no ticket, and is told not to retry by itself.
Of those who were promised one not all return: a line and a calendar sell as much more as was left unused
lately (Breakwater's over-commitment, OSDI 2020); and a calendar sells no wait that its callers do not keep
(`patience.py`).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.core.book import GRACE_SHARE, LEARN, LEAST_KEPT, Book, Ticket
from proxy.core.patience import Patience, span_of
from proxy.core.rounding import NEVER, ROUNDING_S
from proxy.core.verdict import LONGEST_RETRY_AFTER_S

LEAST_STEP_S: Final = 0.001
"""Instants of one scope are at least this far apart: a millisecond is the grain of `retry-after-ms`."""

HELD_S: Final = 0.05
HELD_STEPS: Final = 0.25
"""Room is kept free for so long after the time told, or a quarter of the time in which it comes: who is later
goes next all the same. What is kept for those who never come is lost to everybody."""

HELD_SHARE: Final = 0.5
"""Of a burst, the most that is kept free: what refills beyond a full bucket is lost, too."""

DOUBTS: Final = 16
"""That all come is taken to have been seen so often, before anything was."""

CELL_S: Final = 0.1

SOLD_SHARE: Final = 0.4
"""Of what a class gets in a cell this share is sold; the rest is for those who wait in its queue."""

FULL: Final = 1.0 - 1e-6
"""A cell of which so much is sold: sums of shares are rounded."""

MOST_CELLS: Final = 2048

SWEEP_FROM: Final = 1024


class Line(Book):
    """What refills by a clock: one instant after the other."""

    __slots__ = ("_held", "_last", "_learnt")

    def __init__(self) -> None:
        super().__init__()
        self._last = float("-inf")  # the last instant told
        self._held: deque[Ticket] = deque()  # for which room is or will be kept free
        self._learnt = 0  # how many were redeemed, or not

    def lapses_at(self, now: float) -> float:
        """When the first of the places that are kept free is not any more; inf when none is."""
        self._let_go(now)
        return _held_until(self._held[0]) if self._held else NEVER

    def book(
        self,
        earliest_s: float,
        step_s: float,
        now: float,
        patience_s: float = NEVER,
        part: float = 1.0,
    ) -> Ticket | None:
        """A ticket `earliest_s` from now at the soonest, and a step after the last.

        None beyond 55 seconds, or beyond `patience_s`.

        `earliest_s` is when there is room for one call, were nobody else told; `step_s` how much later
        there is room for the next, of that `part` of the refill which is this process's now.
        """
        self._let_go(now)  # in many a line nobody else looks at what is kept
        at = self.next_after(earliest_s, step_s / self._oversold, now, patience_s)
        if at is None:
            return None
        ticket = self._sell(at, step_s, now)
        ticket.part = part
        self._held.append(ticket)
        return ticket

    def next_after(
        self, earliest_s: float, step_s: float, now: float, patience_s: float = NEVER
    ) -> float | None:
        """The next instant, for which nothing is kept; None beyond 55 seconds, or beyond `patience_s`."""
        at = now + earliest_s
        if self._last > now or at <= self._last:
            at = max(at, self._last + max(step_s, LEAST_STEP_S))
        if at - now > min(float(LONGEST_RETRY_AFTER_S), patience_s):
            return None
        self._last = at
        return at

    def kept_free_s(self, now: float, seq: float, burst_s: float = NEVER, part: float = 1.0) -> float:
        """How much the `seq`th to wait must leave for those with an older ticket, in seconds of the refill.

        Of all that is due just now so much as is likely to be asked for, and no more than a part of a burst,
        which takes `burst_s` to refill, and in which there is to be room for somebody else. Where most come,
        for one of them in any case; and so much that what refills until the next is due makes up for it, for
        those after it are a step apart, in which their own refills. `part` is as for `book`, but now.
        """
        self._let_go(now)
        due_s = first_s = next_s = 0.0
        for ticket in self._held:
            if not ticket.is_open or ticket.after >= seq:
                continue
            step_s = ticket.step_s * ticket.part / part
            if ticket.due_at > now:
                next_s = max(0.0, step_s - (ticket.due_at - now))
                break
            first_s = first_s or step_s
            due_s += step_s
        held_s = min(self.kept * due_s, HELD_SHARE * burst_s, max(0.0, burst_s - first_s))
        return max(first_s, held_s) + next_s if self.kept >= LEAST_KEPT else held_s

    def learn(self, wait_s: float, *, kept: bool) -> None:
        """Learn sooner from the first: what is kept for those who will not come is lost meanwhile."""
        self._learnt += 1
        super().learn(wait_s, kept=kept)

    @property
    def _weight(self) -> float:
        return max(LEARN, 1.0 / (DOUBTS + self._learnt))

    def _let_go(self, now: float) -> None:
        self.expire(now)
        held = self._held
        while held and (not held[0].is_open or _held_until(held[0]) <= now):
            held.popleft()


def _held_until(ticket: Ticket) -> float:
    return min(ticket.until, ticket.due_at + max(HELD_S, HELD_STEPS * ticket.step_s))


class Calendar(Book):
    """What comes free when somebody ends: cells of time, each with so many places as its class will get.

    Every caller has its own pace in it, a fair share of the whole, so that a loud one cannot buy it out.
    """

    __slots__ = ("_filled", "_first", "_paces", "_patience", "_sweep_at")

    def __init__(self) -> None:
        super().__init__()
        self._filled: dict[int, float] = {}  # cell → share sold
        self._first = 0  # no cell before has room
        self._paces: dict[str, float] = {}  # caller → until when it has had its fair part of what is sold
        self._sweep_at = SWEEP_FROM
        self._patience = Patience()

    def book(
        self,
        caller: str,
        share: float,
        earliest_s: float,
        step_s: float,
        patience_s: float,
        now: float,
    ) -> Ticket | None:
        """A ticket `earliest_s` from now at the soonest; None where nothing is left within the horizon.

        `step_s` is the time in which the class gets one more place; the caller's fair part of them is `share`
        (0 to 1). One who has `patience_s` left gets none that falls due later.
        """
        self.expire(now)
        self._forget(now)
        last_at = now + min(float(LONGEST_RETRY_AFTER_S), patience_s)
        cost = step_s / (SOLD_SHARE * self._oversold * CELL_S)  # of a cell
        had_until = max(now, self._paces.get(caller, 0.0))
        at = had_until + earliest_s
        if at > last_at:
            return None
        cell = self._emptiest(at, last_at, now)
        if cell < 0:
            return None
        filled = self._filled
        before = filled.get(cell, 0.0)
        due_at = max(at, (cell + before) * CELL_S)
        if due_at > last_at + ROUNDING_S:
            return None
        if not self._patience.sells(due_at - now):
            return None
        taken, following = min(before + cost, MOST_CELLS), cell
        while taken > FULL:  # one ticket may take more than a cell: the rest is taken from those that follow
            filled[following] = 1.0
            following += 1
            taken += filled.get(following, 0.0) - 1.0
        filled[following] = max(0.0, taken)
        while filled.get(self._first, 0.0) >= 1.0:
            self._first += 1
        self._paces[caller] = had_until + cost * CELL_S / share
        self._patience.sold(due_at - now)
        return self._sell(due_at, step_s, now, row=span_of(due_at - now))

    def _emptiest(self, at: float, last_at: float, now: float) -> int:
        """The first cell from `at` on that has room, or one soon after it that has more; -1: none until last.

        A tenth of the wait later is no wait longer; and so the returns are spread, whenever the calls came.
        """
        filled = self._filled
        last = int(last_at / CELL_S)
        cell = max(int(at / CELL_S), self._first)
        while cell <= last and filled.get(cell, 0.0) >= 1.0:
            cell += 1
        if cell > last:
            return -1
        best, least = cell, filled.get(cell, 0.0)
        for later in range(cell + 1, min(cell + int(GRACE_SHARE * (cell - now / CELL_S)), last) + 1):
            share = filled.get(later, 0.0)
            if share < least:
                best, least = later, share
        return best

    def close(self, ticket: Ticket) -> None:
        """It is not awaited any more."""
        super().close(ticket)
        self._patience.closed(ticket.wait_s)

    def learn(self, wait_s: float, *, kept: bool) -> None:
        """Learn how long callers are willing to wait."""
        super().learn(wait_s, kept=kept)
        self._patience.learn(wait_s, kept=kept)

    def unlearn(self, wait_s: float) -> None:
        """The same of one that was learnt as lost."""
        super().unlearn(wait_s)
        self._patience.unlearn(wait_s)

    def _forget(self, now: float) -> None:
        present = int(now / CELL_S)
        if self._first < present:
            self._first = present
            if len(self._filled) > MOST_CELLS:
                self._filled = {cell: share for cell, share in self._filled.items() if cell >= present}
            if len(self._paces) > self._sweep_at or not self.out:
                self._paces = {caller: at for caller, at in self._paces.items() if at > now}
                self._sweep_at = max(SWEEP_FROM, 2 * len(self._paces))


class Tickets:
    """All that is sold, by scope. Memory is bounded by the scopes refused within the last minute or so."""

    __slots__ = ("_calendars", "_clear_at", "_lines", "_sweep_at")

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._calendars: dict[str, Calendar] = {}
        self._sweep_at = SWEEP_FROM
        self._clear_at = SWEEP_FROM

    def line(self, scope: str, now: float) -> Line:
        """The line of one scope."""
        line = self._lines.get(scope)
        if line is None:
            if len(self._lines) >= self._sweep_at:
                self._lines = {key: line for key, line in self._lines.items() if not line.idle(now)}
                self._sweep_at = max(SWEEP_FROM, 2 * len(self._lines))
            line = self._lines[scope] = Line()
        return line

    @property
    def has_lines(self) -> bool:
        """Was anything sold in a line, of late?"""
        return bool(self._lines)

    def line_of(self, scope: str) -> Line | None:
        """The line of one scope, if anything was sold in it of late."""
        return self._lines.get(scope)

    def calendar(self, scope: str, now: float) -> Calendar:
        """The calendar of one scope: an upstream, a tool or a caller that has a cap, and a class."""
        calendar = self._calendars.get(scope)
        if calendar is None:
            if len(self._calendars) >= self._clear_at:
                self._calendars = {key: each for key, each in self._calendars.items() if not each.idle(now)}
                self._clear_at = max(SWEEP_FROM, 2 * len(self._calendars))
            calendar = self._calendars[scope] = Calendar()
        return calendar
