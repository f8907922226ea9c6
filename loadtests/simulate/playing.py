"""One run: a scenario, a variant of the proxy and a seed; played to its end and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from loadtests.simulate.arrivals import MEAN_S, MEAN_TOKENS_OUT, Arrivals
from loadtests.simulate.callers import Callers
from loadtests.simulate.clock import Timeline, chance
from loadtests.simulate.door import GateDoor
from loadtests.simulate.faults import plan_faults
from loadtests.simulate.ledger import Ledger
from loadtests.simulate.no_door import NoDoor
from loadtests.simulate.scenarios import SCENARIOS, Scenario
from loadtests.simulate.streams import SEQUENCES, Streams
from loadtests.simulate.upstreams import Fixed, Knee, Upstream
from proxy.core.policy import Policy
from proxy.settings import from_upstream, parse, to_policy

SAMPLE_S: Final = 0.1

BEST_TOKENS_PER_S: Final = 1061.0
"""What the bare U3 does at its best: with 64 sequences always at work; a test measures it."""
BEST_PER_S: Final = {
    "u1": Fixed.best_n / MEAN_S,
    "u2": Knee.best_n / MEAN_S,
    "u3": BEST_TOKENS_PER_S / MEAN_TOKENS_OUT,
}
"""Calls a second."""

MEAN_TOKENS_IN: Final = 2913.0

TOLD: Final = """
upstreams:
  model: {{url: "http://upstream.test", dialect: openai, concurrency: {slots}}}
routes:
  - {{name: default, path: /, upstream: model}}
"""
"""The second column: as by default, but for the capacity."""

VARIANTS: Final = ("default", "told", "direct")


@dataclass(frozen=True, slots=True)
class Played:
    """A run that stands."""

    scenario: Scenario
    variant: str
    seed: int
    ledger: Ledger
    best_per_s: float
    best_n: int


@cache
def policy_of(variant: str, slots: int) -> Policy:
    """`default`: what `backpressure serve --upstream URL` does. `told`: with `concurrency: slots`."""
    if variant == "default":
        return to_policy(from_upstream("http://upstream.test"))
    return to_policy(parse(TOLD.format(slots=slots), "simulated.yaml", {}))


def upstream_of(scenario: Scenario, timeline: Timeline, ledger: Ledger, seed: int) -> Upstream:
    """U1, U2 or U3, healthy."""
    luck = chance(seed, "upstream")
    if scenario.upstream == "u1":
        return Fixed(timeline, ledger, luck)
    if scenario.upstream == "u2":
        return Knee(timeline, ledger, luck)
    calls_per_s = scenario.limits * BEST_PER_S["u3"]
    limits = (calls_per_s, calls_per_s * MEAN_TOKENS_IN, calls_per_s * MEAN_TOKENS_OUT)
    return Streams(timeline, ledger, luck, limits, counts_failed=scenario.counts_failed, tells=scenario.tells)


def play(scenario: Scenario, variant: str, seed: int) -> Played:
    """Play it until everybody has gone. Raises VoidRunError if it proves nothing."""
    timeline, ledger = Timeline(), Ledger()
    upstream = upstream_of(scenario, timeline, ledger, seed)
    callers = Callers(timeline, ledger, chance(seed, "back-off"), streams=scenario.upstream == "u3")
    if variant == "direct":
        door = NoDoor(timeline, upstream, callers, ledger)
    else:
        slots = SEQUENCES if scenario.upstream == "u3" else upstream.best_n
        door = GateDoor(timeline, upstream, callers, ledger, policy_of(variant, slots))
    callers.door = upstream.asker = door
    plan_faults(scenario.faults, upstream, timeline)
    best_per_s = BEST_PER_S[scenario.upstream]
    Arrivals(scenario, best_per_s, timeline, callers, chance(seed, f"arrivals/{scenario.name}"))

    def sample(number: int) -> None:
        door.sample()
        if (number + 1) * SAMPLE_S < scenario.seconds:
            timeline.plan((number + 1) * SAMPLE_S, sample, number + 1)

    timeline.plan(0.0, sample, 0)
    timeline.run()
    ledger.check()
    door.check()
    return Played(scenario, variant, seed, ledger, best_per_s, upstream.best_n)


def named(name: str) -> Scenario:
    """The scenario of a name. KeyError."""
    return SCENARIOS[name]
