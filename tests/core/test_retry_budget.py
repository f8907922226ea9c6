from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.policy import RetryBudgetPolicy
from proxy.core.retry_budget import RetryBudget


def budget(ratio: float, floor_per_minute: float = 0.0) -> RetryBudget:
    return RetryBudget(RetryBudgetPolicy(ratio, floor_per_minute / 60))


def spend(one: RetryBudget, most: int, now: float) -> int:
    """Retry as often as is paid for; how often that was."""
    paid = 0
    while paid < most and not one.wait_s(now):
        one.withdraw(now)
        paid += 1
    return paid


# Cases after finagle's RetryBudgetTest and tower's tps_budget (reference/peers.md §5 row 10).


def test_an_empty_budget_without_a_floor_pays_for_nothing_ever() -> None:
    one = budget(0.5)
    assert one.balance(0.0) == 0.0
    assert one.wait_s(0.0) == float("inf")


def test_the_floor_is_paid_without_any_first_attempt() -> None:
    assert spend(budget(0.0, 10), most=50, now=0.0) == 10


def test_a_share_of_the_first_attempts_is_paid() -> None:
    one = budget(0.1)
    for _ in range(10):
        one.deposit(0.0)
    assert one.balance(0.0) == pytest.approx(1.0)
    assert spend(one, most=5, now=0.0) == 1


def test_floor_and_share_add_up() -> None:
    one = budget(0.5, 2)
    for _ in range(6):
        one.deposit(0.0)
    assert spend(one, most=50, now=0.0) == 5


def test_a_ratio_above_one_pays_for_more_than_one_retry_each() -> None:
    one = budget(2.0)
    one.deposit(0.0)
    assert spend(one, most=50, now=0.0) == 2


def test_first_attempts_pay_for_a_minute_and_no_longer() -> None:
    one = budget(1.0)
    one.deposit(0.5)
    assert one.wait_s(59.9) == 0.0
    assert one.wait_s(60.9) == float("inf")


def test_the_wait_told_is_when_an_old_retry_leaves_the_window() -> None:
    one = budget(0.0, 2)
    one.withdraw(10.2)
    one.withdraw(30.0)
    wait = one.wait_s(40.0)
    assert wait == 31.0
    assert one.wait_s(40.0 + wait - 0.001) > 0.0
    assert one.wait_s(40.0 + wait) == 0.0


def test_a_retry_that_did_not_happen_is_given_back() -> None:
    one = budget(0.0, 1)
    one.withdraw(5.0)
    assert one.wait_s(6.0) > 0.0
    one.refund(5.0)
    assert one.wait_s(6.0) == 0.0


def test_a_retry_given_back_late_pays_for_no_second_one_later() -> None:
    # A refund noted at its own time would have outlived the retry it undoes.
    one = budget(0.0, 2)
    one.withdraw(5.0)
    one.withdraw(50.0)
    one.refund(5.0)
    one.withdraw(64.0)
    assert one.wait_s(67.0) > 0.0


def test_a_retry_that_has_left_the_window_is_not_given_back() -> None:
    one = budget(0.0, 1)
    one.withdraw(5.0)
    one.withdraw(70.0)
    one.refund(5.0)
    assert one.balance(70.0) == 0.0


def test_the_balance_is_never_negative() -> None:
    one = budget(1.0)
    one.deposit(0.0)
    one.withdraw(0.0)
    one.policy = RetryBudgetPolicy(0.1, 0.0)
    assert one.balance(0.0) == 0.0


def test_memory_is_one_row_for_each_second_of_the_window() -> None:
    one = budget(0.1)
    for number in range(100_000):
        one.deposit(number / 100)
    assert len(one._rows) <= 62
    assert not one.idle(1000.0)
    assert one.idle(1100.0)


@given(
    ratio=st.sampled_from((0.0, 0.1, 0.5, 1.0)),
    floor=st.sampled_from((0, 1, 3)),
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 150),
)
def test_in_every_minute_retries_are_at_most_a_share_of_the_firsts_plus_the_floor(
    ratio: float, floor: int, seed: int, steps: int
) -> None:
    one, chance, now = budget(ratio, floor), Random(seed), 500.0
    firsts: list[float] = []
    retries: list[float] = []
    for _ in range(steps):
        now += chance.choice((0.0, 0.1, 0.7, 5.0, 15.0, 29.6))
        what = chance.choice(("first", "retry", "retry", "retry", "undo"))
        if what == "first":
            one.deposit(now)
            firsts.append(now)
        elif what == "undo":
            if retries:
                one.refund(retries.pop(chance.randrange(len(retries))))
        else:
            wait = one.wait_s(now)
            if wait and wait != float("inf") and chance.random() < 0.5:
                now += wait
                assert one.wait_s(now) == 0.0, "told the truth"
            if not one.wait_s(now):
                one.withdraw(now)
                retries.append(now)
                since = now - 60 + 1e-5
                paid = ratio * sum(at > since for at in firsts) + floor
                assert sum(at > since for at in retries) <= paid + 1e-6
