"""What the gate does, told as stories. The invariants over all sequences are in `properties/`."""

from __future__ import annotations

import pytest

from proxy.core.call import Call
from proxy.core.events import Admitted, BreakerMoved, Left, Queued, Settled
from proxy.core.gate import Gate, Grant
from proxy.core.policy import CapPolicy, Per, Policy, QueuePolicy, RoutePolicy, UpstreamPolicy
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.core.waiting import Waiter
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore
from tests.kit.story import (
    NEVER_SHED,
    Story,
    admitted,
    after,
    arrives,
    breaker,
    bucket,
    drains,
    ends,
    leaves,
    quota,
    refused,
    reloads,
    waits,
)

FAILED = Outcome.FAILED

# ── waiting and being served ────────────────────────────────────────────────────────────────────────


def test_a_call_goes_at_once_while_there_is_room(story: Story) -> None:
    story.cap(2)
    story >> arrives("a") << admitted("a") >> arrives("b") << admitted("b")


def test_without_a_queue_a_full_cap_refuses_at_once(story: Story) -> None:
    story.cap(1).queue(0)
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.CAP_REACHED)


def test_who_waits_is_served_when_a_permit_returns(story: Story) -> None:
    story.cap(1).queue(2)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    story >> ends("a") << admitted("b")


def test_batch_calls_are_displaced_when_an_urgent_one_arrives(story: Story) -> None:
    story.cap(1).queue(1)
    story >> arrives("a", "background") << admitted("a")
    story >> arrives("b", "background") << waits("b")
    story >> arrives("c", "critical") << refused("b", Reason.DISPLACED) << waits("c")
    story >> ends("a") << admitted("c")


def test_an_equal_displaces_nobody(story: Story) -> None:
    story.cap(1).queue(1)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    story >> arrives("c") << refused("c", Reason.QUEUE_FULL)


def test_the_newest_of_the_least_important_is_displaced(story: Story) -> None:
    story.cap(1).queue(3)
    story >> arrives("a") << admitted("a")
    story >> arrives("old", "background") << waits("old") >> arrives("new", "background") << waits("new")
    story >> arrives("b") << waits("b")
    story >> arrives("c") << refused("new", Reason.DISPLACED) << waits("c")


def test_the_more_important_is_served_first_and_equals_in_their_order(story: Story) -> None:
    story.cap(1).queue(5)
    story >> arrives("running") << admitted("running")
    for name, priority in (("n1", "normal"), ("b1", "background"), ("n2", "normal"), ("c1", "critical")):
        story >> arrives(name, priority) << waits(name)
    for before, then in (("running", "c1"), ("c1", "n1"), ("n1", "n2"), ("n2", "b1")):
        story >> ends(before) << admitted(then)


def test_a_retry_waits_behind_the_first_attempts_of_its_class_and_before_the_next(story: Story) -> None:
    story.cap(1).queue(5)
    story >> arrives("running") << admitted("running")
    story >> arrives("low", "background") << waits("low")
    story >> arrives("again", retry=True) << waits("again")
    story >> arrives("first") << waits("first")
    for before, then in (("running", "first"), ("first", "again"), ("again", "low")):
        story >> ends(before) << admitted(then)


def test_nobody_waits_longer_than_the_queue_allows(story: Story) -> None:
    story.cap(1).queue(2, max_age_s=4.0)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    story >> after(3.9)
    story >> after(0.1) << refused("b", Reason.WAITED_TOO_LONG)


def test_nobody_waits_past_its_deadline(story: Story) -> None:
    story.cap(1).queue(2, max_age_s=60.0)
    story >> arrives("a") << admitted("a") >> arrives("b", within=2.0) << waits("b")
    story >> after(2.0) << refused("b", Reason.WAITED_TOO_LONG)


def test_a_call_whose_deadline_has_passed_is_not_even_counted(story: Story) -> None:
    story.buckets(bucket(0.1))
    story >> arrives("late", within=0.0) << refused("late", Reason.WAITED_TOO_LONG, told=0.0)
    story >> arrives("in time", within=0.1) << admitted("in time")


def test_a_wait_that_could_only_be_in_vain_is_refused_at_once(story: Story) -> None:
    story.buckets(bucket(1 / 20, per=Per.ROUTE)).queue(5, max_age_s=10.0)
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.BUCKET_EMPTY, told=20.0)


def test_room_that_comes_at_the_deadline_comes_too_late(story: Story) -> None:
    story.buckets(bucket(1.0, per=Per.ROUTE)).queue(5)
    story >> arrives("a") << admitted("a")
    story >> arrives("b", within=1.0) << refused("b", Reason.BUCKET_EMPTY, told=1.0)
    story >> arrives("c", within=1.1) << waits("c")
    story >> after(1.0) << admitted("c")


def test_who_may_not_wait_is_refused_with_the_time_to_come_back(story: Story) -> None:
    story.buckets(bucket(1 / 3)).queue(5)
    story >> arrives("a") << admitted("a")
    story >> arrives("b", may_wait=False) << refused("b", Reason.BUCKET_EMPTY, told=3.0)
    story >> arrives("c", may_wait=False) << refused("c", Reason.BUCKET_EMPTY, told=6.0)


def test_a_bucket_serves_its_line_one_refill_at_a_time(story: Story) -> None:
    story.buckets(bucket(0.5, per=Per.ROUTE)).queue(5)
    story >> arrives("a") << admitted("a")
    for name in ("b", "c", "d"):
        story >> arrives(name) << waits(name)
    for name in ("b", "c", "d"):
        story >> after(1.9)
        story >> after(0.1) << admitted(name)


def test_one_callers_empty_bucket_holds_up_nobody_else(story: Story) -> None:
    story.cap(1).buckets(bucket(0.2)).queue(5)
    story >> arrives("a", caller="ann") << admitted("a")
    story >> arrives("greedy", caller="ann") << waits("greedy")
    story >> arrives("b", caller="bob") << waits("b")
    story >> ends("a") << admitted("b")
    story >> ends("b") >> after(5.0) << admitted("greedy")


def test_a_full_tool_holds_up_no_other_tool(story: Story) -> None:
    story.cap(2).tools(search=1).queue(5)
    story >> arrives("a", tool="search") << admitted("a")
    story >> arrives("other") << admitted("other")
    story >> arrives("s1", tool="search") << waits("s1") >> arrives("p1", "background") << waits("p1")
    story >> ends("other") << admitted("p1")
    story >> ends("a") << admitted("s1")


def test_who_becomes_ready_is_served_before_a_newcomer_of_the_same_moment(story: Story) -> None:
    story.buckets(bucket(1.0, per=Per.ROUTE)).queue(5)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    story.clock.advance(1.0)  # the timer of admission is late
    story >> arrives("newcomer") << admitted("b") << waits("newcomer")


def test_who_is_ready_but_for_a_rounding_is_not_overtaken(story: Story) -> None:
    story.buckets(bucket(1.0, per=Per.ROUTE)).queue(5)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    story.clock.advance(1.0 - 1e-9)
    story >> arrives("newcomer") << admitted("b") << waits("newcomer")


def test_an_urgent_call_is_not_refused_for_those_who_come_after_it(story: Story) -> None:
    # The estimate of the wait counted every waiter, also those whom the newcomer would overtake.
    story.buckets(bucket(0.5, per=Per.ROUTE)).queue(20, max_age_s=10.0)
    story >> arrives("a") << admitted("a")
    for name in ("b1", "b2", "b3", "b4", "b5"):
        story >> arrives(name, "background") << waits(name)
    story >> arrives("b6", "background") << refused("b6", Reason.BUCKET_EMPTY)
    story >> arrives("urgent", "critical") << waits("urgent")
    story >> after(2.0) << admitted("urgent")
    story >> after(9.0)
    for name in ("b1", "b2", "b3", "b4"):
        story << admitted(name)
    story << refused("b5", Reason.BUCKET_EMPTY)


def test_who_expired_is_not_served_by_a_timer_that_is_late(story: Story) -> None:
    # The event loop was busy: a permit returns before the timer could tell the waiter that its time is up.
    story.cap(1).queue(2, max_age_s=4.0)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    story.clock.advance(5.0)
    story >> ends("a") << refused("b", Reason.WAITED_TOO_LONG)


def test_whose_deadline_passed_is_not_served_by_a_timer_that_is_late(story: Story) -> None:
    story.buckets(bucket(1.0, per=Per.ROUTE)).queue(2)
    story >> arrives("a") << admitted("a") >> arrives("b", within=2.0) << waits("b")
    story.clock.advance(2.5)
    story >> after(0.0) << refused("b", Reason.WAITED_TOO_LONG)


def test_a_bucket_that_refilled_before_a_late_timer_is_not_overtaken(story: Story) -> None:
    # A settle served only those who lacked its permits, and passed over who had become ready meanwhile.
    story.cap(2).buckets(bucket(1.0)).queue(5)
    story >> arrives("a", caller="ann") << admitted("a") >> arrives("b", caller="bob") << admitted("b")
    story >> arrives("urgent", "critical", caller="ann") << waits("urgent")
    story >> arrives("other", caller="cy") << waits("other")
    story.clock.advance(1.0)
    story >> ends("a") << admitted("urgent")


# ── leaving ─────────────────────────────────────────────────────────────────────────────────────────


def test_who_leaves_is_out_at_once_and_costs_nothing_later(story: Story) -> None:
    story.cap(1).queue(1)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    story >> leaves("b")
    story >> arrives("c") << waits("c")
    story >> ends("a") << admitted("c")
    assert [type(event) for event in story.events] == [Admitted, Queued, Left, Queued, Settled, Admitted]


def test_leaving_after_the_verdict_changes_nothing(story: Story) -> None:
    story.cap(1).queue(1)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    (waiter,) = story.gate.room.waiters()
    story >> ends("a") << admitted("b")
    story.gate.leave(waiter, story.clock())
    assert isinstance(waiter.verdict, Grant)
    assert story.gate.store.in_flight("upstream:api") == 1


# ── settling ────────────────────────────────────────────────────────────────────────────────────────


def test_settling_twice_is_a_broken_promise() -> None:
    story = Story().cap(1)
    call = Call(route="chat", caller="ann", arrived_at=0.0)
    grant = story.gate.offer(call, "api", 0.0)
    assert isinstance(grant, Grant)
    story.gate.settle(grant, Outcome.SUCCEEDED, 1.0)
    with pytest.raises(RuntimeError, match="settled twice"):
        story.gate.settle(grant, Outcome.SUCCEEDED, 1.0)


def test_what_was_not_used_is_given_back_and_serves_who_waits(story: Story) -> None:
    story.buckets(bucket(1 / 20)).quotas(quota(1, 3600)).queue(5, max_age_s=60.0)
    story >> arrives("a") << admitted("a")
    story >> arrives("b", may_wait=False) << refused("b", Reason.QUOTA_SPENT)
    story >> ends("a", Outcome.UNUSED)
    story >> arrives("c") << admitted("c")


def test_a_bucket_that_refilled_meanwhile_is_not_filled_twice(story: Story) -> None:
    story.buckets(bucket(1.0))
    story >> arrives("a") << admitted("a") >> after(5.0)
    story >> arrives("b") << admitted("b")
    story >> ends("a", Outcome.UNUSED)
    story >> arrives("c") << refused("c", Reason.BUCKET_EMPTY, told=1.0)


# ── the breaker ─────────────────────────────────────────────────────────────────────────────────────


def trip(story: Story) -> None:
    for number in range(4):
        story >> arrives(f"f{number}") << admitted(f"f{number}") >> ends(f"f{number}", FAILED)
    assert story.breaker_phases == ["open"]


def test_an_open_breaker_refuses_for_as_long_as_the_outage_has_lasted(story: Story) -> None:
    story.breaker(breaker(open_for_s=5.0))
    trip(story)
    story >> arrives("a") << refused("a", Reason.BREAKER_OPEN, told=1.0)
    story >> after(3.0) >> arrives("p") << admitted("p")
    story >> arrives("b") << refused("b", Reason.BREAKER_OPEN, told=3.0)
    story >> after(20.0) >> arrives("q") << admitted("q")
    story >> arrives("c") << refused("c", Reason.BREAKER_OPEN, told=5.0)


def test_traffic_returns_after_enough_good_probes(story: Story) -> None:
    story.breaker(breaker(probes=2))
    trip(story)
    story >> after(5.0) >> arrives("p1") << admitted("p1")
    story >> arrives("x") << refused("x", Reason.BREAKER_OPEN)
    story >> ends("p1") >> arrives("p2") << admitted("p2") >> arrives("p3") << admitted("p3")
    story >> arrives("y") << refused("y", Reason.CAP_REACHED)
    story >> ends("p2") >> arrives("z") << admitted("z")
    assert story.breaker_phases == ["open", "half-open", "closed"]
    assert [event.why for event in story.events if isinstance(event, BreakerMoved)] == [
        "4 of 4 calls failed",
        "a probe was answered",
        "2 probes succeeded",
    ]


def test_who_waits_is_refused_when_the_breaker_opens(story: Story) -> None:
    story.cap(1).queue(5).breaker(breaker(minimum_calls=1))
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b") >> arrives("c") << waits("c")
    story >> ends("a", FAILED) << refused("b", Reason.BREAKER_OPEN) << refused("c", Reason.BREAKER_OPEN)


def test_our_own_refusals_never_open_it(story: Story) -> None:
    story.cap(1).queue(0).breaker(breaker(minimum_calls=1))
    story >> arrives("a") << admitted("a")
    for number in range(50):
        story >> arrives(f"x{number}") << refused(f"x{number}", Reason.CAP_REACHED)
    story >> ends("a") >> arrives("b") << admitted("b")
    assert story.breaker_phases == []


def test_a_probe_whose_caller_left_gives_its_slot_back(story: Story) -> None:
    story.breaker(breaker(probes=1))
    trip(story)
    for number in range(3):
        story >> after(0.4) >> arrives(f"p{number}") << admitted(f"p{number}")
        story >> ends(f"p{number}", Outcome.IGNORED)


# ── retries ─────────────────────────────────────────────────────────────────────────────────────────


def test_retries_are_refused_once_their_budget_is_spent(story: Story) -> None:
    story.retry_budget(ratio=0.5, floor_per_minute=1)
    story >> arrives("a") << admitted("a") >> arrives("b") << admitted("b")
    story >> arrives("r1", retry=True) << admitted("r1") >> arrives("r2", retry=True) << admitted("r2")
    story >> arrives("r3", retry=True) << refused("r3", Reason.RETRY_BUDGET_SPENT)
    story >> arrives("first") << admitted("first")


def test_who_was_ready_before_a_retry_came_pays_for_it_though_the_timer_is_late(story: Story) -> None:
    story.retry_budget(ratio=1.0, floor_per_minute=1).buckets(bucket(1.0, per=Per.RUN)).queue(2)
    story >> arrives("a", run="1") << admitted("a") >> arrives("r1", run="2", retry=True) << admitted("r1")
    story >> arrives("r2", run="3", retry=True) << admitted("r2")
    story >> arrives("b", run="1") << waits("b")
    story.clock.advance(1.0)
    story >> arrives("r3", run="4", retry=True) << admitted("b") << admitted("r3")


def test_a_refused_retry_spends_nothing_of_the_budget(story: Story) -> None:
    story.cap(1).retry_budget(ratio=0.0, floor_per_minute=1)
    story >> arrives("a") << admitted("a")
    story >> arrives("r1", retry=True) << refused("r1", Reason.CAP_REACHED)
    story >> ends("a") >> arrives("r2", retry=True) << admitted("r2")


# ── Retry-After ─────────────────────────────────────────────────────────────────────────────────────


def test_who_is_told_a_wait_for_the_breaker_is_not_refused_for_a_bucket_then(story: Story) -> None:
    # Each reason was told alone: 2 s for the breaker, and then 20 s for the bucket that was empty all along.
    story.breaker(breaker(minimum_calls=1, open_for_s=2.0)).buckets(bucket(1 / 20))
    story >> arrives("a") << admitted("a") >> ends("a", FAILED)
    story >> arrives("b") << refused("b", Reason.BREAKER_OPEN, told=20.0)
    story >> after(20.0) >> arrives("b2") << admitted("b2")


def test_what_would_take_longer_than_can_be_told_is_told_again(story: Story) -> None:
    story.quotas(quota(1, 100))
    story >> arrives("a") << admitted("a")
    waits_told: list[float] = []
    for _ in range(5):
        verdict = story.gate.offer(Call(route="chat", caller="anyone", arrived_at=0.0), "api", story.clock())
        if isinstance(verdict, Grant):
            break
        assert isinstance(verdict, Refusal)
        assert verdict.retry_after_s is not None
        waits_told.append(verdict.retry_after_s)
        story >> after(verdict.retry_after_s)
    assert len(waits_told) in {2, 3}, "45 to 55 s, once more, and then the rest"
    assert sum(waits_told) >= 100.0 - 1e-6


# ── drain and reload ────────────────────────────────────────────────────────────────────────────────


def test_a_drain_refuses_who_waits_and_who_comes_and_leaves_the_rest_to_finish(story: Story) -> None:
    story.cap(1).queue(5)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    story >> drains() << refused("b", Reason.DRAINING)
    story >> arrives("c") << refused("c", Reason.DRAINING)
    story >> ends("a")
    assert story.gate.store.in_flight("upstream:api") == 0


def test_a_reload_that_makes_room_serves_who_waits(story: Story) -> None:
    story.cap(1).queue(5)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b") >> arrives("c") << waits("c")
    story.cap(2) >> reloads() << admitted("b")


def test_a_reload_that_takes_room_lets_the_holders_finish(story: Story) -> None:
    story.cap(3).queue(5)
    for name in ("a", "b", "c"):
        story >> arrives(name) << admitted(name)
    story.cap(1) >> reloads()
    story >> arrives("d") << waits("d")
    story >> ends("a") >> ends("b") >> ends("c") << admitted("d")


def test_a_reload_keeps_what_was_counted(story: Story) -> None:
    story.buckets(bucket(0.1, burst=2)).quotas(quota(3, 3600))
    story >> arrives("a") << admitted("a") >> arrives("b") << admitted("b")
    story.buckets(bucket(0.1, burst=3)).quotas(quota(3, 3600)) >> reloads()
    story >> arrives("c") << admitted("c")
    story >> arrives("d") << refused("d", Reason.QUOTA_SPENT)


def test_a_waiter_of_a_route_that_was_removed_follows_the_new_cap_of_its_upstream() -> None:
    # It kept the claims of the day it came, and was let past a cap that had shrunk since.
    def policy(slots: int, *names: str) -> Policy:
        routes = {name: RoutePolicy(name, QueuePolicy(5, 60.0), NEVER_SHED) for name in names}
        upstream = UpstreamPolicy("api", CapPolicy("upstream:api", slots), None, None)
        return Policy(("normal",), routes, {"api": upstream})

    gate = Gate(policy(2, "chat", "old"), MemoryStore(), BreakerMachine, lambda _: None)
    calls = [Call(route=route, caller="ann", arrived_at=0.0) for route in ("chat", "chat", "old")]
    first, second, waiting = [gate.offer(call, "api", 0.0) for call in calls]
    assert isinstance(waiting, Waiter)
    gate.adopt(policy(1, "chat"), 1.0)
    for grant, now, in_flight in ((first, 2.0, 1), (second, 3.0, 1)):
        assert isinstance(grant, Grant)
        gate.settle(grant, Outcome.SUCCEEDED, now)
        assert gate.store.in_flight("upstream:api") == in_flight
    assert isinstance(waiting.verdict, Grant)


# ── what telemetry hears ────────────────────────────────────────────────────────────────────────────


def test_the_time_in_the_queue_and_the_time_at_the_upstream_are_two_clocks(story: Story) -> None:
    story.cap(1).queue(1)
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b") >> after(3.0)
    story >> ends("a") << admitted("b") >> after(2.0) >> ends("b")
    waited = [event.waited_s for event in story.events if isinstance(event, Admitted)]
    at_upstream = [event.upstream_s for event in story.events if isinstance(event, Settled)]
    assert (waited, at_upstream) == ([0.0, 3.0], [3.0, 2.0])
