from __future__ import annotations

import pytest

from proxy.core.call import Call
from proxy.core.cap import Cap
from proxy.core.flow import GUARD_SHARE, LEAST_SLOTS, RARE_S, UNKNOWN_SERVICE_S, Flow
from proxy.core.pace import SEEN_S
from proxy.core.verdict import Outcome


def call(rank: int = 0, caller: str = "ann", weight: float = 1.0) -> Call:
    return Call(route="chat", caller=caller, rank=rank, weight=weight, arrived_at=0.0)


def ended(flow: Flow, took_s: float, outcome: Outcome = Outcome.SUCCEEDED, **who: object) -> None:
    one = call(**who)  # type: ignore[arg-type]  # the keywords of `call`
    flow.granted(one, 0.0, in_turn=True)
    flow.ended(one, outcome, took_s)


def long_calls(slots: int, service_s: float = 10.0, **who: object) -> Flow:
    flow = Flow(Cap("upstream:api", slots))
    for _ in range(100):
        ended(flow, service_s, **who)
    return flow


def test_the_service_time_is_learnt_from_what_succeeds_alone() -> None:
    flow = Flow(Cap("upstream:api", 4))
    assert (flow.service_s, flow.is_known) == (UNKNOWN_SERVICE_S, False)
    ended(flow, 0.0, Outcome.FAILED)
    assert (flow.service_s, flow.is_known) == (UNKNOWN_SERVICE_S, False)
    for _ in range(100):
        ended(flow, 3.0)
    assert flow.service_s == pytest.approx(3.0, rel=0.01)
    assert flow.is_known


def test_a_caller_is_charged_for_the_time_that_it_held_a_permit() -> None:
    flow = long_calls(4)
    shares, before = flow.shares(0), flow.shares(0).start("bob")
    flow.granted(call(caller="bob"), 0.0, in_turn=True)
    assert shares.start("bob") - before == 1.0
    flow.ended(call(caller="bob"), Outcome.FAILED, 25.0)
    assert shares.start("bob") - before == pytest.approx(2.5, rel=0.01)


def test_what_was_not_used_costs_nothing_and_a_weight_makes_everything_cheaper() -> None:
    flow = long_calls(4)
    start = flow.shares(0).floor
    ended(flow, 10.0, Outcome.UNUSED, caller="bob")
    assert flow.shares(0).start("bob") == start
    ended(flow, 20.0, caller="cy", weight=4.0)
    assert flow.shares(0).start("cy") == pytest.approx(start + 0.5, rel=0.01)


def test_a_class_gets_what_comes_free_less_what_the_classes_before_it_take() -> None:
    flow = long_calls(8, service_s=0.1)  # 80 permits come free a second
    now = 1000.0
    assert flow.step_of(1, 0, now) == pytest.approx(1 / 80, rel=0.01)
    for number in range(400):
        flow.pace.granted(0, now + number / 20)
    assert flow.step_of(0, 0, now + 20) == pytest.approx(1 / 80, rel=0.01)
    assert flow.step_of(1, 0, now + 20) == pytest.approx(1 / 60, rel=0.05)
    assert flow.step_of(1, 4, now + 20) == pytest.approx(1 / 20, rel=0.1), "of a cap of four"
    assert flow.step_of(1, 4, now + 20, own=True) == pytest.approx(1 / 40, rel=0.01)


def test_a_class_for_which_nothing_is_left_gets_its_guard_share() -> None:
    flow = long_calls(8, service_s=0.1)
    for number in range(4000):
        flow.pace.granted(0, number / 100)
    assert flow.step_of(1, 0, 40.0) == pytest.approx(1 / (GUARD_SHARE * 80), rel=0.01)


def test_permits_are_held_back_where_calls_last_long_and_somebody_more_important_was_here() -> None:
    flow = long_calls(64, rank=3)
    flow.pace.granted(0, 100.0)
    assert [flow.held_back(rank, 100.0) for rank in (0, 1, 2, 3)] == [0, 2, 4, 4]
    assert flow.held_back(1, 100.1 + SEEN_S) == 0, "nobody is left to keep them for"


def streams(critical: int, *, silent_s: float = 0.3, calls: int = 1000) -> Flow:
    """Of ten calls so many are critical: 10 s each, for the first byte of which their callers wait."""
    flow = Flow(Cap("upstream:api", 64))
    for number in range(calls):
        one = call(rank=0 if number * critical % 10 < critical else 1)
        flow.granted(one, 0.0, in_turn=True)
        flow.ended(one, Outcome.SUCCEEDED, 10.0, silent_s)
    flow.pace.granted(0, 100.0)
    return flow


def test_of_streams_so_many_are_held_back_that_the_more_important_hardly_wait_for_one() -> None:
    # 6.4 permits come free a second. Of n kept free all are taken for share^n of the time, and the next comes
    # free after 1 / (6.4 * (1 - share)) s: on average that is to be a twentieth of what they wait anyway.
    for critical, kept in ((1, 2), (3, 3), (5, 5), (6, 7)):
        share = critical / 10
        assert streams(critical).held_back(1, 100.0) == kept
        assert share**kept / (6.4 * (1 - share)) <= 0.05 * 0.3
    assert streams(9).held_back(1, 100.0) == 8, "but an eighth at most"
    assert streams(9).held_back(2, 100.0) == 16
    assert streams(6, silent_s=10.0).held_back(1, 100.0) == 2, "who waits for 10 s in any case minds it less"
    for calls in range(5_810, 5_820):  # the sums are divided by what they have grown to
        assert streams(6, calls=calls).held_back(1, 100.0) == 7
    changed = streams(6)
    for _ in range(200):
        changed.granted(call(rank=1), 0.0, in_turn=True)
    assert changed.held_back(1, 100.0) == 2, "what was long ago counts for little"


def test_a_first_call_of_a_run_has_its_turn_when_there_is_room_for_the_calls_that_follow() -> None:
    flow = long_calls(8, service_s=0.1)
    begins, goes_on, other = call(), call(), call(rank=1)
    goes_on.going = True
    assert flow.turn_s(begins, 0, 1000.0) == flow.step_of(0, 0, 1000.0), "nobody makes runs"
    for _ in range(100):
        for one in (begins, goes_on, goes_on, goes_on, goes_on):
            flow.granted(one, 0.0, in_turn=True)
    step_s = flow.step_of(0, 0, 1000.0)
    assert flow.turn_s(goes_on, 0, 1000.0) == step_s
    assert flow.turn_s(begins, 0, 1000.0) == pytest.approx(5 * step_s, rel=0.1)
    assert flow.turn_s(other, 0, 1000.0) == flow.step_of(1, 0, 1000.0), "another class makes none"
    for _ in range(1000):
        flow.granted(goes_on, 0.0, in_turn=True)
    assert flow.turn_s(begins, 0, 1000.0) == pytest.approx(50 * step_s), "not for ever"


def test_nothing_is_held_back_where_permits_come_free_often_or_are_few() -> None:
    quick = long_calls(64, service_s=RARE_S * 64 - 0.1)
    few = long_calls(LEAST_SLOTS - 1)
    for flow in (quick, few):
        flow.pace.granted(0, 100.0)
        assert flow.held_back(2, 100.0) == 0
