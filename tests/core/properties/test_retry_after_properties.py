"""Retry-After is honest: whoever waits that long, alone, is admitted; what is longer is told again."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.call import Call
from proxy.core.gate import Grant
from proxy.core.policy import Policy
from proxy.core.verdict import Outcome, Reason, Refusal
from tests.core.properties.policies import CALLERS, RUNS, TOKENS, TOOLS, UPSTREAMS, policies
from tests.core.properties.test_storms import walk
from tests.core.properties.world import World

pytestmark = pytest.mark.slow


@given(
    policy=policies(),
    seed=st.integers(0, 2**32),
    steps=st.integers(0, 120),
    start=st.sampled_from((0.0, 1000.25, 3.2e7)),
    outcome=st.sampled_from((Outcome.SUCCEEDED, Outcome.FAILED)),
)
def test_who_comes_back_alone_when_told_is_admitted(
    policy: Policy, seed: int, steps: int, start: float, outcome: Outcome
) -> None:
    chance = Random(seed)
    world = World(policy, start)
    walk(world, chance, steps)
    who = {
        "route": chance.choice(sorted(policy.routes)),
        "caller": chance.choice(CALLERS),
        "run": chance.choice(RUNS),
        "tool": chance.choice(TOOLS),
        "tokens": chance.choice(TOKENS),
    }
    upstream = chance.choice(UPSTREAMS)
    # It spends what it can, and what it began ends well or badly: buckets empty and the breaker open at once.
    while isinstance(world.offer(Call(arrived_at=world.now, **who), upstream, may_wait=False), Grant):
        pass
    for grant in list(world.ledger.held):
        if grant in world.ledger.held:
            world.settle(grant, outcome)
    world.finish()
    world.come_back(who, upstream)
    if can_ever_retry(policy, upstream):
        world.come_back({**who, "is_retry": True}, upstream)


@given(policy=policies(), seed=st.integers(0, 2**32))
def test_a_breaker_is_never_stuck(policy: Policy, seed: int) -> None:
    chance = Random(seed)
    world = World(policy)
    walk(world, chance, 60)
    world.finish()
    route = min(policy.routes)
    for name, upstream in policy.upstreams.items():
        if upstream.breaker is None:
            continue
        probes = upstream.breaker.probes
        for number in range(20):
            world.advance(200.0)  # longer than any breaker here stays open, and than any bucket takes to fill
            call = Call(route=route, caller=f"new {number}", arrived_at=world.now)
            verdict = world.offer(call, name, may_wait=False)
            if isinstance(verdict, Grant):
                world.settle(verdict, Outcome.SUCCEEDED)
                probes -= 1
            else:
                assert isinstance(verdict, Refusal)
                assert verdict.reason is Reason.QUOTA_SPENT
                world.advance(3600.0)
        assert probes <= 0
        breaker = world.gate.targets[name].breaker
        assert breaker is not None
        assert breaker.phase == "closed"


def can_ever_retry(policy: Policy, upstream: str) -> bool:
    """A budget without a floor pays for nothing to whom comes alone: such a wait has no end to tell."""
    budget = policy.upstreams[upstream].retry_budget
    return budget is None or budget.floor_per_s * 60 >= 1
