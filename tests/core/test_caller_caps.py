"""The cap of one caller: over all routes, beside the upstream's, and nobody else's business."""

from __future__ import annotations

from itertools import pairwise

import pytest

from proxy.core.call import Call
from proxy.core.events import WouldRefuse
from proxy.core.gate import Gate
from proxy.core.grant import Grant
from proxy.core.policy import CallerPolicy, CapPolicy, Policy, QueuePolicy, RoutePolicy, UpstreamPolicy
from proxy.core.state import CapState
from proxy.core.survey import survey
from proxy.core.tickets import SWEEP_FROM, Tickets
from proxy.core.verdict import Outcome, Reason, Refusal
from proxy.stores.breakers import BreakerMachine
from proxy.stores.memory import MemoryStore
from tests.kit.story import Story, admitted, after, arrives, ends, refused, reloads, waits


def two_routes(callers: dict[str, CallerPolicy]) -> Gate:
    """`chat` and `code`, two upstreams with plenty of room, and no queue."""
    upstreams = {
        name: UpstreamPolicy(name, CapPolicy(f"upstream:{name}", 100), None, None)
        for name in ("north", "south")
    }
    routes = {name: RoutePolicy(name, QueuePolicy(0, 1.0), (2.0, 2.0)) for name in ("chat", "code")}
    policy = Policy(("high", "low"), routes, upstreams, callers)
    return Gate(policy, MemoryStore(), BreakerMachine, [].append)


def test_a_caller_has_so_many_in_flight_and_no_more_whatever_the_route_and_the_upstream() -> None:
    gate = two_routes({"*": CallerPolicy(2)})
    ways = [("chat", "north"), ("code", "south"), ("chat", "south"), ("code", "north")]
    verdicts = [
        gate.offer(Call(route=route, caller="ann", arrived_at=0.0), upstream, 0.0) for route, upstream in ways
    ]
    assert [isinstance(verdict, Grant) for verdict in verdicts] == [True, True, False, False]
    refusal = verdicts[2]
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.scope, refusal.limit) == (Reason.CAP_REACHED, "caller:ann", "2 in flight")
    assert isinstance(gate.offer(Call(route="chat", caller="bob", arrived_at=0.0), "north", 0.0), Grant)


def test_a_caller_with_a_number_of_its_own_has_that_one(story: Story) -> None:
    story.callers(ann=1, any=2)
    for name, caller in (("a", "ann"), ("b", "bob"), ("c", "bob")):
        story >> arrives(name, caller=caller) << admitted(name)
    for name, caller in (("d", "ann"), ("e", "bob")):
        story >> arrives(name, caller=caller) << refused(name, Reason.CAP_REACHED)


def test_who_is_not_named_has_no_cap_where_there_is_no_default(story: Story) -> None:
    story.callers(ann=1)
    for number in range(9):
        story >> arrives(f"b{number}", caller="bob") << admitted(f"b{number}")


def test_its_calls_wait_in_the_queue_and_hold_up_nobody_else(story: Story) -> None:
    story.callers(any=1).cap(2).queue(5)
    story >> arrives("a1", caller="ann") << admitted("a1")
    story >> arrives("a2", caller="ann") << waits("a2")
    story >> arrives("b1", caller="bob") << admitted("b1")
    story >> arrives("b2", caller="bob") << waits("b2")
    story >> ends("b1") << admitted("b2")
    story >> ends("b2") >> arrives("c1", caller="cy") << admitted("c1")
    story >> ends("a1") << admitted("a2")


def test_its_calls_go_in_the_order_of_their_urgency(story: Story) -> None:
    story.callers(any=1).queue(5)
    story >> arrives("a1", caller="ann") << admitted("a1")
    story >> arrives("a2", "background", caller="ann") << waits("a2")
    story >> arrives("a3", "critical", caller="ann") << waits("a3")
    story >> ends("a1") << admitted("a3") >> ends("a3") << admitted("a2")


def test_a_reload_that_raises_it_serves_who_waits(story: Story) -> None:
    story.callers(any=1).queue(5)
    for name, came in (("a1", admitted), ("a2", waits), ("a3", waits)):
        story >> arrives(name, caller="ann") << came(name)
    story.callers(any=2)
    story >> reloads() << admitted("a2")
    story.callers()
    story >> reloads() << admitted("a3")


def test_a_reload_that_lowers_it_lets_the_holders_finish(story: Story) -> None:
    story.callers(any=2)
    story >> arrives("a1", caller="ann") << admitted("a1") >> arrives("a2", caller="ann") << admitted("a2")
    story.callers(any=2, ann=1)
    story >> reloads() >> ends("a1") >> arrives("a3", caller="ann") << refused("a3", Reason.CAP_REACHED)
    story >> ends("a2") >> arrives("a4", caller="ann") << admitted("a4")


def test_a_refused_caller_that_comes_back_as_told_is_admitted(story: Story) -> None:
    story.callers(any=1)
    story >> arrives("a1", caller="ann") << admitted("a1") >> after(0.5) >> ends("a1")
    story >> arrives("a2", caller="ann") << admitted("a2")
    story >> arrives("a3", caller="ann") << refused("a3", Reason.CAP_REACHED)
    due_s = story.tickets["a3"].due_at - story.clock()
    assert 0.5 <= due_s < 5.0, "one call takes half a second; half of what comes free is sold"
    story >> after(0.5) >> ends("a2") >> after(due_s - 0.5)
    story >> arrives("a3", caller="ann") << admitted("a3")


def test_the_tickets_of_its_cap_are_all_its_own_however_many_others_there_are(story: Story) -> None:
    story.callers(ann=1)
    for number in range(50):
        story >> arrives(f"b{number}", caller=f"bob-{number}") << admitted(f"b{number}")
    story >> arrives("a0", caller="ann") << admitted("a0")
    for number in range(1, 5):
        story >> arrives(f"a{number}", caller="ann") << refused(f"a{number}", Reason.CAP_REACHED)
    due = [story.tickets[f"a{number}"].due_at for number in range(1, 5)]
    service_s = story.gate.targets["api"].flow.service_s
    assert all(later - sooner <= 3 * service_s for sooner, later in pairwise(due)), due


def test_what_more_urgent_callers_take_of_the_upstream_makes_no_caller_wait_for_its_own_permit(
    story: Story,
) -> None:
    story.callers(ann=1).queue(9, max_age_s=0.5)
    for number in range(150):  # two hundred critical calls a second, of others
        for name in (f"b{number}", f"c{number}"):
            story >> arrives(name, "critical", caller="bob") << admitted(name)
        story >> after(0.01) >> ends(f"b{number}") >> ends(f"c{number}")
    story >> arrives("a1", "background", caller="ann") << admitted("a1")
    story >> arrives("a2", "background", caller="ann") << waits("a2")
    flow = story.gate.targets["api"].flow
    assert flow.step_of(2, 2, story.clock(), own=True) == pytest.approx(flow.service_s / 2)


def test_in_dry_run_it_keeps_nobody_out_and_tells_whom_it_would_have() -> None:
    gate = two_routes({"*": CallerPolicy(1, enforce=False)})
    seen: list[object] = []
    gate._emit = seen.append  # type: ignore[assignment]
    for _ in range(2):
        assert isinstance(gate.offer(Call(route="chat", caller="ann", arrived_at=0.0), "north", 0.0), Grant)
    (told,) = [event for event in seen if isinstance(event, WouldRefuse)]
    assert (told.reason, told.scope) == (Reason.CAP_REACHED, "caller:ann")
    assert survey(gate, 0.0).caps[-1] == CapState("caller:*", 2, 1, dry_run=True)


def test_the_named_have_rows_of_their_own_and_all_others_that_of_the_fullest(story: Story) -> None:
    story.callers(ann=3, any=5)
    for number, caller in enumerate(("ann", "ann", "ann", "bob", "cy", "cy")):
        story >> arrives(f"c{number}", caller=caller) << admitted(f"c{number}")
    assert survey(story.gate, story.clock()).caps[1:] == (
        CapState("caller:ann", 3, 3),
        CapState("caller:*", 2, 5),
    )


def test_nothing_is_left_of_callers_that_have_gone(story: Story) -> None:
    story.callers(any=1)
    for number in range(3 * SWEEP_FROM):
        caller = f"caller-{number}"
        story >> arrives(f"a{number}", caller=caller) << admitted(f"a{number}")
        story >> arrives(f"b{number}", caller=caller) << refused(f"b{number}", Reason.CAP_REACHED)
        story >> after(0.2) >> ends(f"a{number}", Outcome.SUCCEEDED)
    assert story.gate.store.cap_keys("caller:") == []
    assert len(story.gate.promises._tickets._calendars) <= SWEEP_FROM + 1


def test_a_calendar_with_a_ticket_out_is_not_forgotten() -> None:
    tickets = Tickets()
    kept = tickets.calendar("caller:ann/1", 0.0)
    ticket = kept.book("ann", 1.0, 5.0, 0.1, 60.0, 0.0)
    assert ticket is not None
    for number in range(2 * SWEEP_FROM):
        tickets.calendar(f"caller:{number}/1", 1.0)
    assert tickets.calendar("caller:ann/1", 1.0) is kept
