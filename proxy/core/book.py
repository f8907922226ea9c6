"""A booked return, and the books of them: what was sold, and how much of it was kept of late."""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.core.verdict import Reason

GRACE_S: Final = 1.0
GRACE_SHARE: Final = 0.1
"""Who returns up to a second, or a tenth of the wait, after the time told is on time: clocks have grains."""

LEARN: Final = 0.005
"""Weight of the newest ticket in the share of those that were kept."""

LEAST_KEPT: Final = 0.5
"""However few return, no more than two tickets are sold for one place."""


class Ticket:
    """One booked return. `due_at` in monotonic seconds; after `until` its place is given up.

    `step_s` is the time in which room for it comes, where `part` of all that refills is that of this process.
    `told` is what was said when it was sold (reason, scope, limit of the `Refusal`): who asks again before
    the time hears the same. `is_kept` is known once it is no longer open, and None where it was given back.
    """

    __slots__ = ("after", "book", "due_at", "is_kept", "is_open", "part", "step_s", "told", "until", "wait_s")

    def __init__(self, book: Book, due_at: float, step_s: float, now: float) -> None:
        self.step_s = step_s
        self.part = 1.0
        self.after = 0  # how many had begun to wait when it was sold
        self.told: tuple[Reason, str, str] | None = None
        self.book = book
        self.due_at = due_at
        self.wait_s = due_at - now
        self.until = due_at + max(GRACE_S, GRACE_SHARE * self.wait_s)
        self.is_open = True
        self.is_kept: bool | None = None

    def redeem(self, now: float) -> bool:
        """The holder has returned. False when that is too late, or for the second time."""
        self.book.expire(now)
        if not self.is_open:
            return False
        self.is_kept = now <= self.until  # it may stand behind one that ends later
        self.book.close(self)
        return self.is_kept

    def give_back(self) -> None:
        """It is not needed: its holder came before its time, and found room."""
        if self.is_open:
            self.book.close(self)

    def kept_elsewhere(self, now: float) -> None:
        """Its holder was at another replica `now`, where it found room instead."""
        if self.is_open:
            self.is_kept = True
            self.book.close(self)
        elif self.is_kept is False and now <= self.until:  # the news came too late, and it was learnt as lost
            self.is_kept = True
            self.book.unlearn(self.wait_s)


class Book:
    """The tickets of one scope, `out` of them open: in rows of about one wait, each in the order of sale.

    In that order it is learnt whether they are kept. Who keeps one shows it a grace sooner than who does
    not: counted as they come, whatever sells more than a moment ago finds all kept at first, and then none.
    """

    __slots__ = ("_rows", "kept", "out")

    def __init__(self) -> None:
        self._rows: dict[int, deque[Ticket]] = {0: deque()}  # as many as are used: most books are small
        self.out = 0
        self.kept = 1.0
        """Share of the tickets that were redeemed, of late."""

    def expire(self, now: float) -> None:
        """Give up the places of those who have not come."""
        for row in self._rows.values():
            while row and (not row[0].is_open or row[0].until < now):
                ticket = row.popleft()
                if ticket.is_open:
                    ticket.is_kept = False
                    self.close(ticket)
                if ticket.is_kept is not None:
                    self.learn(ticket.wait_s, kept=ticket.is_kept)

    def close(self, ticket: Ticket) -> None:
        """An open ticket was redeemed, given up or given back."""
        ticket.is_open = False
        self.out -= 1

    def learn(self, wait_s: float, *, kept: bool) -> None:  # noqa: ARG002 - a calendar looks at the wait
        """One of this length was redeemed, or was not: once for each, but for those given back."""
        self.kept += self._weight * ((1.0 if kept else 0.0) - self.kept)

    def unlearn(self, wait_s: float) -> None:  # noqa: ARG002 - a calendar looks at the wait
        """One of this length was learnt as lost, and was redeemed."""
        self.kept = min(1.0, self.kept + self._weight)

    def idle(self, now: float) -> bool:
        """Nothing is out: it may be forgotten."""
        self.expire(now)
        return not self.out

    def _sell(self, due_at: float, step_s: float, now: float, row: int = 0) -> Ticket:
        ticket = Ticket(self, due_at, step_s, now)
        sold = self._rows.get(row)
        if sold is None:
            sold = self._rows[row] = deque()
        sold.append(ticket)
        self.out += 1
        return ticket

    @property
    def _weight(self) -> float:
        """Of the newest."""
        return LEARN

    @property
    def _oversold(self) -> float:
        """How many tickets there are for one place."""
        return 1.0 / max(LEAST_KEPT, self.kept)


class Guests(Book):
    """Tickets that other replicas sold, and whose holders may come here. Nothing is kept for them."""

    __slots__ = ()

    def expect(self, due_at: float, step_s: float, told: tuple[Reason, str, str], now: float) -> Ticket:
        """One that was told to come at `due_at`, for this reason, of this scope and limit."""
        self.expire(now)
        ticket = self._sell(due_at, step_s, now)
        ticket.told = told
        return ticket
