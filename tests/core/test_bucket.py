from __future__ import annotations

import pytest

from proxy.core import bucket
from tests.kit.story import bucket as policy_of

ONE_IN_3S = policy_of(1 / 3, burst=1)
BURST_OF_5 = policy_of(2.0, burst=5)


def test_an_unknown_bucket_is_full() -> None:
    assert bucket.level(bucket.FULL, BURST_OF_5, now=0.0) == 5.0
    assert bucket.wait_s(bucket.FULL, 5.0, BURST_OF_5, now=0.0) == 0.0


def test_a_spend_is_waited_for_as_long_as_it_takes_to_refill() -> None:
    tat = bucket.spend(bucket.FULL, 1.0, ONE_IN_3S, now=100.0)
    assert tat == 103.0
    assert bucket.wait_s(tat, 1.0, ONE_IN_3S, now=100.0) == 3.0
    assert bucket.wait_s(tat, 1.0, ONE_IN_3S, now=101.0) == 2.0
    assert bucket.wait_s(tat, 1.0, ONE_IN_3S, now=103.0) == 0.0


def test_the_burst_goes_at_once_and_the_next_waits_for_one_refill() -> None:
    tat = bucket.FULL
    for left in (4.0, 3.0, 2.0, 1.0, 0.0):
        assert bucket.wait_s(tat, 1.0, BURST_OF_5, now=10.0) == 0.0
        tat = bucket.spend(tat, 1.0, BURST_OF_5, now=10.0)
        assert bucket.level(tat, BURST_OF_5, now=10.0) == left
    assert bucket.wait_s(tat, 1.0, BURST_OF_5, now=10.0) == 0.5


def test_a_pause_saves_up_no_more_than_the_burst() -> None:
    tat = bucket.spend(bucket.FULL, 5.0, BURST_OF_5, now=0.0)
    assert bucket.level(tat, BURST_OF_5, now=1e6) == 5.0


def test_what_costs_more_than_the_burst_never_passes() -> None:
    assert bucket.wait_s(bucket.FULL, 5.5, BURST_OF_5, now=0.0) == float("inf")


def test_the_level_is_never_negative_under_a_policy_that_shrank() -> None:
    tat = bucket.spend(bucket.FULL, 5.0, BURST_OF_5, now=0.0)
    assert bucket.level(tat, policy_of(2.0, burst=1), now=0.0) == 0.0


@pytest.mark.parametrize(
    ("now", "back_s"),
    [(100.0, 3.0), (101.0, 2.0), (102.9, pytest.approx(0.1)), (103.0, 0.0), (500.0, 0.0)],
)
def test_only_what_has_not_refilled_by_itself_is_refundable(now: float, back_s: float) -> None:
    tat = bucket.spend(bucket.FULL, 1.0, ONE_IN_3S, now=100.0)
    assert bucket.refundable_s(tat, 1.0, ONE_IN_3S, now) == back_s


def test_a_spend_behind_others_is_refundable_whole_until_its_turn_to_refill() -> None:
    tat = bucket.FULL
    for _ in range(3):
        tat = bucket.spend(tat, 1.0, BURST_OF_5, now=0.0)  # the third refills from 1.0 to 1.5
    assert bucket.refundable_s(tat, 1.0, BURST_OF_5, now=1.0) == 0.5
    assert bucket.refundable_s(tat, 1.0, BURST_OF_5, now=1.25) == 0.25
