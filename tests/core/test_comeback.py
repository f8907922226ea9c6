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


def leg(slots: int, silent_s: float, calls: int = 100) -> Leg:
    made = Leg(slots, 0.0, calls, 9.0)
    for _ in range(calls):
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


def with_sequences(legs: int, *, stalled: tuple[int, ...] = (), more_from: int = 99) -> list[int]:
    """The numbers that are tried where 64 are served at once, later 80. A long prompt makes legs late."""
    climb, usual, numbers = Climb(), Usual(), [32]
    usual.took_s = 10.0
    usual.remember(late_leg(16, ALONE_S))
    for nth in range(legs):
        best = 64 if nth < more_from else 80
        in_line_s = max(0, numbers[-1] - best) * usual.took_s / numbers[-1]
        silent_s = ALONE_S + (1.0 if nth in stalled else in_line_s)
        numbers.append(round(exp(climb.next(late_leg(numbers[-1], silent_s), usual))))
    return numbers


def test_above_a_number_at_which_streams_stood_in_line_one_more_is_tried_at_a_time() -> None:
    numbers = with_sequences(60)
    assert numbers[:4] == [32, 64, 97, 69], "the first climb goes too far"
    assert max(numbers[4:]) == 65
    assert numbers.count(65) > 3, "there may be more by now"
    more = with_sequences(60, more_from=11)[14:]
    assert list(dict.fromkeys(more))[:10] == [64, 65, 66, 67, 68, 69, 70, 71, 72, 73]
    assert 80 in more[:20], "and then by more and more"


def test_what_was_known_before_a_long_prompt_is_where_the_climb_slows_down_again() -> None:
    numbers = with_sequences(60, stalled=(12, 13))
    after = numbers[13:]
    assert min(after) < 56
    assert max(after) == 65, "not past it in one step"
    assert after.index(64) < 12, "nor by one at a time from where it was thrown back to"


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


@pytest.mark.parametrize(
    ("at_32_s", "calls", "goes_on"), [(0.32, 100, True), (0.6, 100, False), (0.6, 10, True)]
)
def test_nor_after_an_error_that_plainly_cost_throughput(at_32_s: float, calls: int, goes_on: bool) -> None:
    comeback = of_thirty_two()
    comeback.lost = log(10)
    assert comeback.is_false(leg(32, at_32_s, calls), Usual(), log(1.5))
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
