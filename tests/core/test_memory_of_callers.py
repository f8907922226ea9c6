"""What the gate keeps of 100,000 callers, each of whom came once, while 10,000 calls wait."""

from __future__ import annotations

import gc

from proxy.core.call import Call
from proxy.core.gate import Gate, Grant
from proxy.core.policy import (
    CallerPolicy,
    CapPolicy,
    Policy,
    QueuePolicy,
    RetryBudgetPolicy,
    RoutePolicy,
    UpstreamPolicy,
)
from proxy.core.verdict import Outcome
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore
from tests.kit.story import NEVER_SHED, bucket

CALLERS = 100_000
WAITING = 10_000
PACE_S = 0.01


def test_callers_who_came_once_are_forgotten_while_others_wait() -> None:
    """Objects are counted, not bytes: behind the last 50,000 there are no more than behind the first."""
    route = RoutePolicy("chat", QueuePolicy(WAITING, 1e6), NEVER_SHED, buckets=(bucket(1.0),))
    api = UpstreamPolicy("api", CapPolicy("upstream:api", 50), None, RetryBudgetPolicy(0.1, 1.0))
    policy = Policy(
        ("only", "and", "last"), {"chat": route}, {"api": api}, callers={"default": CallerPolicy(5)}
    )
    gate, now = Gate(policy, MemoryStore(), BreakerMachine, lambda _: None), 1000.0
    held: list[Grant] = []
    objects: list[int] = []
    before = _objects()
    for number in range(CALLERS):
        now += PACE_S
        call = Call(
            route="chat", caller=f"caller {number}", run=f"run {number}", rank=number % 3, arrived_at=now
        )
        verdict = gate.offer(call, "api", now)
        if isinstance(verdict, Grant):
            held.append(verdict)
        if number % 2:
            gate.settle(held.pop(0), Outcome.SUCCEEDED, now)
        held += [each.verdict for each in gate.take_decided() if isinstance(each.verdict, Grant)]
        if number % 10_000 == 9_999:
            objects.append(_objects() - before)
    assert gate.room.size >= WAITING - 1
    assert max(objects[5:]) < 1.05 * max(objects[:5])


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())
