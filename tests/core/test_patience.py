from __future__ import annotations

from proxy.core.patience import ALWAYS, LEAST_KEPT, TRIED, Patience


def ended(patience: Patience, wait_s: float, kept: int, broken: int = 0) -> None:
    for number in range(kept + broken):
        patience.sold(wait_s)
        patience.closed(wait_s)
        patience.learn(wait_s, kept=number < kept)


def sold(patience: Patience, wait_s: float, asked: int = 100) -> int:
    """How many of so many that are asked for are sold, before anybody has come or not."""
    count = 0
    for _ in range(asked):
        if patience.sells(wait_s):
            patience.sold(wait_s)
            count += 1
    return count


def test_short_waits_are_sold_until_something_else_is_known_and_long_ones_are_tried() -> None:
    assert sold(Patience(), 1.0) == 100
    assert sold(Patience(), 30.0) == TRIED


def test_what_most_keep_is_sold_without_bound() -> None:
    patience = Patience()
    ended(patience, 30.0, kept=TRIED)
    assert sold(patience, 30.0) == 100


def test_what_few_keep_is_sold_just_often_enough_to_notice_a_change() -> None:
    patience = Patience()
    ended(patience, 30.0, kept=0, broken=TRIED)
    assert sold(patience, 30.0) == ALWAYS
    ended(patience, 30.0, kept=100)
    assert sold(patience, 30.0) == 100


def test_the_share_that_must_be_kept() -> None:
    patience = Patience()
    for number in range(40 * TRIED):
        patience.sold(30.0)
        patience.closed(30.0)
        patience.learn(30.0, kept=number % 10 >= 10 * (1 - LEAST_KEPT) - 2)
    assert sold(patience, 30.0) == 100, "two in ten more than must"
    for number in range(40 * TRIED):
        patience.sold(50.0)
        patience.closed(50.0)
        patience.learn(50.0, kept=number % 10 == 9)
    assert sold(patience, 50.0) == ALWAYS, "one in ten"


def test_one_length_says_nothing_about_another() -> None:
    patience = Patience()
    ended(patience, 50.0, kept=0, broken=TRIED)
    ended(patience, 8.0, kept=TRIED)
    assert not (sold(patience, 50.0) > ALWAYS)
    assert sold(patience, 8.0) == 100


def test_what_is_given_back_makes_room_for_another_try() -> None:
    patience = Patience()
    assert sold(patience, 30.0) == TRIED
    patience.closed(30.0)
    assert sold(patience, 30.0) == 1
