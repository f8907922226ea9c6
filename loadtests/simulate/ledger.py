"""What was true in one run: the oracle. Nobody asks the proxy how it did."""

from __future__ import annotations

from loadtests.simulate.calls import ENDS, OPEN, Attempt, Chain, Logical


class VoidRunError(Exception):
    """The run proves nothing: its books do not balance, or a rule was broken."""


class Ledger:
    """The books of one run. Times are virtual seconds."""

    def __init__(self) -> None:
        self.calls: list[Logical] = []
        self.chains: list[Chain] = []
        self.sent: list[Attempt] = []  # every attempt at the upstream
        self.peak = 0  # calls at the upstream at once, whoever still waits for them
        self.returns: list[tuple[float, float, float, float, int]] = []
        """Who came back when told: told at, told seconds, came at, then waited (-1: refused), class."""
        self.promises: list[tuple[float, float]] = []  # every time promised by the proxy: when, for when
        self.samples: list[tuple[float, int, int, float, float, float]] = []
        """At, cap, in flight, and the age of the oldest waiter by class."""
        self.arrivals: list[float] = []  # at the proxy
        self.refusals: dict[str, int] = {}  # by reason

    def check(self) -> None:
        """Raise VoidRunError unless every call that was offered has ended, once and in one way."""
        ends = dict.fromkeys(ENDS, 0)
        for call in self.calls:
            if call.end is OPEN or call.end not in ends:
                raise VoidRunError(f"a call of {call.at:.3f} s never ended ({call.end})")
            ends[call.end] += 1
        if sum(ends.values()) != len(self.calls):
            raise VoidRunError(f"{len(self.calls)} were offered, {ends} ended")
        if any(chain.end is OPEN for chain in self.chains):
            raise VoidRunError("a chain never ended")
        if any(not attempt.is_over for attempt in self.sent):
            raise VoidRunError("the upstream still works although nobody is left")
        if sum(call.attempts for call in self.calls) != len(self.sent):
            raise VoidRunError("the upstream saw other attempts than were sent")
