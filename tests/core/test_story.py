"""The kit itself: a story that lies, or keeps silent, fails."""

from __future__ import annotations

import pytest

from proxy.core.verdict import Reason
from tests.kit.clock import ManualClock
from tests.kit.story import Story, admitted, arrives, refused, waits


def test_a_story_fails_when_something_else_came_than_was_said() -> None:
    story = Story().cap(1)
    with pytest.raises(AssertionError, match="after a arrived"):
        story >> arrives("a") << waits("a")
    story = Story().cap(1)
    story >> arrives("a") << admitted("a")
    with pytest.raises(AssertionError, match="cap_reached"):
        story >> arrives("b") << refused("b", Reason.QUEUE_FULL)


def test_a_story_fails_when_the_seconds_told_are_others() -> None:
    story = Story()
    with pytest.raises(AssertionError, match="told=0"):
        story >> arrives("late", within=0.0) << refused("late", Reason.WAITED_TOO_LONG, told=1.0)


def test_a_story_fails_at_its_next_sentence_when_a_verdict_was_not_said() -> None:
    story = Story() >> arrives("a")
    with pytest.raises(AssertionError, match="nobody said"):
        story >> arrives("b")


def test_a_story_fails_at_its_end_when_a_verdict_was_not_said() -> None:
    story = Story() >> arrives("a")
    with pytest.raises(AssertionError, match="nobody said"):
        story.finish()


def test_the_clock_only_goes_forward() -> None:
    clock = ManualClock(10.0)
    assert clock.advance(2.5) == clock() == 12.5
    with pytest.raises(ValueError, match="forward"):
        clock.set(12.0)
