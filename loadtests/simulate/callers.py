"""The callers: when they ask again, when they give up, and how each call ends.

What an SDK does when refused is measured in reference/clients.md; the others are the overload benchmark's.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Final, Protocol

from loadtests.simulate.calls import (
    CANCELLED,
    EXPIRED,
    FAILED,
    FIRST_TOKEN_S,
    GOOD,
    LATE,
    OPEN,
    PATIENCE_S,
    REFUSED,
    Chain,
    Logical,
)
from loadtests.simulate.clock import Timeline
from loadtests.simulate.ledger import Ledger

FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 0.5, 8.0
LONGEST_TOLD_S: Final = 60.0
"""An SDK takes no longer time from us, and falls back to its own (reference/clients.md, finding 1)."""
AT_ONCE_S: Final = 0.005
"""How soon rude is."""


class Behaviour:
    """What a kind of client does when it is not answered. `share` is its part of all clients."""

    __slots__ = ("is_sdk", "most_retries", "name", "share")

    def __init__(self, name: str, share: float, most_retries: int) -> None:
        self.name = name
        self.share = share
        self.most_retries = most_retries
        self.is_sdk = name == "sdk"


SDK: Final = Behaviour("sdk", 0.70, 2)
RUDE: Final = Behaviour("rude", 0.15, 5)
JITTER: Final = Behaviour("jitter", 0.10, 3)
NONE: Final = Behaviour("none", 0.05, 0)
BEHAVIOURS: Final = (SDK, RUDE, JITTER, NONE)


def back_off_s(
    behaviour: Behaviour, retry: int, told_s: float | None, *, may_return: bool, luck: Random
) -> float | None:
    """Seconds until the next attempt after `retry` retries, or None when this answer is final.

    `may_return` is False where the answer says `x-should-retry: false`, which only SDKs read.
    """
    if retry >= behaviour.most_retries or (behaviour.is_sdk and not may_return):
        return None
    if behaviour.is_sdk:
        if told_s is not None and 0.0 < told_s <= LONGEST_TOLD_S:
            return told_s
        return min(FIRST_BACK_OFF_S * 2.0**retry, LONGEST_BACK_OFF_S) * (1.0 - 0.25 * luck.random())
    if behaviour is RUDE:
        return AT_ONCE_S
    return luck.uniform(0.0, min(FIRST_BACK_OFF_S * 2.0**retry, LONGEST_BACK_OFF_S))


class Door(Protocol):
    """Where calls are asked for, and left."""

    def enter(self, call: Logical) -> None: ...
    def leave(self, call: Logical) -> None: ...


class Callers:
    """All of them. Whatever they are answered, each of their calls ends once."""

    def __init__(self, timeline: Timeline, ledger: Ledger, luck: Random, *, streams: bool) -> None:
        self._timeline = timeline
        self._ledger = ledger
        self._luck = luck
        self.patience_s = FIRST_TOKEN_S if streams else PATIENCE_S
        # One patience for all of a class: its calls run out of time in the order in which they came.
        self._patient: tuple[deque[Logical], ...] = tuple(deque() for _ in self.patience_s)
        self._told_out_of_time = [False] * len(self.patience_s)
        self.door: Door

    def begin(self, call: Logical) -> None:
        """A call is wanted from now on."""
        self._ledger.calls.append(call)
        self._patient[call.rank].append(call)
        if not self._told_out_of_time[call.rank]:
            self._told_out_of_time[call.rank] = True
            self._timeline.plan(call.until, self._out_of_time, call.rank)
        self._ask(call)

    def begin_chain(self, chain: Chain, first: Logical) -> None:
        """A run begins with its first call."""
        self._ledger.chains.append(chain)
        self._begin_step(chain, first)

    def first_byte(self, call: Logical) -> None:
        """A stream has begun."""
        call.first_at = self._timeline.now

    def answered(
        self, call: Logical, status: int, told_s: float | None, *, may_return: bool, ours: bool
    ) -> None:
        """An attempt was answered; `ours`: by a refusal of the proxy's own."""
        now = self._timeline.now
        call.ours = ours
        if status == 200:
            in_time = (call.first_at if call.first_at >= 0.0 else now) <= call.until
            self._end(call, GOOD if in_time else LATE)
            return
        call.first_at = -1.0
        final = REFUSED if ours else FAILED
        retry = call.arrivals - 1
        wait_s = (
            None
            if status == 400
            else back_off_s(call.behaviour, retry, told_s, may_return=may_return, luck=self._luck)
        )
        if wait_s is None or now >= call.until:  # a stream may be cut after its caller's time
            self._end(call, final)
            return
        if ours and call.behaviour.is_sdk and told_s is not None:
            call.told_at, call.told_s, call.due_at = now, told_s, now + told_s
        else:
            call.due_at = -1.0
        if now + wait_s < call.until:  # else it runs out of time while it sleeps
            self._timeline.plan(now + wait_s, self._ask, call)

    def _ask(self, call: Logical) -> None:
        if call.end is OPEN:
            call.arrivals += 1
            self.door.enter(call)

    def _out_of_time(self, rank: int) -> None:
        waiting, now = self._patient[rank], self._timeline.now
        while waiting:
            call = waiting[0]
            if call.end is OPEN:
                if call.until > now:
                    self._timeline.plan(call.until, self._out_of_time, rank)
                    return
                if call.first_at < 0.0:  # who reads a stream already goes on reading
                    end = EXPIRED if call.attempt is None else CANCELLED
                    self.door.leave(call)
                    self._end(call, end)
            waiting.popleft()
        self._told_out_of_time[rank] = False

    def _end(self, call: Logical, end: str) -> None:
        call.end = end
        call.ended_at = self._timeline.now
        chain = call.chain
        if chain is None:
            return
        if end is not GOOD:
            chain.end = end
        elif call.step + 1 == len(chain.works):
            chain.end = GOOD
        else:
            self._timeline.plan(self._timeline.now + chain.thinks[call.step], self._go_on, call)

    def _go_on(self, call: Logical) -> None:
        chain = call.chain
        assert chain is not None, "only a chain goes on"
        now = self._timeline.now
        following = Logical(now, call.rank, call.tenant, call.behaviour, now + self.patience_s[call.rank])
        following.step = call.step + 1
        if call.deadline != float("inf"):
            following.deadline = following.until
        self._begin_step(chain, following)

    def _begin_step(self, chain: Chain, call: Logical) -> None:
        call.chain = chain
        call.work_s, call.tokens_in, call.tokens_out, size = chain.works[call.step]
        call.mark = f"{chain.run}/{call.step}".encode()
        call.key = (f"tenant-{call.tenant}", chain.run, b"/v1/chat/completions", size)
        chain.calls.append(call)
        self.begin(call)
