"""What a proxy holds and has counted: the sums that must come out, whatever happened before."""

from __future__ import annotations

from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

from proxy.app import Proxy
from tests.kit.clock import ManualClock
from tests.kit.running import Running
from tests.kit.waiting import until


def in_flight(proxy: Running, cap: str = "upstream:openai") -> int:
    """Permits held under a cap."""
    return sum(each.in_flight for each in proxy.proxy.state().caps if each.key == cap)


def waiting(proxy: Running, route: str = "openai") -> int:
    """Calls of a route that stand in the queue."""
    return sum(lane.depth for lane in proxy.proxy.state().lanes if lane.route == route)


def phase(proxy: Running, upstream: str = "openai") -> str:
    """The phase of an upstream's breaker."""
    (breaker,) = [each for each in proxy.proxy.state().breakers if each.upstream == upstream]
    return breaker.phase


async def counted(proxy: Running) -> dict[str, float]:
    """Every sample of `/metrics`, summed over all labels, by its name without the prefix."""
    sums: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(await proxy.metrics()):
        for sample in family.samples:
            sums[sample.name.removeprefix("backpressure_")] += sample.value
    return sums


async def assert_nothing_is_held(proxy: Running) -> None:
    """Nobody waits, nothing is in flight, and every call that was counted in was counted out."""
    await until(lambda: proxy.proxy._pipeline._running == 0)
    state = proxy.proxy.state()
    held = {cap.key: cap.in_flight for cap in state.caps if cap.in_flight}
    assert not held, f"permits still held: {held}"
    assert not sum(lane.depth for lane in state.lanes), f"still waiting: {state.lanes}"
    sums = await counted(proxy)
    offered, admitted = sums["calls_offered_total"], sums["calls_admitted_total"]
    assert offered == admitted + sums["calls_refused_total"] + sums["calls_left_total"], dict(sums)
    assert sums["calls_settled_total"] == admitted, dict(sums)
    assert not sums["crashes_total"], proxy.lines()
    shown = await proxy.state()
    assert all(not cap["in_flight"] for cap in shown["caps"])


def by_hand(proxy: Running) -> ManualClock:
    """From now on the proxy's decisions follow a clock that only the test turns.

    Timers of the queue still run in real time: use it where nothing waits.
    """
    clock = ManualClock(proxy.proxy._clock())
    turned: Proxy = proxy.proxy
    turned._clock = turned._admission._clock = turned._pipeline._clock = clock
    return clock


def forward(proxy: Running, seconds: float) -> None:
    """From now on the proxy's decisions take it to be this much later. Timers of the queue do not feel it."""
    before = proxy.proxy._clock
    turned: Proxy = proxy.proxy
    turned._clock = turned._admission._clock = turned._pipeline._clock = lambda: before() + seconds
