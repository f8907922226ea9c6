from __future__ import annotations

from proxy.core.instants import SWEEP_FROM, Instants
from proxy.core.rounding import wait_until
from proxy.core.verdict import LONGEST_RETRY_AFTER_S


def test_no_two_are_told_the_same_instant_whatever_scope_they_are_of() -> None:
    instants = Instants()
    told = [instants.distinct(107.0, now=100.0) for _ in range(30)]
    assert len(set(told)) == 30
    assert all(107.0 <= each <= 107.03 for each in told)
    crowd = [instants.distinct(107.0, now=100.0) for _ in range(30)]
    assert len(set(crowd)) == 30
    assert all(107.0 <= each <= 107.04 for each in crowd)


def test_instants_that_have_passed_are_forgotten() -> None:
    instants = Instants()
    for number in range(20 * SWEEP_FROM):
        instants.distinct(number / 1000 + 1.0, now=number / 1000)
        assert len(instants._told) <= 2 * SWEEP_FROM  # a thousand lie ahead


def test_of_many_that_lie_ahead_none_is_told_twice_and_the_rest_is_forgotten() -> None:
    instants = Instants()
    told = [instants.distinct(50.0 + number / 1000, now=0.0) for number in range(4 * SWEEP_FROM)]
    assert len(set(told)) == len(told) == len(instants._told)
    for number in range(5 * SWEEP_FROM):
        instants.distinct(101.0 + number / 1000, now=100.0)
    assert len(instants._told) <= 9 * SWEEP_FROM, "those before are over"


def test_who_can_be_booked_nothing_is_told_something_else_each_time() -> None:
    instants = Instants()
    told = [instants.apart(45.0, 55.0) for _ in range(50)]
    assert len(set(told)) == 50
    assert all(45.0 <= each <= 55.0 for each in told)


def test_what_is_as_late_as_can_be_told_is_told_apart_by_being_earlier() -> None:
    instants = Instants()
    told = [instants.distinct(100.0 + LONGEST_RETRY_AFTER_S, now=100.0) for _ in range(20)]
    assert len(set(told)) == 20
    assert max(told) == 100.0 + LONGEST_RETRY_AFTER_S
    assert min(told) > 154.9


def test_what_differs_by_a_rounding_only_is_told_apart() -> None:
    instants = Instants()
    told = [instants.distinct(107.0 + nth * 1e-13, now=100.0) for nth in range(-3, 4)]
    assert len({round(each * 1000) for each in told}) == 7


def test_whoever_comes_when_told_does_not_come_a_rounding_too_early() -> None:
    # The sum of such numbers is rounded: 1070.250001 and 2.0 make 1.00000011 us more than 1072.25.
    for at in (1072.25, 3.2e7 + 4.0):
        for nth in range(20):
            due_at = at + nth * 1e-7
            assert wait_until(due_at, Instants().distinct(due_at, now=at - 2.0)) == 0.0
