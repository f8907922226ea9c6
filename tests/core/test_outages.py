"""Outages, brown-outs and pauses at the gate, as those who call through them see it."""

from __future__ import annotations

import pytest

from proxy.core.events import PauseMoved
from proxy.core.verdict import Outcome, Reason
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

FAILED = Outcome.FAILED


def served(story: Story, count: int, took_s: float = 0.1) -> None:
    """So many calls, one after the other, each answered after `took_s`."""
    for _ in range(count):
        story >> arrives("good") << admitted("good") >> after(took_s) >> ends("good")


def down(story: Story) -> None:
    """Calls fail until the breaker is open."""
    for _ in range(200):
        story >> arrives("bad") << admitted("bad") >> ends("bad", FAILED)
        assert story.gate.targets["api"].breaker is not None
        if story.gate.targets["api"].breaker.phase == "open":
            return
    raise AssertionError("two hundred failures do not open it")


# ── an outage ends ──────────────────────────────────────────────────────────────────────────────────


def test_a_probe_goes_to_the_most_important_that_is_there_first(story: Story) -> None:
    story.breaker(breaker(probe_every_s=1.0))
    down(story)
    one = story.gate.targets["api"].breaker
    assert one is not None
    story >> after(one.wait_s(story.clock()))
    story >> arrives("late", "background") << refused("late", Reason.BREAKER_OPEN)
    story >> arrives("r", "critical", retry=True) << refused("r", Reason.BREAKER_OPEN)
    story >> arrives("c", "critical") << admitted("c")


def test_who_is_left_alone_with_a_probe_that_is_due_gets_it_whatever_its_class(story: Story) -> None:
    story.breaker(breaker(probe_every_s=1.0))
    down(story)
    story >> after(2.3) >> arrives("b", "background", retry=True) << admitted("b")


def test_within_a_second_of_its_end_an_outage_is_over_and_all_permits_are_back(story: Story) -> None:
    story.cap(32).queue(1000).breaker(breaker(minimum_calls=20, probes=3))
    served(story, 50)
    down(story)
    for number in range(120):  # half a minute in which every probe fails
        story >> after(0.25) >> arrives(f"x{number}", may_wait=False)
        if story._came.pop().kind == "admitted":
            story >> ends(f"x{number}", FAILED)
    back_at = story.clock()
    for number in range(400):  # of 300 calls a second, each of which takes 0.1 s
        story >> after(1 / 300) >> arrives(f"n{number}")
        story._came.clear()
        for name in list(story._grants):
            if story.clock() - story._grants[name].at >= 0.1:
                story >> ends(name)
                story._came.clear()
        if story.breaker_phases[-1] == "closed" and story.gate.targets["api"].cap.slots == 32:
            break
    assert story.clock() - back_at < 1.0
    assert story.breaker_phases == ["open", "half-open", "closed"]


def test_who_comes_while_it_starts_slowly_waits_and_is_not_refused(story: Story) -> None:
    story.cap(8).queue(100).breaker(breaker(probes=2))
    down(story)
    story >> after(1.0) >> arrives("p") << admitted("p") >> ends("p")
    story >> arrives("a") << admitted("a") >> arrives("b") << admitted("b")
    story >> arrives("c") << waits("c") >> arrives("d") << waits("d") >> arrives("e") << waits("e")
    story >> ends("a") << admitted("c") << admitted("d")
    story >> is_answered("b") << admitted("e")
    assert story.gate.targets["api"].cap.slots == 4
    story >> ends("b")
    assert story.gate.targets["api"].cap.slots == 4, "an answer counts once"


def test_a_failure_halves_what_it_may_have_until_it_is_back_at_its_cap(story: Story) -> None:
    story.cap(8).breaker(breaker(probes=2, failure_ratio=1.0))
    down(story)
    story >> after(1.0) >> arrives("p") << admitted("p") >> ends("p")
    cap = story.gate.targets["api"].cap
    served(story, 4)
    assert cap.slots == 6
    story >> arrives("f") << admitted("f") >> ends("f", FAILED)
    assert cap.slots == 3
    served(story, 5)
    assert cap.slots == 8
    story >> arrives("f") << admitted("f") >> ends("f", FAILED)
    assert cap.slots == 8, "the slow start is over"


def test_an_outage_that_goes_on_gives_the_whole_cap_back_to_its_probes(story: Story) -> None:
    story.cap(8).breaker(breaker(probes=2))
    served(story, 5)
    down(story)
    story >> after(1.0) >> arrives("p") << admitted("p") >> ends("p")
    story >> arrives("a") << admitted("a") >> arrives("b") << admitted("b")
    assert story.gate.targets["api"].cap.slots == 2
    story >> after(2.1) >> arrives("x") << refused("x", Reason.BREAKER_OPEN)
    assert story.breaker_phases == ["open", "half-open", "open"]
    assert story.gate.targets["api"].cap.slots == 8


def test_who_waits_when_silence_shows_that_it_is_down_is_refused_with_who_comes_then(story: Story) -> None:
    story.cap(5).queue(10, max_age_s=60.0).breaker(breaker(minimum_calls=2))
    served(story, 20)
    for number in range(5):
        story >> arrives(f"hangs{number}") << admitted(f"hangs{number}")
    story >> arrives("waits") << waits("waits")
    story >> after(30.0) >> arrives("late") << refused("late", Reason.BREAKER_OPEN)
    story << refused("waits", Reason.BREAKER_OPEN)


# ── calls that hang ─────────────────────────────────────────────────────────────────────────────────


def hanging(story: Story, count: int) -> None:
    for number in range(count):
        story >> arrives(f"h{number}") << admitted(f"h{number}")


def test_calls_that_hang_since_before_an_outage_are_given_up_when_others_are_answered(story: Story) -> None:
    story.cap(12).breaker(breaker(probes=2, minimum_calls=5))
    served(story, 20)
    hanging(story, 4)
    story >> arrives("told") << admitted("told") >> is_answered("told") >> after(0.1)
    down(story)
    story >> after(5.0)
    assert story.given_up == [], "nobody is answered yet"
    story >> arrives("p") << admitted("p")
    assert story.given_up == ["h0"], "a probe may need the permit of one that waits in vain"
    story >> after(0.1) >> ends("p")
    assert story.given_up == ["h1", "h2", "h3"], "but not the one that was answered"
    for number in range(4):
        story >> ends(f"h{number}", FAILED)
    served(story, 20)
    assert story.breaker_phases == ["open", "half-open", "closed"], "which tells nothing of the time since"


def test_a_call_that_waits_no_longer_than_others_did_is_not_given_up(story: Story) -> None:
    story.cap(12).breaker(breaker(probes=1, minimum_calls=5, slow_call_s=90.0))
    served(story, 5, took_s=20.0)
    hanging(story, 1)
    story >> after(0.1)
    down(story)
    story >> after(30.0) >> arrives("p") << admitted("p") >> ends("p")
    assert story.given_up == []
    story >> after(10.1) >> arrives("n") << admitted("n")
    assert story.given_up == ["h0"], "twice as long as any other"


def test_so_are_probes_that_hang_but_no_call_that_began_when_it_was_over(story: Story) -> None:
    story.cap(12).breaker(breaker(probes=2, minimum_calls=5))
    served(story, 20)
    down(story)
    story >> after(1.0) >> arrives("p0") << admitted("p0")
    story >> after(1.0) >> arrives("p1") << admitted("p1") >> after(0.1) >> ends("p1")
    story >> after(0.1) >> arrives("new") << admitted("new")
    assert story.given_up == [], "two seconds are not over"
    story >> after(1.9) >> arrives("x") << admitted("x") >> ends("x")
    assert story.given_up == ["p0"]
    served(story, 50)
    assert story.given_up == [], "the new one may take as long as it takes"


def test_an_outage_that_was_only_silence_gives_up_nobody(story: Story) -> None:
    story.cap(30).breaker(breaker(probes=1, minimum_calls=20))
    served(story, 20)
    hanging(story, 20)
    story >> after(2.1) >> arrives("x") << refused("x", Reason.BREAKER_OPEN)
    assert story.breaker_phases == ["open"]
    story >> after(1.0) >> arrives("p") << admitted("p") >> ends("p")
    assert story.breaker_phases == ["open", "closed"]
    assert story.given_up == [], "they may be slow, and the breaker wrong"


def test_silence_in_which_probes_wait_in_vain_too_is_an_outage(story: Story) -> None:
    story.cap(20).queue(0).breaker(breaker(probes=1, minimum_calls=20))
    served(story, 20)
    hanging(story, 20)
    story >> after(2.1) >> arrives("x") << refused("x", Reason.BREAKER_OPEN)
    story >> after(1.0) >> arrives("p0") << refused("p0", Reason.CAP_REACHED)
    assert story.given_up == []


def test_calls_that_hang_with_every_permit_let_probes_go(story: Story) -> None:
    story.cap(24).queue(10).breaker(breaker(probes=1, minimum_calls=5))
    served(story, 20)
    hanging(story, 23)
    story >> after(0.1)
    down(story)
    story >> after(3.0) >> arrives("p0") << admitted("p0")
    assert story.given_up == ["h0"]
    story >> after(1.0) >> arrives("p1") << waits("p1")
    assert story.given_up == ["h1"]
    story >> ends("h0", FAILED) << admitted("p1")
    story >> ends("p1")
    assert story.breaker_phases == ["open", "closed"]
    assert story.given_up == [f"h{number}" for number in range(2, 23)]


# ── a brown-out ─────────────────────────────────────────────────────────────────────────────────────


def brown_out(story: Story, seconds: float, accepted: int = 10) -> dict[str, list[bool]]:
    """Each second 10 critical, 30 normal and 60 background calls, of which so many in all are accepted."""
    went: dict[str, list[bool]] = {"critical": [], "normal": [], "background": []}
    classes = ["critical"] + ["normal"] * 3 + ["background"] * 6
    for _ in range(int(seconds)):
        left = accepted
        for number in range(100):
            priority = classes[number % 10]
            story >> after(0.01) >> arrives("x", priority)
            (came,) = story._came
            story._came.clear()
            went[priority].append(came.kind == "admitted")
            if came.kind == "admitted":
                story >> ends("x", Outcome.SUCCEEDED if left > 0 else Outcome.OVERLOADED)
                left -= 1
            else:
                assert came.reason is Reason.SHED
    return went


def test_in_a_brown_out_twice_as_many_go_as_are_accepted_and_the_important_ones_all(story: Story) -> None:
    story.breaker(breaker(brownout=2.0))
    brown_out(story, 40, accepted=25)
    went = brown_out(story, 60, accepted=25)
    assert all(went["critical"])
    share = {name: sum(each) / len(each) for name, each in went.items()}
    assert share["normal"] == pytest.approx(1.0, abs=0.05)
    assert share["background"] == pytest.approx((50 - 40) / 60, abs=0.05)
    assert story.breaker_phases == []


def test_a_fifth_goes_however_little_is_accepted_and_it_is_over_when_that_changes(story: Story) -> None:
    story.breaker(breaker(brownout=2.0))
    went = brown_out(story, 60, accepted=0)
    late = [each[len(each) // 2 :] for each in went.values()]
    assert sum(map(sum, late)) / sum(map(len, late)) == pytest.approx(0.2, abs=0.02)
    brown_out(story, 11, accepted=100)
    assert all(all(each) for each in brown_out(story, 10, accepted=100).values())


@pytest.mark.parametrize("accepted", [50, 90])
def test_while_more_than_half_is_accepted_nobody_is_refused(story: Story, accepted: int) -> None:
    story.breaker(breaker(brownout=2.0, failure_ratio=1.0))
    assert all(all(each) for each in brown_out(story, 60, accepted).values())


def test_few_calls_are_too_few_to_tell_from(story: Story) -> None:
    story.breaker(breaker(brownout=2.0))
    for _ in range(200):
        story >> after(0.25) >> arrives("x", "background") << admitted("x") >> ends("x", Outcome.OVERLOADED)


def test_what_failed_before_an_outage_is_no_brown_out_after_it(story: Story) -> None:
    story.breaker(breaker(brownout=2.0, probes=1, failure_ratio=0.9, minimum_calls=140))
    down(story)
    story >> after(1.0) >> arrives("p") << admitted("p") >> ends("p")
    for _ in range(80):
        story >> after(0.01) >> arrives("x", "background") << admitted("x") >> ends("x")


# ── a pause ─────────────────────────────────────────────────────────────────────────────────────────


def answered_after(story: Story, silent_s: float, seconds: float) -> None:
    """Two calls a second, each answered after so long."""
    for number in range(int(seconds * 2)):
        story >> after(0.5) >> arrives(f"n{number}") << admitted(f"n{number}")
        grant = story._grants[f"n{number}"]
        grant.silent_s = silent_s
        story.settle(f"n{number}", Outcome.SUCCEEDED)


def pauses(story: Story) -> list[tuple[bool, str]]:
    return [(event.on, event.why) for event in story.events if isinstance(event, PauseMoved)]


def paused(story: Story) -> Story:
    """Ten calls may wait; answers have begun late for longer than half a minute."""
    story.queue(10, max_age_s=60.0).pause_when(20.0, 30.0, "background")
    answered_after(story, 1.0, 30)
    answered_after(story, 25.0, 40)
    assert len(pauses(story)) == 1
    return story


def test_while_answers_begin_late_the_named_classes_are_held_and_all_others_go(story: Story) -> None:
    paused(story)
    on, why = pauses(story)[0]
    assert on
    assert why.endswith("answers began later than 20s")
    story >> arrives("b", "background") << waits("b")
    story >> arrives("n", "normal") << admitted("n") >> arrives("c", "critical") << admitted("c")


def test_who_is_held_goes_when_answers_begin_early_again(story: Story) -> None:
    paused(story) >> arrives("b", "background") << waits("b")
    for number in range(60):
        story >> after(0.5) >> arrives(f"q{number}") << admitted(f"q{number}")
        story._grants[f"q{number}"].silent_s = 1.0
        story.settle(f"q{number}", Outcome.SUCCEEDED)
        if story._came:
            break
    story << admitted("b")
    assert 5.0 < (number + 1) / 2 < 15.0
    assert [on for on, _ in pauses(story)] == [True, False]


def test_answers_just_below_the_bound_let_nobody_go(story: Story) -> None:
    paused(story) >> arrives("b", "background") << waits("b")
    answered_after(story, 19.0, 29)
    assert [on for on, _ in pauses(story)] == [True]


def test_a_pause_that_leaves_too_few_answers_to_tell_from_ends(story: Story) -> None:
    paused(story) >> arrives("b", "background") << waits("b")
    story >> after(31.0) << admitted("b")  # although nothing happens besides
    assert pauses(story)[-1] == (False, "too few answers to tell from")


def test_one_burst_of_late_answers_pauses_nobody(story: Story) -> None:
    story.queue(10).pause_when(20.0, 30.0, "background")
    answered_after(story, 1.0, 30)
    for _ in range(30):
        story >> arrives("late") << admitted("late")
        story._grants["late"].silent_s = 25.0
        story.settle("late", Outcome.SUCCEEDED)
    answered_after(story, 1.0, 30)
    assert pauses(story) == []


def test_who_cannot_wait_is_told_that_it_is_paused(story: Story) -> None:
    paused(story) >> arrives("b", "background", may_wait=False) << refused("b", Reason.PAUSED)


def test_a_reload_without_a_pause_lets_everybody_go(story: Story) -> None:
    paused(story) >> arrives("b", "background") << waits("b")
    story._upstream_with(pause=None)
    story >> reloads() << admitted("b")


def test_a_reload_with_another_bound_counts_anew_and_keeps_who_is_held(story: Story) -> None:
    paused(story) >> arrives("b", "background") << waits("b")
    story.pause_when(30.0, 30.0, "background")
    story >> reloads()
    story >> after(4.0) << admitted("b")


def test_a_reload_with_longer_slices_does_not_put_off_the_end_of_a_pause(story: Story) -> None:
    paused(story) >> arrives("b", "background") << waits("b")
    story.pause_when(20.0, 90.0, "background")
    story >> reloads() >> after(11.0) << admitted("b")
