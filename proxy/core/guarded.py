"""What a breaker stands before: an upstream, or one tool of it; and the calls there without an answer yet."""

from __future__ import annotations

from proxy.core.breaker import CLOSED, OPEN, Breaker, Machine
from proxy.core.cap import Cap
from proxy.core.grant import Grant, Unanswered
from proxy.core.policy import BreakerPolicy


class Guarded:
    """A base class. `breaker` is None where none is stated; `cap` is what its slow start keeps small."""

    __slots__ = ("_held", "_machine", "_made_way", "_removed", "_unanswered", "breaker", "cap")

    def __init__(self, cap: Cap, machine: Machine) -> None:
        self._machine = machine
        self.cap = cap
        self.breaker: Breaker | None = None
        self._removed: Breaker | None = None  # by a reload; calls that began under it are still on their way
        self._held = 0  # calls in flight
        self._unanswered = Unanswered()
        self._made_way = 0  # the latest turn of the breaker for which one was given up

    def begun(self, grant: Grant) -> None:
        """A call goes under this grant."""
        if self.breaker is not None:
            self._unanswered.begun(grant)

    def give_up(self, now: float) -> Grant | None:
        """A call that hangs since an outage, to be cut; None when there is none. Ask until then.

        It began before the end of it, was not answered, and has waited for longer than any other did lately,
        and others are answered again: it is no slow answer, and holds a permit for nothing. While the outage
        lasts, one that has waited so long makes way for each probe: else they might hold every permit.
        """
        breaker = self.breaker
        if breaker is None or not breaker.proven:
            return None
        before, oldest_at = now - breaker.patience_s, self._unanswered.oldest_at
        if breaker.phase == OPEN:
            if self._made_way == breaker.latest or breaker.due_s(now):
                return None
            self._made_way = breaker.latest
        else:
            before = min(before, breaker.recovered_at)
            if breaker.phase == CLOSED and oldest_at >= breaker.recovered_at:
                breaker.proven = False  # nobody is left of it: nothing more to ask
        return self._unanswered.give_up() if oldest_at < before else None

    def fit(self, slots: int) -> None:
        """The cap is `slots`, as stated or learnt, and no more than what was down is given yet."""
        if self.breaker is not None and self.breaker.ramp.on:
            if self.breaker.ramp.slots >= slots:
                self.breaker.ramp.end()
            elif self.breaker.enforced:
                slots = min(slots, self.breaker.ramp.ceiling)
        self.cap.slots = slots

    def adopt_breaker(self, policy: BreakerPolicy | None) -> None:
        """Follow a new policy; what was counted stays, also over one without a breaker."""
        if policy is None:
            if self.breaker is not None:
                self.breaker.reset()
                self._removed, self.breaker = self.breaker, None
        elif self.breaker is not None:
            self.breaker.adopt(policy)
        elif self._removed is not None:
            self.breaker, self._removed = self._removed, None
            self.breaker.adopt(policy)
        else:
            self.breaker = Breaker(policy, self._machine)
