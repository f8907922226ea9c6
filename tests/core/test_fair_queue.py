"""Whose turn it is in the waiting room, told as stories: callers, runs, retries, and who makes room."""

from __future__ import annotations

from collections import Counter

import pytest

from proxy.core.events import Admitted, Left
from proxy.core.policy import Per
from proxy.core.verdict import Outcome, Reason
from tests.kit.story import Story, admitted, after, arrives, bucket, ends, leaves, refused, tokens, waits


def begun(story: Story, slots: int = 1) -> Story:
    """All permits are taken, by callers who are nobody in this story."""
    story.cap(slots)
    for number in range(slots):
        story >> arrives(f"running{number}", "critical", caller=f"r{number}") << admitted(f"running{number}")
    return story


def crowd(story: Story, *names: str, **who: object) -> None:
    for name in names:
        story >> arrives(name, **who) << waits(name)  # type: ignore[arg-type]  # the keywords of `arrives`


def served_in_order(story: Story, first: str, *names: str) -> None:
    """Each end serves the next; each call takes a second, which is what the mean is taken for at first."""
    for before, then in zip((first, *names), names, strict=False):
        story >> after(1.0)
        story >> ends(before) << admitted(then)


# ── callers take turns ──────────────────────────────────────────────────────────────────────────────


def test_a_loud_caller_does_not_keep_a_quiet_one_waiting(story: Story) -> None:
    begun(story.queue(20, max_age_s=100.0))
    crowd(story, "l1", "l2", "l3", "l4", caller="loud")
    crowd(story, "q1", "q2", caller="quiet")
    served_in_order(story, "running0", "l1", "q1", "l2", "q2", "l3", "l4")


def test_who_pays_for_more_has_more_turns(story: Story) -> None:
    begun(story.queue(20, max_age_s=100.0))
    crowd(story, "l1", "l2", "l3", caller="light")
    crowd(story, "h1", "h2", "h3", "h4", caller="heavy", weight=2.0)
    served_in_order(story, "running0", "l1", "h1", "h2", "l2", "h3", "h4", "l3")


def test_whoever_returns_after_a_pause_takes_turns_and_does_not_catch_up(story: Story) -> None:
    begun(story.queue(20, max_age_s=100.0))
    crowd(story, *(f"busy{number}" for number in range(8)), caller="busy")
    served_in_order(story, "running0", *(f"busy{number}" for number in range(4)))
    crowd(story, "idle1", "idle2", "idle3", caller="idle")
    served_in_order(story, "busy3", "idle1", "busy4", "idle2", "busy5", "idle3")


def test_long_calls_are_turns_of_more_than_one(story: Story) -> None:
    begun(story.queue(20, max_age_s=100.0), slots=2)
    crowd(story, "s1", "s2", caller="slow")
    crowd(story, "f1", "f2", "f3", caller="fast")
    story >> ends("running0") << admitted("s1")
    story >> ends("running1") << admitted("f1")
    story >> after(5.0) >> ends("s1") << admitted("f2")  # those five seconds were more than one turn
    story >> ends("f1") << admitted("f3") >> ends("f2") << admitted("s2")


def test_one_class_is_no_business_of_another(story: Story) -> None:
    begun(story.queue(20, max_age_s=100.0))
    crowd(story, "b1", priority="background", caller="ann")
    crowd(story, "n1", "n2", "n3", caller="ann")
    crowd(story, "m1", caller="bob")
    crowd(story, "b2", priority="background", caller="bob")
    served_in_order(story, "running0", "n1", "m1", "n2", "n3", "b1", "b2")


# ── runs and retries ────────────────────────────────────────────────────────────────────────────────


def under_way(story: Story, run: str, caller: str = "ann") -> None:
    story >> arrives(f"{run} begins", caller=caller, run=run) << admitted(f"{run} begins")
    story >> after(1.0) >> ends(f"{run} begins")


def test_runs_under_way_go_before_what_would_begin(story: Story) -> None:
    story.cap(1).queue(20, max_age_s=100.0)
    under_way(story, "r1")
    begun(story)
    crowd(story, "first of r2", caller="bob", run="r2")
    crowd(story, "no run", caller="cy")
    crowd(story, "next of r1", caller="ann", run="r1")
    served_in_order(story, "running0", "next of r1", "first of r2", "no run")


def test_a_run_that_paused_too_long_begins_anew(story: Story) -> None:
    story.cap(1).queue(20, max_age_s=100.0)
    under_way(story, "r1")
    story >> after(121.0)
    begun(story)
    crowd(story, "first of r2", caller="bob", run="r2")
    crowd(story, "next of r1", caller="ann", run="r1")
    served_in_order(story, "running0", "first of r2", "next of r1")


def test_a_caller_who_is_far_ahead_gains_nothing_by_calling_all_of_it_one_run(story: Story) -> None:
    story.cap(1).queue(100, max_age_s=1000.0)
    under_way(story, "endless", caller="loud")
    begun(story)
    names = [f"l{number}" for number in range(40)]
    crowd(story, *names, caller="loud", run="endless")
    served_in_order(story, "running0", *names[:36])
    crowd(story, "q1", "q2", caller="quiet", run="new")
    crowd(story, "more", caller="loud", run="endless")
    story >> ends(names[35])
    rest = names[36:]
    for _ in range(len(rest)):  # those that waited before keep their place
        story << admitted(rest[0])
        story >> ends(rest.pop(0))
    story << admitted("q1") >> ends("q1") << admitted("q2") >> ends("q2") << admitted("more")


def test_a_retry_goes_last_of_its_class_though_its_run_is_under_way(story: Story) -> None:
    story.cap(1).queue(20, max_age_s=100.0)
    under_way(story, "r1")
    begun(story)
    crowd(story, "again", caller="ann", run="r1", retry=True)
    crowd(story, "first", caller="bob")
    crowd(story, "low", priority="background", caller="bob")
    served_in_order(story, "running0", "first", "again", "low")


# ── the guard share ─────────────────────────────────────────────────────────────────────────────────


def served(story: Story, running: str, turns: int) -> Counter[str]:
    """Which priorities the next `turns` went to; a new normal call comes for each that goes."""
    classes: Counter[str] = Counter()
    for turn in range(turns):
        story.clock.advance(1.0)
        story.events.clear()
        story.settle(running, Outcome.SUCCEEDED)
        (went,) = [event.call for event in story.events if isinstance(event, Admitted)]
        running = story._names[id(went)]
        classes[running.split()[0]] += 1
        story._came.clear()
        story >> arrives(f"normal {turn}", caller="new")
        story._came.clear()
    return classes


def test_one_of_fifty_goes_to_the_least_important_that_they_do_not_starve(story: Story) -> None:
    begun(story.queue(100, max_age_s=1000.0))
    crowd(story, *(f"background {number}" for number in range(10)), priority="background")
    crowd(story, *(f"normal w{number}" for number in range(10)))
    came = served(story, "running0", 200)
    assert 3 <= came["background"] <= 4
    assert came["normal"] == 200 - came["background"]


def test_who_is_guarded_finds_nothing_held_back(story: Story) -> None:
    # Where calls last long the less important leave permits free; the guard share was not to be had then.
    begun(story.queue(200, max_age_s=1e6), slots=8)
    story >> after(60.0)
    crowd(story, *(f"background {number}" for number in range(20)), priority="background")
    crowd(story, *(f"normal {number}" for number in range(180)))
    for number in range(8):
        story.settle(f"running{number}", Outcome.SUCCEEDED)
    classes: Counter[str] = Counter()
    for _ in range(100):
        story.clock.advance(2.0)
        story.gate.targets["api"].flow.pace.granted(0, story.clock())  # a critical one came, and went
        story.events.clear()
        story.settle(next(iter(story._grants)), Outcome.SUCCEEDED)
        classes.update(story._names[id(e.call)].split()[0] for e in story.events if isinstance(e, Admitted))
    story._came.clear()
    assert story.gate.targets["api"].flow.held_back(2, story.clock()) > 0
    assert classes["background"] in (1, 2), classes
    assert classes.total() >= 98


# ── what is held back ───────────────────────────────────────────────────────────────────────────────


def test_where_calls_last_long_the_less_important_leave_permits_for_the_more_important(story: Story) -> None:
    begun(story.queue(20, max_age_s=1000.0), slots=8)
    story >> after(60.0)
    for number in range(8):
        story >> ends(f"running{number}")
    story >> arrives("c0", "critical") << admitted("c0")
    for number in range(5):
        story >> arrives(f"b{number}", "background") << admitted(f"b{number}")
    crowd(story, "b5", priority="background")
    story >> arrives("n0") << admitted("n0")
    crowd(story, "n1")
    assert story.gate.targets["api"].cap.held_back == 1, "as is known to who learns the cap: it is not idle"
    story >> arrives("c1", "critical") << admitted("c1")
    crowd(story, "c2", priority="critical")
    served_in_order(story, "c0", "c2")
    story >> ends("b0")  # one is free: kept
    story >> ends("b1") << admitted("n1")
    story >> ends("b2")
    story >> ends("b3") << admitted("b5")


# ── stale queues, bounds, and who makes room ────────────────────────────────────────────────────────


def test_a_queue_that_has_gone_stale_serves_its_newest_first_until_it_is_empty(story: Story) -> None:
    begun(story.queue(20, max_age_s=20.0))
    crowd(story, "old1", "old2")
    story >> after(12.0)
    crowd(story, "new1", "new2")
    served_in_order(story, "running0", "new2", "new1", "old2", "old1")
    crowd(story, "n1", "n2")
    served_in_order(story, "old1", "n1", "n2")


def test_an_elephant_makes_room_for_a_mouse_and_not_the_other_way_round(story: Story) -> None:
    begun(story.queue(4))
    crowd(story, "e1", "e2", "e3", caller="elephant")
    crowd(story, "m1", caller="mouse")
    story >> arrives("m2", caller="mouse2") << refused("e3", Reason.DISPLACED) << waits("m2")
    story >> arrives("e4", caller="elephant") << refused("e4", Reason.QUEUE_FULL)
    story >> arrives("c1", "critical") << refused("e2", Reason.DISPLACED) << waits("c1")
    served_in_order(story, "running0", "c1", "e1", "m1", "m2")


def test_a_queue_is_bounded_in_bytes_and_nobody_goes_in_vain(story: Story) -> None:
    begun(story.queue(7, max_bytes=100.0))
    story >> arrives("low", "background", size=30) << waits("low")
    story >> arrives("normal", size=60) << waits("normal")
    story >> arrives("too much", size=50) << refused("too much", Reason.QUEUE_FULL)
    story >> arrives("fits", size=40) << refused("low", Reason.DISPLACED) << waits("fits")
    served_in_order(story, "running0", "normal", "fits")
    assert story.gate.room.lanes.bytes_of("chat") == 0


def test_several_make_room_for_one_large_call(story: Story) -> None:
    begun(story.queue(10, max_bytes=100.0))
    for name in ("b1", "b2", "b3"):
        story >> arrives(name, "background", size=30, caller=name) << waits(name)
    story >> arrives("large", size=70) << waits("large")
    story << refused("b3", Reason.DISPLACED) << refused("b2", Reason.DISPLACED)


def test_a_quiet_caller_is_not_shed_for_the_crowd_of_a_loud_one(story: Story) -> None:
    begun(story.queue(10, max_age_s=100.0).shed_at(2.0, 0.3, 0.2))
    crowd(story, "l1", "l2", "l3", caller="loud")
    story >> arrives("l4", caller="loud") << refused("l4", Reason.SHED)
    crowd(story, "q1", caller="quiet")


def test_first_attempts_are_not_shed_for_retries_of_the_same_caller(story: Story) -> None:
    """Who returns after a pause, and asks again early, would have no turn until all others have gone."""
    begun(story.queue(10, max_age_s=100.0).shed_at(2.0, 0.3, 0.2))
    crowd(story, "b1", "b2", "b3", caller="busy")
    crowd(story, "r1", "r2", "r3", caller="returns", retry=True)
    story >> arrives("r4", caller="returns", retry=True) << refused("r4", Reason.SHED)
    story >> arrives("b4", caller="busy") << refused("b4", Reason.SHED)
    crowd(story, "first", caller="returns")
    served_in_order(story, "running0", "b1", "first", "b2", "b3", "r1")


def test_a_run_under_way_is_not_shed(story: Story) -> None:
    story.cap(1).queue(10, max_age_s=100.0).shed_at(2.0, 0.3, 0.2)
    under_way(story, "r1", caller="loud")
    begun(story)
    crowd(story, "l1", "l2", "l3", caller="loud")
    story >> arrives("new", caller="loud", run="r2") << refused("new", Reason.SHED)
    crowd(story, "next of r1", caller="loud", run="r1")


# ── every order of grant, displacement, expiry, disconnect and cancel ───────────────────────────────

MEANWHILE = {
    "granted": lambda story: story >> ends("running0") << admitted("b"),
    "displaced": lambda story: (
        story >> arrives("c", "critical") << refused("b", Reason.DISPLACED) << waits("c")
    ),
    "expired": lambda story: story >> after(4.0) << refused("b", Reason.WAITED_TOO_LONG),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_who_leaves_in_the_moment_of_its_verdict_is_decided_once(story: Story, meanwhile: str) -> None:
    begun(story.queue(1, max_age_s=4.0))
    crowd(story, "b", priority="background")
    (waiter,) = story.gate.room.waiters()
    MEANWHILE[meanwhile](story)
    told = waiter.verdict
    story.gate.leave(waiter, story.clock())
    assert waiter.verdict is told
    assert not story.gate.has_decided
    assert sum(isinstance(event, Left) for event in story.events) == (meanwhile != "granted")
    if meanwhile == "granted":
        story >> ends("b", Outcome.UNUSED)
    story.finish()


@pytest.mark.parametrize("then", ["a permit", "time", "a newcomer"])
def test_who_has_left_is_neither_served_nor_refused_nor_displaced(story: Story, then: str) -> None:
    begun(story.queue(1, max_age_s=4.0))
    crowd(story, "b", priority="background")
    story >> leaves("b")
    if then == "a permit":
        story >> ends("running0")
    elif then == "time":
        story >> after(60.0)
    else:
        story >> arrives("c", "critical") << waits("c")
    story.finish()


@pytest.mark.parametrize("first", ["granted", "left", "displaced"])
def test_the_end_of_a_wait_is_the_beginning_of_the_next_ones(story: Story, first: str) -> None:
    begun(story.queue(2, max_age_s=4.0))
    crowd(story, "b1", "b2", priority="background")
    if first == "granted":
        story >> ends("running0") << admitted("b1")
        story >> ends("b1", Outcome.UNUSED) << admitted("b2")
    elif first == "left":
        story >> leaves("b1") >> ends("running0") << admitted("b2")
    else:
        story >> arrives("c", "critical") << refused("b2", Reason.DISPLACED) << waits("c")
        story >> ends("running0") << admitted("c") >> ends("c") << admitted("b1")


def test_expiry_and_a_permit_at_the_same_moment_serve_who_is_not_over_its_time(story: Story) -> None:
    begun(story.queue(5, max_age_s=4.0))
    crowd(story, "b1")
    story >> after(2.0)
    crowd(story, "b2")
    story.clock.advance(2.5)
    story >> ends("running0") << refused("b1", Reason.WAITED_TOO_LONG) << admitted("b2")


def test_a_displaced_call_gives_way_in_the_line_of_its_bucket_too(story: Story) -> None:
    story.buckets(bucket(1.0)).queue(1, max_age_s=60.0)
    story >> arrives("a", "background", caller="ann") << admitted("a")
    story >> arrives("b", "background", caller="ann") << waits("b")
    story >> arrives("c", "critical", caller="ann") << refused("b", Reason.DISPLACED) << waits("c")
    story >> after(1.0) << admitted("c")


def test_who_takes_the_place_of_the_one_it_stood_behind_goes_at_once_if_it_can(story: Story) -> None:
    """Behind whoever waits for many tokens all others wait, lest it never pass; but it has been displaced."""
    story.queue(20, max_age_s=100.0, max_bytes=100).buckets(tokens(1.0, burst=10.0, per=Per.UPSTREAM))
    story >> arrives("first", tokens=8.0) << admitted("first")
    story >> arrives("dear", tokens=5.0, size=90) << waits("dear")
    story >> arrives("cheap", "background", tokens=1.0, size=20) << refused("dear", Reason.DISPLACED)
    story << waits("cheap")
    story >> after(0.0) << admitted("cheap")
