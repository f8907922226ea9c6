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
from proxy.core.orders import last_order
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
        each_tool: int = 0,
        who: Callable[[int], dict[str, Any]] = lambda _: {},
    ) -> None:
        tools = {"search": ToolPolicy(searches)} if searches else {}
        if each_tool:
            tools["*"] = ToolPolicy(each_tool)
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


def test_as_many_tools_as_there_are_calls_cost_no_more_than_one() -> None:
    # Callers choose the names: each may have a cap of its own.
    crowded = Crowded(CROWD, each_tool=8, who=lambda n: {"tool": f"t{n}", "caller": f"c{n}"})
    for _ in range(3):
        with counted() as settling:
            assert crowded.settle() == 1
        assert settling.reserves == 2
        assert settling.calls < MOST_CALLS
    with counted() as arriving:
        assert crowded.offer(tool="another") is not None
    assert arriving.calls < MOST_CALLS


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


# ── fair queues, tickets, displacement, pressure ────────────────────────────────────────────────────

CALLERS = 1000


def of_many_callers(number: int) -> dict[str, Any]:
    return {"caller": f"c{number % CALLERS}", "rank": number % 3, "run": f"r{number}"}


def test_whose_turn_it_is_among_a_thousand_callers_is_found_without_looking_at_all() -> None:
    crowded = Crowded(CROWD, who=of_many_callers)
    for _ in range(60):  # also when it is the turn of the least important
        crowded.now += 0.1
        with counted() as settling:
            assert crowded.settle() == 1
        assert settling.calls < MOST_CALLS
        with counted() as arriving:
            crowded.offer(caller="c7", rank=1)
        assert arriving.calls < MOST_CALLS


def test_a_full_queue_of_a_thousand_callers_refuses_and_displaces_without_looking_at_all() -> None:
    crowded = Crowded(CROWD, who=of_many_callers)
    while crowded.gate.room.size < CROWD + 10:
        crowded.offer(caller="loud", rank=2)
    for caller, rank in (("loud", 2), ("c1", 0), ("new", 2)):
        with counted() as cost:
            crowded.offer(caller=caller, rank=rank)
        assert cost.calls < MOST_CALLS


def test_who_is_a_crowd_is_known_without_counting_the_callers() -> None:
    crowded = Crowded(2000, who=of_many_callers)
    call = Call(route="chat", caller="c1", rank=2, arrived_at=0.0)
    with counted() as cost:
        crowded.gate.room.lanes.crowds("chat", call, last_order(2))
    assert cost.calls < 40


def test_a_return_with_a_ticket_costs_no_more_when_ten_thousand_tickets_are_out() -> None:
    crowded = Crowded(10, who=of_many_callers)
    crowded.settle()  # the pace is known
    tickets: list[Any] = []
    for number in range(CROWD):
        call = Call(route="chat", caller=f"t{number}", rank=2, arrived_at=0.0)
        verdict = crowded.gate.offer(call, "api", crowded.now, may_wait=False)
        tickets.append(getattr(verdict, "ticket", None))
    with counted() as refusing:
        crowded.gate.offer(call, "api", crowded.now, may_wait=False)
    assert refusing.calls < MOST_CALLS
    ticket = next(ticket for ticket in tickets if ticket is not None)
    crowded.now = max(crowded.now, ticket.due_at)
    call = Call(route="chat", caller="t0", rank=2, arrived_at=0.0, ticket=ticket)
    with counted() as returning:
        crowded.gate.offer(call, "api", crowded.now)
    assert returning.calls < MOST_CALLS


def test_memory_follows_who_is_there_and_not_who_was() -> None:
    crowded = Crowded(100, who=of_many_callers)
    gate = crowded.gate
    for number in range(6000):
        crowded.now += 0.01
        if crowded.held:
            crowded.settle()
        crowded.offer(caller=f"once{number}", rank=number % 3, run=f"run{number}")
        for waiter in gate.room.waiters()[:1] if gate.room.size > 120 else []:
            gate.leave(waiter, crowded.now)
    room = gate.room
    assert room.size <= 130
    lines, lanes = room.lines, room.lanes
    assert len(lines._groups) <= 3
    levels = [level for group in lines._groups.values() for level in group.levels.values()]
    bays = [bay for level in levels for bay in level.bays.values()]
    assert sum(len(place._heap) for place in (*levels, *bays)) <= 2 * room.size + 128 * len(levels)
    assert (
        sum(len(lane._crowds) for each in lanes._lanes.values() for lane in each.values()) <= 2 * 130 + 9 * 64
    )
    assert sum(map(len, lanes._callers.values())) <= room.size
    assert len(lines._lacking) <= len(lines._groups) + 1
    assert len(room._expiry) <= 2 * room.size + 64
    assert len(gate._plans._known) <= 4096
    assert len(gate.runs) <= 50_000
    flow = gate.targets["api"].flow
    assert sum(len(flow.shares(rank)) for rank in range(3)) <= 3 * 65_537
