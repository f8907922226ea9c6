"""How the calls of each class flow to one upstream: how long one takes, how often a permit comes free."""

from __future__ import annotations

from math import ceil, log
from typing import Final

from proxy.core.call import Call
from proxy.core.cap import Cap
from proxy.core.fairness import RECENT_S, Shares
from proxy.core.orders import GUARD_SHARE
from proxy.core.pace import Pace
from proxy.core.verdict import SUCCEEDED, UNUSED, Outcome

UNKNOWN_SERVICE_S: Final = 1.0
"""The service time assumed until a first call has succeeded."""

LEAST_SERVICE_S: Final = 1e-6

LEARN: Final = 0.02
"""Weight of the newest service time in the running mean, once there were fifty."""

RARE_S: Final = 0.05
"""Permits that come free less often are worth keeping free for the more important."""

LEAST_SLOTS: Final = 8
"""Of fewer permits none is kept free."""

LEAST_SPARED: Final = 32
MOST_SPARED: Final = 8
"""Of the permits, one in 32 to one in eight is kept free by the second class, twice that by all after it."""

BEARABLE_SHARE: Final = 0.05
"""To wait for a permit so long, as a share of the usual time to the first byte, is as good as not to wait."""

MOST_ABOVE: Final = 0.98
"""Of classes that take more than this there is no more room to keep free than of this."""

TOO_MUCH: Final = 1e50
"""What no sum of shares may reach."""

LEAST_BEGUN: Final = 0.02
"""A run is taken to have fifty calls at most: what begins one must not wait for ever."""


COUNTED_S: Final = 0.1
"""How old a count of callers may be: it is for advice, and thousands may be refused a second."""

NEVER_YET: Final = float("-inf")


class _Class:
    """One class of calls: what each of its callers has had, and how many were granted, the latest most.

    `begun` is which share of those granted of late begins something.
    """

    __slots__ = ("begun", "granted", "shares")

    def __init__(self) -> None:
        self.shares = Shares()
        self.begun = 1.0
        self.granted = 0.0


class Flow:
    """The flow under one cap.

    `service_s` is the running mean of how long a permit is held by a call that succeeds, `silent_s` that of
    the time until its answer begins. `guard` grows with
    what the queue is given; at 1.0 the least important has a turn.
    """

    __slots__ = (
        "_callers", "_cap", "_classes", "_count_at", "_known", "_newest", "guard", "pace", "service_s",
        "silent_s",
    )  # fmt: skip

    def __init__(self, cap: Cap) -> None:
        self._cap = cap
        self._classes: list[_Class] = []  # by rank
        self._callers = 0  # as they were counted last
        self._count_at = NEVER_YET
        self._newest = 1.0  # what a call counts that is granted now
        self.pace = Pace()
        self.service_s = UNKNOWN_SERVICE_S
        self.silent_s = 0.0
        self._known = 0  # calls that succeeded
        self.guard = 0.0

    @property
    def is_known(self) -> bool:
        """Has a call succeeded, to tell how long one takes?"""
        return self._known > 0

    def shares(self, rank: int) -> Shares:
        """What each caller has had in one class."""
        return self._of(rank).shares

    def callers(self, call: Call, now: float) -> int:
        """How many callers share it, with the one of this call; who is in two classes counts twice."""
        if now >= self._count_at:
            self._count_at, self._callers = now + COUNTED_S, 0
            for each in self._classes:
                shares = each.shares
                if now - shares.since < 2 * RECENT_S:
                    lately, before = len(shares.lately), len(shares.before)
                    self._callers += max(before, lately)
        own = self._of(call.rank).shares
        is_counted = call.caller in own.lately or call.caller in own.before
        return self._callers or 1 if is_counted else self._callers + 1

    def granted(self, call: Call, now: float, *, in_turn: bool) -> None:
        """A call goes; `in_turn` as for `Shares.charge`."""
        self.pace.granted(call.rank, now)
        of_class = self._of(call.rank)
        self._count(of_class, going=call.going)
        of_class.shares.charge(call.caller, 1.0 / call.weight, now, in_turn=in_turn)

    def ended(self, call: Call, outcome: Outcome, took_s: float, silent_s: float | None = None) -> None:
        """A call that was granted has ended, and held its permit so long.

        `silent_s` is how long it waited for its answer to begin; None: as long as it took.
        """
        cost = 0.0 if outcome is UNUSED else took_s / max(self.service_s, LEAST_SERVICE_S)
        self._classes[call.rank].shares.correct(call.caller, (cost - 1.0) / call.weight)
        if outcome is SUCCEEDED:
            self._known += 1
            weight = max(LEARN, 1.0 / self._known)
            self.service_s += weight * (took_s - self.service_s)
            self.silent_s += weight * ((took_s if silent_s is None else silent_s) - self.silent_s)

    def step_of(self, rank: int, slots: int, now: float, *, own: bool = False) -> float:
        """The mean time until one more call of this class gets a permit; `slots` of another cap than ours.

        What comes free, less what the classes before it are taking; two hundredths are its own in any case.
        `own`: the cap is one caller's, of which the calls of others take nothing.
        """
        pace = (slots or self._cap.here) / max(self.service_s, LEAST_SERVICE_S)
        above = 0.0 if own else self.pace.above(rank, now)
        return 1.0 / max(pace - above, GUARD_SHARE * pace)

    def turn_s(self, call: Call, slots: int, now: float, *, own: bool = False) -> float:
        """The mean time until one more call like this gets a permit: of its class, or of its first calls.

        Who begins a run asks for all the calls that follow, and what is under way goes first. To promise a
        place to every fifth call and to admit the other four unasked would promise all of them twice.
        """
        step_s = self.step_of(call.rank, slots, now, own=own)
        return step_s if call.going else step_s / max(LEAST_BEGUN, self._of(call.rank).begun)

    def is_starved(self, rank: int, slots: int, now: float) -> bool:
        """Do the classes before take all that comes free, but for what is this one's in any case?"""
        pace = (slots or self._cap.here) / max(self.service_s, LEAST_SERVICE_S)
        return pace - self.pace.above(rank, now) <= GUARD_SHARE * pace

    def held_back(self, rank: int, now: float) -> int:
        """Permits that calls of this rank leave free for those before it.

        Where permits come free often enough nobody needs them kept; where calls last long, a few spare the
        more important the wait for somebody's end, as long as there are any: so many that they do not wait
        for long, as they count time. A stream's is that to its first byte, and to keep a few permits of it
        free costs next to nothing, for the others are answered faster; a call that is silent for as long as
        it lasts would hardly notice.
        """
        slots = self._cap.here
        if self.service_s < RARE_S * slots or slots < LEAST_SLOTS or not self.pace.any_above(rank, now):
            return 0
        classes = min(rank, 2)
        most = classes * (slots // MOST_SPARED)
        return max(classes * max(1, slots // LEAST_SPARED), min(most, self._spared(rank)))

    def _spared(self, rank: int) -> int:
        """How many must be free, that the classes before this one wait no longer than is bearable."""
        granted = sum(each.granted for each in self._classes)
        above = sum(each.granted for each in self._classes[:rank])
        above = min(above / granted, MOST_ABOVE) if granted else 0.0
        # With n kept free, all are taken for above^n of the time; then the next comes free after so long:
        wait_s = self.service_s / (self._cap.here * (1.0 - above))
        bearable = BEARABLE_SHARE * self.silent_s / wait_s
        if bearable >= 1.0 or above <= 0.0:
            return 0
        return ceil(log(max(bearable, LEAST_SERVICE_S)) / log(above))

    def _of(self, rank: int) -> _Class:
        while rank >= len(self._classes):
            self._classes.append(_Class())
        return self._classes[rank]

    def _count(self, of_class: _Class, *, going: bool) -> None:
        if going:
            of_class.begun -= LEARN * of_class.begun
        elif of_class.begun < 1.0:
            of_class.begun += LEARN * (1.0 - of_class.begun)
        # To let the newest count for more is to let all others count for less, but for a division later.
        self._newest *= 1.0 + LEARN
        of_class.granted += self._newest
        if self._newest > TOO_MUCH:
            for each in self._classes:
                each.granted /= TOO_MUCH
            self._newest = 1.0
