"""Cases after resilience4j's state machine tests (reference/peers.md §5 row 11), where they apply."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from proxy.core.breaker import Breaker
from proxy.core.verdict import Outcome
from proxy.core.window import Window
from proxy.stores.breakers import BreakerMachine
from tests.kit.story import breaker as policy_of

FAILED, OK = Outcome.FAILED, Outcome.SUCCEEDED


def closed(**policy: Any) -> Breaker:
    return Breaker(policy_of(**policy), BreakerMachine("api"))


def run(breaker: Breaker, *outcomes: Outcome, at: float = 0.0, silent_s: float = 0.0) -> str | None:
    """Calls that each go and end at once; why the breaker moved at the last."""
    why = None
    for outcome in outcomes:
        assert breaker.wait_s(at) == 0.0
        why = breaker.settle(breaker.enter(at), outcome, silent_s, at)
    return why


def opened(**policy: Any) -> Breaker:
    breaker = closed(**policy)
    goes_down(breaker, at=0.0)
    return breaker


def goes_down(breaker: Breaker, at: float) -> None:
    """Calls fail until it is open."""
    for _ in range(100):
        breaker.settle(breaker.enter(at), FAILED, 0.0, at)
        if breaker.phase == "open":
            return
    raise AssertionError("a hundred failures do not open it")


def test_a_closed_breaker_lets_everything_through() -> None:
    assert closed().wait_s(0.0) == 0.0


def test_too_few_calls_never_trip_it() -> None:
    breaker = closed(minimum_calls=4)
    run(breaker, FAILED, FAILED, FAILED)
    assert breaker.phase == "closed"


def test_the_share_of_failures_trips_it_and_says_why() -> None:
    breaker = closed()
    assert run(breaker, OK, OK, FAILED) is None
    assert run(breaker, FAILED) == "2 of 4 calls failed"
    assert breaker.phase == "open"


@pytest.mark.parametrize("ratio", [0.07, 0.29, 0.55, 0.57, 0.58])
def test_a_share_that_is_exactly_the_ratio_trips_it_whatever_the_product_rounds_to(ratio: float) -> None:
    breaker = closed(minimum_calls=100, failure_ratio=ratio)
    failed = round(100 * ratio)
    run(breaker, *[OK] * (100 - failed), *[FAILED] * failed)
    assert breaker.phase == "open"


def test_the_share_of_slow_calls_trips_it() -> None:
    breaker = closed(slow_call_s=2.0, slow_ratio=0.75)
    run(breaker, OK)
    assert run(breaker, OK, OK, OK, silent_s=2.0) == "3 of 4 calls waited 2s or longer for an answer"


def test_an_upstream_that_says_429_is_not_down_however_slowly_it_says_so() -> None:
    breaker = closed(slow_call_s=2.0)
    run(breaker, *[Outcome.OVERLOADED] * 20, silent_s=10.0)
    assert breaker.phase == "closed"


@pytest.mark.parametrize(("outcome", "silent_s"), [(Outcome.IGNORED, 1.9), (Outcome.UNUSED, 100.0)])
def test_what_says_nothing_about_the_upstream_is_not_counted(outcome: Outcome, silent_s: float) -> None:
    breaker = closed(slow_call_s=2.0)
    run(breaker, *[outcome] * 20, silent_s=silent_s)
    assert breaker.window.calls == 0


def test_a_hang_that_outlasts_every_callers_patience_trips_it() -> None:
    breaker = closed(slow_call_s=2.0, slow_ratio=0.75, minimum_calls=4)
    run(breaker, *[Outcome.IGNORED] * 4, silent_s=2.0)
    assert breaker.phase == "open"


@pytest.mark.parametrize("answer", [OK, Outcome.OVERLOADED])
def test_a_good_answer_never_opens_it(answer: Outcome) -> None:
    breaker = closed(minimum_calls=4)
    run(breaker, FAILED, FAILED, FAILED, answer, answer)
    assert breaker.phase == "closed"
    assert run(breaker, FAILED) == "4 of 6 calls failed"


def test_failures_that_left_the_window_are_forgotten() -> None:
    breaker = closed(window_s=30.0)
    run(breaker, FAILED, FAILED, FAILED, at=0.0)
    assert run(breaker, FAILED, at=31.0) is None
    assert breaker.window.calls == 1


def due(breaker: Breaker, at: float, rank: int = 0, *, is_retry: bool = False) -> float:
    """When a call of this class may go."""
    return at + breaker.wait_s(at, rank, is_retry)


# ── how it trips ────────────────────────────────────────────────────────────────────────────────────


def test_a_dead_upstream_is_noticed_after_a_few_failures_however_good_it_was_before() -> None:
    breaker = closed(minimum_calls=20)
    run(breaker, *[OK] * 9_600, at=10.0)
    run(breaker, *[FAILED] * 19, at=11.0)
    assert breaker.phase == "closed"
    assert run(breaker, FAILED, at=11.0) == "20 calls in a row failed"


def test_fewer_than_five_in_a_row_are_an_accident_whatever_the_minimum_is() -> None:
    breaker = closed(minimum_calls=1)
    run(breaker, *[OK] * 20)
    run(breaker, *[FAILED] * 4)
    assert breaker.phase == "closed"
    run(breaker, FAILED)
    assert breaker.phase == "open"


def test_while_nobody_is_answered_any_more_retries_wait_and_first_attempts_tell() -> None:
    breaker = closed(minimum_calls=20, failure_ratio=1.0)
    run(breaker, *[FAILED] * 4, at=1.0)
    assert breaker.wait_s(1.0, is_retry=True) == 0.0, "an accident: its retry is welcome"
    run(breaker, FAILED, at=1.5)
    assert breaker.phase == "closed"
    assert breaker.wait_s(1.6) == 0.0
    wait_s = breaker.wait_s(1.6, is_retry=True)
    assert wait_s == pytest.approx(0.9)
    assert breaker.told_s(wait_s, 1.6) == 1.0, "it is not an outage yet, and nobody knows how long it lasts"
    assert breaker.wait_s(2.5, is_retry=True) == 0.0, "nobody else has asked for a second: it may"
    run(breaker, OK, at=1.7)
    assert breaker.wait_s(1.7, is_retry=True) == 0.0


def test_in_dry_run_a_retry_waits_for_nobody() -> None:
    breaker = closed(minimum_calls=20, failure_ratio=1.0, enforce=False)
    run(breaker, *[FAILED] * 9, at=1.0)
    assert breaker.wait_s(1.0, is_retry=True) == 0.0


def test_calls_that_an_accident_cut_at_once_are_no_row() -> None:
    # A worker of the upstream died with forty streams: they began before the last good answer.
    breaker = closed(minimum_calls=4)
    turns = [breaker.enter(0.0) for _ in range(40)]
    run(breaker, *[OK] * 100, at=1.0)
    for turn in turns:
        assert breaker.settle(turn, FAILED, 0.1, 2.0, began_at=0.0, answered=True) is None


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_partial_outage_never_trips_it(share: float) -> None:
    breaker, chance = closed(minimum_calls=20), Random(7)
    for number in range(20_000):
        run(breaker, FAILED if chance.random() < share else OK, at=number / 300)
    assert breaker.phase == "closed"


def test_nobody_answered_for_twice_the_longest_wait_is_an_outage() -> None:
    breaker = closed(minimum_calls=20)
    run(breaker, *[OK] * 50, at=10.0, silent_s=1.5)
    for _ in range(20):
        breaker.enter(11.0)
    assert breaker.notice(13.9) is None
    assert breaker.notice(14.0) == "no answer to anybody"
    assert breaker.phase == "open"


def test_a_pause_for_breath_of_a_fast_upstream_is_none() -> None:
    breaker = closed()
    run(breaker, *[OK] * 50, at=10.0, silent_s=0.01)
    for _ in range(20):
        breaker.enter(11.0)
    assert breaker.notice(12.9) is None
    assert breaker.notice(13.0) is not None


def test_silence_is_not_noticed_while_fewer_wait_than_the_minimum_or_anybody_is_answered() -> None:
    breaker = closed(minimum_calls=20)
    run(breaker, OK, at=10.0, silent_s=0.1)
    turns = [breaker.enter(11.0) for _ in range(19)]
    assert breaker.notice(90.0) is None
    turns.append(breaker.enter(90.0))
    breaker.answered(turns[0], 0.1, 91.9)
    assert breaker.notice(95.0) is None, "one was answered"


@pytest.mark.parametrize("is_over", [False, True], ids=["begins", "ended"])
@pytest.mark.parametrize("answer", [OK, Outcome.OVERLOADED])
def test_silence_is_broken_by_an_answer_to_a_call_from_before_an_outage_too(
    answer: Outcome, is_over: bool
) -> None:
    breaker = closed(slow_call_s=60.0)
    early = breaker.enter(0.0)
    goes_down(breaker, at=0.0)
    run(breaker, OK, at=5.0, silent_s=0.1)
    breaker.enter(5.0)
    assert breaker.ramp.on
    if is_over:
        breaker.settle(early, answer, 15.0, 15.0)
    else:
        breaker.answered(early, 15.0, 15.0)
    assert breaker.notice(15.0) is None
    breaker.enter(15.0)
    assert breaker.notice(17.0) == "no answer to anybody"


def test_who_left_before_an_answer_was_due_waits_no_more() -> None:
    breaker = closed(minimum_calls=5)
    run(breaker, OK, at=10.0, silent_s=0.1)
    turns = [breaker.enter(11.0) for _ in range(5)]
    breaker.settle(turns[0], Outcome.IGNORED, 0.5, 11.5)
    assert breaker.notice(90.0) is None


def test_where_nobody_waits_there_is_no_silence_however_long_ago_the_last_ones_failed() -> None:
    breaker = closed(minimum_calls=5, failure_ratio=1.0)
    run(breaker, *[OK] * 5, at=10.0, silent_s=0.1)
    turns = [breaker.enter(11.0) for _ in range(5)]
    for turn in turns[:4]:
        breaker.settle(turn, FAILED, 0.1, 11.1, began_at=11.0)
    assert breaker.notice(90.0) is None
    assert breaker.phase == "closed"


def test_calls_from_before_the_last_answer_that_fail_leave_those_waiting_who_began_after_it() -> None:
    breaker = closed(minimum_calls=5, failure_ratio=1.0)
    early = [breaker.enter(10.5) for _ in range(3)]
    run(breaker, OK, at=11.0, silent_s=0.1)
    for _ in range(5):
        breaker.enter(12.0)
    for turn in early:
        breaker.settle(turn, FAILED, 1.5, 12.0, began_at=10.5)
    assert breaker.notice(14.0) == "no answer to anybody"


def test_of_an_upstream_that_never_answered_silence_is_what_slow_is() -> None:
    breaker = closed(minimum_calls=5, slow_call_s=30.0)
    for _ in range(5):
        breaker.enter(0.0)
    assert breaker.notice(29.9) is None
    assert breaker.notice(30.0) is not None


# ── how it is tried again ───────────────────────────────────────────────────────────────────────────


def test_an_open_breaker_lets_one_probe_go_within_its_interval() -> None:
    breaker = opened(probe_every_s=1.0)
    first = due(breaker, 0.0)
    assert 0.75 <= first <= 1.25
    breaker.enter(first)
    assert breaker.phase == "open"
    assert 0.75 <= breaker.wait_s(first) <= 1.25


def test_probes_of_many_outages_are_out_of_step() -> None:
    breaker = opened(probe_every_s=1.0, probes=1000)
    at, waits = 0.0, set()
    for _ in range(50):
        waits.add(round(breaker.wait_s(at), 3))
        at = due(breaker, at)
        breaker.enter(at)
    assert len(waits) > 40
    assert min(waits) >= 0.75
    assert max(waits) <= 1.25


def test_the_most_important_class_has_the_first_quarter_of_the_time_and_retries_come_last() -> None:
    breaker = opened(probe_every_s=1.0)
    first = due(breaker, 0.0)
    assert [due(breaker, 0.0, rank) - first for rank in range(5)] == pytest.approx([0, 0.25, 0.5, 0.75, 0.75])
    assert due(breaker, 0.0, is_retry=True) - first == pytest.approx(1.0)


def test_who_is_refused_is_told_to_stay_away_for_as_long_as_the_outage_has_lasted() -> None:
    breaker = opened(open_for_s=15.0)
    assert [breaker.told_s(0.1, at) for at in (0.5, 4.0, 14.0, 300.0)] == [1.0, 4.0, 14.0, 15.0]
    assert breaker.told_s(20.0, 4.0) == 20.0, "never less than it takes"


def test_whoever_comes_back_exactly_when_told_is_a_probe_whatever_the_sum_rounds_to() -> None:
    for tripped_at in (0.1, 1000.7, 3.2e7 + 1 / 3):
        breaker = closed(probe_every_s=0.7)
        run(breaker, *[FAILED] * 4, at=tripped_at)
        for passed_s in (1 / 7, 0.3, 0.4):
            at = tripped_at + passed_s
            at += breaker.wait_s(at) - 1e-9
            assert breaker.wait_s(at) == 0.0


def test_probes_that_hang_hold_up_the_next_for_four_usual_waits_and_no_longer() -> None:
    breaker = closed(minimum_calls=4, probes=2, probe_every_s=0.1)
    run(breaker, *[OK] * 50, silent_s=0.5)
    goes_down(breaker, at=1.0)
    at = 1.0
    for _ in range(2):
        at = due(breaker, at)
        breaker.enter(at)
    first = at - 0.2
    for _ in range(20):
        next_at = due(breaker, at)
        assert next_at - at <= 2.0, "four times half a second"
        at = next_at
        breaker.enter(at)
    assert at - first >= 18.0


def test_the_first_answer_makes_it_half_open_and_enough_of_them_close_it() -> None:
    breaker = opened(probes=3)
    assert run(breaker, OK, at=5.0) == "a probe was answered"
    assert breaker.phase == "half-open"
    assert run(breaker, OK, at=5.0) is None
    assert run(breaker, OK, at=5.0) == "3 probes succeeded"
    assert breaker.phase == "closed"


def test_an_answer_that_begins_is_enough_and_its_end_counts_no_second_time() -> None:
    breaker = opened(probes=2)
    probe = breaker.enter(5.0)
    assert breaker.answered(probe, 0.1, 5.1) == "a probe was answered"
    turn = breaker.enter(5.1)
    assert breaker.settle(probe, OK, 0.1, 60.0, answered=True) is None
    assert breaker.phase == "half-open"
    assert breaker.answered(turn, 0.1, 60.0) == "2 probes succeeded"


def test_with_one_probe_it_closes_at_once() -> None:
    breaker = opened(probes=1)
    assert run(breaker, OK, at=5.0) == "1 probe succeeded"
    assert breaker.phase == "closed"


def test_a_429_says_that_somebody_is_there() -> None:
    breaker = opened(probes=1)
    run(breaker, Outcome.OVERLOADED, at=5.0)
    assert breaker.phase == "closed"


def test_a_bad_probe_changes_nothing_and_the_next_goes_in_its_time() -> None:
    breaker = opened(probe_every_s=1.0)
    at = due(breaker, 0.0)
    assert run(breaker, FAILED, at=at) is None
    assert breaker.phase == "open"
    assert 0.75 <= breaker.wait_s(at) <= 1.25


def test_a_failure_while_it_is_half_open_opens_it_again_and_the_outage_goes_on() -> None:
    breaker = opened(probes=3, open_for_s=60.0)
    run(breaker, OK, at=20.0)
    assert run(breaker, FAILED, at=21.0) == "a probe failed"
    assert breaker.phase == "open"
    assert breaker.told_s(0.1, 21.0) == 21.0


def test_a_slow_probe_is_a_bad_one() -> None:
    breaker = opened(slow_call_s=2.0)
    assert breaker.answered(breaker.enter(6.0), 2.0, 8.0) is None
    run(breaker, OK, at=9.0, silent_s=2.0)
    assert breaker.phase == "open"


@pytest.mark.parametrize("outcome", [Outcome.IGNORED, Outcome.UNUSED])
def test_a_probe_that_says_nothing_holds_up_nobody(outcome: Outcome) -> None:
    breaker = opened(probes=1, probe_every_s=1.0)
    at = 0.0
    for _ in range(5):
        before, at = at, due(breaker, at)
        assert at - before <= 1.25
        breaker.settle(breaker.enter(at), outcome, 0.0, at)
    assert breaker.phase == "open"


def test_what_began_before_the_outage_says_nothing_after_it() -> None:
    breaker = closed()
    early = [breaker.enter(0.0) for _ in range(4)]
    run(breaker, *[FAILED] * 4)
    assert breaker.settle(early[0], OK, 1.0, 1.0) is None
    assert breaker.answered(early[1], 1.0, 1.0) is None
    assert breaker.phase == "open"
    breaker.answered(breaker.enter(5.0), 0.1, 5.0)
    assert breaker.settle(early[2], FAILED, 5.0, 5.0) is None
    assert breaker.phase == "half-open"


def test_probes_that_were_out_when_another_was_answered_say_nothing() -> None:
    breaker = opened(probes=2)
    slow = breaker.enter(5.0)
    run(breaker, OK, at=6.0)
    assert breaker.settle(slow, FAILED, 2.0, 7.0) is None
    assert breaker.phase == "half-open"


def test_it_does_not_stay_half_open_when_those_let_through_hang() -> None:
    breaker = closed(probes=2)
    run(breaker, *[OK] * 4, silent_s=0.1)
    goes_down(breaker, at=1.0)
    run(breaker, OK, at=5.0, silent_s=0.1)
    breaker.enter(5.0)
    assert breaker.notice(6.9) is None
    assert breaker.notice(7.0) == "no answer to anybody"
    assert breaker.phase == "open"


# ── the slow start ──────────────────────────────────────────────────────────────────────────────────


def test_after_an_outage_permits_double_with_each_round_of_answers_and_halve_with_a_failure() -> None:
    breaker = opened(probes=2)
    run(breaker, OK, at=5.0)
    assert breaker.ramp.slots == 2
    for slots in (4, 8, 16):
        run(breaker, *[OK] * breaker.ramp.slots, at=6.0)
        assert breaker.ramp.slots == slots
    run(breaker, FAILED, at=7.0)
    assert breaker.ramp.slots == 8
    run(breaker, *[OK] * 20, at=8.0)
    run(breaker, *[FAILED] * 4, OK, FAILED, FAILED, at=9.0)
    assert breaker.ramp.slots == 1


def test_calls_from_before_the_outage_stand_beside_it_until_they_end() -> None:
    breaker = closed(probes=2)
    early = [breaker.enter(6.0) for _ in range(3)]
    goes_down(breaker, at=7.0)
    breaker.in_flight = 3
    run(breaker, OK, at=9.0)
    assert breaker.ramp.ceiling == 2 + 3
    for turn in early:
        breaker.settle(turn, FAILED, 1.0, 9.0)
    assert breaker.ramp.ceiling == 2


def test_another_outage_ends_it() -> None:
    breaker = opened(probes=2)
    run(breaker, OK, FAILED, at=5.0)
    assert not breaker.ramp.on


# ── what it is told otherwise ───────────────────────────────────────────────────────────────────────


def test_a_reload_that_asks_for_fewer_probes_does_not_leave_it_half_open_for_ever() -> None:
    breaker = opened(probes=3)
    run(breaker, OK, OK, at=5.0)
    breaker.adopt(policy_of(probes=1))
    run(breaker, OK, at=5.0)
    assert breaker.phase == "closed"


def test_a_reload_keeps_what_was_counted_unless_the_window_has_another_length() -> None:
    breaker = closed()
    run(breaker, FAILED, FAILED)
    breaker.adopt(policy_of(failure_ratio=0.9))
    assert breaker.window.calls == 2
    breaker.adopt(policy_of(window_s=99.0))
    assert breaker.window.calls == 0


def test_a_breaker_that_is_reset_counts_nothing_that_was_under_way() -> None:
    breaker = opened(probes=2)
    probe = breaker.enter(5.0)
    breaker.reset()
    assert breaker.phase == "closed"
    assert breaker.settle(probe, FAILED, 1.0, 6.0) is None
    assert breaker.window.calls == 0


def test_the_window_moves_in_tenths_and_drops_results_at_most_a_tenth_early() -> None:
    window = Window(10.0)
    window.add(failed=True, slow=True, now=100.9)
    window.forget(109.9)
    assert (window.calls, window.failed, window.slow) == (1, 1, 1)
    window.forget(110.0)
    assert (window.calls, window.failed, window.slow) == (0, 0, 0)


def test_the_memory_of_the_window_does_not_grow_with_the_calls() -> None:
    window = Window(10.0)
    for number in range(10_000):
        window.add(failed=False, slow=False, now=number / 100)
    assert len(window._slices) <= 11
