"""What one decision costs with 10,000 waiting: counted in function calls, not in seconds.

The count holds everything the gate does: looks at the store, comparisons in the heaps, steps of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from proxy.core.call import Call
from proxy.core.gate import Gate, Grant
from proxy.core.policy import (
    BucketPolicy,
    CapPolicy,
    Per,
    Policy,
    QueuePolicy,
    RoutePolicy,
    ToolPolicy,
    UpstreamPolicy,
)
from proxy.core.verdict import Outcome
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore
from tests.kit.story import NEVER_SHED, bucket

MOST_CALLS = 400
"""A settle that serves one takes about 100; the logarithm of 10,000 adds some dozens of comparisons."""

CROWD = 10_000


class Counter:
    """Function calls made, ours and C's, and how many of them were looks at the store."""

    def __init__(self) -> None:
        self.calls = 0
        self.reserves = 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event in {"call", "c_call"}:
            self.calls += 1
            self.reserves += event == "call" and frame.f_code.co_name in {"reserve", "peek"}


@contextmanager
def counted() -> Iterator[Counter]:
    counter, before = Counter(), sys.getprofile()
    sys.setprofile(counter)
    try:
        yield counter
    finally:
        sys.setprofile(before)


class Crowded:
    """A gate with two permits, both taken, and a crowd behind them."""

    def __init__(
        self,
        crowd: int,
        *buckets: BucketPolicy,
        searches: int = 0,
        who: Callable[[int], dict[str, Any]] = lambda _: {},
    ) -> None:
        tools = {"search": ToolPolicy(searches)} if searches else {}
        route = RoutePolicy("chat", QueuePolicy(crowd + 10, 1e6), NEVER_SHED, buckets=buckets, tools=tools)
        upstream = UpstreamPolicy("api", CapPolicy("upstream:api", 2), None, None)
        policy = Policy(("only", "and", "last"), {"chat": route}, {"api": upstream})
        self.now = 0.0
        self.gate = Gate(policy, MemoryStore(), BreakerMachine, lambda _: None)
        self.held: list[Grant] = []
        for number in range(2):
            self.offer(**(who(number) if searches == 0 or number == 0 else {"caller": "plain"}))
        assert len(self.held) == 2
        for number in range(crowd):
            self.offer(**who(number))
        assert self.gate.room.size == crowd

    def offer(self, caller: str = "ann", **call: Any) -> Waiter | None:
        verdict = self.gate.offer(
            Call(route="chat", caller=caller, arrived_at=self.now, **call), "api", self.now
        )
        if isinstance(verdict, Grant):
            self.held.append(verdict)
        return verdict if isinstance(verdict, Waiter) else None

    def settle(self, which: int = 0) -> int:
        """End one call; how many were served."""
        self.gate.settle(self.held.pop(which), Outcome.SUCCEEDED, self.now)
        return self.take()

    def advance(self, seconds: float) -> int:
        self.now += seconds
        self.gate.advance(self.now)
        return self.take()

    def take(self) -> int:
        grants = [waiter.verdict for waiter in self.gate.take_decided()]
        self.held += [grant for grant in grants if isinstance(grant, Grant)]
        return len(grants)


def test_what_happens_to_one_costs_no_more_for_all_who_wait() -> None:
    crowded = Crowded(CROWD)
    with counted() as settling:
        assert crowded.settle() == 1
    assert settling.reserves == 2, "one for the waiter that is served, one that finds the cap full again"
    assert settling.calls < MOST_CALLS
    with counted() as arriving:
        assert crowded.offer() is not None
    assert arriving.calls < MOST_CALLS
    middle = crowded.gate.room.waiters()[CROWD // 2]
    with counted() as leaving:
        crowded.gate.leave(middle, 0.0)
    assert leaving.calls < MOST_CALLS


def test_a_displacement_finds_whom_to_displace_without_looking_at_all() -> None:
    crowded = Crowded(CROWD, who=lambda _: {"rank": 2})
    while crowded.gate.room.size < CROWD + 10:
        crowded.offer(rank=2)
    with counted() as cost:
        assert crowded.offer(rank=0) is not None
    assert crowded.take() == 1
    assert cost.calls < MOST_CALLS


def test_two_caps_that_fill_and_free_in_turn_do_not_draw_the_crowd_back_and_forth() -> None:
    # Upstream of 2, tool of 1, all wait for the tool. One line of waiters per key moved 10,000 from the
    # line of the upstream to that of the tool when the upstream had room, and back when the tool had.
    crowded = Crowded(CROWD, searches=1, who=lambda _: {"tool": "search"})
    for _ in range(3):
        with counted() as cost:
            assert (
                crowded.settle(which=1) == 0
            )  # the plain call ends: the upstream has room, the tool has not
        assert cost.calls < MOST_CALLS
        assert crowded.offer(caller="plain") is None
        with counted() as cost:
            assert crowded.settle(which=0) == 1  # the search ends: the next one goes
        assert cost.calls < MOST_CALLS
        crowded.held.reverse()


@pytest.mark.parametrize("callers", [1, CROWD])
def test_a_bucket_per_caller_costs_the_same_however_many_callers_wait(callers: int) -> None:
    buckets = bucket(0.01, burst=2.0, per=Per.CALLER)
    crowded = Crowded(CROWD, buckets, who=lambda number: {"caller": str(number % callers)})
    for _ in range(10):
        with counted() as cost:
            if crowded.held:
                crowded.settle()
            else:
                crowded.advance(crowded.gate.next_at() - crowded.now)
        assert cost.calls < MOST_CALLS


def test_two_shared_buckets_that_refill_in_turn_do_not_draw_the_crowd_back_and_forth() -> None:
    buckets = bucket(0.5, burst=2.0, per=Per.ROUTE), bucket(0.31, burst=2.0, per=Per.UPSTREAM)
    crowded = Crowded(CROWD, *buckets)
    while crowded.held:
        crowded.settle()
    for _ in range(10):
        with counted() as cost:
            crowded.advance(crowded.gate.next_at() - crowded.now)
        assert cost.calls < MOST_CALLS
        while crowded.held:
            with counted() as cost:
                crowded.settle()
            assert cost.calls < MOST_CALLS


def test_a_caller_with_many_runs_and_one_bucket_is_one_look_for_each_refill() -> None:
    buckets = bucket(0.5, burst=2.0, per=Per.CALLER), bucket(0.5, burst=2.0, per=Per.RUN)
    crowded = Crowded(CROWD, *buckets, who=lambda number: {"caller": "one", "run": str(number)})
    while crowded.held:
        crowded.settle()
    for _ in range(10):
        with counted() as cost:
            assert crowded.advance(2.0) == 1
        assert cost.calls < MOST_CALLS
        crowded.settle()
