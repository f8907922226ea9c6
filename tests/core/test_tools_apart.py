"""Tools with a queue or a breaker of their own: what one does is nothing to the others."""

from __future__ import annotations

import pytest

from proxy.core.events import BreakerMoved, WouldRefuse
from proxy.core.policy import AdaptivePolicy, CapPolicy, QueuePolicy, ToolPolicy
from proxy.core.survey import survey
from proxy.core.tools import MOST_APART
from proxy.core.verdict import FAILED, SUCCEEDED, Reason
from tests.kit.story import (
    Story,
    admitted,
    after,
    arrives,
    breaker,
    ends,
    is_answered,
    refused,
    reloads,
    waits,
)

QUEUE = QueuePolicy(2, 10.0)


@pytest.fixture
def story() -> Story:
    return Story()


def fails(story: Story, tool: str, count: int, *, unsent: bool = False) -> None:
    """So many calls of a tool go, and fail."""
    for number in range(count):
        name = f"{tool}-{number}"
        story >> arrives(name, tool=tool) << admitted(name)
        story._grants[name].unsent = unsent
        story >> ends(name, FAILED)


def moves(story: Story) -> list[tuple[str, str]]:
    return [(event.scope, event.new) for event in story.events if isinstance(event, BreakerMoved)]


def test_whoever_waits_for_a_slow_tool_takes_no_place_of_the_others(story: Story) -> None:
    story.cap(2).queue(1).tools_apart(slow=ToolPolicy(1, queue=QUEUE))
    story >> arrives("a", tool="slow") << admitted("a")
    story >> arrives("b", tool="slow") << waits("b")
    story >> arrives("c", tool="slow") << waits("c")
    story >> arrives("d", tool="slow") << refused("d", Reason.QUEUE_FULL)
    assert story.told["d"].scope == "tool:chat/slow"
    story >> arrives("e", tool="fast") << admitted("e")
    story >> arrives("f", tool="fast") << waits("f")
    story >> ends("e") << admitted("f")
    story >> ends("a") << admitted("b")
    story.finish()


def test_the_queue_of_a_slow_tool_is_no_pressure_on_the_rest_of_its_route(story: Story) -> None:
    story.queue(10).shed_at(2.0, 0.5, 0.5).tools_apart(slow=ToolPolicy(1, queue=QUEUE))
    story >> arrives("a", tool="slow") << admitted("a")
    story >> arrives("b", tool="slow") << waits("b")
    story >> arrives("c", tool="slow") << refused("c", Reason.SHED)
    story >> arrives("d", tool="fast") << admitted("d")
    story.finish()


def test_what_waits_for_a_tool_counts_for_its_route_too(story: Story) -> None:
    story.queue(10).tools_apart(slow=ToolPolicy(1, queue=QUEUE))
    story >> arrives("a", tool="slow") << admitted("a")
    story >> arrives("b", tool="slow", size=100) << waits("b")
    story >> after(2.0)
    state = survey(story.gate, story.clock())
    (row,) = state.tools
    assert (row.label, row.depth, row.oldest_s, row.breaker, row.down) == ("slow", 1, 2.0, None, 0)
    assert [(lane.depth, lane.oldest_s) for lane in state.lanes] == [(0, 0.0), (1, 2.0), (0, 0.0)]
    assert state.routes[0].waiting_bytes == 100


def test_the_failures_of_a_tool_open_its_own_breaker_and_not_the_upstreams(story: Story) -> None:
    story.breaker(breaker(brownout=2.0)).tools_apart(broken=ToolPolicy(breaker=breaker(minimum_calls=5)))
    fails(story, "broken", 5)
    assert moves(story) == [("tool:chat/broken", "open")]
    story >> arrives("x", tool="broken") << refused("x", Reason.BREAKER_OPEN)
    assert story.told["x"].scope == "tool:chat/broken"
    story >> arrives("y", tool="other") << admitted("y")
    state = survey(story.gate, story.clock())
    assert (state.breakers[0].phase, state.breakers[0].calls) == ("closed", 0)
    assert state.tools[0].breaker is not None
    assert (state.tools[0].breaker.phase, state.tools[0].down) == ("open", 1)


def test_the_failures_of_a_tool_without_a_breaker_count_to_the_upstreams(story: Story) -> None:
    story.breaker(breaker(minimum_calls=5)).tools_apart(other=ToolPolicy(breaker=breaker()))
    fails(story, "broken", 5)
    assert moves(story) == [("", "open")]


def test_what_never_got_as_far_as_the_tool_counts_to_its_upstream(story: Story) -> None:
    story.breaker(breaker(minimum_calls=5)).tools_apart(search=ToolPolicy(breaker=breaker(minimum_calls=5)))
    fails(story, "search", 5, unsent=True)
    assert moves(story) == [("", "open")]
    story >> arrives("x", tool="other") << refused("x", Reason.BREAKER_OPEN)
    assert story.told["x"].scope == "upstream:api"


def test_a_tool_that_hangs_is_no_silence_of_its_upstream(story: Story) -> None:
    story.breaker(breaker(slow_call_s=5.0)).tools_apart(
        slow=ToolPolicy(breaker=breaker(slow_call_s=5.0, minimum_calls=5))
    )
    for number in range(6):
        story >> arrives(f"a{number}", tool="slow") << admitted(f"a{number}")
    story >> after(6.0)
    story >> arrives("b", tool="slow") << refused("b", Reason.BREAKER_OPEN)
    assert moves(story) == [("tool:chat/slow", "open")]
    story >> arrives("c", tool="fast") << admitted("c")


def test_a_tool_is_probed_and_comes_back_by_a_slow_start_of_its_own(story: Story) -> None:
    story.queue(10).breaker(breaker()).tools_apart(
        slow=ToolPolicy(breaker=breaker(minimum_calls=5, probes=1), queue=QueuePolicy(10, 10.0))
    )
    fails(story, "slow", 5)
    story >> after(1.0)
    story >> arrives("probe", tool="slow") << admitted("probe")
    story >> arrives("early", tool="slow") << refused("early", Reason.BREAKER_OPEN)
    story >> is_answered("probe")
    assert moves(story)[-1] == ("tool:chat/slow", "closed")
    story >> arrives("a", tool="slow") << admitted("a")  # besides the probe, which runs on
    story >> arrives("b", tool="slow") << waits("b")
    story >> arrives("c", tool="fast") << admitted("c")
    story >> is_answered("a") << admitted("b")  # it runs on too: there is room for one more
    story.finish()


def test_calls_that_hang_make_way_for_the_probes_of_their_tool(story: Story) -> None:
    """They may hold every permit of the tool, and their time may be over in minutes only."""
    story.breaker(breaker()).tools_apart(
        slow=ToolPolicy(6, breaker=breaker(minimum_calls=5, slow_call_s=5.0, probes=1))
    )
    for number in range(5):
        story >> arrives(f"a{number}", tool="slow") << admitted(f"a{number}")
    for number in range(4):
        story >> ends(f"a{number}", FAILED)
    fails(story, "slow", 1)
    assert moves(story) == [("tool:chat/slow", "open")]
    assert story.given_up == []
    story >> after(6.0)
    story >> arrives("probe", tool="slow") << admitted("probe")
    assert story.given_up == ["a4"]
    story >> ends("a4", FAILED)


def test_what_one_tool_leaves_unanswered_is_no_crowd_at_its_upstream(story: Story) -> None:
    story._upstream_with(cap=CapPolicy("upstream:api", 32, adaptive=AdaptivePolicy(4, 32, 64)))
    story.breaker(breaker(minimum_calls=1000)).tools_apart(
        own=ToolPolicy(breaker=breaker(minimum_calls=1000))
    )
    cap = story.gate.targets["api"].cap

    def times_out(tool: str) -> None:
        for number in range(32):
            story >> arrives(f"{tool}{number}", tool=tool) << admitted(f"{tool}{number}")
        story >> after(1.0)
        for number in range(32):
            story._grants[f"{tool}{number}"].crowded = True
            story >> ends(f"{tool}{number}", FAILED)

    times_out("own")
    assert cap.slots == 32
    times_out("other")
    assert cap.slots < 32, "of a tool without a breaker it is"


def test_an_answer_of_a_tool_ends_the_silence_of_its_upstream(story: Story) -> None:
    policy = breaker(slow_call_s=5.0, minimum_calls=5)
    story.breaker(policy).tools_apart(own=ToolPolicy(breaker=policy))
    for number in range(6):
        story >> arrives(f"a{number}", tool="slow") << admitted(f"a{number}")
    story >> after(4.0)
    story >> arrives("b", tool="own") << admitted("b")
    story >> ends("b", SUCCEEDED)
    story >> after(2.0)
    story >> arrives("c", tool="slow") << admitted("c")
    assert moves(story) == []


def test_under_any_tool_each_has_a_breaker_of_its_own_and_one_name_to_be_shown_by(story: Story) -> None:
    story.breaker(breaker()).tools_apart(any=ToolPolicy(breaker=breaker(minimum_calls=5)))
    fails(story, "one", 5)
    fails(story, "two", 3)
    story >> arrives("x", tool="one") << refused("x", Reason.BREAKER_OPEN)
    assert story.told["x"].scope == "tool:chat/one"
    story >> arrives("y", tool="two") << admitted("y")
    assert moves(story) == [("tool:chat/*", "open")]
    (row,) = survey(story.gate, story.clock()).tools
    assert row.breaker is not None
    assert (row.label, row.breaker.phase, row.down) == ("*", "open", 1)


def test_names_that_callers_make_up_are_forgotten_and_a_tool_that_is_down_is_not(story: Story) -> None:
    story.tools_apart(any=ToolPolicy(breaker=breaker(minimum_calls=5)))
    fails(story, "broken", 5)
    for number in range(3 * MOST_APART):
        story >> arrives(f"a{number}", tool=f"made-up-{number}") << admitted(f"a{number}")
        story >> ends(f"a{number}")
    assert len(list(story.gate.tools.of_route("chat"))) == MOST_APART
    story >> arrives("x", tool="broken") << refused("x", Reason.BREAKER_OPEN)


def test_beyond_the_bound_busy_tools_share_one_of_everything(story: Story) -> None:
    story.tools_apart(any=ToolPolicy(1, queue=QUEUE))
    for number in range(MOST_APART):
        story >> arrives(f"a{number}", tool=f"busy-{number}") << admitted(f"a{number}")
    story >> arrives("x", tool="one-more") << admitted("x")
    story >> arrives("y", tool="another") << waits("y")
    assert len(list(story.gate.tools.of_route("chat"))) == MOST_APART + 1
    story >> ends("x") << admitted("y")
    for number in range(MOST_APART):
        story >> ends(f"a{number}")
    story >> ends("y")
    assert not story.gate.store.cap_keys("tool:")


def test_a_tools_breaker_in_dry_run_refuses_nobody_and_tells_whom_it_would_have(story: Story) -> None:
    story.breaker(breaker()).tools_apart(own=ToolPolicy(breaker=breaker(minimum_calls=5, enforce=False)))
    fails(story, "own", 5)
    story >> arrives("a", tool="own") << admitted("a")
    story >> ends("a", FAILED)
    told = [(event.reason, event.scope) for event in story.events if isinstance(event, WouldRefuse)]
    assert told == [(Reason.BREAKER_OPEN, "tool:chat/own")]
    assert moves(story) == [("tool:chat/own", "open")]


def test_a_reload_keeps_what_was_counted_of_a_tool_and_drops_what_is_not_configured(story: Story) -> None:
    story.queue(10).tools_apart(slow=ToolPolicy(1, queue=QUEUE, breaker=breaker(minimum_calls=5)))
    fails(story, "slow", 4)
    story >> arrives("a", tool="slow") << admitted("a")
    story >> arrives("b", tool="slow") << waits("b")
    story.tools_apart(slow=ToolPolicy(2, queue=QUEUE, breaker=breaker(minimum_calls=5)))
    story >> reloads() << admitted("b")
    story >> ends("a", FAILED)
    assert moves(story) == [("tool:chat/slow", "open")]
    story.tools_apart()
    story >> reloads()
    story >> arrives("c", tool="slow") << admitted("c")
    story >> ends("b", FAILED)
    story >> ends("c")
    assert not list(story.gate.tools.of_route("chat"))
