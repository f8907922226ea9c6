"""Cases after resilience4j's state machine tests (reference/peers.md §5 row 11), where they apply."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.breaker import Breaker, Window
from proxy.core.verdict import Outcome
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
    run(breaker, FAILED, FAILED, FAILED, FAILED)
    assert breaker.phase == "open"
    return breaker


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


def test_an_open_breaker_tells_the_time_to_the_next_probe() -> None:
    breaker = opened(open_for_s=5.0)
    assert breaker.wait_s(1.0) == 4.0
    assert breaker.wait_s(5.0) == 0.0


def test_whoever_comes_back_exactly_when_told_is_a_probe_whatever_the_sum_rounds_to() -> None:
    for tripped_at in (0.1, 1000.7, 3.2e7 + 1 / 3):
        breaker = closed(open_for_s=0.7)
        run(breaker, *[FAILED] * 4, at=tripped_at)
        for passed_s in (1 / 7, 0.3, 0.69):
            wait = breaker.wait_s(tripped_at + passed_s)
            assert wait is not None
            at = tripped_at + passed_s + wait - 1e-9
            assert breaker.wait_s(at) == 0.0
        breaker.enter(at)
        assert breaker.phase == "half-open"


def test_as_many_probes_go_as_the_policy_says_and_no_more() -> None:
    breaker = opened(probes=2)
    breaker.enter(5.0)
    assert breaker.phase == "half-open"
    assert breaker.wait_s(5.0) == 0.0
    breaker.enter(5.0)
    assert breaker.wait_s(5.0) is None


def test_enough_good_probes_close_it() -> None:
    breaker = opened(probes=2)
    assert run(breaker, OK, at=5.0) is None
    assert run(breaker, OK, at=5.0) == "2 probes succeeded"
    assert breaker.phase == "closed"


def test_one_bad_probe_opens_it_for_as_long_again() -> None:
    breaker = opened(probes=2, open_for_s=5.0)
    assert run(breaker, OK, FAILED, at=6.0) == "a probe failed"
    assert breaker.phase == "open"
    assert breaker.wait_s(6.0) == 5.0


def test_a_slow_probe_is_a_bad_one() -> None:
    breaker = opened(slow_call_s=2.0)
    run(breaker, OK, at=6.0, silent_s=2.0)
    assert breaker.phase == "open"


@pytest.mark.parametrize("outcome", [Outcome.IGNORED, Outcome.UNUSED])
def test_a_probe_that_says_nothing_gives_its_slot_back(outcome: Outcome) -> None:
    breaker = opened(probes=1)
    for _ in range(5):
        run(breaker, outcome, at=5.0)
        assert breaker.phase == "half-open"
        assert breaker.wait_s(5.0) == 0.0


def test_what_began_before_the_outage_says_nothing_after_it() -> None:
    breaker = closed()
    early = [breaker.enter(0.0) for _ in range(3)]
    run(breaker, *[FAILED] * 4)
    assert breaker.settle(early[0], OK, 1.0, 1.0) is None
    breaker.enter(5.0)
    assert breaker.settle(early[1], FAILED, 5.0, 5.0) is None
    assert breaker.phase == "half-open"
    assert breaker.wait_s(5.0) == 0.0


def test_a_reload_that_asks_for_fewer_probes_does_not_leave_it_half_open_for_ever() -> None:
    breaker = opened(probes=3)
    run(breaker, OK, OK, at=5.0)
    breaker.adopt(policy_of(probes=1))
    assert breaker.wait_s(5.0) == 0.0
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
    assert len(window._rows) <= 11
