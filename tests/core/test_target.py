from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.core.call import Call
from proxy.core.flow import UNKNOWN_SERVICE_S
from proxy.core.policy import AdaptivePolicy, CapPolicy, RetryBudgetPolicy, UpstreamPolicy
from proxy.core.retry_budget import RetryBudget
from proxy.core.retry_budgets import SWEEP_FROM
from proxy.core.target import Target
from proxy.core.verdict import Outcome
from proxy.stores.breakers import BreakerMachine
from tests.kit.story import breaker

PLAIN = UpstreamPolicy("api", CapPolicy("upstream:api", 4), None, None)
ONE_RETRY = replace(PLAIN, retry_budget=RetryBudgetPolicy(0.0, 1 / 60))


def target(policy: UpstreamPolicy = PLAIN) -> Target:
    return Target(policy, BreakerMachine("api"))


def call(caller: str = "ann", *, is_retry: bool = False, run: str = "") -> Call:
    return Call(route="chat", caller=caller, run=run, arrived_at=0.0, is_retry=is_retry)


def test_permits_come_free_as_often_as_calls_end() -> None:
    assert target().step_s == UNKNOWN_SERVICE_S / 4


def test_the_pace_is_learnt_from_calls_that_succeed_and_from_no_others() -> None:
    one = target()
    for outcome in (Outcome.FAILED, Outcome.OVERLOADED, Outcome.IGNORED, Outcome.UNUSED):
        one.settle(call(), one.enter(call(), 0.0), outcome, 0.0, 90.0)
    assert one.service_s == UNKNOWN_SERVICE_S
    one.settle(call(), one.enter(call(), 0.0), Outcome.SUCCEEDED, 0.0, 11.0)
    assert one.service_s == pytest.approx(11.0)
    one.settle(call(), one.enter(call(), 0.0), Outcome.SUCCEEDED, 0.0, 1.0)
    assert one.service_s == pytest.approx(6.0)
    assert one.flow.silent_s == pytest.approx(6.0), "nothing was said of when the answers began"
    one.settle(call(), one.enter(call(), 0.0), Outcome.SUCCEEDED, 0.0, 6.0, silent_s=3.0)
    assert (one.service_s, one.flow.silent_s) == (pytest.approx(6.0), pytest.approx(5.0))


def test_a_retry_is_paid_by_its_caller_as_well() -> None:
    one = target(replace(PLAIN, retry_budget=RetryBudgetPolicy(0.5, 0.0)))
    one.enter(call("ann"), 0.0)
    one.enter(call("ann"), 0.0)
    assert one.retry_wait_s(call("ann"), 0.0) == ("", 0.0)
    assert one.retry_wait_s(call("bob"), 0.0) == ("caller:bob", float("inf"))


def test_of_two_budgets_the_one_that_takes_longer_is_told() -> None:
    # Who was told the shorter wait came back to be refused for the longer.
    one = target(ONE_RETRY)
    one.enter(call("ann", is_retry=True), 0.0)
    assert one.retry_wait_s(call("ann"), 1.0) == ("upstream:api", 60.0)
    assert one.budgets is not None
    # A budget of the upstream with more in it than its callers have.
    one.budgets.of_all = RetryBudget(RetryBudgetPolicy(0.0, 1.0))
    assert one.retry_wait_s(call("ann"), 1.0) == ("caller:ann", 60.0)


def test_a_run_pays_for_its_retries_and_not_its_callers_other_runs() -> None:
    one = target(replace(PLAIN, retry_budget=RetryBudgetPolicy(0.5, 0.0)))
    for _ in range(4):
        one.enter(call("ann", run="a"), 0.0)
    one.enter(call("ann", run="a", is_retry=True), 0.0)
    assert one.retry_wait_s(call("ann", run="a"), 0.0) == ("", 0.0)
    assert one.retry_wait_s(call("ann", run="b"), 0.0) == ("run:b", float("inf"))
    one.enter(call("ann", run="a", is_retry=True), 0.0)
    assert one.retry_wait_s(call("ann", run="a"), 0.0)[1] > 0.0


def test_the_floor_is_divided_among_replicas_and_the_share_is_not() -> None:
    one = target(replace(PLAIN, retry_budget=RetryBudgetPolicy(0.5, 4 / 60)))
    for _ in range(4):
        one.enter(call("ann"), 0.0)
    assert one.budgets is not None
    assert one.budgets.of_all.balance(0.0) == pytest.approx(2.0 + 4.0)
    one.share(None, 4)
    assert one.budgets.of_all.balance(0.0) == pytest.approx(2.0 + 1.0)
    one.adopt(replace(PLAIN, retry_budget=RetryBudgetPolicy(0.5, 8 / 60)))
    assert one.budgets.of_all.balance(0.0) == pytest.approx(2.0 + 2.0), "a reload forgets nobody"


def test_a_retry_that_was_not_used_is_given_back_to_both() -> None:
    one = target(ONE_RETRY)
    turn = one.enter(call(is_retry=True), 5.0)
    one.settle(call(is_retry=True), turn, Outcome.UNUSED, 5.0, 30.0)
    assert one.retry_wait_s(call("ann"), 30.0) == ("", 0.0)


def test_without_a_budget_retries_are_free() -> None:
    assert target().retry_wait_s(call("ann"), 0.0) == ("", 0.0)


def test_the_budgets_of_idle_callers_are_forgotten() -> None:
    one = target(ONE_RETRY)
    for number in range(20 * SWEEP_FROM):
        one.enter(call(f"caller-{number}"), number / 10)
    assert len(one.budgets._callers.by_name) <= 2 * SWEEP_FROM


def test_asking_on_behalf_of_strangers_costs_no_lasting_memory() -> None:
    one = target(ONE_RETRY)
    for number in range(20 * SWEEP_FROM):
        one.retry_wait_s(call(f"caller-{number}"), 0.0)
    assert len(one.budgets._callers.by_name) <= SWEEP_FROM


def test_a_reload_keeps_the_counts_and_changes_the_numbers() -> None:
    one = target(ONE_RETRY)
    one.enter(call(is_retry=True), 0.0)
    one.adopt(replace(ONE_RETRY, retry_budget=RetryBudgetPolicy(0.0, 2 / 60)))
    assert one.retry_wait_s(call("ann"), 1.0) == ("", 0.0)
    one.enter(call(is_retry=True), 1.0)
    assert one.retry_wait_s(call("ann"), 1.0)[1] > 0.0


def test_a_breaker_that_a_reload_removes_and_another_brings_back_begins_closed() -> None:
    # What the first one let through as a probe must not be settled as a probe of the second.
    one = target(replace(PLAIN, breaker=breaker(minimum_calls=1, probes=1)))
    for _ in range(2):
        one.settle(call(), one.enter(call(), 0.0), Outcome.FAILED, 0.0, 0.0)
        turn = one.enter(call(), 5.0)
        assert one.breaker is not None
        assert one.breaker.phase == "open"
        one.adopt(PLAIN)
        one.adopt(replace(PLAIN, breaker=breaker(minimum_calls=1, probes=1)))
        assert one.breaker is not None
        assert one.breaker.phase == "closed"
        one.settle(call(), one.enter(call(), 6.0), Outcome.FAILED, 6.0, 6.0)
        one.enter(call(), 20.0)
        one.settle(call(), turn, Outcome.SUCCEEDED, 5.0, 21.0)
        assert one.breaker.phase == "open", "the one probe is still out"
        one.breaker.reset()


LEARNT = replace(
    PLAIN, cap=CapPolicy("upstream:api", 16, adaptive=AdaptivePolicy(least=2, start=16, most=200))
)


@pytest.mark.parametrize(("replicas", "slots"), [(1, 16), (4, 4), (3, 5), (16, 2)])
def test_replicas_begin_to_learn_a_cap_with_the_start_of_one(replicas: int, slots: int) -> None:
    one = target(LEARNT)
    one.share(None, replicas)
    assert one.cap.slots == slots
    one.share(None, 1)
    assert one.cap.slots == 16


def test_what_was_learnt_stays_when_replicas_come_and_go() -> None:
    one = target(LEARNT)
    one.share(None, 2)
    assert one.cap.slots == 8
    one.settle(call(), one.enter(call(), 0.0), Outcome.SUCCEEDED, 0.0, 1.0)
    one.share(None, 4)
    one.adopt(LEARNT)
    assert one.cap.slots == 8
