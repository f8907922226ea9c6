"""What a learnt cap rests on besides its legs: whether capacity is back, and whether nobody was answered."""

from __future__ import annotations

from math import exp, log

import pytest

from proxy.core.climb import Climb
from proxy.core.comeback import MORE, REMEMBERED_S, Comeback
from proxy.core.comparison import Comparison
from proxy.core.leg import Leg
from proxy.core.stalls import Stalls
from proxy.core.usual import Usual

ALONE_S = 0.1


def leg(slots: int, silent_s: float) -> Leg:
    made = Leg(slots, 0.0, 100, 9.0)
    for _ in range(100):
        made.enter(slots, slots, 0.0)
        made.add(silent_s, log(silent_s))
    return made


def compared(share: float) -> Comparison:
    """Times that have grown by this share of the distance from ten to fifteen calls."""
    return Comparison(leg(10, ALONE_S), leg(15, ALONE_S * 1.5**share), Usual())


def late_leg(slots: int, silent_s: float) -> Leg:
    made = Leg(slots, 0.0, 20, 9.0, late_from=log(2 * ALONE_S))
    for _ in range(20):
        made.enter(slots, slots, 0.0)
        made.add(silent_s, log(silent_s))
    return made


def climbed(*silent_s: float) -> list[int]:
    """The numbers that are tried from 32 on, when the answers of one leg after the other begin so late."""
    climb, usual, numbers = Climb(), Usual(), [32]
    usual.took_s = 10.0
    usual.remember(late_leg(16, ALONE_S))
    for each in silent_s:
        numbers.append(round(exp(climb.next(late_leg(numbers[-1], each), usual))))
    return numbers


def test_the_first_climb_looks_twice_where_it_may_be_one_long_prompt() -> None:
    assert climbed(1.0, 0.1) == [32, 32, 64], "so it was"
    assert climbed(1.0, 1.0) == [32, 32, 29], "a line: a tenth of the time that a call takes"
    assert climbed(4.0) == [32, 23], "nothing else takes so long"


def test_streams_that_begin_late_among_fewer_too_are_late_by_themselves() -> None:
    assert climbed(1.0, 1.0, 1.0, 1.0) == [32, 32, 29, 32, 39]
    assert climbed(4.0, 1.0, 1.0, 1.0, 1.0)[-1] > 32


def of_thirty_two() -> Comeback:
    comeback = Comeback()
    comeback.note(log(32), 0.0)
    comeback.compared(log(ALONE_S), compared(1.0))
    return comeback


def test_who_waits_no_longer_is_believed_after_some_and_who_waits_never() -> None:
    comeback = of_thirty_two()
    comeback.begin(MORE, 0.25, 1.0)
    assert not any(comeback.is_seen(1.0, log(ALONE_S * 1.5)) for _ in range(1000))
    assert not any(comeback.is_seen(0.9, log(ALONE_S)) for _ in range(100)), "they went before"
    seen = [comeback.is_seen(1.0, log(ALONE_S)) for _ in range(60)]
    assert 10 < seen.index(True) < 40


def test_what_is_lost_for_two_minutes_is_gone() -> None:
    comeback = of_thirty_two()
    comeback.note(log(10), REMEMBERED_S)
    assert comeback.is_far(log(10))
    comeback.note(log(10), REMEMBERED_S + 0.1)
    assert not comeback.is_far(log(10))


@pytest.mark.parametrize(("share", "goes_on"), [(1.0, True), (2.0, False)])
def test_where_more_at_once_do_less_it_is_not_looked_for(share: float, goes_on: bool) -> None:
    comeback = of_thirty_two()
    for _ in range(2):
        assert comeback.is_to_be_watched(log(10)), "once is chance"
        comeback.begin(MORE, 0.25, 1.0)
        comeback.compared(log(ALONE_S), compared(share))
    assert comeback.is_to_be_watched(log(10)) is goes_on
    comeback.note(log(33), 2.0)
    assert comeback.is_to_be_watched(log(10)), "another time, another upstream"


@pytest.mark.parametrize(("at_32_s", "goes_on"), [(0.32, True), (0.6, False)])
def test_nor_after_an_error_that_cost_throughput(at_32_s: float, goes_on: bool) -> None:
    comeback = of_thirty_two()
    comeback.lost = log(10)
    assert comeback.is_false(log(at_32_s), log(1.5))
    assert comeback.lost == 0.0
    assert comeback.is_to_be_watched(log(10)) is goes_on


def test_a_long_pause_explains_the_waits_through_it_and_no_others() -> None:
    stalls, now = Stalls(), 0.0
    for _ in range(50):
        now += 0.5
        assert not stalls.explain(3.0, now), "a line: somebody's turn comes all the time"
    now += 5.0
    assert stalls.explain(5.2, now)
    assert stalls.explain(1.0, now + 0.01), "it came in the middle of it"
    assert not stalls.explain(20.0, now + 0.02), "it waits for longer than that"
    assert not stalls.explain(0.2, now + 0.5)
