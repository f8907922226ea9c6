"""The invariants of DESIGN §5, over whatever sequence of events hypothesis can think of.

What must hold is in `world.py`; this machine only makes things happen.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from proxy.core.call import Call
from proxy.core.policy import Policy
from proxy.core.verdict import Outcome
from tests.core.properties.policies import CALLERS, RUNS, SIZES, TOKENS, TOOLS, UPSTREAMS, USED, policies
from tests.core.properties.world import World

pytestmark = pytest.mark.slow

seconds = st.sampled_from((0.1, 0.1, 0.5, 0.5, 1.0, 3.0, 10.0, 61.0)) | st.floats(0.0, 5.0)
picks = st.integers(0, 1000)
INF = float("inf")


class GateMachine(RuleBasedStateMachine):
    world: World

    @initialize(policy=policies(), start=st.sampled_from((0.0, 1000.25, 3.2e7)))
    def begin(self, policy: Policy, start: float) -> None:
        self.world = World(policy, start)

    @rule(
        route=picks,
        caller=st.sampled_from(CALLERS),
        run=st.sampled_from(RUNS),
        tool=st.sampled_from(TOOLS),
        rank=st.integers(0, 2),
        within=st.sampled_from((INF,) * 9 + (30.0, 2.0, 0.0)),
        is_retry=st.sampled_from((False, False, False, True)),
        upstream=st.sampled_from(UPSTREAMS),
        may_wait=st.sampled_from((True, True, True, True, False)),
        times=st.sampled_from((1, 2, 5)),
        late_s=st.sampled_from((0.0, 0.0, 0.0, 1.5)),
        tokens=st.sampled_from(TOKENS),
        size=st.sampled_from(SIZES),
    )
    def offer(
        self,
        route: int,
        caller: str,
        run: str,
        tool: str,
        rank: int,
        within: float,
        is_retry: bool,
        upstream: str,
        may_wait: bool,
        times: int,
        late_s: float,
        tokens: float,
        size: int,
    ) -> None:
        world = self.world
        world.clock.advance(late_s)
        names = sorted(world.gate._routes)
        for _ in range(times):
            call = Call(
                route=names[route % len(names)],
                caller=caller,
                run=run,
                tool=tool,
                rank=rank,
                arrived_at=world.now,
                deadline=world.now + within,
                is_retry=is_retry,
                tokens=tokens,
                until=world.now + within,
                size=size,
            )
            world.offer(call, upstream, may_wait=may_wait, timer_is_late=late_s > 0)

    @precondition(lambda self: self.world.invited)
    @rule(which=picks, late_s=st.sampled_from((0.0, 0.0, 0.9, -0.05, -1.0, -30.0, 8.0)))
    def come_again(self, which: int, late_s: float) -> None:
        """In time, too early, or too late."""
        self.world.come_again(which, late_s)

    @precondition(lambda self: self.world.ledger.held)
    @rule(which=picks, outcome=st.sampled_from(Outcome), used_tokens=st.sampled_from(USED))
    def settle(self, which: int, outcome: Outcome, used_tokens: float | None) -> None:
        held = self.world.ledger.held
        grant = held[which % len(held)]
        self.world.settle(grant, outcome, used_tokens if grant.call.tokens else None)
        with pytest.raises(RuntimeError, match="settled twice"):
            self.world.gate.settle(grant, outcome, self.world.now)

    @precondition(lambda self: self.world.ledger.held)
    @rule(ends=st.integers(1, 8), each_s=st.sampled_from((0.0, 0.3, 1.0)))
    def work_goes_on(self, ends: int, each_s: float) -> None:
        """The oldest calls end well, one after the other."""
        for _ in range(ends):
            if self.world.ledger.held:
                self.world.advance(each_s)
                self.world.settle(self.world.ledger.held[0], Outcome.SUCCEEDED)

    @precondition(lambda self: self.world.waiters)
    @rule(which=picks)
    def leave(self, which: int) -> None:
        waiters = self.world.waiters
        self.world.leave(waiters[which % len(waiters)])

    @rule(passed=seconds)
    def pass_time(self, passed: float) -> None:
        self.world.advance(passed)

    @precondition(lambda self: self.world.waiters)
    @rule()
    def pass_time_to_the_next_event(self) -> None:
        self.world.advance(max(0.0, self.world.gate.next_at() - self.world.now))

    @precondition(lambda self: self.world.ledger.held)
    @rule(passed=seconds, which=picks)
    def settle_before_the_timer_has_fired(self, passed: float, which: int) -> None:
        """The event loop is late: an end is seen before those whose time came earlier."""
        world = self.world
        world.clock.advance(passed)
        world.settle(world.ledger.held[which % len(world.ledger.held)], Outcome.SUCCEEDED)
        world.advance(0.0)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.finish()
        for name in world.gate.policy.routes:
            for upstream in UPSTREAMS:
                world.come_back({"route": name, "caller": "ann", "tool": "read"}, upstream)


class ReloadMachine(GateMachine):
    """The same, under one policy after another."""

    @rule(policy=policies())
    def reload(self, policy: Policy) -> None:
        self.world.adopt(policy)


class DrainMachine(GateMachine):
    """The same, ending in a drain while everything is under way."""

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.drain()
        world.offer(Call(route=next(iter(world.gate.policy.routes)), caller="late", arrived_at=0.0), "north")
        world.finish()


TestGate = GateMachine.TestCase
TestReload = ReloadMachine.TestCase
TestDrain = DrainMachine.TestCase
