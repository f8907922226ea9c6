from __future__ import annotations

import pytest

from proxy.core.cap import Cap
from proxy.core.cap_trade import CapTold
from proxy.core.gate import Gate
from proxy.core.policy import (
    AdaptivePolicy,
    CallerPolicy,
    CapPolicy,
    Per,
    Policy,
    QueuePolicy,
    RoutePolicy,
    ToolPolicy,
    UpstreamPolicy,
)
from proxy.core.state import BucketState, CapState, LaneState, StoreState
from proxy.core.survey import survey
from proxy.core.verdict import Outcome
from proxy.stores.breakers import BreakerMachine
from proxy.stores.contact import Contact
from proxy.stores.holdings import Holdings
from proxy.stores.shared import SharedStore
from tests.kit.story import Story, admitted, after, arrives, breaker, bucket, ends, waits


def test_an_idle_gate_shows_every_lane_cap_and_breaker_at_rest(story: Story) -> None:
    story.cap(3).breaker(breaker()).retry_budget(0.1, 10)
    state = survey(story.gate, story.clock())
    assert state.lanes == tuple(LaneState("chat", name, 0, 0.0) for name in story.gate.policy.classes)
    assert state.caps == (CapState("upstream:api", 0, 3),)
    assert [(each.phase, each.calls, each.next_probe_s) for each in state.breakers] == [("closed", 0, 0.0)]
    assert [each.balance for each in state.retry_budgets] == [pytest.approx(10.0)]
    assert [each.pressure for each in state.upstreams] == [0.0]


def test_waiters_are_counted_in_the_lane_of_their_class_and_as_old_as_they_are(story: Story) -> None:
    story.cap(1).queue(4, max_age_s=8.0)
    story >> arrives("a") << admitted("a")
    story >> arrives("b", "background") << waits("b") >> after(2.0)
    story >> arrives("c", "background", retry=True) << waits("c")
    state = survey(story.gate, story.clock())
    assert state.lanes[2] == LaneState("chat", "background", 2, 2.0)
    assert state.upstreams[0].pressure == 0.5


def test_the_callers_that_nobody_configured_share_one_row_with_the_lowest_level(story: Story) -> None:
    story.buckets(bucket(1.0, burst=3.0))
    for name, caller in (("a", "ann"), ("b", "bob"), ("c", "bob"), ("d", "cy")):
        story >> arrives(name, caller=caller) << admitted(name)
    rows = survey(story.gate, story.clock(), known=("ann",)).buckets
    assert rows == (
        BucketState("bucket/caller", "caller:ann", 2.0, 3.0),
        BucketState("bucket/caller", "others", 1.0, 3.0),
    )


def test_a_bucket_of_the_upstream_has_a_row_of_its_own(story: Story) -> None:
    story.buckets(bucket(1.0, burst=3.0, per=Per.UPSTREAM))
    story >> arrives("a") << admitted("a")
    rows = survey(story.gate, story.clock()).buckets
    assert rows == (BucketState("bucket/upstream", "upstream:api", 2.0, 3.0),)


def test_the_tools_without_a_name_share_the_row_of_the_fullest(story: Story) -> None:
    story.tools(search=2, any=5)
    for number, tool in enumerate(("search", "one", "two", "two")):
        story >> arrives(f"c{number}", tool=tool) << admitted(f"c{number}")
    assert survey(story.gate, story.clock()).caps[1:] == (
        CapState("tool:chat/search", 1, 2),
        CapState("tool:chat/*", 2, 5),
    )


def test_an_open_breaker_shows_why_and_until_when(story: Story) -> None:
    story.breaker(breaker(minimum_calls=2, probe_every_s=0.15))
    story >> arrives("a") << admitted("a") >> ends("a", Outcome.FAILED)
    (state,) = survey(story.gate, story.clock()).breakers
    assert (state.calls, state.failure_ratio) == (1, 1.0)
    story >> arrives("b") << admitted("b") >> ends("b", Outcome.FAILED)
    (state,) = survey(story.gate, story.clock()).breakers
    assert state.phase == "open"
    assert 0.2 > state.next_probe_s > 0.1
    story >> after(0.1)
    (later,) = survey(story.gate, story.clock()).breakers
    assert later.next_probe_s == pytest.approx(state.next_probe_s - 0.1)


def test_looking_changes_nothing(story: Story) -> None:
    story.cap(1).queue(2).buckets(bucket(1.0)).breaker(breaker()).retry_budget(0.1, 1)
    story >> arrives("a") << admitted("a") >> arrives("b", retry=True) << waits("b")
    first = survey(story.gate, story.clock())
    assert survey(story.gate, story.clock()) == first


STANDS = StoreState("redis", "redis://10.0.0.5:6379/0", "shared")


def sharing(**leased: int) -> Gate:
    """A gate with caps of every kind over a shared store: `leased` by key, two of each in flight."""
    contact = Contact(safe_for_s=60.0, timeout_s=0.05, chance=lambda: 0.5)
    holdings = Holdings("r0", contact)
    for key, limit in leased.items():
        permits = holdings.cap(key, Cap(key, 8, 8), 0.0)
        permits.told(CapTold(limit, limit, 0, 0))
        permits.take(0.0)
        permits.take(0.0)
    tools = {"search": ToolPolicy(4), "*": ToolPolicy(5), "dry": ToolPolicy(6, enforce=False)}
    cap = CapPolicy("route:chat", 7, enforce=False)
    routes = {"chat": RoutePolicy("chat", QueuePolicy(0, 10.0), (2.0,), cap=cap, tools=tools)}
    learnt = CapPolicy("upstream:learnt", 16, adaptive=AdaptivePolicy(4, 16, 64))
    upstreams = {
        "api": UpstreamPolicy("api", CapPolicy("upstream:api", 8), None, None),
        "learnt": UpstreamPolicy("learnt", learnt, None, None),
    }
    policy = Policy(("normal",), routes, upstreams, {"ann": CallerPolicy(2), "*": CallerPolicy(3)})
    return Gate(policy, SharedStore(holdings), BreakerMachine, [].append)


def test_of_a_cap_that_replicas_share_both_are_told_all_its_slots_and_what_is_leased_of_them() -> None:
    leased = {"upstream:api": 3, "tool:chat/search": 2, "tool:chat/web": 4, "caller:ann": 2, "caller:bob": 5}
    rows = {row.key: row for row in survey(sharing(**leased), 0.0, store=STANDS).caps}
    assert rows == {
        "upstream:api": CapState("upstream:api", 2, 8, leased=3),
        "upstream:learnt": CapState("upstream:learnt", 0, 16),
        "route:chat": CapState("route:chat", 0, 7, dry_run=True),
        "tool:chat/search": CapState("tool:chat/search", 2, 4, leased=2),
        "tool:chat/*": CapState("tool:chat/*", 2, 5, leased=4),
        "tool:chat/dry": CapState("tool:chat/dry", 0, 6, dry_run=True),
        "caller:ann": CapState("caller:ann", 2, 2, leased=2),
        "caller:*": CapState("caller:*", 2, 3, leased=5),
    }


def test_a_shared_cap_that_is_not_in_use_leases_nothing() -> None:
    rows = {row.key: row.leased for row in survey(sharing(), 0.0, store=STANDS).caps}
    assert (rows["upstream:api"], rows["tool:chat/*"], rows["caller:ann"]) == (0, 0, 0)


def test_how_this_process_stands_is_shown_as_it_is_told(story: Story) -> None:
    state = survey(story.gate, 0.0, store=STANDS, banner="Look at the store.")
    assert (state.store, state.banner) == (STANDS, "Look at the store.")
    alone = survey(story.gate, 0.0)
    assert (alone.store, alone.banner) == (None, "")
