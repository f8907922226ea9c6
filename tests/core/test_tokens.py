"""Buckets that count tokens, told as stories: each call asks another amount."""

from __future__ import annotations

import pytest

from proxy.core.call import Call
from proxy.core.plan import claims_of
from proxy.core.policy import CapPolicy, Per, QueuePolicy, RoutePolicy, UpstreamPolicy
from proxy.core.target import Target
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.stores.breakers import BreakerMachine
from tests.kit.story import (
    Story,
    admitted,
    after,
    arrives,
    bucket,
    ends,
    leaves,
    refused,
    reloads,
    tokens,
    waits,
)

TEN_A_SECOND = tokens(10.0, burst=100.0)


def test_a_call_spends_what_it_is_estimated_to_cost(story: Story) -> None:
    story.buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=60) << admitted("a")
    story >> arrives("b", tokens=60) << refused("b", Reason.BUCKET_EMPTY, told=2.0)
    story >> after(2.0) >> arrives("b", tokens=60) << admitted("b")


def test_what_is_kept_for_one_who_was_told_when_to_come_is_not_given_to_another(story: Story) -> None:
    story.buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=60) << admitted("a")
    story >> arrives("b", tokens=60) << refused("b", Reason.BUCKET_EMPTY, told=2.0)
    story >> arrives("c", tokens=40) << refused("c", Reason.BUCKET_EMPTY, told=6.0)
    story >> after(2.0) >> arrives("b", tokens=60) << admitted("b")
    story >> after(4.0) >> arrives("c", tokens=40) << admitted("c")


def test_a_call_that_costs_none_goes_also_while_the_bucket_is_in_debt(story: Story) -> None:
    story.buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=100) << admitted("a") >> ends("a", used_tokens=500)
    story >> arrives("list of models") << admitted("list of models")
    story >> arrives("b", tokens=1) << refused("b", Reason.BUCKET_EMPTY, told=40.1)


def test_what_can_never_pass_is_told_so_at_once_and_no_time(story: Story) -> None:
    story.cap(1).queue(5).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=10) << admitted("a")
    story >> arrives("b", tokens=101) << refused("b", Reason.TOO_DEAR)
    story >> arrives("c", tokens=95) << waits("c") >> ends("a")
    story >> arrives("d", tokens=101) << refused("d", Reason.TOO_DEAR) >> after(1.0) << admitted("c")
    call = Call(route="chat", caller="ann", arrived_at=story.clock(), tokens=101.0)
    verdict = story.gate.offer(call, "api", story.clock())
    assert isinstance(verdict, Refusal)
    assert verdict.retry_after_s is None
    assert verdict.limit == TEN_A_SECOND.label


def test_what_is_given_back_serves_who_waits_for_it(story: Story) -> None:
    story.queue(5).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=100) << admitted("a")
    story >> arrives("b", tokens=50) << waits("b")
    story >> ends("a", used_tokens=50) << admitted("b")


def test_a_debt_makes_who_waits_wait_longer(story: Story) -> None:
    story.queue(5).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=100) << admitted("a")
    story >> arrives("b", tokens=50) << waits("b")
    story >> ends("a", used_tokens=120) >> after(6.9)
    story >> after(0.1) << admitted("b")


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.IGNORED, Outcome.OVERLOADED])
def test_without_a_word_of_the_answer_the_estimate_stands(story: Story, outcome: Outcome) -> None:
    story.buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=100) << admitted("a") >> ends("a", outcome)
    story >> arrives("b", tokens=10) << refused("b", Reason.BUCKET_EMPTY, told=1.0)


def test_who_asks_for_less_does_not_overtake_who_asked_for_more(story: Story) -> None:
    story.queue(5).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=90) << admitted("a")
    story >> arrives("dear", tokens=50) << waits("dear")
    story >> arrives("cheap", tokens=5) << waits("cheap")
    story >> after(4.0) << admitted("dear")
    story >> after(0.5) << admitted("cheap")


def test_who_is_more_important_and_asks_for_less_goes_before(story: Story) -> None:
    story.queue(5).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=100) << admitted("a")
    story >> arrives("dear", "background", tokens=50) << waits("dear")
    story >> arrives("urgent", "critical", tokens=10) << waits("urgent")
    story >> after(1.0) << admitted("urgent")
    story >> after(5.0) << admitted("dear")


def test_who_is_more_important_goes_at_once_while_others_wait_for_more(story: Story) -> None:
    story.queue(5).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=90) << admitted("a")
    story >> arrives("dear", "background", tokens=50) << waits("dear")
    story >> arrives("urgent", "critical", tokens=10) << admitted("urgent")


def test_whoever_stood_behind_the_dear_one_is_next_when_it_leaves(story: Story) -> None:
    story.queue(5).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=90) << admitted("a")
    story >> arrives("dear", tokens=90) << waits("dear")
    story >> arrives("cheap", tokens=10) << waits("cheap")
    story >> leaves("dear") >> after(0.0) << admitted("cheap")


def test_whoever_stood_behind_the_dear_one_goes_on_waiting_when_a_debt_makes_that_one_wait_in_vain(
    story: Story,
) -> None:
    story.queue(5, max_age_s=5.0).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=100) << admitted("a")
    story >> arrives("dear", tokens=40) << waits("dear")
    story >> after(1.0) >> arrives("cheap", tokens=5) << waits("cheap")
    story >> ends("a", used_tokens=140) << refused("dear", Reason.BUCKET_EMPTY)
    story >> after(3.5) << admitted("cheap")


def test_a_reload_that_makes_a_waiting_call_too_dear_refuses_it(story: Story) -> None:
    story.queue(5).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=100) << admitted("a")
    story >> arrives("b", tokens=80) << waits("b")
    story.buckets(tokens(10.0, burst=50.0))
    story >> reloads() << refused("b", Reason.TOO_DEAR)


def test_a_wait_for_a_permit_behind_one_for_tokens_ends_when_there_is_one(story: Story) -> None:
    # The caller's own bucket is closed for the dear call; the urgent one lacks only the upstream's permit.
    story.cap(2).queue(5).buckets(TEN_A_SECOND)
    story >> arrives("a", tokens=90) << admitted("a")
    story >> arrives("dear", "background", tokens=90) << waits("dear")
    story >> arrives("other", caller="other", tokens=1) << admitted("other")
    story >> arrives("urgent", "critical", tokens=10) << waits("urgent")
    story >> ends("other") << admitted("urgent")


def test_a_wait_for_a_request_behind_one_for_tokens_ends_when_there_is_one(story: Story) -> None:
    # The route's bucket is closed for the dear call; the urgent one lacks only its caller's own allowance.
    story.queue(5).buckets(tokens(10.0, burst=100.0, per=Per.ROUTE), bucket(1.0, per=Per.CALLER))
    story >> arrives("a", caller="ann", tokens=60) << admitted("a")
    story >> arrives("dear", "background", caller="bob", tokens=90) << waits("dear")
    story >> arrives("urgent", "critical", caller="ann", tokens=10) << waits("urgent")
    story >> after(1.0) << admitted("urgent")
    story >> after(5.0) << admitted("dear")


def test_requests_and_tokens_are_counted_apart(story: Story) -> None:
    story.buckets(bucket(1.0, burst=2.0), TEN_A_SECOND)
    story >> arrives("a", tokens=50) << admitted("a") >> arrives("b", tokens=50) << admitted("b")
    story >> arrives("c", tokens=1) << refused("c", Reason.BUCKET_EMPTY, told=1.0)


def test_a_fallback_pays_for_its_tokens_no_second_time() -> None:
    upstream = UpstreamPolicy("api", CapPolicy("upstream:api", 4), None, None)
    route = RoutePolicy(
        "chat", QueuePolicy(0, 1.0), (2.0,), buckets=(TEN_A_SECOND, bucket(1.0, per=Per.ROUTE))
    )
    call = Call(route="chat", caller="ann", arrived_at=0.0, tokens=5.0)
    target = Target(upstream, BreakerMachine("api"))
    assert claims_of(call, target, route).token_keys() == ["tokens/caller|caller:ann"]
    call.paid = True
    assert claims_of(call, target, route).buckets == []
