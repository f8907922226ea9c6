from __future__ import annotations

from proxy.core.rounding import ROUNDING_S, wait_until


def test_a_wait_is_the_time_until_the_instant() -> None:
    assert wait_until(12.5, now=10.0) == 2.5


def test_an_instant_that_has_come_is_not_waited_for() -> None:
    assert wait_until(10.0, now=10.0) == 0.0
    assert wait_until(9.0, now=10.0) == 0.0


def test_who_comes_back_exactly_when_told_is_there_whatever_the_sum_rounds_to() -> None:
    for now in (0.1, 1e3 + 0.7, 3.2e7 + 1 / 3):
        for wait in (0.1, 1 / 3, 54.999):
            at = now + wait
            assert wait_until(at, now + (at - now)) == 0.0
    assert 0.0 < ROUNDING_S < 1e-3
