"""Who wants what when: Poisson arrivals of calls and of chains, whatever becomes of them.

All chance about a call is drawn when it arrives, in the order of arrival: every variant of the proxy is asked
for the same.
"""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from math import exp, log
from random import Random
from typing import Final

from loadtests.simulate.callers import BEHAVIOURS, Callers
from loadtests.simulate.calls import BATCH, CRITICAL, NORMAL, Chain, Logical
from loadtests.simulate.clock import Timeline
from loadtests.simulate.scenarios import Phase, Scenario

MEAN_S, SPREAD = 0.100, 0.5
"""Of the work of a call at U1 and U2, lognormal."""
TOKENS_IN: Final = (log(1000.0), log(30_000.0 / 1000.0) / 2.3263)
TOKENS_OUT: Final = (log(250.0), log(4000.0 / 250.0) / 2.3263)
"""Lognormal: medians 1 k and 250, 99th percentiles 30 k and 4 k."""
MEAN_TOKENS_OUT: Final = exp(TOKENS_OUT[0] + TOKENS_OUT[1] ** 2 / 2)
CHAIN_CALLS: Final = (3, 7)
MEAN_CHAIN_CALLS: Final = 5.0
THINK_S: Final = (log(0.5), 0.5)

CRITICAL_SHARE: Final = 0.20
NORMAL_OF_THE_REST: Final = 5 / 8
SAYS_DEADLINE: Final = 0.5
BYTES: Final = (200, 20_000)

_BEHAVIOUR_AT: Final = list(accumulate(behaviour.share for behaviour in BEHAVIOURS))


class Arrivals:
    """Feeds a run with the calls of a scenario, `capacity_per_s` being what its factors are multiples of."""

    def __init__(
        self, scenario: Scenario, capacity_per_s: float, timeline: Timeline, callers: Callers, luck: Random
    ) -> None:
        self._scenario = scenario
        self._capacity_per_s = capacity_per_s
        self._timeline = timeline
        self._callers = callers
        self._luck = luck
        self._number = 0
        self._phases = iter(scenario.phases)
        self._until = 0.0
        self._enter_phase(None)

    def _enter_phase(self, _: None) -> None:
        phase = next(self._phases, None)
        if phase is None:
            return
        self._until += phase.seconds
        self._timeline.plan(self._until, self._enter_phase)
        calls_per_s = phase.factor * self._capacity_per_s
        per_s = calls_per_s / MEAN_CHAIN_CALLS if self._scenario.chains else calls_per_s
        if not per_s:
            return
        weights = phase.weights or self._scenario.weights
        by_tenant = list(accumulate(weights))
        self._plan_next((phase, self._until, per_s, _classes_at(phase, self._scenario), by_tenant))

    def _plan_next(self, terms: tuple[Phase, float, float, list[float], list[float]]) -> None:
        at = self._timeline.now + self._luck.expovariate(terms[2])
        if at < terms[1]:  # else the next phase begins before, and arrivals have no memory
            self._timeline.plan(at, self._arrive, terms)

    def _arrive(self, terms: tuple[Phase, float, float, list[float], list[float]]) -> None:
        random, now = self._luck.random, self._timeline.now
        _, _, _, classes, by_tenant = terms
        rank = bisect(classes, random() * classes[-1])
        tenant = bisect(by_tenant, random() * by_tenant[-1])
        behaviour = BEHAVIOURS[min(bisect(_BEHAVIOUR_AT, random()), len(BEHAVIOURS) - 1)]
        call = Logical(now, rank, tenant, behaviour, now + self._callers.patience_s[rank])
        says_deadline = random() < SAYS_DEADLINE
        if says_deadline and behaviour.is_sdk:
            call.deadline = call.until
        self._number += 1
        if self._scenario.chains:
            count = self._luck.randint(*CHAIN_CALLS)
            works = [self._work() for _ in range(count)]
            thinks = [self._luck.lognormvariate(*THINK_S) for _ in range(count)]
            chain = Chain(f"tenant-{tenant}/run-{self._number}", works, thinks)
            self._callers.begin_chain(chain, call)
        else:
            call.work_s, call.tokens_in, call.tokens_out, size = self._work()
            caller = f"tenant-{tenant}"
            call.key = (caller, "", b"/v1/chat/completions", size)
            call.mark = b"%d" % self._number
            self._callers.begin(call)
        self._plan_next(terms)

    def _work(self) -> tuple[float, float, float, int]:
        """Seconds (U1, U2), or tokens in and out (U3); and the bytes of the body."""
        luck = self._luck
        size = int(luck.random() * (BYTES[1] - BYTES[0])) + BYTES[0]
        if self._scenario.upstream != "u3":
            return luck.lognormvariate(log(MEAN_S) - SPREAD**2 / 2, SPREAD), 0.0, 0.0, size
        tokens_in = min(luck.lognormvariate(*TOKENS_IN), 200_000.0)
        return 0.0, tokens_in, min(max(1.0, luck.lognormvariate(*TOKENS_OUT)), 16_000.0), size


def _classes_at(phase: Phase, scenario: Scenario) -> list[float]:
    """The rates of the classes at a factor, summed up: critical is bounded, the rest grows."""
    if scenario.only_class is not None:
        return [float(scenario.only_class <= rank) for rank in (CRITICAL, NORMAL, BATCH)]
    share = scenario.critical_share if scenario.critical_share is not None else CRITICAL_SHARE
    critical = min(share * phase.factor, scenario.critical_most)
    rest = phase.factor - critical
    return list(accumulate((critical, rest * NORMAL_OF_THE_REST, rest * (1 - NORMAL_OF_THE_REST))))
