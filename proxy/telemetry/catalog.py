"""Every metric there is: name, kind, labels, meaning. `docs/metrics.md` says more (a test compares)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PREFIX: Final = "backpressure_"

_LANE: Final = ("route", "priority")
_LEG: Final = ("route", "upstream")
_FLOW: Final = ("route", "priority", "upstream")
_UPSTREAM: Final = ("upstream",)
_TOOL: Final = ("route", "tool")


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric; `name` is without the prefix, `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


_COUNTERS: Final = (
    ("calls_offered_total", _FLOW, "Calls that asked for admission to an upstream."),
    ("calls_admitted_total", _FLOW, "Calls that got a lease, at once or from the queue."),
    ("calls_refused_total", (*_FLOW, "reason", "scope"), "Calls refused, at the door or from the queue."),
    (
        "calls_would_refuse_total",
        (*_FLOW, "reason", "scope"),
        "Calls admitted that something in dry run would have refused.",
    ),
    (
        "calls_would_queue_total",
        (*_FLOW, "reason", "scope"),
        "Calls refused that a queue in dry run would have let wait.",
    ),
    (
        "returns_total",
        (*_FLOW, "kept"),
        "Calls back at the time told to them, by whether they were admitted: yes or no.",
    ),
    ("calls_left_total", _FLOW, "Calls whose caller disconnected before a verdict."),
    ("calls_settled_total", (*_FLOW, "outcome"), "Leases that ended."),
    ("answers_total", (*_FLOW, "status"), "Calls sent upstream that ended, by class of its status."),
    ("failures_total", (*_FLOW, "reason"), "Calls sent upstream that it failed."),
    ("retries_total", ("route", "result"), "Failed calls to be sent once more by us, by what came of it."),
    ("breaker_moves_total", (*_UPSTREAM, "phase"), "Moves of a breaker into a phase."),
    ("tool_breaker_moves_total", (*_TOOL, "phase"), "Moves of a tool's own breaker into a phase."),
    ("cap_moves_total", (*_UPSTREAM, "why"), "Moves of a learnt cap by a quarter or more, by why."),
    ("store_moves_total", ("phase",), "Moves of this replica into a phase with the shared store."),
    ("store_trips_total", ("result",), "Trips to the shared store, answered or missed."),
    ("store_asks_total", (), "Keys asked about on those trips, each on each trip."),
    ("config_reloads_total", ("result",), "Reloads of the configuration, ok or failed."),
    ("unknown_priority_total", ("route",), "Calls with a priority that is not configured."),
    ("unknown_route_total", (), "Requests whose path no route matches."),
    ("crashes_total", (), "Calls ended by a defect of the proxy itself."),
    ("malformed_total", ("route",), "Requests that the route's dialect could not read."),
    ("repeats_held_total", ("route",), "Instant repeats of a cut answer, held for up to a second."),
    ("tokens_estimated_total", ("route",), "Tokens reserved for calls whose answers ended, as estimated."),
    ("tokens_charged_total", ("route", "kind"), "Tokens charged for the same calls: exact or estimated."),
    (
        "tokens_used_total",
        ("route", "part"),
        "Tokens that they used: input, cached (read from a cache), output.",
    ),
    ("money_spent_total", (*_LEG, "currency"), "Money that calls cost, by the tokens that they used."),
    ("unpriced_calls_total", ("route",), "Calls that cost tokens, of a model without a price."),
    ("connections_ended_total", ("reason",), "Callers' connections that the proxy ended, by why."),
    ("log_lines_suppressed_total", (), "Log lines left out: too many alike within a second."),
    ("log_lines_lost_total", (), "Log lines that could not be written."),
)

_HISTOGRAMS: Final = (
    ("age_at_dispatch_seconds", _LANE, "Time in the queue of every admitted call, 0 for most."),
    ("queue_time_seconds", _LANE, "Time in the queue of the calls that waited, however it ended."),
    ("call_seconds", _LANE, "From the arrival of a call that was sent upstream to the end of its answer."),
    ("upstream_time_seconds", _LEG, "Time a lease was held, unused leases left out."),
    ("store_trip_seconds", (), "Time of each trip to the shared store that was answered."),
    ("first_byte_seconds", _LEG, "From dispatch to the first byte of the upstream's answer."),
)

_GAUGES: Final = (
    ("queue_depth", _LANE, "Calls that wait."),
    ("queue_oldest_seconds", _LANE, "Age of the call that waits longest, 0 when none waits."),
    ("queue_bytes", ("route",), "What the calls that wait keep in memory, in bytes."),
    ("in_flight", ("cap",), "Calls in flight under a cap."),
    ("cap_slots", ("cap",), "Calls that may be in flight under a cap, as stated or learnt."),
    ("cap_leased", ("cap",), "Calls that this replica may have in flight under a cap that all share."),
    ("bucket_level", ("bucket", "scope"), "Requests that a bucket would let through at once."),
    ("bucket_burst", ("bucket", "scope"), "Requests that the bucket lets through at once when full."),
    ("breaker_phase", (*_UPSTREAM, "phase"), "1 for the phase a breaker is in, 0 for its other phases."),
    ("breaker_calls", _UPSTREAM, "Calls in the breaker's window."),
    ("breaker_failure_ratio", _UPSTREAM, "Share of failed calls in the breaker's window."),
    ("breaker_slow_ratio", _UPSTREAM, "Share of slow calls in the breaker's window."),
    ("breaker_next_probe_seconds", _UPSTREAM, "Time until the breaker lets a call through, 0 for now."),
    ("tool_queue_depth", _TOOL, "Calls that wait in a tool's own queue."),
    ("tool_queue_oldest_seconds", _TOOL, "Age of the call that waits longest in it, 0 when none waits."),
    ("tool_breaker_phase", (*_TOOL, "phase"), "1 for the phase a tool's own breaker is in, else 0."),
    ("tool_breakers_open", _TOOL, "Tools of this name whose own breaker is open."),
    ("retry_budget_balance", _UPSTREAM, "Retries that the budget would pay for."),
    ("pressure", _UPSTREAM, "How full an upstream's queue is, 0 to 1."),
    ("paused", _UPSTREAM, "1 while the classes of an upstream's pause_when are held."),
    ("brownout_refused_share", _UPSTREAM, "Share of calls refused as an upstream accepts so few, 0 to 1."),
    (
        "told_left",
        (*_UPSTREAM, "allowance"),
        "What an upstream says is left of its own allowance, as learnt.",
    ),
    ("told_whole", (*_UPSTREAM, "allowance"), "All of that allowance, as far as it is this replica's."),
    (
        "told_held_seconds",
        _UPSTREAM,
        "Time for which a 429 of the upstream holds all calls to it, 0 for none.",
    ),
    ("store_phase", ("phase",), "1 for how this replica stands with the shared store, else 0."),
    ("store_replicas", (), "Replicas last seen at the shared store, this one among them."),
    ("upstream_connections", (*_UPSTREAM, "state"), "Open connections to an upstream, by what they do."),
    ("tasks", (), "Tasks of the event loop that have not ended."),
    ("budgeted_runs", (), "Runs with a budget that are remembered here."),
    ("draining", (), "1 while new calls are refused because the proxy is about to stop."),
    ("config_reload_timestamp_seconds", ("result",), "Unix time of the last reload with this result."),
    ("build_info", ("version",), "Always 1; the label is the version that runs."),
)

CATALOG: Final = {
    name: Entry(name, kind, labels, text)
    for kind, rows in (("counter", _COUNTERS), ("histogram", _HISTOGRAMS), ("gauge", _GAUGES))
    for name, labels, text in rows
}
