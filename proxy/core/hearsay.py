"""What this replica tells the others, and what it makes of what they tell (`hints.py`)."""

from __future__ import annotations

from typing import Final

from proxy.core.book import Guests, Ticket
from proxy.core.demand import TRIP_S
from proxy.core.gate import Gate
from proxy.core.hints import Hint, Return
from proxy.core.outbox import Outbox
from proxy.core.repeats import Repeats, Trace
from proxy.core.rounding import NEVER
from proxy.core.run_news import RunNews

MOST_HEARD: Final = 512
"""Calls that one replica is told of between two trips in turn, by all the others: a millisecond or two."""


class Hearsay:
    """Of one gate and its `repeats`, which were made with the `outbox`."""

    def __init__(self, gate: Gate, repeats: Repeats, outbox: Outbox) -> None:
        self._gate = gate
        self._repeats = repeats
        self._outbox = outbox
        self._guests = Guests()
        self._budgets = gate.runs.budgets
        self._news = self._budgets.news = RunNews()

    def say(self, replicas: int, now: float) -> Hint | None:
        """What to tell with this trip, to so many `replicas` less one; None: nothing, or nobody yet."""
        if replicas < 2:
            return None
        returns, used = self._outbox.take(max(1, MOST_HEARD // (replicas - 1)), now)
        down = {
            name: now - target.breaker.down_since
            for name, target in self._gate.targets.items()
            if target.breaker is not None and target.breaker.down_since < NEVER
        }
        runs, halted = self._news.take(self._budgets.records, self._budgets.halted, now)
        if not (returns or used or down or runs or halted):
            return None
        return Hint(self._outbox.replica, returns, used, down, runs, halted)

    def hear(self, hint: Hint, said_at: float, now: float) -> None:
        """What another replica said at `said_at`, by the clock of this one."""
        for told in hint.returns:
            if said_at + told.lives_s > now:
                self._expect(hint.replica, told, said_at, now)
        for each in hint.used:
            trace = self._repeats.forget(each.key, (each.replica, each.number), now)
            if trace is not None and trace.ticket is not None:
                if each.replica == self._outbox.replica:
                    trace.ticket.kept_elsewhere(said_at - TRIP_S)  # at the soonest
                else:
                    trace.ticket.give_back()
        for name, for_s in hint.down.items():
            target = self._gate.targets.get(name)
            if target is not None and target.breaker is not None:
                target.breaker.hear(said_at - for_s)
        for seen in hint.runs:
            self._budgets.hear(seen, said_at, now)
        for run in hint.halted:
            self._budgets.hear_halted(run)

    def _expect(self, replica: str, told: Return, said_at: float, now: float) -> None:
        due_at, place = said_at + told.due_in_s, told.place
        ticket: Ticket | None = None
        if place is not None:
            was_told = (place.reason, place.scope, place.limit)
            ticket = self._guests.expect(due_at, place.step_s, was_told, now)
        trace = Trace(told.digest, due_at, said_at + told.lives_s, told.tokens, ticket)
        trace.origin = (replica, told.number)
        self._repeats.heard(told.key, trace, now)
