"""Events in, numbers out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.call import Call
from proxy.core.events import (
    Admitted,
    BreakerMoved,
    CapMoved,
    Left,
    Queued,
    Refused,
    Returned,
    Settled,
    WouldQueue,
    WouldRefuse,
)
from proxy.core.used import Used
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.telemetry.counts import ANSWER_BOUNDS_S, MOST_VALUES, PROMISES, WAIT_BOUNDS_S, Histogram, Kept
from proxy.telemetry.telemetry import LONGEST_WAIT_S
from tests.telemetry.kit import Told, call

FLOW = {"route": "chat", "priority": "normal", "upstream": "openai"}
LANE = {"route": "chat", "priority": "normal"}
LEG = {"route": "chat", "upstream": "openai"}


def refused(
    one: Call, reason: Reason = Reason.SHED, scope: str = "route:chat", waited_s: float = 0.0
) -> Refused:
    return Refused(one, Refusal(reason, scope, 1.0), "openai", waited_s)


def test_a_call_admitted_at_once_was_offered_and_has_no_queue_time() -> None:
    told = Told()
    told.emit(Admitted(call(), "openai", 0.0))
    seen = told.scrape()
    assert seen.get("calls_offered_total", **FLOW) == 1
    assert seen.get("calls_admitted_total", **FLOW) == 1
    assert seen.get("age_at_dispatch_seconds_count", **LANE) == 1
    assert seen.get("age_at_dispatch_seconds_bucket", **LANE, le="0.001") == 1
    assert seen.get("queue_time_seconds_count", **LANE) is None


def test_a_call_that_a_dry_run_would_refuse_is_admitted_and_counted_beside_it() -> None:
    told, one = Told(), call()
    told.emit(Admitted(one, "openai", 0.0))
    told.emit(WouldRefuse(one, "openai", Reason.BUCKET_EMPTY, "caller:3fa9c1"))
    told.emit(WouldQueue(one, "openai", Reason.CAP_REACHED, "upstream:openai"))
    seen = told.scrape()
    assert seen.get("calls_offered_total", **FLOW) == seen.get("calls_admitted_total", **FLOW) == 1
    assert seen.get("calls_would_refuse_total", **FLOW, reason="bucket_empty", scope="caller") == 1
    assert seen.get("calls_would_queue_total", **FLOW, reason="cap_reached", scope="upstream") == 1
    assert seen.total("calls_refused_total") == 0


def test_a_promise_is_kept_or_broken_and_neither_is_a_call_of_its_own() -> None:
    told = Told()
    for admitted in (True, True, True, False):
        told.emit(Returned(call(), "openai", admitted=admitted))
    seen = told.scrape()
    assert (seen.get("returns_total", **FLOW, kept="yes"), seen.get("returns_total", **FLOW, kept="no")) == (
        3,
        1,
    )
    assert seen.total("calls_offered_total") == 0
    assert told.telemetry.kept_shares() == {"chat": 0.75}


def test_the_share_of_promises_kept_follows_the_last_fifty() -> None:
    kept = Kept()
    for _ in range(1000):
        kept.add(kept=False)
    assert kept.share == 0.0
    for _ in range(PROMISES):
        kept.add(kept=True)
    assert 0.6 < kept.share < 0.7, "as an exponential mean does"


def test_a_call_that_waited_was_offered_once_and_its_wait_is_timed() -> None:
    told, one = Told(), call()
    told.emit(Queued(one, "openai"))
    told.emit(Admitted(one, "openai", 0.5))
    seen = told.scrape()
    assert seen.get("calls_offered_total", **FLOW) == 1
    assert seen.get("age_at_dispatch_seconds_sum", **LANE) == 0.5
    assert seen.get("queue_time_seconds_sum", **LANE) == 0.5


def test_a_call_refused_in_the_instant_it_was_queued_is_offered_once() -> None:
    told, one = Told(), call()
    told.emit(Queued(one, "openai"))
    told.emit(refused(one, Reason.DISPLACED))
    assert told.scrape().get("calls_offered_total", **FLOW) == 1


def test_a_call_that_waited_for_one_upstream_and_is_admitted_to_another_was_offered_once() -> None:
    told, one = Told(), call()
    told.emit(Queued(one, "openai"))
    told.emit(Admitted(one, "azure", 0.0))
    seen = told.scrape()
    assert seen.get("calls_offered_total", **FLOW) == 1
    assert seen.total("calls_offered_total") == 1
    assert seen.get("calls_admitted_total", **{**FLOW, "upstream": "azure"}) == 1


def test_a_call_that_left_at_the_door_was_offered() -> None:
    told = Told()
    told.emit(Left(call(), "openai", 0.0))
    seen = told.scrape()
    assert (seen.total("calls_offered_total"), seen.total("calls_left_total")) == (1, 1)


def test_a_call_whose_end_was_never_told_is_forgotten_and_counted_as_left() -> None:
    # Seen with a caller that disconnects in the very turn in which its refusal is decided.
    told = Told()
    told.emit(Queued(call(arrived_at=0.0), "openai"))
    told.emit(Queued(call(arrived_at=LONGEST_WAIT_S), "openai"))
    assert told.scrape().total("calls_left_total") == 0
    told.emit(Queued(call(arrived_at=LONGEST_WAIT_S + 1.0), "openai"))
    assert told.scrape().get("calls_left_total", **FLOW) == 1
    assert len(told.telemetry._waiting) == 2


def test_refusals_are_told_apart_by_reason_and_by_kind_of_scope() -> None:
    told = Told()
    told.emit(refused(call(), Reason.BUCKET_EMPTY, "caller:3fa9c1"))
    told.emit(refused(call(), Reason.BUCKET_EMPTY, "caller:77aa00"))
    told.emit(refused(call(), Reason.BUCKET_EMPTY, "planet:mars"))
    seen = told.scrape()
    assert seen.get("calls_refused_total", **FLOW, reason="bucket_empty", scope="caller") == 2
    assert seen.get("calls_refused_total", **FLOW, reason="bucket_empty", scope="others") == 1


def test_a_lease_that_was_not_used_has_no_upstream_time() -> None:
    told = Told()
    told.emit(Settled(call(), "openai", Outcome.UNUSED, 0.0))
    told.emit(Settled(call(), "openai", Outcome.SUCCEEDED, 2.0))
    seen = told.scrape()
    assert seen.get("calls_settled_total", **FLOW, outcome="unused") == 1
    assert seen.get("upstream_time_seconds_count", **LEG) == 1
    assert seen.get("upstream_time_seconds_sum", **LEG) == 2.0


def test_an_answer_is_counted_by_its_class_of_status_and_timed() -> None:
    told = Told()
    relayed = told.telemetry.relayed
    relayed(call(), "openai", outcome=Outcome.SUCCEEDED, status=200, total_s=3.0, first_byte_s=0.25)
    relayed(call(), "openai", outcome=Outcome.OVERLOADED, status=429, total_s=1.0, first_byte_s=0.25)
    relayed(
        call(), "openai", outcome=Outcome.FAILED, status=None, total_s=1.0, reason=Reason.UPSTREAM_TIMEOUT
    )
    seen = told.scrape()
    assert [seen.get("answers_total", **FLOW, status=s) for s in ("2xx", "4xx", "none")] == [1, 1, 1]
    assert seen.get("failures_total", **FLOW, reason="upstream_timeout") == 1
    assert seen.get("first_byte_seconds_count", **LEG) == 2
    assert seen.get("call_seconds_sum", **LANE) == 5.0


def test_moves_of_a_breaker_are_counted_by_the_phase_moved_into() -> None:
    told = Told()
    told.emit(BreakerMoved("openai", "closed", "open", "20 of 20 calls failed"))
    told.emit(BreakerMoved("openai", "open", "half-open", "a probe"))
    told.emit(BreakerMoved("openai", "half-open", "open", "a probe failed"))
    seen = told.scrape()
    assert seen.get("breaker_moves_total", upstream="openai", phase="open") == 2
    assert seen.get("breaker_moves_total", upstream="openai", phase="half-open") == 1


def test_moves_of_a_tools_own_breaker_are_not_those_of_its_upstream() -> None:
    told = Told()
    for _ in range(2):
        told.emit(BreakerMoved("mcp", "closed", "open", "5 calls in a row failed", "tool:github/*"))
    for number in range(MOST_VALUES):
        told.emit(BreakerMoved("mcp", "closed", "open", "why", f"tool:github/tool-{number}"))
    seen = told.scrape()
    assert seen.get("tool_breaker_moves_total", route="github", tool="*", phase="open") == 2
    assert seen.total("tool_breaker_moves_total", phase="open") == MOST_VALUES + 2
    assert seen.get("tool_breaker_moves_total", route="others", tool="others", phase="open") == 1
    assert seen.total("breaker_moves_total") == 0


def test_moves_of_a_learnt_cap_are_counted_by_why_and_logged() -> None:
    told = Told()
    told.emit(CapMoved("openai", 16, 24, "raised"))
    told.emit(CapMoved("openai", 24, 32, "raised"))
    told.emit(CapMoved("openai", 32, 25, "refused"))
    seen = told.scrape()
    assert seen.get("cap_moves_total", upstream="openai", why="raised") == 2
    assert seen.get("cap_moves_total", upstream="openai", why="refused") == 1
    assert [(line["event"], line["old"], line["new"], line["why"]) for line in told.lines()][-1] == (
        "cap_moved",
        32,
        25,
        "refused",
    )


def test_what_is_wrong_with_requests_and_reloads_is_counted() -> None:
    told = Told()
    told.telemetry.unknown_priority("chat")
    told.telemetry.unknown_route()
    told.telemetry.malformed("chat")
    told.telemetry.held("chat")
    told.telemetry.tokens("chat", 100.0, Used(60.0, 40.0))
    told.telemetry.tokens("chat", 50.0, Used(12.0, 10.0, 8.0, exact=True))
    told.telemetry.tokens("chat", 50.0, Used(1.0, 2.0, 8.0, exact=True, cached_is_free=True))
    told.telemetry.reloaded(ok=False, problems="line 3")
    seen = told.scrape()
    assert seen.get("unknown_priority_total", route="chat") == 1
    assert seen.get("unknown_route_total") == 1
    assert seen.get("malformed_total", route="chat") == 1
    assert seen.get("repeats_held_total", route="chat") == 1
    assert seen.get("tokens_estimated_total", route="chat") == 200
    assert seen.get("tokens_charged_total", route="chat", kind="estimated") == 100
    assert seen.get("tokens_charged_total", route="chat", kind="exact") == 33
    assert seen.get("tokens_used_total", route="chat", part="input") == 73
    assert seen.get("tokens_used_total", route="chat", part="cached") == 16
    assert seen.get("tokens_used_total", route="chat", part="output") == 52
    assert seen.get("config_reloads_total", result="failed") == 1
    assert seen.get("config_reloads_total", result="ok") == 0
    assert seen.get("config_reload_timestamp_seconds", result="failed") == told.wall.now
    assert seen.get("config_reload_timestamp_seconds", result="ok") is None


def test_counts_keep_their_names_when_a_reload_renames_the_classes() -> None:
    told = Told()
    told.emit(Admitted(call(rank=1), "openai", 0.0))
    told.telemetry.reclassify(("urgent", "batch"))
    told.emit(Admitted(call(rank=1), "openai", 0.0))
    told.emit(Admitted(call(rank=2), "openai", 0.0))  # of before the reload: its class exists no more
    seen = told.scrape()
    assert seen.total("calls_admitted_total", priority="normal") == 1
    assert seen.total("calls_admitted_total", priority="batch") == 2


def test_a_reload_that_keeps_the_classes_goes_on_with_the_same_counts() -> None:
    told = Told()
    told.emit(Admitted(call(), "openai", 0.0))
    told.telemetry.reclassify(("critical", "normal", "background"))
    told.emit(Admitted(call(), "openai", 0.0))
    assert told.scrape().get("calls_admitted_total", **FLOW) == 2


def test_ten_thousand_callers_runs_and_tools_add_no_series() -> None:
    told = Told()
    told.emit(Admitted(call(), "openai", 0.0))
    told.emit(refused(call(), Reason.CAP_REACHED, "tool:github/search"))
    before = len(told.scrape().samples)
    for n in range(10_000):
        one = call(caller=f"caller-{n}", run=f"run-{n}", tool=f"tool-{n}")
        told.emit(Admitted(one, "openai", 0.0))
        told.emit(refused(one, Reason.CAP_REACHED, f"tool:github/tool-{n}"))
    assert len(told.scrape().samples) == before


def test_names_without_end_become_others_and_nothing_is_lost() -> None:
    told = Told()
    for n in range(10_000):
        told.emit(Admitted(call(route=f"route-{n}"), f"upstream-{n}", 0.0))
        told.telemetry.malformed(f"route-{n}")
    seen = told.scrape()
    assert seen.total("calls_admitted_total") == 10_000
    assert seen.total("calls_admitted_total", route="others") == 10_000 - MOST_VALUES
    assert seen.total("malformed_total", route="others") == 10_000 - MOST_VALUES
    assert len(seen.samples) < 60 * MOST_VALUES


@given(st.sampled_from([WAIT_BOUNDS_S, ANSWER_BOUNDS_S]), st.data())
def test_a_histogram_counts_each_value_under_every_bound_it_does_not_exceed(
    bounds: tuple[float, ...], data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.one_of(st.floats(0, 1000), st.sampled_from(bounds))))
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    for position, bound in enumerate(bounds):
        assert sum(histogram.cells[: position + 1]) == sum(value <= bound for value in values)
    assert sum(histogram.cells) == len(values)


@given(
    st.lists(st.tuples(st.sampled_from(["arrive", "admit", "refuse", "leave", "settle"]), st.integers(0, 99)))
)
def test_every_call_offered_is_admitted_refused_left_or_waiting_at_any_moment(
    steps: list[tuple[str, int]],
) -> None:
    told = Told()
    waiting: list[Call] = []
    held: list[Call] = []
    for step, pick in steps:
        # A verdict falls on a call that waits, or else on one that has just come; it may fall at once.
        one = (
            waiting.pop(pick % len(waiting))
            if waiting and step in ("admit", "refuse", "leave")
            else call(pick % 3)
        )
        waited_s = float(pick % 2)
        if step == "arrive":
            told.emit(Queued(one, "openai"))
            waiting.append(one)
        elif step == "admit":
            told.emit(Admitted(one, "openai", waited_s))
            held.append(one)
        elif step == "refuse":
            told.emit(refused(one, waited_s=waited_s))
        elif step == "leave":
            told.emit(Left(one, "openai", waited_s))
        elif held:
            told.emit(Settled(held.pop(pick % len(held)), "openai", Outcome.SUCCEEDED, 0.1))
    seen = told.scrape()
    answered = sum(seen.total(f"calls_{end}_total") for end in ("admitted", "refused", "left"))
    assert seen.total("calls_offered_total") == answered + len(waiting)
    assert seen.total("calls_settled_total") == seen.total("calls_admitted_total") - len(held)
