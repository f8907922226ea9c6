"""Neither a promise nor a wait leaves anything that only the garbage collector would find."""

from __future__ import annotations

from proxy.core.verdict import Reason
from tests.kit.garbage import garbage
from tests.kit.story import Story, admitted, after, arrives, bucket, ends, leaves, refused, tokens, waits


def test_a_promise_that_was_kept_and_one_that_was_not(story: Story) -> None:
    story.buckets(bucket(1.0))
    with garbage() as found:
        for _ in range(2):
            story >> arrives("a") << admitted("a") >> ends("a")
            for name in ("b", "c"):
                story >> arrives(name) << refused(name, Reason.BUCKET_EMPTY)
            story >> after(1.0) >> arrives("b") << admitted("b") >> ends("b") >> after(100.0)
            story.tickets.clear()
            story.told.clear()
    assert found == {}


def test_a_wait_that_was_granted_and_one_that_was_left(story: Story) -> None:
    story.cap(1).queue(4).callers(any=2).tools(any=2)
    with garbage() as found:
        for tool in ("search", "read"):
            story >> arrives("a") << admitted("a")
            for name in ("b", "c"):
                story >> arrives(name, caller=name, tool=tool, run=f"of {name}") << waits(name)
            story >> leaves("c") >> ends("a") << admitted("b") >> ends("b")
    assert found == {}


def test_a_wait_of_one_who_closed_the_way_of_others(story: Story) -> None:
    story.buckets(tokens(1.0, 4.0)).queue(4)
    with garbage() as found:
        story >> arrives("a", tokens=4.0) << admitted("a") >> ends("a")
        story >> arrives("b", tokens=4.0) << waits("b") >> arrives("c", tokens=1.0) << waits("c")
        story >> leaves("b") >> after(1.0) << admitted("c") >> ends("c")
        story >> arrives("d", tokens=4.0) << waits("d") >> leaves("d") >> after(20.0)
    assert found == {}
