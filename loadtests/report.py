"""What an overload run came to, by the calls' records, the upstream's ledger and the proxy's metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from loadtests.agents import KINDS, CallRecord
from loadtests.figures import percentile

LATEST_START_S: Final = 0.025
"""A run is void when more than 1 % of the calls started later than this after their scheduled arrival:
an eighth of the default service time, so that the generator's own delay stays small in every figure."""
ENDS: Final = ("good", "late", "refused", "failed", "gave_up", "open")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the run set out to do. `rate_per_s` counts logical calls, before any retry."""

    slots: int
    latency_s: float
    factor: float
    seconds: float

    @property
    def capacity_per_s(self) -> float:
        return self.slots / self.latency_s

    @property
    def rate_per_s(self) -> float:
        return self.factor * self.capacity_per_s


@dataclass(frozen=True, slots=True)
class Window:
    """The measured part of the run: monotonic seconds, the ledger's counters at both ends, CPU by process."""

    begun_at: float
    ended_at: float
    ledger_before: Mapping[str, Any]
    ledger_after: Mapping[str, Any]
    cpu_used_s: Mapping[str, float]

    @property
    def seconds(self) -> float:
        return self.ended_at - self.begun_at

    def grown(self, counter: str) -> int:
        """By how much a counter of the ledger grew within the window."""
        return int(self.ledger_after[counter]) - int(self.ledger_before[counter])


def summarise(
    plan: Plan, window: Window, records: Iterable[CallRecord], ledger: Mapping[str, Any], metrics: str
) -> dict[str, Any]:
    """All figures as JSON types. Calls are those scheduled within the window, wherever they ended.

    `ledger` is read after the last call ended; its peak covers the whole run, warm-up included.
    """
    calls = [call for call in records if window.begun_at <= call.scheduled_at < window.ended_at]
    offered_per_s = len(calls) / window.seconds
    still_open = sum(call.end == "open" for call in calls)
    lateness_p99_s = percentile([call.started_at - call.scheduled_at for call in calls], 0.99)
    attempts = sum(len(call.statuses) for call in calls)
    upstream_per_s = window.grown("completed") / window.seconds
    return {
        "capacity_per_s": plan.capacity_per_s,
        "planned_per_s": plan.rate_per_s,
        "offered_per_s": offered_per_s,
        "generator_late_p99_s": lateness_p99_s,
        "void": why_void(plan, window.seconds, len(calls), still_open, lateness_p99_s),
        "goodput_per_s": upstream_per_s,
        "goodput_ratio": upstream_per_s / min(offered_per_s, plan.capacity_per_s) if calls else 0.0,
        "answered_in_time": sum(call.end == "good" for call in calls) / len(calls) if calls else 0.0,
        "classes": {kind.priority: _of_class(kind.priority, calls) for kind in KINDS},
        "attempts": attempts,
        "retries": attempts - len(calls),
        "attempts_per_call": attempts / len(calls) if calls else 0.0,
        "refusals_without_retry_after": sum(call.told_nothing for call in calls),
        "refusals_by_reason": refused_by_reason(metrics),
        "upstream_peak_in_flight": ledger["peak_in_flight"],
        "cap": plan.slots,
        "upstream_endings": dict(ledger["ended"]),
        "cores_used": {name: used_s / window.seconds for name, used_s in window.cpu_used_s.items()},
    }


def why_void(plan: Plan, seconds: float, offered: int, still_open: int, lateness_p99_s: float) -> str:
    """Why the run proves nothing, or "" if it stands."""
    planned = plan.rate_per_s * seconds
    # Poisson arrivals scatter by the square root of their number; four times that is not chance.
    if abs(offered - planned) > 4 * sqrt(planned):
        return f"the generator offered {offered} calls instead of {planned:.0f}"
    if still_open:
        return f"{still_open} calls had not ended when the run did"
    if lateness_p99_s > LATEST_START_S:
        return f"the generator was late: p99 {lateness_p99_s * 1000:.1f} ms"
    return ""


def refused_by_reason(metrics: str) -> dict[str, int]:
    """Refusals since the proxy started, by reason, from the text of its /metrics."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "backpressure_calls_refused_total" and sample.value:
                found[sample.labels["reason"]] += int(sample.value)
    return dict(found.most_common())


def _of_class(priority: str, calls: Sequence[CallRecord]) -> dict[str, Any]:
    own = [call for call in calls if call.priority == priority]
    ends = Counter(call.end for call in own)
    answered = [call.latency_s for call in own if call.end in {"good", "late"}]
    return {
        "offered": len(own),
        "success": ends["good"] / len(own) if own else float("nan"),
        "p50_s": percentile(answered, 0.50),
        "p99_s": percentile(answered, 0.99),
        "retries": sum(len(call.statuses) - 1 for call in own if call.statuses),
        "ends": {end: ends[end] for end in ENDS},
    }


def render(summary: Mapping[str, Any]) -> str:
    """The figures as a page for people."""
    lines = [
        (
            f"capacity {summary['capacity_per_s']:.0f}/s   offered {summary['offered_per_s']:.0f}/s"
            f" of {summary['planned_per_s']:.0f}/s planned   generator late p99"
            f" {summary['generator_late_p99_s'] * 1000:.1f} ms"
        ),
        (
            f"goodput  {summary['goodput_per_s']:.1f}/s by the upstream's ledger"
            f" = {summary['goodput_ratio']:.3f} of what it can do;"
            f" {summary['answered_in_time']:.1%} of the calls answered in time, later returns included"
        ),
        f"upstream peak in flight {summary['upstream_peak_in_flight']} (cap {summary['cap']})",
        (
            f"attempts {summary['attempts']}, of them {summary['retries']} retries"
            f" ({summary['attempts_per_call']:.2f} attempts a call);"
            f" refusals without Retry-After: {summary['refusals_without_retry_after']}"
        ),
        "cores used: " + ", ".join(f"{name} {used:.2f}" for name, used in summary["cores_used"].items()),
        "",
        f"{'class':<12}{'offered':>9}{'success':>9}{'p50 ms':>9}{'p99 ms':>9}   "
        + "".join(f"{end:>9}" for end in ENDS),
    ]
    lines += [
        f"{name:<12}{one['offered']:>9}{one['success']:>9.2%}{one['p50_s'] * 1000:>9.0f}"
        f"{one['p99_s'] * 1000:>9.0f}   " + "".join(f"{one['ends'][end]:>9}" for end in ENDS)
        for name, one in summary["classes"].items()
    ]
    lines += ["", "refusals by reason (the proxy's /metrics, whole run)"]
    lines += [f"  {reason:<20}{number:>9}" for reason, number in summary["refusals_by_reason"].items()]
    if summary["void"]:
        lines += ["", f"VOID: {summary['void']}"]
    return "\n".join(lines)
