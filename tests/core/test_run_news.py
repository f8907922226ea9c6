"""Runs whose calls go to several replicas: their time, agents and halt are known to all of them."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from proxy.core.hearsay import Hearsay
from proxy.core.hints import Hint
from proxy.core.outbox import Outbox
from proxy.core.policy import RunBudgetPolicy
from proxy.core.repeats import Repeats
from proxy.core.run_news import AGAIN_S, MOST_AGENTS_TOLD, MOST_TOLD, MOST_WAITING
from proxy.core.verdict import UNUSED, Reason, Refusal
from proxy.stores.hints import Mail
from tests.core.test_run_budgets import FORGET_S, Door, budget
from tests.kit.clock import ManualClock


class Replica(Door):
    """One of those that share a clock, and nothing else but what they tell each other."""

    def __init__(self, name: str, clock: ManualClock, policy: RunBudgetPolicy) -> None:
        super().__init__(policy)
        self.clock = clock
        outbox = Outbox(name)
        self.hearsay = Hearsay(self.gate, Repeats(outbox), outbox)
        self.mail = Mail(self.hearsay)

    def tells(self, *others: Replica, late_s: float = 0.0) -> Hint | None:
        """What it has to tell, on its way as bytes, and heard so much later."""
        said_at = self.clock()
        packed = self.mail.outgoing(1 + len(others), said_at)
        self.clock.advance(late_s)
        for other in others:
            other.mail.came([(self.clock() - said_at, packed)] if packed else [], self.clock(), self.clock())
            assert not other.mail.unread
        return msgspec.msgpack.decode(packed, type=Hint) if packed else None

    def why(self, **more: str) -> str:
        """The budget for which a call is refused; "" where it is granted."""
        verdict = self.ask(**more)
        return verdict.budget or verdict.reason if isinstance(verdict, Refusal) else ""


def pair(policy: RunBudgetPolicy) -> tuple[Replica, Replica]:
    clock = ManualClock(1000.0)
    return Replica("one", clock, policy), Replica("two", clock, policy)


def test_the_time_of_a_run_begins_with_its_first_call_at_any_replica() -> None:
    one, two = pair(budget(wall_s=10.0))
    one.granted()
    one.tells(two, late_s=1.0)
    one.clock.advance(8.9)
    assert two.why() == ""
    one.clock.advance(0.1)
    assert two.why() == "wall_time"


def test_agents_are_counted_together_and_those_that_there_are_go_on_anywhere() -> None:
    one, two = pair(budget(agents=2))
    one.granted(agent="a")
    two.granted(agent="b")
    one.tells(two)
    two.tells(one)
    for each in (one, two):
        assert each.why(agent="c") == "agents"
        assert each.why(agent="a") == each.why(agent="b") == ""


def test_how_deep_an_agent_is_is_known_by_parents_that_others_have_seen() -> None:
    one, two = pair(budget(depth=2))
    one.granted(agent="a")
    one.granted(agent="b", parent="a")
    assert two.why(agent="c", parent="b") == "", "b may be the first's own, as far as anybody told"
    one.tells(two)
    assert two.why(agent="d", parent="b") == "depth"


def test_a_run_halted_at_one_is_halted_at_all() -> None:
    one, two = pair(budget())
    one.gate.runs.budgets.halt("ann/r")
    one.tells(two)
    assert two.why() == Reason.RUN_HALTED
    assert two.why(run="ann/other") == ""


def test_who_joins_hears_of_runs_that_go_on_and_of_the_halted() -> None:
    one, two = pair(budget(wall_s=30.0, agents=1))
    one.granted(agent="a")
    one.gate.runs.budgets.halt("ann/halted")
    one.tells(two)
    late = Replica("late", one.clock, budget(wall_s=30.0, agents=1))
    assert one.tells(two, late) is None, "all of it was told"
    one.clock.advance(AGAIN_S)
    one.granted(agent="a")
    one.tells(two, late)
    assert late.why(run="ann/halted") == Reason.RUN_HALTED
    assert late.why(agent="b") == "agents"
    one.clock.advance(30.0 - AGAIN_S)
    assert late.why(agent="a") == "wall_time"


def test_what_was_heard_is_not_forgotten_with_a_call_that_was_not_used() -> None:
    one, two = pair(budget(agents=1))
    one.granted(agent="a")
    one.tells(two)
    grant = two.granted(agent="a")
    two.gate.settle(grant, UNUSED, two.clock())
    assert two.why(agent="b") == "agents"


def test_a_run_is_not_forgotten_where_only_others_have_calls_of_it() -> None:
    one, two = pair(budget(wall_s=1000.0))
    for _ in range(4):
        one.granted()
        one.tells(two)
        one.clock.advance(FORGET_S / 2)
    two.granted()
    assert two.gate.runs.budgets.records["ann/r"].began_at == 1000.0


def test_an_old_tale_does_not_bring_a_run_back() -> None:
    one, two = pair(budget(wall_s=5.0))
    one.granted()
    one.tells(two, late_s=FORGET_S)
    assert two.why() == "", "it was away for so long that it begins anew"


def test_a_run_of_a_caller_without_a_budget_is_nothing_to_others() -> None:
    clock = ManualClock(1000.0)
    one = Replica("one", clock, budget(wall_s=5.0))
    two = Replica("two", clock, budget(wall_s=5.0))
    two.gate.adopt(replace(two.policy, run_budgets={"*": None}), clock())
    one.granted()
    one.tells(two)
    assert not two.gate.runs.budgets.records


def test_nothing_is_told_of_what_has_not_changed() -> None:
    one, two = pair(budget(agents=3))
    one.granted(agent="a")
    assert one.tells(two) is not None
    one.granted(agent="a")
    assert one.tells(two) is None


def test_what_is_told_with_one_trip_is_bounded_and_so_is_what_waits_for_it() -> None:
    one, two = pair(budget())
    for number in range(MOST_WAITING + 10):
        one.ends(one.granted(run=f"ann/{number}"))
    for number in range(MOST_AGENTS_TOLD + 10):
        one.ends(one.granted(run="ann/crowd", agent=f"a{number}"))
    told: list[str] = []
    while (hint := one.tells(two)) is not None:
        assert len(hint.runs) <= MOST_TOLD
        told += [seen.run for seen in hint.runs]
    assert told == [f"ann/{number}" for number in range(11, MOST_WAITING + 10)] + ["ann/crowd"]
    agents = two.gate.runs.budgets.records["ann/crowd"].agents
    assert list(agents) == [f"a{number}" for number in range(10, MOST_AGENTS_TOLD + 10)]


def test_a_hint_of_a_release_that_knows_no_runs_is_understood() -> None:
    _, two = pair(budget())
    two.mail.came([(0.1, msgspec.msgpack.encode(("old", [], [], {})))], two.clock(), two.clock())
    assert two.mail.unread == 0


@pytest.mark.parametrize("late_s", [0.0, 3.0])
def test_a_run_heard_of_is_forgotten_as_its_own_would_be(late_s: float) -> None:
    one, two = pair(budget(wall_s=1000.0))
    one.granted()
    one.tells(two, late_s=late_s)
    assert "ann/r" in two.gate.runs.budgets.records
    one.clock.advance(FORGET_S - late_s)
    two.granted()
    record = two.gate.runs.budgets.records["ann/r"]
    assert record.began_at == two.clock()
