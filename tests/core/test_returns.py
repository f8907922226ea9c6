"""Who was refused returns with its ticket: stories of promises that are kept, on both sides."""

from __future__ import annotations

import pytest

from proxy.core.book import GRACE_S
from proxy.core.claims import Claims
from proxy.core.events import Admitted, Returned
from proxy.core.policy import BucketPolicy, Per
from proxy.core.promises import UNBOOKED_S
from proxy.core.verdict import LONGEST_RETRY_AFTER_S, Outcome, Reason
from tests.kit.story import (
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
    tokens,
    waits,
)

PER_SECOND = bucket(1.0)


def kept(story: Story) -> list[bool]:
    return [event.admitted for event in story.events if isinstance(event, Returned)]


def told(story: Story, name: str) -> float:
    seconds = story.told[name].retry_after_s
    assert seconds is not None
    return seconds


def full(story: Story) -> Story:
    """One permit, taken; one place in the queue, taken."""
    story.cap(1).queue(1, max_age_s=30.0)
    story >> arrives("running", caller="ann") << admitted("running")
    story >> arrives("waiting", caller="bob") << waits("waiting")
    return story


# ── a bucket: the token is kept for who was told ────────────────────────────────────────────────────


def test_a_token_that_is_booked_is_not_given_to_a_newcomer(story: Story) -> None:
    story.buckets(PER_SECOND)
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.BUCKET_EMPTY, told=1.0)
    story >> after(1.0)
    story >> arrives("newcomer") << refused("newcomer", Reason.BUCKET_EMPTY, told=1.0)
    story >> arrives("b") << admitted("b")
    assert kept(story) == [True]


def test_all_who_were_told_are_admitted_when_they_were_told(story: Story) -> None:
    story.buckets(PER_SECOND)
    story >> arrives("a") << admitted("a")
    names = ("b", "c", "d", "e")
    for name in names:
        story >> arrives(name) << refused(name, Reason.BUCKET_EMPTY)
    for number, name in enumerate(names):
        story >> after(1.0) >> arrives(f"x{number}") << refused(f"x{number}", Reason.BUCKET_EMPTY)
        story >> arrives(name) << admitted(name)
    assert kept(story) == [True] * 4


def test_a_token_is_given_to_a_newcomer_when_its_holder_does_not_come(story: Story) -> None:
    story.buckets(PER_SECOND).queue(5)
    story >> arrives("a") << admitted("a")
    story >> arrives("b", may_wait=False) << refused("b", Reason.BUCKET_EMPTY, told=1.0)
    story >> after(1.2) >> arrives("newcomer") << waits("newcomer")
    story >> after(0.1) << admitted("newcomer")
    assert story.gate.next_at() == float("inf")


def test_a_holder_that_comes_late_has_its_place_and_waits_for_the_next_token(story: Story) -> None:
    story.buckets(PER_SECOND)
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.BUCKET_EMPTY, told=1.0)
    story >> after(1.5) >> arrives("newcomer") << admitted("newcomer")
    story >> after(0.2) >> arrives("b") << waits("b")
    story >> after(0.8) << admitted("b")
    assert kept(story) == [True]


def test_callers_who_never_come_back_cost_the_others_nothing(story: Story) -> None:
    """With each refusal a place is promised; were all kept for long, nobody would be served any more."""
    story.buckets(bucket(10.0, 5.0))
    for number in range(900):
        story >> after(1 / 30) >> arrives(f"{number}")
        story._came.clear()
    admitted_s = [event for event in story.events if isinstance(event, Admitted)]
    assert len(admitted_s) >= 0.9 * 300


def test_who_is_shed_for_want_of_tokens_is_told_when_there_will_be_some(story: Story) -> None:
    story.buckets(bucket(1.0, per=Per.ROUTE)).queue(4, max_age_s=10.0).shed_at(2.0, 0.5, 0.5)
    story >> arrives("a") << admitted("a")
    for name in ("b", "c"):
        story >> arrives(name, caller=name) << waits(name)
    story >> arrives("b2", caller="b") << refused("b2", Reason.SHED, told=3.0)
    story >> after(1.0) << admitted("b")
    story >> after(1.0) << admitted("c")
    story >> after(1.0) >> arrives("b2", caller="b") << admitted("b2")
    assert kept(story) == [True]


def test_who_already_waits_is_not_passed_by_who_was_told_later(story: Story) -> None:
    story.buckets(PER_SECOND).queue(1)
    story >> arrives("a") << admitted("a")
    story >> arrives("waiting") << waits("waiting")
    story >> arrives("b") << refused("b", Reason.QUEUE_FULL)
    story >> after(1.0) << admitted("waiting")
    story >> after(told(story, "b") - 1.0) >> arrives("b") << admitted("b")
    assert told(story, "b") == 2.0


def test_a_promise_is_kept_although_somebody_more_important_waits_for_the_same(story: Story) -> None:
    story.buckets(PER_SECOND).queue(5)
    story >> arrives("a") << admitted("a")
    story >> arrives("b", "background", may_wait=False) << refused("b", Reason.BUCKET_EMPTY, told=1.0)
    story >> arrives("urgent", "critical") << waits("urgent")
    story >> after(1.0) >> arrives("b", "background") << admitted("b")
    story >> after(1.0) << admitted("urgent")


def test_who_came_for_its_token_does_not_stand_behind_one_from_whom_the_next_is_kept(story: Story) -> None:
    story.cap(1).buckets(bucket(1.0, per=Per.ROUTE)).queue(5, max_age_s=30.0)
    story >> arrives("a") << admitted("a") >> ends("a")
    for number, name in enumerate(("b", "c", "d"), start=1):
        story >> arrives(name, may_wait=False) << refused(name, Reason.BUCKET_EMPTY, told=number)
    story >> after(1.0) >> arrives("b") << admitted("b")
    story >> after(1.5) >> arrives("c") << waits("c")
    story >> arrives("urgent", "critical") << waits("urgent")
    story >> ends("b") << admitted("c")


def test_who_came_before_a_token_was_promised_waits_no_longer_for_one_who_came_after_and_left(
    story: Story,
) -> None:
    story.callers(ann=1).buckets(bucket(1.0, burst=2.0, per=Per.ROUTE)).queue(5, max_age_s=30.0)
    story >> arrives("a", caller="ann") << admitted("a") >> arrives("b") << admitted("b")
    story >> arrives("before", "background", caller="ann") << waits("before")
    story >> arrives("c", may_wait=False) << refused("c", Reason.BUCKET_EMPTY, told=1.0)
    story >> after(1.0) >> arrives("urgent", "critical") << waits("urgent")
    story >> leaves("urgent") >> ends("a") << admitted("before")


def test_who_comes_too_late_comes_as_anybody(story: Story) -> None:
    story.buckets(PER_SECOND)
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.BUCKET_EMPTY, told=1.0)
    story >> after(9.0) >> arrives("c") << admitted("c")
    story >> arrives("b") << refused("b", Reason.BUCKET_EMPTY)
    assert kept(story) == []


# ── what is kept for others, and lacking besides ────────────────────────────────────────────────────


def kept_for_d(story: Story) -> Story:
    """The next token of the fast bucket, in half a second, is kept for `d`; of all else two were spent."""
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.BUCKET_EMPTY, told=1.0)
    story >> arrives("d") << refused("d", Reason.BUCKET_EMPTY, told=2.0)
    story >> after(1.0) >> arrives("b") << admitted("b")
    return story >> after(0.5)


def test_who_lacks_more_than_what_is_kept_for_others_is_told_when_all_of_it_comes(story: Story) -> None:
    story.buckets(PER_SECOND, bucket(0.1, burst=2.0, key="slow"))
    kept_for_d(story) >> arrives("c") << refused("c", Reason.BUCKET_EMPTY, told=8.5)
    story >> after(8.5) >> arrives("c") << admitted("c")


def test_who_lacks_of_a_quota_is_not_told_when_the_token_kept_for_another_is_free(story: Story) -> None:
    story.buckets(PER_SECOND).quotas(quota(2, 40))
    kept_for_d(story) >> arrives("c") << refused("c", Reason.QUOTA_SPENT)
    assert told(story, "c") > 10.0
    story >> after(told(story, "c")) >> arrives("c") << admitted("c")


def held_back(story: Story, *buckets: BucketPolicy) -> Story:
    """Eight permits for calls of a second, all but one taken: that one is kept for the critical."""
    story.cap(8).queue(5).buckets(*buckets)
    for number in range(14):
        story >> arrives(f"r{number}", "critical", tokens=1.0) << admitted(f"r{number}")
        if number == 6:
            story >> after(1.0)
            for ended in range(7):
                story >> ends(f"r{ended}")
    return story


def test_who_lacks_of_a_bucket_is_not_told_when_the_permit_held_back_from_it_is_free(story: Story) -> None:
    held_back(story, bucket(0.05, burst=14.0)) >> arrives("c") << refused("c", Reason.BUCKET_EMPTY, told=19.0)
    story >> after(19.0) >> arrives("c") << waits("c") >> ends("r7") << admitted("c")


def test_who_can_never_pass_is_told_so_where_a_permit_is_held_back_from_it(story: Story) -> None:
    held_back(story, tokens(1.0, burst=20.0))
    story >> arrives("c", tokens=21.0) << refused("c", Reason.TOO_DEAR)


# ── too early ───────────────────────────────────────────────────────────────────────────────────────


def test_who_returns_early_is_told_the_same_time_and_books_nothing_more(story: Story) -> None:
    story.buckets(PER_SECOND)
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.BUCKET_EMPTY, told=1.0)
    for _ in range(3):
        story >> after(0.2) >> arrives("b") << refused("b", Reason.BUCKET_EMPTY)
    assert told(story, "b") == 0.4 or abs(told(story, "b") - 0.4) < 1e-9
    story >> arrives("c") << refused("c", Reason.BUCKET_EMPTY, told=1.4)
    story >> after(0.4) >> arrives("b") << admitted("b")


def test_who_returns_early_from_a_full_queue_is_told_the_same_time(story: Story) -> None:
    full(story) >> arrives("b", caller="cy") << refused("b", Reason.QUEUE_FULL)
    first = told(story, "b")
    story >> after(0.5) >> arrives("b", caller="cy") << refused("b", Reason.QUEUE_FULL)
    assert abs(told(story, "b") - (first - 0.5)) < 1e-9


def test_a_rude_caller_in_an_outage_hears_the_same_time_and_pushes_nobody_back(story: Story) -> None:
    story.breaker(breaker(minimum_calls=1, open_for_s=5.0))
    story >> arrives("a") << admitted("a") >> ends("a", Outcome.FAILED)
    story >> arrives("rude") << refused("rude", Reason.BREAKER_OPEN)
    first = told(story, "rude")
    for _ in range(50):
        story >> arrives("rude") << refused("rude", Reason.BREAKER_OPEN)
    assert told(story, "rude") == first
    story >> arrives("other") << refused("other", Reason.BREAKER_OPEN)
    assert told(story, "other") - first < 1.5


def test_who_returns_early_and_finds_room_goes_and_its_ticket_is_no_broken_promise(story: Story) -> None:
    story.cap(1)
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.CAP_REACHED)
    ticket = story.tickets["b"]
    story >> ends("a") >> arrives("b") << admitted("b")
    assert not ticket.is_open
    assert (ticket.book.out, ticket.book.kept) == (0, 1.0)


# ── ahead of its class ──────────────────────────────────────────────────────────────────────────────


def test_who_returns_goes_ahead_of_its_class_and_behind_the_more_important(story: Story) -> None:
    full(story) >> arrives("b", caller="cy") << refused("b", Reason.QUEUE_FULL)
    story >> after(told(story, "b")) >> arrives("b", caller="cy") << waits("b")
    story >> arrives("urgent", "critical", caller="dan") << refused("waiting", Reason.DISPLACED)
    story << waits("urgent")
    story >> ends("running") << admitted("urgent")
    story >> arrives("other", caller="eve") << waits("other") if story.gate.room.size == 0 else None
    story >> ends("urgent") << admitted("b")
    assert kept(story) == [True]


def test_who_returns_in_vain_for_too_long_does_not_make_the_promises_after_it_untrue(story: Story) -> None:
    full(story)
    for name in ("b", "c"):
        story >> arrives(name, caller="cy") << refused(name, Reason.QUEUE_FULL)
    story >> after(told(story, "b")) >> arrives("b", caller="cy") << waits("b")
    story >> after(told(story, "c") - told(story, "b")) >> arrives("c", caller="cy") << waits("c")
    assert told(story, "c") - told(story, "b") > GRACE_S
    story >> ends("running") << admitted("c") >> ends("c") << admitted("b")
    assert kept(story) == [True, True]


def test_who_returns_is_not_refused_for_want_of_room_and_displaces_nobody(story: Story) -> None:
    full(story) >> arrives("b", caller="cy") << refused("b", Reason.QUEUE_FULL)
    story >> after(told(story, "b")) >> arrives("b", caller="cy") << waits("b")
    assert story.gate.room.lanes.depth("chat") == 2
    story >> ends("running") << admitted("b") >> ends("b") << admitted("waiting")


def test_who_returns_is_not_displaced_by_the_more_important(story: Story) -> None:
    full(story) >> arrives("b", "background", caller="cy") << refused("b", Reason.QUEUE_FULL)
    story >> after(told(story, "b")) >> arrives("b", "background", caller="cy") << waits("b")
    story >> arrives("urgent", "critical") << refused("waiting", Reason.DISPLACED) << waits("urgent")
    story >> arrives("urgent2", "critical") << refused("urgent2", Reason.QUEUE_FULL)
    story >> ends("running") << admitted("urgent") >> ends("urgent") << admitted("b")


def test_who_returns_is_not_shed(story: Story) -> None:
    story.cap(1).queue(4, max_age_s=60.0).shed_at(2.0, 0.5, 0.5)
    story >> arrives("running") << admitted("running")
    for name in ("w1", "w2"):
        story >> arrives(name) << waits(name)
    story >> arrives("b") << refused("b", Reason.SHED)
    story >> after(told(story, "b")) >> arrives("b") << waits("b")
    story >> arrives("c") << refused("c", Reason.SHED)
    story >> ends("running") << admitted("b")


def test_a_return_in_an_outage_is_a_promise_that_is_broken(story: Story) -> None:
    story.cap(1).breaker(breaker(minimum_calls=1, open_for_s=30.0))
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.CAP_REACHED)
    story >> after(told(story, "b")) >> ends("a", Outcome.FAILED)
    story >> arrives("b") << refused("b", Reason.BREAKER_OPEN)
    assert kept(story) == [False]


def test_who_returned_and_waited_in_vain_is_a_promise_that_is_broken(story: Story) -> None:
    full(story) >> arrives("b", caller="cy") << refused("b", Reason.QUEUE_FULL)
    story >> after(told(story, "b")) >> arrives("b", caller="cy") << waits("b")
    story >> after(29.0) << refused("waiting", Reason.WAITED_TOO_LONG)
    story >> after(1.0) << refused("b", Reason.WAITED_TOO_LONG)
    assert kept(story) == [False]
    assert "b" in story.tickets or not story.told["b"].come_back


# ── what is told ────────────────────────────────────────────────────────────────────────────────────


def test_no_two_are_told_the_same_instant(story: Story) -> None:
    full(story)
    instants = set()
    for number in range(200):
        name, rank = f"c{number}", ("normal", "background")[number % 2]
        story >> arrives(name, rank, caller=name)
        story._came.clear()
        instants.add(story.clock() + told(story, name))
        if number % 20 == 0:
            story.clock.advance(0.05)
    assert len(instants) == 200


def test_nobody_is_invited_beyond_its_own_deadline(story: Story) -> None:
    story.cap(1)
    story >> arrives("a") << admitted("a")
    story >> arrives("hasty", within=0.5) << refused("hasty", Reason.CAP_REACHED)
    assert not story.told["hasty"].come_back
    assert "hasty" not in story.tickets
    story >> arrives("patient", within=60.0) << refused("patient", Reason.CAP_REACHED)
    assert story.told["patient"].come_back
    story.finish()


def test_nobody_is_invited_to_a_bucket_that_refills_after_its_deadline(story: Story) -> None:
    story.buckets(bucket(0.1))
    story >> arrives("a") << admitted("a")
    story >> arrives("hasty", within=9.0) << refused("hasty", Reason.BUCKET_EMPTY, told=10.0)
    assert not story.told["hasty"].come_back
    story >> arrives("patient", within=11.0) << refused("patient", Reason.BUCKET_EMPTY)
    assert story.told["patient"].come_back


def test_when_all_within_the_horizon_is_sold_the_rest_are_told_not_to_come_back_by_themselves(
    story: Story,
) -> None:
    full(story)
    for number in range(200):
        story >> arrives(f"c{number}", caller=f"c{number}")
        story._came.clear()
    invited = [name for name in story.told if story.told[name].come_back]
    assert invited
    assert set(invited) == set(story.tickets)
    for name in story.told:
        if name not in invited:
            assert UNBOOKED_S <= told(story, name) <= LONGEST_RETRY_AFTER_S


def test_the_next_call_of_a_run_is_invited_though_all_is_sold(story: Story) -> None:
    story.cap(1).queue(1, max_age_s=30.0)
    story >> arrives("r1 begins", "background", run="r1") << admitted("r1 begins")
    story >> after(1.0) >> ends("r1 begins")
    story >> arrives("running", caller="ann") << admitted("running")
    story >> arrives("waiting", caller="bob") << waits("waiting")
    for number in range(200):
        story >> arrives(f"c{number}", "background", caller=f"c{number}")
        story._came.clear()
    story >> arrives("r2 begins", "background", run="r2") << refused("r2 begins", Reason.QUEUE_FULL)
    assert not story.told["r2 begins"].come_back
    story >> arrives("next of r1", "background", run="r1") << refused("next of r1", Reason.QUEUE_FULL)
    assert story.told["next of r1"].come_back
    story >> after(told(story, "next of r1")) >> arrives("next of r1", "background", run="r1")
    story << waits("next of r1") >> ends("running") << admitted("waiting")
    story >> ends("waiting") << admitted("next of r1")


def test_a_draining_proxy_books_nothing(story: Story) -> None:
    story.cap(1)
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.CAP_REACHED)
    story >> drains() >> arrives("b") << refused("b", Reason.DRAINING)
    assert "b" not in story.tickets
    assert story.told["b"].come_back, "to another one"


# ── runs: a place for the first call is one for all that follow ─────────────────────────────────────


def runs_of(story: Story, calls: int, runs: int = 60) -> Story:
    """One permit, and many runs done with it, a second for each of their calls; then it is taken."""
    story.cap(1)
    for run in range(runs):
        for step in range(calls):
            name = f"{run}/{step}"
            story >> arrives(name, run=f"r{run}") << admitted(name)
            story >> after(1.0) >> ends(name)
    story >> arrives("running") << admitted("running")
    return story


def test_who_would_begin_a_run_is_told_to_come_when_there_is_room_for_all_of_it(story: Story) -> None:
    # Each of its calls goes before who is not under way: a place sold for each would be sold five times.
    runs_of(story, 5)
    story >> arrives("goes on", run="r59", caller="ann") << refused("goes on", Reason.CAP_REACHED)
    story >> arrives("begins", run="new", caller="bob") << refused("begins", Reason.CAP_REACHED)
    assert 0.9 < told(story, "goes on") < 1.1
    assert 4.0 < told(story, "begins") < 6.0
    story >> arrives("begins too", run="newer", caller="cy") << refused("begins too", Reason.CAP_REACHED)
    assert told(story, "begins too") - told(story, "begins") > 10.0  # 2.5 s, were it one call


def test_who_would_begin_a_run_waits_only_where_all_before_it_can_be_finished_in_time(story: Story) -> None:
    runs_of(story, 5).queue(10, max_age_s=16.0).adopt()
    story >> arrives("a", run="a") << waits("a")  # about 5 s
    story >> arrives("b", run="b") << refused("b", Reason.CAP_REACHED)  # twice that: half of its age is over
    story >> arrives("goes on", run="r59") << waits("goes on")


def test_nobody_is_invited_to_a_bucket_that_is_booked_out(story: Story) -> None:
    story.buckets(bucket(0.1))
    story >> arrives("a") << admitted("a")
    for number in range(5):
        story >> arrives(f"{number}") << refused(f"{number}", Reason.BUCKET_EMPTY, told=10.0 * (number + 1))
        assert story.told[f"{number}"].come_back
    story >> arrives("late") << refused("late", Reason.BUCKET_EMPTY)
    assert not story.told["late"].come_back


def test_what_takes_longer_than_can_be_told_is_told_again(story: Story) -> None:
    story.buckets(bucket(1 / 3600))
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.BUCKET_EMPTY)
    assert UNBOOKED_S <= told(story, "b") <= LONGEST_RETRY_AFTER_S
    assert story.told["b"].come_back


def test_who_is_shed_is_counted_among_those_who_asked(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica's part of a shared bucket is cut by how many ask it, not by how many it can serve."""
    story.buckets(bucket(1.0, per=Per.ROUTE)).queue(1, max_age_s=10.0).shed_at(2.0, 0.5, 0.5)
    asked: list[Claims] = []
    monkeypatch.setattr(story.gate.store, "asked", lambda claims, _now: asked.append(claims))
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << waits("b")
    story >> arrives("c") << refused("c", Reason.SHED)
    assert len(asked) == 3
