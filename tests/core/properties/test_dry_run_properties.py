"""Dry run against what it stands for: a gate that enforces the same, and one that was never told of it.

Three walks, each over two gates that see the same calls, ends and times:
what is in dry run counts, and would refuse, what its enforced twin counts and refuses; a breaker too; and
whatever is in dry run, calls fare as if it were not configured.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.breaker import OPEN
from proxy.core.call import Call
from proxy.core.dry_run import APART
from proxy.core.events import BreakerMoved, Event, WouldQueue, WouldRefuse
from proxy.core.gate import Gate, Grant
from proxy.core.policy import (
    CallerPolicy,
    CapPolicy,
    Policy,
    QueuePolicy,
    RoutePolicy,
    ToolPolicy,
    UpstreamPolicy,
)
from proxy.core.used import Used
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore
from tests.core.properties.policies import CALLERS, CLASSES, RUNS, TOKENS, TOOLS, UPSTREAMS, USED, policies
from tests.core.properties.world import windows

pytestmark = pytest.mark.slow

NO_QUEUE = QueuePolicy(0, 1.0)
NEVER_SHED = (2.0, 2.0, 2.0)
seeds = st.integers(0, 2**32)


class Side:
    """One of the two gates, and what came of each call there."""

    def __init__(self, policy: Policy, *, keeps_promises: bool = True) -> None:
        self.keeps_promises = keeps_promises
        self.events: list[Event] = []
        self.store = MemoryStore()
        self.gate = Gate(policy, self.store, BreakerMachine, self.events.append)
        self.verdicts: dict[int, Grant | Refusal | Waiter] = {}
        self.running: list[int] = []

    def offer(self, number: int, call: Call, upstream: str, now: float) -> None:
        self.verdicts[number] = self.gate.offer(call, upstream, now)
        self._note(number)
        self.take()
        if not self.keeps_promises:  # whom the twin refuses was told when to return, and has its token kept
            self.gate.promises._tickets._lines.clear()

    def settle(self, number: int, outcome: Outcome, used_tokens: float | None, now: float) -> None:
        """End the call, if it runs here."""
        verdict = self.verdicts[number]
        if number in self.running:
            assert isinstance(verdict, Grant)
            self.running.remove(number)
            self.gate.settle(verdict, outcome, now, used=None if used_tokens is None else Used(used_tokens))
            self.take()

    def take(self) -> None:
        decided = {id(waiter): waiter.verdict for waiter in self.gate.take_decided()}
        for number, verdict in self.verdicts.items():
            if (came := decided.get(id(verdict))) is not None:
                self.verdicts[number] = came
                self._note(number)

    def fates(self) -> list[Any]:
        return [
            (verdict.reason, verdict.scope, verdict.retry_after_s)
            if isinstance(verdict, Refusal)
            else type(verdict)
            for verdict in self.verdicts.values()
        ]

    def would_refuse(self) -> list[tuple[Call, Reason, str]]:
        return [(e.call, e.reason, e.scope) for e in self.events if isinstance(e, WouldRefuse)]

    def has_recovered(self) -> bool:
        return any(isinstance(event, BreakerMoved) and event.old == OPEN for event in self.events)

    def _note(self, number: int) -> None:
        if isinstance(self.verdicts[number], Grant):
            self.running.append(number)


def walk(
    one: Side, other: Side, chance: Random, steps: int, *, retries: bool = False, to_recovery: bool = False
) -> None:
    """So many steps, the same on both sides: calls that come, calls that end, time that passes.

    `to_recovery`: it ends with the first answer to an upstream that was down.
    """
    now, calls = 1000.25, 0
    names = sorted(one.gate.policy.routes)
    for _ in range(steps):
        if to_recovery and any(side.has_recovered() for side in (one, other)):
            return
        step = chance.random()
        if step < 0.5:
            call = Call(
                route=chance.choice(names),
                caller=chance.choice(CALLERS),
                run=chance.choice(RUNS),
                tool=chance.choice(TOOLS),
                rank=chance.randrange(3),
                arrived_at=now,
                is_retry=retries and chance.random() < 0.2,
                tokens=chance.choice(TOKENS),
            )
            upstream = chance.choice(UPSTREAMS)
            for side in (one, other):
                side.offer(calls, call, upstream, now)
            calls += 1
        elif step < 0.8 and (running := one.running or other.running):
            number, outcome = chance.choice(running), chance.choice((Outcome.SUCCEEDED, *Outcome))
            used = chance.choice(USED)
            for side in (one, other):
                side.settle(number, outcome, used, now)
        else:
            now += chance.choice((0.05, 0.2, 0.7, 2.0))
            for side in (one, other):
                side.gate.advance(now)
                side.take()


def dry(policy: Policy, chance: Random | None = None, *, upstream_caps: bool = True) -> Policy:
    """The policy with all of it in dry run, or what `chance` picks."""

    picked: dict[
        str, bool
    ] = {}  # what many routes state is one count: they agree (`checks_of_allowances.py`)

    def off(part: Any) -> Any:
        key = getattr(part, "key", str(len(picked)))
        is_picked = picked.setdefault(key, chance is None or chance.random() < 0.5)
        return replace(part, enforce=False) if is_picked else part

    return replace(
        policy,
        routes={
            name: replace(
                route,
                buckets=tuple(map(off, route.buckets)),
                quotas=tuple(map(off, route.quotas)),
                cap=off(route.cap) if route.cap else None,
                tools={
                    tool: off(replace(each, buckets=tuple(map(off, each.buckets))))
                    for tool, each in route.tools.items()
                },
            )
            for name, route in policy.routes.items()
        },
        upstreams={
            name: replace(
                upstream,
                cap=off(upstream.cap) if upstream_caps else upstream.cap,
                breaker=off(upstream.breaker) if upstream.breaker else None,
            )
            for name, upstream in policy.upstreams.items()
        },
        callers={name: off(caller) for name, caller in policy.callers.items()},
    )


def without_what_is_dry(policy: Policy) -> Policy:
    def tool_without(tool: ToolPolicy) -> ToolPolicy:
        buckets = tuple(each for each in tool.buckets if each.enforce)
        return ToolPolicy(tool.slots if tool.enforce else None, buckets)

    return replace(
        policy,
        routes={
            name: replace(
                route,
                buckets=tuple(each for each in route.buckets if each.enforce),
                quotas=tuple(each for each in route.quotas if each.enforce),
                cap=route.cap if route.cap and route.cap.enforce else None,
                tools={tool: tool_without(each) for tool, each in route.tools.items()},
            )
            for name, route in policy.routes.items()
        },
        upstreams={
            name: replace(
                each, breaker=each.breaker if each.breaker is not None and each.breaker.enforce else None
            )
            for name, each in policy.upstreams.items()
        },
        # Who is named does not fall under `*`, as tools do not.
        callers={
            name: each if each.enforce else CallerPolicy(10_000) for name, each in policy.callers.items()
        },
    )


def only_claims(policy: Policy) -> Policy:
    return replace(
        policy,
        routes={
            name: replace(route, queue=NO_QUEUE, shed_at=NEVER_SHED) for name, route in policy.routes.items()
        },
        upstreams={
            name: replace(each, breaker=None, retry_budget=None) for name, each in policy.upstreams.items()
        },
    )


def only_breakers(policy: Policy) -> Policy:
    return Policy(
        CLASSES,
        {name: RoutePolicy(name, NO_QUEUE, NEVER_SHED) for name in policy.routes},
        {
            name: UpstreamPolicy(name, CapPolicy(f"upstream:{name}", 10_000), each.breaker, None)
            for name, each in policy.upstreams.items()
        },
    )


def bucket_levels(side: Side, policy: Policy, now: float) -> dict[str, float]:
    return {
        key: side.store.level(key, bucket, now)
        for route in policy.routes.values()
        for bucket in (*route.buckets, *(each for tool in route.tools.values() for each in tool.buckets))
        for key in side.store.bucket_keys(f"{bucket.key}|")
    }


@given(policies(), seeds, st.integers(20, 300))
def test_dry_run_counts_and_would_refuse_what_its_enforced_twin_does(
    policy: Policy, seed: int, steps: int
) -> None:
    policy = only_claims(policy)
    enforced, rehearsed = Side(policy, keeps_promises=False), Side(dry(policy))
    walk(rehearsed, enforced, Random(seed), steps)
    assert all(isinstance(verdict, Grant) for verdict in rehearsed.verdicts.values())
    refused = [
        (rehearsed.verdicts[number].call, verdict.reason, verdict.scope)  # type: ignore[union-attr]  # a Grant
        for number, verdict in enforced.verdicts.items()
        if isinstance(verdict, Refusal)
    ]
    assert rehearsed.would_refuse() == refused
    assert bucket_levels(rehearsed, policy, 1000.25) == bucket_levels(enforced, policy, 1000.25)
    assert windows(rehearsed.store) == windows(enforced.store)
    for key in enforced.store.cap_keys(""):
        assert rehearsed.store.in_flight(APART + key) == enforced.store.in_flight(key)
    in_flight = sum(rehearsed.store.in_flight(upstream.cap.key) for upstream in policy.upstreams.values())
    assert in_flight == len(rehearsed.running), "all that run are counted, also those above the cap"
    for number in list(rehearsed.running):
        rehearsed.settle(number, Outcome.IGNORED, None, 2000.0)
    assert rehearsed.store.cap_keys("") == [], "every permit came back"


@given(policies(), seeds, st.integers(20, 300))
def test_a_breaker_in_dry_run_opens_and_probes_when_its_enforced_twin_does(
    policy: Policy, seed: int, steps: int
) -> None:
    """Up to the end of the outage: the slow start of the twin holds calls back that truly go here."""
    policy = only_breakers(policy)
    enforced, rehearsed = Side(policy), Side(dry(policy))
    walk(rehearsed, enforced, Random(seed), steps, to_recovery=True)
    assert all(isinstance(verdict, Grant) for verdict in rehearsed.verdicts.values())
    refused = [verdict for verdict in enforced.verdicts.values() if isinstance(verdict, Refusal)]
    assert len(rehearsed.would_refuse()) == len(refused)
    moves = [
        [(e.upstream, e.old, e.new, e.why) for e in side.events if isinstance(e, BreakerMoved)]
        for side in (rehearsed, enforced)
    ]
    assert moves[0] == moves[1]


@given(policies(), seeds, st.integers(20, 300))
def test_calls_fare_as_if_what_is_in_dry_run_were_not_configured(
    policy: Policy, seed: int, steps: int
) -> None:
    rehearsing = dry(policy, Random(seed), upstream_caps=False)  # a cap of the upstream is also its pace
    rehearsed, plain = Side(rehearsing), Side(without_what_is_dry(rehearsing))
    walk(rehearsed, plain, Random(seed), steps, retries=True)
    assert rehearsed.fates() == plain.fates()


@given(policies(), seeds, st.integers(20, 200))
def test_a_queue_in_dry_run_makes_nobody_wait_and_counts_no_more_than_are_refused(
    policy: Policy, seed: int, steps: int
) -> None:
    queues = {name: QueuePolicy(0, 3.0, dry_size=4) for name in policy.routes}
    rehearsing = replace(
        policy, routes={name: replace(each, queue=queues[name]) for name, each in policy.routes.items()}
    )
    none = QueuePolicy(0, 3.0)  # as old: by that is reckoned what comes too late to be waited for
    refusing = replace(
        policy, routes={name: replace(each, queue=none) for name, each in policy.routes.items()}
    )
    rehearsed, plain = Side(rehearsing), Side(refusing)
    walk(rehearsed, plain, Random(seed), steps, retries=True)
    assert rehearsed.fates() == plain.fates()
    would = [event.call for event in rehearsed.events if isinstance(event, WouldQueue)]
    refused = sum(isinstance(verdict, Refusal) for verdict in rehearsed.verdicts.values())
    assert len(set(map(id, would))) == len(would) <= refused
