"""Three times what the upstream can do, in an open loop: who is served, and what those are told who are not.

The upstream's own ledger is the oracle. Goodput is measured against the time that the load really took, so
that a slow machine makes the test slower and not wrong. `BACKPRESSURE_LONG=1` runs the form of 20 s.
"""

from __future__ import annotations

import os

import pytest

from proxy.demo import Behaviour
from tests.app.agents import Seen, crowd_at
from tests.app.watching import assert_nothing_is_held, counted
from tests.kit.running import Running, before_demo

SLOTS, LATENCY_S = 8, 0.2
CAPACITY_PER_S = SLOTS / LATENCY_S
WARM_UP_S = 0.6
UPSTREAM = f"concurrency: {SLOTS}\nbreaker: {{slow_call: 5s}}"
ROUTE = "queue: {size: 40, max_age: 1s}"


async def overload(proxy: Running, for_s: float) -> Seen:
    async with crowd_at(proxy.url) as crowd:
        return await crowd.load(per_s=3 * CAPACITY_PER_S, for_s=for_s)


def goodput(proxy: Running, seen: Seen) -> float:
    """Calls answered in full while the load lasted, as a share of what the upstream could have answered.

    What it could is taken from the time that it really took for a call: on a busy machine its timers lag, and
    that is not the proxy's doing. What counts against the proxy is every moment in which a slot stood idle.
    """
    since, until = seen.began_at + WARM_UP_S, seen.ended_at
    done = [
        entry.ended_at - entry.started_at
        for entry in proxy.upstream.ledger.entries
        if entry.ending == "done" and since < entry.ended_at <= until
    ]
    could_per_s = SLOTS / (sum(done) / len(done))
    return len(done) / (could_per_s * (until - since))


def mean_wait(proxy: Running, priority: str) -> float:
    """How long the admitted calls of a class stood in the queue, on average."""
    ages = proxy.proxy.telemetry._flows.lanes["openai", priority].age_at_dispatch
    return ages.sum_s / sum(ages.cells)


@pytest.mark.slow
@pytest.mark.parametrize(
    "for_s",
    [
        4.0,
        pytest.param(
            20.0,
            marks=pytest.mark.skipif(os.environ.get("BACKPRESSURE_LONG") != "1", reason="BACKPRESSURE_LONG"),
        ),
    ],
    ids=["short", "long"],
)
async def test_at_three_times_the_capacity_the_urgent_are_served_and_the_rest_told_when_to_come(for_s):
    behaviour = Behaviour(slots=SLOTS, latency_s=LATENCY_S)
    async with before_demo(behaviour, upstream=UPSTREAM, route=ROUTE) as proxy:
        seen = await overload(proxy, for_s)
        critical, ledger = seen.ended["critical"], proxy.upstream.ledger
        assert critical["succeeded"] >= 0.999 * critical.total(), critical
        assert goodput(proxy, seen) >= 0.9
        assert ledger.peak_in_flight <= SLOTS, "never above the cap"
        assert ledger.ended["failed"] == ledger.ended["left"] == 0

        assert len(seen.refusals) > CAPACITY_PER_S
        for reply in seen.refusals:
            assert reply.status == 429
            assert 1 <= int(reply.headers["retry-after"]) <= 55
            assert -(-int(reply.headers["retry-after-ms"]) // 1000) == int(reply.headers["retry-after"])
        served = {name: ended["succeeded"] / ended.total() for name, ended in seen.ended.items()}
        assert served["critical"] > served["normal"] > served["background"], served

        waited = {name: mean_wait(proxy, name) for name in served}
        assert 2 * waited["critical"] < waited["normal"], waited

        await assert_nothing_is_held(proxy)
        sums = await counted(proxy)
        assert sums["calls_admitted_total"] == ledger.completed
        assert sums["calls_refused_total"] == len(seen.refusals)


@pytest.mark.slow
async def test_an_overload_that_ends_leaves_no_queue_and_no_memory_of_it():
    behaviour = Behaviour(slots=SLOTS, latency_s=LATENCY_S)
    async with before_demo(behaviour, upstream=UPSTREAM, route=ROUTE) as proxy:
        assert (await overload(proxy, 1.0)).refusals
        async with crowd_at(proxy.url, seed=2) as crowd:
            calm = await crowd.load(per_s=40, for_s=0.5)
        assert not calm.refusals
        assert all(ended.total() == ended["succeeded"] for ended in calm.ended.values())
        await assert_nothing_is_held(proxy)
