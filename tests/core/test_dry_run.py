"""Dry run: it decides, is counted and keeps nobody out. The twins are in properties/."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from proxy.core.cap import Cap
from proxy.core.dry_run import claims_in
from proxy.core.events import WouldQueue, WouldRefuse
from proxy.core.policy import CapPolicy, QueuePolicy
from proxy.core.state import BucketState, CapState, LaneState
from proxy.core.survey import survey
from proxy.core.verdict import Outcome, Reason
from tests.kit.story import (
    Story,
    admitted,
    after,
    arrives,
    breaker,
    bucket,
    ends,
    quota,
    refused,
    reloads,
    tokens,
    waits,
)


def dry(policy: Any) -> Any:
    return replace(policy, enforce=False)


def dry_cap(story: Story, slots: int) -> Story:
    return story._upstream_with(cap=CapPolicy("upstream:api", slots, enforce=False))


def would_refuse(story: Story) -> list[tuple[str, str]]:
    return [(e.reason, e.scope) for e in story.events if isinstance(e, WouldRefuse)]


def would_queue(story: Story) -> list[tuple[str, str]]:
    return [(e.reason, e.scope) for e in story.events if isinstance(e, WouldQueue)]


def level(story: Story, scope: str = "caller:anyone") -> float:
    rows = survey(story.gate, story.clock(), known=("anyone",)).buckets
    return next(row.level for row in rows if row.scope == scope)


def test_who_finds_a_bucket_empty_goes_on_and_is_told_of(story: Story) -> None:
    story.buckets(dry(bucket(1.0)))
    story >> arrives("a") << admitted("a")
    assert would_refuse(story) == []
    story >> arrives("b") << admitted("b")
    assert would_refuse(story) == [(Reason.BUCKET_EMPTY, "caller:anyone")]


def test_who_would_be_refused_spends_nothing_so_the_next_finds_what_it_would_find(story: Story) -> None:
    story.buckets(dry(bucket(1.0)))
    for name in "abcde":
        story >> arrives(name) << admitted(name)
    story >> after(1.0) >> arrives("f") << admitted("f")
    assert len(would_refuse(story)) == 4


def test_a_call_that_one_would_refuse_spends_nothing_of_the_others(story: Story) -> None:
    story.buckets(dry(bucket(1.0)), dry(bucket(1.0, burst=9.0, key="wide")))
    for name in "ab":
        story >> arrives(name) << admitted(name)
    levels = {row.key: row.level for row in survey(story.gate, story.clock()).buckets}
    assert levels == {"bucket/caller": 0.0, "wide": 8.0}


def test_what_is_enforced_decides_first_and_leaves_the_dry_run_unspent(story: Story) -> None:
    story.buckets(bucket(1.0), dry(bucket(1.0, burst=9.0, key="wide")))
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.BUCKET_EMPTY)
    assert {row.level for row in survey(story.gate, story.clock()).buckets if row.key == "wide"} == {8.0}
    assert would_refuse(story) == []


def test_an_unused_call_gives_back_what_its_dry_run_spent(story: Story) -> None:
    story.buckets(dry(bucket(1.0, burst=2.0))).quotas(dry(quota(1, 60)))
    story >> arrives("a") << admitted("a") >> ends("a", Outcome.UNUSED)
    assert level(story) == 2.0
    story >> arrives("b") << admitted("b")
    assert would_refuse(story) == []


def test_tokens_are_trued_up_in_dry_run_too(story: Story) -> None:
    story.buckets(dry(tokens(1.0, burst=10.0)))
    story >> arrives("a", tokens=4.0) << admitted("a") >> ends("a", used_tokens=9.0)
    assert level(story) == 1.0


def test_a_call_that_can_never_pass_would_be_refused_as_too_dear(story: Story) -> None:
    story.buckets(dry(tokens(1.0, burst=10.0)))
    story >> arrives("a", tokens=11.0) << admitted("a")
    assert would_refuse(story) == [(Reason.TOO_DEAR, "caller:anyone")]


def test_a_spent_quota_is_told_of(story: Story) -> None:
    story.quotas(dry(quota(1, 60)))
    for name in "ab":
        story >> arrives(name) << admitted(name)
    assert would_refuse(story) == [(Reason.QUOTA_SPENT, "caller:anyone")]


def test_a_full_cap_lets_in_and_counts_all_that_are_in_flight(story: Story) -> None:
    dry_cap(story, 1)
    for name in "abc":
        story >> arrives(name) << admitted(name)
    assert would_refuse(story) == [(Reason.CAP_REACHED, "upstream:api")] * 2
    assert survey(story.gate, story.clock()).caps == (CapState("upstream:api", 3, 1, dry_run=True),)


def test_a_cap_has_room_again_when_one_it_would_have_let_in_has_ended(story: Story) -> None:
    dry_cap(story, 1)
    for name in "ab":
        story >> arrives(name) << admitted(name)
    story >> ends("b") >> arrives("c") << admitted("c")  # b held no permit that c could have
    assert len(would_refuse(story)) == 2
    story >> ends("a") >> arrives("d") << admitted("d")
    assert len(would_refuse(story)) == 2


def test_a_cap_that_is_enforced_after_a_reload_counts_those_it_let_in_too_many(story: Story) -> None:
    dry_cap(story, 1)
    for name in "ab":
        story >> arrives(name) << admitted(name)
    story.cap(1)
    story >> reloads() >> arrives("c") << refused("c", Reason.CAP_REACHED)
    story >> ends("a") >> arrives("d") << refused("d", Reason.CAP_REACHED)
    story >> ends("b") >> arrives("e") << admitted("e")


def test_who_waited_for_what_is_enforced_is_rehearsed_when_it_goes(story: Story) -> None:
    story.cap(1).queue(2).buckets(dry(bucket(0.01)))
    story >> arrives("a") << admitted("a") >> arrives("b") << waits("b")
    assert would_refuse(story) == []
    story >> ends("a") << admitted("b")
    assert would_refuse(story) == [(Reason.BUCKET_EMPTY, "caller:anyone")]


def test_an_open_breaker_lets_calls_on_and_learns_nothing_from_them(story: Story) -> None:
    story.breaker(dry(breaker(minimum_calls=1, probes=1)))
    story >> arrives("a") << admitted("a") >> ends("a", Outcome.FAILED)
    story >> arrives("b") << admitted("b") >> ends("b", Outcome.FAILED)
    assert would_refuse(story) == [(Reason.BREAKER_OPEN, "upstream:api")]
    assert story.breaker_phases == ["open"]
    story >> after(5.0) >> arrives("probe") << admitted("probe")  # not put off by b, which failed since
    story >> arrives("c") << admitted("c")
    assert len(would_refuse(story)) == 2
    story >> ends("c", Outcome.FAILED) >> ends("probe")
    assert story.breaker_phases == ["open", "closed"]


def test_who_a_breaker_would_refuse_spends_nothing_in_dry_run(story: Story) -> None:
    story.breaker(dry(breaker(minimum_calls=1))).buckets(dry(bucket(1.0, burst=5.0)))
    story >> arrives("a") << admitted("a") >> ends("a", Outcome.FAILED)
    story >> arrives("b") << admitted("b")
    assert level(story) == 4.0


def test_a_breaker_that_is_enforced_after_a_reload_refuses_at_once_if_it_is_open(story: Story) -> None:
    story.breaker(dry(breaker(minimum_calls=1)))
    story >> arrives("a") << admitted("a") >> ends("a", Outcome.FAILED)
    story.breaker(breaker(minimum_calls=1))
    story >> reloads() >> arrives("b") << refused("b", Reason.BREAKER_OPEN, 1.0)


def test_a_queue_in_dry_run_lets_nobody_wait_and_tells_who_would_have(story: Story) -> None:
    story.cap(1)._route_with(queue=QueuePolicy(0, 10.0, dry_size=2))
    story >> arrives("a") << admitted("a")
    story >> arrives("b") << refused("b", Reason.CAP_REACHED)
    assert would_queue(story) == [(Reason.CAP_REACHED, "upstream:api")]


def test_who_would_wait_in_vain_or_may_not_wait_is_not_told_of(story: Story) -> None:
    story.buckets(bucket(0.05))._route_with(queue=QueuePolicy(0, 10.0, dry_size=2))
    story >> arrives("a") << admitted("a")
    story >> arrives("b", within=15.0) << refused("b", Reason.BUCKET_EMPTY)  # 20 s: too long
    story >> after(15.0)
    story >> arrives("c", within=4.0, may_wait=False) << refused("c", Reason.BUCKET_EMPTY)
    assert would_queue(story) == []
    story >> arrives("d") << refused("d", Reason.BUCKET_EMPTY)
    assert would_queue(story) == [(Reason.BUCKET_EMPTY, "caller:anyone")]


def test_the_state_says_what_is_in_dry_run(story: Story) -> None:
    dry_cap(story, 3).breaker(dry(breaker(minimum_calls=1))).buckets(dry(bucket(1.0, burst=3.0)))
    story._route_with(queue=QueuePolicy(0, 10.0, dry_size=2))
    story >> arrives("a") << admitted("a") >> ends("a", Outcome.FAILED)
    state = survey(story.gate, story.clock())
    assert state.lanes[0] == LaneState("chat", "critical", 0, 0.0, dry_run=True)
    assert state.caps == (CapState("upstream:api", 0, 3, dry_run=True),)
    assert state.buckets == (BucketState("bucket/caller", "others", 2.0, 3.0, dry_run=True),)
    assert [(each.phase, each.dry_run) for each in state.breakers] == [("open", True)]


def test_who_waits_is_not_looked_at_again_because_a_breaker_in_dry_run_opens(story: Story) -> None:
    story.breaker(dry(breaker(minimum_calls=1))).retry_budget(0.0, 1).queue(2).buckets(bucket(0.5))
    story >> arrives("a", caller="ann") << admitted("a")
    story >> arrives("b", caller="ann", retry=True) << waits("b")
    story >> arrives("c", caller="cy", retry=True) << admitted("c")  # the one retry that is paid for
    story >> ends("c", Outcome.FAILED)
    assert story.breaker_phases == ["open"]
    story >> after(2.0) << refused("b", Reason.RETRY_BUDGET_SPENT)


def test_who_waits_stands_as_if_what_is_in_dry_run_were_not_configured() -> None:
    caps = [(Cap("upstream:api", 1), True), (Cap("route:chat", 1), False)]
    claims = claims_in(caps, [], [], 0.0)
    assert claims.keys() == ["upstream:api", "route:chat"], "what is in flight is counted"
    assert claims.keys_by_sharing() == (("upstream:api",), (), (), ())
