"""What the learnt cap is told, and what of it reaches an upstream's cap."""

from __future__ import annotations

from dataclasses import replace

from proxy.core.adaptive import REFUSED, Learner
from proxy.core.call import Call
from proxy.core.claims import Claims
from proxy.core.grant import Grant
from proxy.core.policy import AdaptivePolicy, BreakerPolicy, CapPolicy, UpstreamPolicy
from proxy.core.target import Target
from proxy.core.verdict import FAILED, OVERLOADED, SUCCEEDED
from proxy.stores.breakers import BreakerMachine

BOUNDS = AdaptivePolicy(4, 20, 256)
LEARNT = UpstreamPolicy("api", CapPolicy("upstream:api", 20, adaptive=BOUNDS), None, None)


def refuse(learner: Learner, at: float, now: float) -> str:
    return learner.settle(at, OVERLOADED, now, answered=False)


def test_a_refusal_by_the_upstream_takes_a_fifth_once_in_a_round_trip() -> None:
    learner = Learner(BOUNDS)
    assert refuse(learner, 1.0, 1.1) == REFUSED
    assert learner.slots == 16
    assert refuse(learner, 1.0, 1.2) == "", "it went before"
    assert refuse(learner, 1.3, 1.4) == "", "nothing was answered since: an outage, or a rate"
    learner.answered(1.3, 0.1, 0.0, 1.4)
    assert refuse(learner, 1.5, 1.6) == REFUSED
    assert learner.slots == 13


def test_a_few_503_are_illness_and_many_are_a_refusal() -> None:
    learner = Learner(BOUNDS)
    for number in range(200):
        bad = number % 10 == 0
        learner.settle(0.0, FAILED if bad else SUCCEEDED, 1.0, answered=not bad, crowded=bad)
    assert learner.slots == 20
    for _ in range(60):
        learner.settle(0.0, FAILED, 1.0, answered=False, crowded=True)
    assert learner.slots == 16


def test_a_refusal_with_few_in_flight_is_of_a_rate_and_moves_nothing() -> None:
    learner = Learner(BOUNDS)
    learner.enter(15, 0, 0.0)
    assert refuse(learner, 0.0, 0.1) == ""
    learner.enter(16, 0, 0.2)
    assert refuse(learner, 0.2, 0.3) == REFUSED


def test_what_an_outage_began_with_is_taken_back() -> None:
    learner = Learner(BOUNDS)
    refuse(learner, 1.0, 1.1)
    learner.outage()
    assert learner.slots == 20
    learner.answered(1.3, 0.1, 0.0, 1.4)
    refuse(learner, 1.5, 1.6)
    learner.answered(1.7, 0.1, 0.0, 1.8)
    learner.outage()
    assert learner.slots == 16, "somebody was answered between: it was a refusal"


def test_calls_that_hang_since_an_outage_move_no_cap() -> None:
    policy = BreakerPolicy(0.5, 10.0, 0.8, 30.0, minimum_calls=10, open_for_s=15.0, probes=3)
    target = Target(replace(LEARNT, breaker=policy), BreakerMachine("api"))
    calls = [Call(route="chat", caller="ann", arrived_at=0.0) for _ in range(40)]
    grants = [Grant(call, target, Claims([], [], []), target.enter(call, 0.0), 0.0, 0.0) for call in calls]
    for grant in grants[:20]:
        target.settle(grant.call, grant.turn, FAILED, 0.0, 0.1, 0.1, grant)
    assert target.breaker is not None
    assert target.breaker.phase == "open"
    for grant in grants[20:]:
        grant.crowded = True  # cut
        target.settle(grant.call, grant.turn, FAILED, 0.0, 9.0, 9.0, grant)
    assert target.cap.slots == 20


def test_what_is_told_of_its_moves_is_a_quarter_each() -> None:
    learner = Learner(BOUNDS)
    assert learner.news() is None
    refuse(learner, 0.0, 0.0)
    assert learner.news() == (20, 16)
    assert learner.news() is None
    learner.adopt(AdaptivePolicy(4, 18, 18))
    learner.adopt(AdaptivePolicy(18, 18, 18))
    assert learner.news() is None, "from 16 to 18 is less"


def test_an_upstreams_cap_is_what_was_learnt_and_a_reload_keeps_it() -> None:
    target = Target(LEARNT, BreakerMachine("api"))
    call = Call(route="chat", caller="ann", arrived_at=0.0)
    assert target.cap.slots == 20
    turns = [target.enter(call, 0.0) for _ in range(20)]
    target.settle(call, turns.pop(), OVERLOADED, 0.0, 0.1)
    assert target.cap.slots == 16
    assert target.cap_moved == REFUSED
    target.adopt(replace(LEARNT))
    assert target.cap.slots == 16
    target.adopt(replace(LEARNT, cap=replace(LEARNT.cap, adaptive=AdaptivePolicy(4, 8, 12))))
    assert target.cap.slots == 12
    target.adopt(replace(LEARNT, cap=CapPolicy("upstream:api", 50)))
    assert target.cap.slots == 50
