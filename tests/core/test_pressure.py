from __future__ import annotations

import pytest

from proxy.core.pressure import pressure
from proxy.core.verdict import Reason
from tests.kit.story import Story, admitted, after, arrives, refused, waits


def crowded(story: Story, *priorities: str) -> Story:
    """One call in flight, and others of these priorities waiting behind it, of ten that may."""
    story.cap(1).queue(10, max_age_s=20.0)
    story >> arrives("running") << admitted("running")
    for number, priority in enumerate(priorities):
        story >> arrives(f"w{number}", priority) << waits(f"w{number}")
    return story


def felt(story: Story, order: int | None = None) -> float:
    return pressure(story.gate.room, "chat", story.gate.policy.routes["chat"].queue, story.clock(), order)


def test_an_empty_queue_is_no_pressure(story: Story) -> None:
    assert felt(story.queue(10)) == 0.0


def test_the_share_of_places_taken_is_pressure(story: Story) -> None:
    assert felt(crowded(story, "normal", "normal", "normal")) == pytest.approx(0.3)


def test_a_short_queue_that_does_not_move_is_pressure_too(story: Story) -> None:
    crowded(story, "normal") >> after(10.0)
    assert felt(story) == pytest.approx(0.5)


def test_the_less_important_are_no_pressure_on_the_more_important(story: Story) -> None:
    crowded(story, "background", "background", "normal")
    assert [felt(story, order) for order in (3, 7, 11)] == pytest.approx([0.0, 0.1, 0.3])


def test_pressure_never_exceeds_one(story: Story) -> None:
    crowded(story, "normal")
    story.gate.room.waiters()[0].since -= 1000.0
    assert felt(story) == 1.0


def test_classes_are_shed_from_the_pressure_that_the_route_states(story: Story) -> None:
    story.shed_at(2.0, 0.3, 0.2)
    crowded(story, "normal", "normal")
    story >> arrives("only", "background") << waits("only")  # of a class of which nobody is here yet
    story >> arrives("late", "background") << refused("late", Reason.SHED)
    story >> arrives("third") << waits("third")
    story >> arrives("fourth") << refused("fourth", Reason.SHED)
    story >> arrives("urgent", "critical") << waits("urgent")
