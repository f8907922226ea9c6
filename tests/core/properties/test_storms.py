"""Long crowded walks over the same world as `test_gate_properties.py`: deep queues, many small steps.

Hypothesis draws the policy, the seed and the length; the walk itself is a seeded one, for a machine of rules
spends most of its steps on an empty proxy.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.call import Call
from proxy.core.policy import Policy
from proxy.core.verdict import Outcome
from tests.core.properties.policies import CALLERS, RUNS, SIZES, TOKENS, TOOLS, UPSTREAMS, USED, policies
from tests.core.properties.world import World

pytestmark = pytest.mark.slow

WEIGHTS = {"ann": 1.0, "bob": 1.0, "cy": 3.0}

OUTCOMES = (Outcome.SUCCEEDED,) * 6 + (Outcome.UNUSED,) * 2 + (*Outcome,)


def walk(world: World, chance: Random, steps: int) -> None:
    """So many steps: half of them offers, the others what frees room."""
    names = sorted(world.gate.policy.routes)
    for _ in range(steps):
        step = chance.random()
        if step < 0.5:
            is_late = chance.random() < 0.1
            world.clock.advance(is_late * 0.7)
            upstream = chance.choice(UPSTREAMS[: chance.choice((1, 2))])
            world.offer(some_call(world, chance, names), upstream, timer_is_late=is_late)
        elif step < 0.57 and world.invited:
            world.come_again(
                chance.randrange(1000), chance.choice((0.0, 0.0, 0.0, 0.9, -0.05, -1.0, -30.0, 8.0))
            )
        elif step < 0.82 and world.ledger.held:
            grant, outcome = chance.choice(world.ledger.held), chance.choice(OUTCOMES)
            world.settle(grant, outcome, chance.choice(USED) if grant.call.tokens else None)
        elif step < 0.85 and world.waiters:
            world.leave(chance.choice(world.waiters))
        elif step < 0.9 and world.waiters:
            world.advance(max(0.0, world.gate.next_at() - world.now))
        else:
            world.advance(chance.choice((0.05, 0.2, 0.2, 0.7, 2.0)))


def some_call(world: World, chance: Random, names: list[str]) -> Call:
    caller = chance.choice(CALLERS)
    return Call(
        route=chance.choice(names),
        caller=caller,
        run=chance.choice(RUNS),
        tool=chance.choice(TOOLS),
        rank=chance.randrange(3),
        arrived_at=world.now,
        deadline=(until := world.now + chance.choice((float("inf"), float("inf"), 8.0, 1.5))),
        until=until,
        size=chance.choice(SIZES),
        weight=WEIGHTS[caller],
        is_retry=chance.random() < 0.2,
        tokens=chance.choice(TOKENS),
    )


@given(policy=policies(), seed=st.integers(0, 2**32), steps=st.integers(20, 300))
def test_every_invariant_holds_through_a_long_storm(policy: Policy, seed: int, steps: int) -> None:
    world = World(policy)
    walk(world, Random(seed), steps)
    world.finish()


@given(before=policies(), after=policies(), seed=st.integers(0, 2**32), steps=st.integers(20, 150))
def test_every_invariant_holds_through_a_storm_with_a_reload_in_the_middle(
    before: Policy, after: Policy, seed: int, steps: int
) -> None:
    chance = Random(seed)
    world = World(before)
    walk(world, chance, steps)
    world.adopt(after)
    walk(world, chance, steps)
    world.finish()
