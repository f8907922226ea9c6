"""What a run may have in all: counted with the calls, never beyond, and given back where nothing was used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core import run_budgets
from proxy.core.call import Call
from proxy.core.events import Event, WouldRefuse
from proxy.core.gate import Gate
from proxy.core.grant import Grant
from proxy.core.policy import (
    CapPolicy,
    Per,
    Policy,
    QueuePolicy,
    QuotaPolicy,
    RoutePolicy,
    RunBudgetPolicy,
    Unit,
    UpstreamPolicy,
)
from proxy.core.prices import GRAIN, Price
from proxy.core.used import Used
from proxy.core.verdict import FAILED, SUCCEEDED, UNUSED, Reason, Refusal
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore
from tests.kit.clock import ManualClock

FORGET_S = 100


def lasting(name: str, amount: int, unit: Unit = Unit.REQUESTS, *, enforce: bool = True) -> QuotaPolicy:
    key = f"run_budget/{name}"
    return QuotaPolicy(key, Per.RUN, amount, FORGET_S, f"{amount} {name}", enforce, unit, lasts=True)


def budget(*quotas: QuotaPolicy, **more: Any) -> RunBudgetPolicy:
    return RunBudgetPolicy(forget_s=float(FORGET_S), quotas=quotas, **more)


class Door:
    """A gate in front of one upstream, with this budget for every run; what it granted, by call."""

    def __init__(self, budget: RunBudgetPolicy, queue: int = 0, **known: RunBudgetPolicy | None) -> None:
        self.clock = ManualClock(1000.0)
        self.events: list[Event] = []
        route = RoutePolicy("chat", QueuePolicy(queue, 10.0), (2.0, 2.0, 2.0))
        self.policy = Policy(
            classes=("critical", "normal", "background"),
            routes={"chat": route},
            upstreams={"api": UpstreamPolicy("api", CapPolicy("upstream:api", 1000), None, None)},
            run_budgets={"*": budget, **known},
        )
        self.gate = Gate(self.policy, MemoryStore(), BreakerMachine, self.events.append)

    def ask(self, run: str = "ann/r", caller: str = "ann", **more: Any) -> Grant | Refusal | Waiter:
        money, price = more.pop("money", 0), more.pop("price", None)
        call = Call(route="chat", caller=caller, run=run, arrived_at=self.clock(), **more)
        call.money, call.price = money, price
        return self.gate.offer(call, "api", self.clock())

    def granted(self, *args: str, **more: Any) -> Grant:
        verdict = self.ask(*args, **more)
        assert isinstance(verdict, Grant), verdict
        return verdict

    def refused(self, *args: str, **more: Any) -> Refusal:
        verdict = self.ask(*args, **more)
        assert isinstance(verdict, Refusal), verdict
        return verdict

    def ends(self, grant: Grant, outcome: Any = SUCCEEDED, used_tokens: float | None = None) -> None:
        used = None if used_tokens is None else Used(used_tokens)
        self.gate.settle(grant, outcome, self.clock(), used=used)

    def counted(self, quota: QuotaPolicy, run: str = "ann/r") -> int:
        found = self.gate.store.counted(f"{quota.key}|run:{run}", quota, self.clock())
        assert found is not None
        return found


CALLS = lasting("calls", 2)
TOKENS = lasting("tokens", 1000, Unit.TOKENS)
MONEY = lasting("money", 5_000_000, Unit.MONEY)


def test_a_run_that_has_made_its_calls_is_stopped_and_told_which_budget_it_is():
    door = Door(budget(CALLS))
    door.ends(door.granted())
    door.ends(door.granted())
    refusal = door.refused()
    assert (refusal.reason, refusal.scope, refusal.limit) == (Reason.RUN_BUDGET_SPENT, "run:ann/r", "2 calls")
    assert (refusal.budget, refusal.retry_after_s) == ("calls", None)
    door.granted("ann/other")


def test_calls_without_a_run_and_callers_without_a_budget_spend_none():
    door = Door(budget(lasting("calls", 1)), bob=None)
    for _ in range(3):
        door.granted("")
        door.granted("bob/r", "bob")
    assert len(door.gate.runs.budgets.records) == 0


def test_who_has_a_budget_of_its_own_has_that():
    door = Door(budget(lasting("calls", 1)), bob=budget(CALLS))
    door.granted("bob/r", "bob")
    door.granted("bob/r", "bob")
    assert door.refused("bob/r", "bob").limit == "2 calls"


def test_a_refused_call_has_spent_nothing_of_any_of_them():
    door = Door(budget(CALLS, TOKENS))
    door.granted(tokens=600.0)
    assert door.refused(tokens=600.0).budget == "tokens"
    assert (door.counted(CALLS), door.counted(TOKENS)) == (1, 600)
    door.granted(tokens=400.0)


def test_tokens_and_money_are_trued_up_both_ways():
    door = Door(budget(TOKENS, MONEY))
    price = Price(input=5000 * GRAIN, output=GRAIN, cached=GRAIN, written=GRAIN)
    first = door.granted(tokens=600.0, money=2_000_000, price=price)
    door.ends(first, used_tokens=100.0)
    assert (door.counted(TOKENS), door.counted(MONEY)) == (100, 500_000)
    second = door.granted(tokens=900.0, money=1_000_000, price=price)
    door.ends(second, used_tokens=1200.0)
    assert (door.counted(TOKENS), door.counted(MONEY)) == (1300, 6_500_000)
    assert door.refused(tokens=1.0, money=1).reason is Reason.RUN_BUDGET_SPENT


def test_what_was_used_beyond_the_estimate_counts_after_the_window_has_turned_too():
    door = Door(budget(TOKENS))
    grant = door.granted(tokens=100.0)
    less = door.granted(tokens=100.0)
    door.clock.advance(FORGET_S + 1.0)
    door.granted(tokens=50.0)
    door.ends(grant, used_tokens=700.0)
    assert door.counted(TOKENS) == 650
    door.ends(less, used_tokens=0.0)
    assert door.counted(TOKENS) == 650, "what comes back belongs to the window before"


def test_a_call_that_costs_no_tokens_goes_on_when_they_are_spent():
    door = Door(budget(TOKENS))
    door.ends(door.granted(tokens=900.0), used_tokens=1000.0)
    assert door.refused(tokens=1.0).budget == "tokens"
    door.granted()


def test_a_call_that_costs_more_than_the_whole_budget_is_too_dear_and_not_the_end_of_the_run():
    assert Door(budget(TOKENS)).refused(tokens=1001.0).reason is Reason.TOO_DEAR


def test_what_never_reached_the_upstream_is_given_back_and_so_are_its_agent_and_its_time():
    door = Door(budget(CALLS, agents=1, wall_s=50.0))
    door.ends(door.granted(agent="a"), UNUSED)
    door.clock.advance(60.0)
    door.granted(agent="b")
    assert door.counted(CALLS) == 1


def test_a_failed_call_was_one_and_its_fallback_is_no_second_one_but_is_charged_for_its_tokens():
    door = Door(budget(CALLS, TOKENS))
    first = door.granted(tokens=300.0)
    door.ends(first, FAILED, used_tokens=0.0)
    call = first.call
    call.paid = True
    second = door.gate.offer(call, "api", door.clock())
    assert isinstance(second, Grant)
    door.ends(second, used_tokens=250.0)
    assert (door.counted(CALLS), door.counted(TOKENS)) == (1, 250)


def test_a_quota_of_tokens_is_charged_by_each_attempt_and_one_of_calls_by_the_first():
    calls = QuotaPolicy("calls", Per.CALLER, 9, 100, "9 requests/100s")
    tokens = QuotaPolicy("tokens", Per.CALLER, 1000, 100, "1000 tokens/100s", unit=Unit.TOKENS)
    door = Door(budget())
    route = replace(door.policy.routes["chat"], quotas=(calls, tokens))
    door.gate.adopt(replace(door.policy, routes={"chat": route}), door.clock())
    first = door.granted(tokens=300.0)
    door.ends(first, FAILED, used_tokens=0.0)
    first.call.paid = True
    second = door.gate.offer(first.call, "api", door.clock())
    assert isinstance(second, Grant)
    door.ends(second, used_tokens=250.0)
    store, now = door.gate.store, door.clock()
    assert store.counted("calls|caller:ann", calls, now) == 1
    assert store.counted("tokens|caller:ann", tokens, now) == 250


def test_retries_are_counted_apart():
    door = Door(budget(retries=lasting("retries", 1)))
    for _ in range(3):
        door.granted()
    door.granted(is_retry=True)
    assert door.refused(is_retry=True).budget == "retries"
    door.granted()
    assert Door(budget(retries=lasting("retries", 0))).refused(is_retry=True).budget == "retries"


def test_the_time_of_a_run_begins_with_its_first_call_and_is_over_for_those_who_wait_too():
    door = Door(budget(wall_s=30.0, slots=1), queue=5)
    held = door.granted()
    door.clock.advance(29.0)
    waiter = door.ask()
    assert isinstance(waiter, Waiter)
    door.clock.advance(1.0)
    refusal = door.refused()
    assert (refusal.budget, refusal.limit) == ("wall_time", "30s")
    door.ends(held)
    assert isinstance(waiter.verdict, Refusal)
    assert waiter.verdict.budget == "wall_time"


def test_too_many_in_flight_wait_and_are_no_end_of_the_run():
    door = Door(budget(slots=2), queue=5)
    first, _ = door.granted(), door.granted()
    waiter = door.ask()
    assert isinstance(waiter, Waiter)
    door.granted("ann/other")
    door.ends(first)
    assert isinstance(waiter.verdict, Grant)
    refusal = Door(budget(slots=2)).ask()
    assert isinstance(refusal, Grant)
    full = Door(budget(slots=1))
    full.granted()
    assert full.refused().reason is Reason.CAP_REACHED


def test_who_waits_for_a_permit_is_stopped_when_the_calls_run_out_meanwhile():
    door = Door(budget(lasting("calls", 1), slots=1), queue=5)
    held = door.granted()
    verdict = door.ask()
    assert isinstance(verdict, Refusal), "no permit would bring it further"
    assert verdict.reason is Reason.RUN_BUDGET_SPENT
    door.ends(held)


@pytest.mark.parametrize(
    ("told", "agent", "parent", "depth"),
    [
        ([], "", "", 0),
        ([], "a", "", 1),
        ([], "b", "a", 2),
        ([("a", "")], "b", "a", 2),
        ([("a", ""), ("b", "a")], "c", "b", 3),
        ([("a", ""), ("b", "a")], "b", "", 2),
        ([("b", "a"), ("a", "z")], "b", "a", 3),
        ([("a", "b"), ("b", "a")], "a", "", 65),
        ([], "a", "a", 1),
    ],
)
def test_depth_is_the_distance_to_the_first_agent_by_the_parents_seen(
    told: list[tuple[str, str]], agent: str, parent: str, depth: int
) -> None:
    for most, passes in ((depth, True), (depth - 1, False)):
        door = Door(budget(depth=64))
        for each, its_parent in told:
            door.granted(agent=each, parent=its_parent)
        policy = replace(door.policy, run_budgets={"*": budget(depth=most)})
        door.gate.adopt(policy, door.clock())
        if most < 0:
            continue
        verdict = door.ask(agent=agent, parent=parent)
        assert isinstance(verdict, Grant) is (passes and depth < 65), verdict
        if isinstance(verdict, Refusal):
            assert verdict.budget == "depth"


def test_so_many_agents_and_no_more_but_those_that_there_are_go_on():
    door = Door(budget(agents=2))
    for agent in ("a", "b", "a", "", "b"):
        door.granted(agent=agent)
    assert door.refused(agent="c").budget == "agents"
    door.granted(agent="a")
    door.granted("ann/other", agent="c")


def test_agents_beyond_what_is_remembered_count_each_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_budgets, "MOST_AGENTS", 1)
    door = Door(budget(agents=3))
    for _ in range(3):
        door.granted(agent="a")
    door.granted(agent="b")
    door.granted(agent="b")
    assert door.refused(agent="b").budget == "agents"


def test_a_run_is_forgotten_so_long_after_its_last_call_and_not_after_its_first():
    door = Door(budget(lasting("calls", 3), wall_s=1e6, agents=1))
    for _ in range(3):
        door.ends(door.granted(agent="a"))
        door.clock.advance(FORGET_S - 1.0)
    assert door.refused().budget == "calls", "although its first call is long past"
    door.clock.advance(1.0)
    door.granted(agent="b")


def test_runs_beyond_the_bound_share_one_budget_of_their_caller(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_budgets, "MOST_OF_CALLER", 2)
    door = Door(budget(CALLS))
    for run in ("ann/1", "ann/2", "ann/3", "ann/4"):
        door.granted(run)
    assert door.refused("ann/5").scope == "run:ann/*"
    door.granted("ann/1")
    door.granted("bob/1", "bob")
    door.clock.advance(FORGET_S + 1.0)
    for run in ("ann/5", "ann/5", "ann/6"):
        door.granted(run)
    assert len(door.gate.runs.budgets.records) == 2


def test_all_callers_together_have_a_bound_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_budgets, "MOST", 2)
    door = Door(budget(lasting("calls", 1)))
    for run, caller in (("ann/1", "ann"), ("bob/1", "bob"), ("cid/1", "cid")):
        door.granted(run, caller)
    assert door.refused("cid/2", "cid").scope == "run:cid/*"


def test_a_halted_run_is_refused_those_who_wait_too_and_no_other():
    door = Door(budget(slots=1), queue=5)
    held = door.granted()
    waiter = door.ask()
    assert isinstance(waiter, Waiter)
    door.gate.runs.budgets.halt("ann/r")
    assert door.refused().reason is Reason.RUN_HALTED
    door.granted("ann/other")
    door.ends(held)
    assert isinstance(waiter.verdict, Refusal)
    assert waiter.verdict.reason is Reason.RUN_HALTED


def test_as_many_are_halted_as_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_budgets, "MOST_HALTED", 1)
    door = Door(budget(CALLS))
    door.gate.runs.budgets.halt("ann/1")
    door.gate.runs.budgets.halt("ann/2")
    door.granted("ann/1")
    assert door.refused("ann/2").reason is Reason.RUN_HALTED


def test_a_reload_keeps_what_was_counted():
    door = Door(budget(CALLS, wall_s=1000.0, agents=5))
    for agent in ("a", "b"):
        door.ends(door.granted(agent=agent))
    door.clock.advance(10.0)

    def changed(to: RunBudgetPolicy) -> None:
        door.gate.adopt(replace(door.policy, run_budgets={"*": to}), door.clock())

    changed(budget(replace(lasting("calls", 3), window_s=2 * FORGET_S)))
    door.granted()
    assert door.refused().limit == "3 calls"
    changed(budget(wall_s=9.0))
    assert door.refused().budget == "wall_time"
    changed(budget(agents=2))
    assert door.refused(agent="c").budget == "agents"


def test_in_dry_run_nobody_is_stopped_and_all_of_it_is_told():
    door = Door(
        budget(lasting("calls", 1, enforce=False), wall_s=5.0, agents=0, depth=0, slots=1, enforce=False)
    )
    door.ends(door.granted())
    door.granted(agent="a", parent="b")
    door.clock.advance(6.0)
    door.granted()
    told = [event for event in door.events if isinstance(event, WouldRefuse)]
    assert [(each.reason, each.scope) for each in told] == [(Reason.RUN_BUDGET_SPENT, "run:ann/r")] * 2
    door = Door(budget(agents=0, enforce=False))
    door.granted(agent="a")
    (one,) = [event for event in door.events if isinstance(event, WouldRefuse)]
    assert (one.reason, one.scope) == (Reason.RUN_BUDGET_SPENT, "run:ann/r")


# ── any sequence ────────────────────────────────────────────────────────────────────────────────────

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("ab"), st.integers(0, 700), st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 50), st.integers(0, 900), st.sampled_from("uso")),
        st.tuples(st.just("wait"), st.integers(0, 60), st.none(), st.none()),
    ),
    max_size=60,
)


TWO = Price(input=2 * GRAIN, output=GRAIN, cached=GRAIN, written=GRAIN)
LIMITS = {"calls": 6, "tokens": 2000, "money": 9000, "retries": 2}


class Books:
    """What each count of a run should be, told apart by its window: as an operator would reckon."""

    def __init__(self, door: Door) -> None:
        self._clock = door.clock
        self._rows: dict[tuple[str, str], tuple[int, float, int]] = {}  # spent, end, number of the window

    def row(self, run: str, name: str) -> tuple[int, float, int]:
        spent, ends_at, number = self._rows.get((run, name), (0, 0.0, 0))
        return (spent, ends_at, number) if ends_at > self._clock() else (0, 0.0, number)

    def spend(self, run: str, name: str, cost: int) -> int:
        spent, ends_at, number = self.row(run, name)
        number += not ends_at
        self._rows[run, name] = spent + cost, self._clock() + FORGET_S, number
        return number

    def correct(self, run: str, name: str, over: int, window: int) -> None:
        spent, ends_at, number = self.row(run, name)
        if over > 0:
            if not ends_at:
                self.spend(run, name, over)
            else:
                self._rows[run, name] = spent + over, ends_at, number
        elif ends_at and number == window:
            self._rows[run, name] = spent + over, ends_at, number


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_never_more_is_granted_than_a_budget_has_and_the_books_agree(steps: list[tuple[Any, ...]]) -> None:
    units = {"tokens": Unit.TOKENS, "money": Unit.MONEY}
    quotas = {name: lasting(name, most, units.get(name, Unit.REQUESTS)) for name, most in LIMITS.items()}
    *spent_by_all, retries = quotas.values()
    door = Door(budget(*spent_by_all, retries=retries, slots=3))
    books = Books(door)
    held: list[tuple[str, Grant, dict[str, int], dict[str, int]]] = []
    for what, one, two, three in steps:
        if what == "wait":
            door.clock.advance(float(one))
        elif what == "ask":
            cost = {"calls": 1, "tokens": two, "money": 3 * two, "retries": int(three)}
            cost = {name: amount for name, amount in cost.items() if amount}
            verdict = door.ask(f"ann/{one}", tokens=float(two), money=3 * two, price=TWO, is_retry=three)
            is_full = sum(run == one for run, *_ in held) >= 3
            spent = [name for name, amount in cost.items() if books.row(one, name)[0] + amount > LIMITS[name]]
            if spent or is_full:
                assert isinstance(verdict, Refusal)
                assert verdict.reason is (Reason.RUN_BUDGET_SPENT if spent else Reason.CAP_REACHED)
            else:
                assert isinstance(verdict, Grant), verdict
                windows = {name: books.spend(one, name, amount) for name, amount in cost.items()}
                held.append((one, verdict, cost, windows))
        elif held:
            run, grant, cost, windows = held.pop(one % len(held))
            if three == "u":
                door.ends(grant, UNUSED)
                over = {name: -amount for name, amount in cost.items()}
            elif three == "s" and "tokens" in cost:
                door.ends(grant, used_tokens=float(two))
                over = {"tokens": two - cost["tokens"], "money": 2 * two - cost["money"]}
            else:
                door.ends(grant)
                over = {}
            for name, amount in over.items():
                books.correct(run, name, amount, windows[name])
        for run in "ab":
            for name, counted in quotas.items():
                assert door.counted(counted, f"ann/{run}") == books.row(run, name)[0]
