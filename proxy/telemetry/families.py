"""Counts and state as Prometheus families, made anew for every scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from proxy.core.breaker import CLOSED, HALF_OPEN, OPEN
from proxy.core.state import BreakerState, BucketState, CapState, GateState, StoreState, ToolState
from proxy.core.survey import OTHERS
from proxy.stores.contact import Phase
from proxy.telemetry.catalog import CATALOG, PREFIX
from proxy.telemetry.counts import Flows, Histogram, Labels, Tokens

Row = tuple[tuple[str, ...], float]


def counter(name: str, rows: Iterable[Row]) -> CounterMetricFamily:
    """A counter of the catalog, with one sample a row."""
    entry = CATALOG[name]
    family = CounterMetricFamily(PREFIX + name, entry.text, labels=entry.labels)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def gauge(name: str, rows: Iterable[Row]) -> GaugeMetricFamily:
    """A gauge of the catalog, with one sample a row."""
    entry = CATALOG[name]
    family = GaugeMetricFamily(PREFIX + name, entry.text, labels=entry.labels)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def histogram(name: str, rows: Iterable[tuple[tuple[str, ...], Histogram]]) -> HistogramMetricFamily:
    """A histogram of the catalog; one without observations is left out."""
    entry = CATALOG[name]
    family = HistogramMetricFamily(PREFIX + name, entry.text, labels=entry.labels)
    for labels, seen in rows:
        counts = list(accumulate(seen.cells))
        if counts[-1]:
            bounds = [*map(str, seen.bounds), "+Inf"]
            family.add_metric(labels, list(zip(bounds, counts, strict=True)), seen.sum_s)
    return family


def of_tokens(tokens: Mapping[str, Tokens]) -> Iterator[Metric]:
    """What calls were estimated to cost and did, by route."""
    each = tokens.items()
    yield by_label("tokens_estimated_total", {route: row.estimated for route, row in each})
    charged = [((route, kind), value) for route, row in each for kind, value in row.charged()]
    yield counter("tokens_charged_total", charged)
    used = [((route, part), value) for route, row in each for part, value in row.used()]
    yield counter("tokens_used_total", used)


def of_flows(flows: Flows) -> Iterator[Metric]:
    """What was counted, call by call."""
    every = flows.every.values()
    yield counter("calls_offered_total", [(flow.names, flow.offered) for flow in every])
    yield counter("calls_admitted_total", [(flow.names, flow.admitted) for flow in every])
    yield counter(
        "returns_total",
        [
            ((*flow.names, kept), count)
            for flow in every
            for kept, count in (("yes", flow.kept), ("no", flow.broken))
        ],
    )
    yield counter("calls_left_total", [(flow.names, flow.left) for flow in every])
    yield counter(
        "calls_refused_total",
        [((*flow.names, *why), count) for flow in every for why, count in flow.refused.items()],
    )
    yield counter(
        "calls_would_refuse_total",
        [((*flow.names, *why), count) for flow in every for why, count in flow.would_refuse.items()],
    )
    yield counter(
        "calls_would_queue_total",
        [((*flow.names, *why), count) for flow in every for why, count in flow.would_queue.items()],
    )
    yield counter(
        "calls_settled_total",
        [((*flow.names, outcome), count) for flow in every for outcome, count in flow.settled.items()],
    )
    yield counter(
        "answers_total",
        [
            ((*flow.names, f"{digit}xx" if digit else "none"), count)
            for flow in every
            for digit, count in flow.answers.items()
        ],
    )
    yield counter(
        "failures_total",
        [((*flow.names, reason), count) for flow in every for reason, count in flow.failures.items()],
    )
    lanes, legs = flows.lanes.items(), flows.legs.items()
    yield histogram("age_at_dispatch_seconds", ((names, lane.age_at_dispatch) for names, lane in lanes))
    yield histogram("queue_time_seconds", ((names, lane.queue_time) for names, lane in lanes))
    yield histogram("call_seconds", ((names, lane.call_time) for names, lane in lanes))
    yield histogram("upstream_time_seconds", ((names, leg.upstream_time) for names, leg in legs))
    yield histogram("first_byte_seconds", ((names, leg.first_byte) for names, leg in legs))


def of_state(state: GateState, caps: Labels, buckets: Labels) -> Iterator[Metric]:
    """What the gate holds at this instant. `caps` and `buckets` remember which labels were used so far."""
    lanes = [((lane.route, lane.priority), lane) for lane in state.lanes]
    yield gauge("queue_depth", [(names, lane.depth) for names, lane in lanes])
    yield gauge("queue_oldest_seconds", [(names, lane.oldest_s) for names, lane in lanes])
    yield gauge("queue_bytes", [((row.route,), row.waiting_bytes) for row in state.routes])
    held = _caps(state.caps, caps)
    yield gauge("in_flight", [((key,), in_flight) for key, (in_flight, _, _) in held.items()])
    yield gauge("cap_slots", [((key,), slots) for key, (_, slots, _) in held.items()])
    if state.store is not None:
        yield gauge("cap_leased", [((key,), own) for key, (_, _, own) in held.items() if own is not None])
    levels = _buckets(state.buckets, buckets)
    yield gauge("bucket_level", [(names, level) for names, (level, _) in levels.items()])
    yield gauge("bucket_burst", [(names, burst) for names, (_, burst) in levels.items()])
    yield from _breakers(state.breakers)
    yield gauge("retry_budget_balance", [((row.upstream,), row.balance) for row in state.retry_budgets])
    yield gauge("pressure", [((row.upstream,), row.pressure) for row in state.upstreams])
    yield gauge("paused", [((row.upstream,), int(row.paused)) for row in state.upstreams])
    yield gauge("brownout_refused_share", [((row.upstream,), row.refused_share) for row in state.upstreams])
    told = [(row.upstream, each) for row in state.upstreams for each in row.told]
    yield gauge("told_left", [((name, each.allowance), each.left) for name, each in told])
    yield gauge("told_whole", [((name, each.allowance), each.whole) for name, each in told])
    yield gauge("told_held_seconds", [((row.upstream,), row.held_s) for row in state.upstreams])
    yield gauge("budgeted_runs", [((), state.runs_known)])
    yield gauge("draining", [((), int(state.draining))])


def of_store(store: StoreState, moves: Mapping[str, int], trips: Histogram) -> Iterator[Metric]:
    """How this replica stands with a store that it shares, and what its trips there cost."""
    yield gauge("store_phase", [((phase,), int(phase == store.phase)) for phase in Phase])
    yield counter("store_moves_total", [((phase,), moves.get(phase, 0)) for phase in Phase])
    results = {"answered": store.trips - store.missed, "missed": store.missed}
    yield by_label("store_trips_total", results)
    yield counter("store_asks_total", [((), store.asks)])
    yield histogram("store_trip_seconds", [((), trips)])
    yield gauge("store_replicas", [((), store.replicas)])


def of_tools(tools: tuple[ToolState, ...], moves: Iterable[Row]) -> Iterator[Metric]:
    """The tools with a queue or a breaker of their own, by the names of their configuration."""
    phases = (CLOSED, OPEN, HALF_OPEN)
    rows = [((tool.route, tool.label), tool) for tool in tools]
    with_one = [(names, tool.breaker) for names, tool in rows if tool.breaker is not None]
    yield gauge("tool_queue_depth", [(names, tool.depth) for names, tool in rows])
    yield gauge("tool_queue_oldest_seconds", [(names, tool.oldest_s) for names, tool in rows])
    yield gauge(
        "tool_breaker_phase",
        [((*names, phase), int(phase == row.phase)) for names, row in with_one for phase in phases],
    )
    yield gauge("tool_breakers_open", [(names, tool.down) for names, tool in rows])
    yield counter("tool_breaker_moves_total", moves)


def by_label(name: str, counts: Mapping[str, float]) -> Metric:
    """A metric with one label, from a dictionary of that label's values."""
    rows = [((label,), value) for label, value in counts.items()]
    return counter(name, rows) if CATALOG[name].kind == "counter" else gauge(name, rows)


def _breakers(breakers: tuple[BreakerState, ...]) -> Iterator[Metric]:
    phases = (CLOSED, OPEN, HALF_OPEN)
    yield gauge(
        "breaker_phase",
        [((row.upstream, phase), int(phase == row.phase)) for row in breakers for phase in phases],
    )
    yield gauge("breaker_calls", [((row.upstream,), row.calls) for row in breakers])
    yield gauge("breaker_failure_ratio", [((row.upstream,), row.failure_ratio) for row in breakers])
    yield gauge("breaker_slow_ratio", [((row.upstream,), row.slow_ratio) for row in breakers])
    yield gauge("breaker_next_probe_seconds", [((row.upstream,), row.next_probe_s) for row in breakers])


def _caps(rows: tuple[CapState, ...], labels: Labels) -> dict[str, tuple[int, int, int | None]]:
    """In flight, slots and what is leased by cap, those without a label summed up."""
    shown: dict[str, tuple[int, int, int | None]] = {}
    for row in rows:
        key = labels.keep(row.key)
        in_flight, slots, leased = shown.get(key, (0, 0, None))
        if row.leased is not None:
            leased = (leased or 0) + row.leased
        shown[key] = (in_flight + row.in_flight, slots + row.slots, leased)
    return shown


def _buckets(rows: tuple[BucketState, ...], labels: Labels) -> dict[tuple[str, str], tuple[float, float]]:
    """Level and burst by bucket and scope; of those without a label, the lowest level."""
    shown: dict[tuple[str, str], tuple[float, float]] = {}
    for row in rows:
        kept = labels.keep(f"{row.key}|{row.scope}") != OTHERS
        names = (row.key, row.scope) if kept else (OTHERS, OTHERS)
        shown[names] = min(shown.get(names, (row.level, row.burst)), (row.level, row.burst))
    return shown
