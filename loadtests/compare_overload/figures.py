"""What one cell came to: by the upstream's ledger what was done, by the callers' records what they met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from loadtests.compare_overload.schedule import Call, Plan, calls
from loadtests.figures import percentile

LATEST_START_S: Final = 0.01
"""A cell is void when more than 1 % of the calls started later than this after they were due: a tenth of the
default service time, so that the generator's own delay stays small in every figure."""
MOST_WAITED: Final = 0.05
"""A cell is void when the proxy waited longer than this part of the time for a core that others had: every
answer that it passes on late keeps a slot of the upstream empty."""


def figures(plan: Plan, found: Mapping[str, Any], unloaded_p99_s: float) -> dict[str, Any]:
    """All figures of a cell, as JSON types; `found` is what `cell.measure` returned.

    Goodput counts distinct calls that the upstream did within their patience, and within the window;
    everything else, the calls that were due within the window, whenever they ended.
    """
    callers, ledger = found["callers"], found["ledger"]
    opens_at = callers["begun_at"] + plan.warm_up_s
    closes_at = callers["begun_at"] + plan.arriving_s
    planned = list(calls(plan))
    records = {record["number"]: record for record in callers["records"]}
    due = [call for call in planned if call.at_s >= plan.warm_up_s]
    done_at, waste = in_time(planned, ledger, callers["begun_at"])
    good = [call for call in planned if opens_at <= done_at.get(call.number, 0.0) < closes_at]
    offered_per_s = len(due) / plan.seconds
    critical = [records[call.number] for call in due if call.kind.priority == "critical"]
    succeeded = [record for record in critical if record["end"] == "good"]
    reached = {entry[0] for entry in ledger["entries"]}
    kept = returns_kept([records[call.number] for call in due], reached)
    late = [one["attempts"][0]["sent_at"] - one["due_at"] for one in records.values()]
    return {
        "offered_per_s": offered_per_s,
        "good_per_s": len(good) / plan.seconds,
        "goodput": len(good) / plan.seconds / min(offered_per_s, plan.capacity_per_s),
        "critical": share(len(succeeded), len(critical)),
        "critical_p99": p99_s(succeeded) / unloaded_p99_s,
        "p99_s": p99_s([record for record in records.values() if record["end"] == "good"]),
        "attempts": share(sum(len(records[call.number]["attempts"]) for call in due), len(due)),
        "returns": len(kept),
        "kept": share(sum(kept), len(kept)),
        "jain": jain(by_entitlement(due, good, plan.capacity_per_s * plan.seconds)),
        "peak": ledger["peak_in_flight"],
        "wasted": waste,
        "proxy_busy": found["proxy_busy"],
        "proxy_waited": found["proxy_waited"],
        "generator_busy": callers["busy"],
        "late_p99_ms": percentile(late, 0.99) * 1000,
        "served_late_ms": ledger["late_s"] * 1000,
        "ends": dict(Counter(record["end"] for record in records.values())),
        "void": why_void(
            len(planned), len(records), callers["starved"], percentile(late, 0.99), found["proxy_waited"]
        ),
    }


def share(part: float, whole: int) -> float:
    """nan of nothing."""
    return part / whole if whole else float("nan")


def p99_s(succeeded: Sequence[Mapping[str, Any]]) -> float:
    """Of calls that were answered: the time from when they were due, however many attempts it took."""
    return percentile([one["attempts"][-1]["ended_at"] - one["due_at"] for one in succeeded], 0.99)


def in_time(
    planned: Sequence[Call], ledger: Mapping[str, Any], begun_at: float
) -> tuple[dict[int, float], float]:
    """By call the time at which the upstream first did it within its patience, and the wasted share.

    Of the time that attempts were in flight at the upstream, wasted is what was spent on those that were cut,
    came too late or did again what was done.
    """
    give_up_at = {call.number: begun_at + call.at_s + call.kind.patience_s for call in planned}
    done_at: dict[int, float] = {}
    spent_s = useful_s = 0.0
    for attempt, began_at, ended_at, done in sorted(ledger["entries"], key=lambda entry: entry[2]):
        if not attempt:
            continue  # nobody's: the probe before the run
        number = int(attempt.partition(".")[0])
        took_s = (ended_at or ledger["at"]) - began_at
        spent_s += took_s
        if done and ended_at <= give_up_at[number] and number not in done_at:
            done_at[number] = ended_at
            useful_s += took_s
    return done_at, (1 - useful_s / spent_s if spent_s else float("nan"))


def returns_kept(records: Sequence[Mapping[str, Any]], reached: set[str]) -> list[bool]:
    """For each return at exactly the time told: was it admitted? That is, did it reach the upstream?"""
    return [
        f"{record['number']}.{number}" in reached
        for record in records
        for number, before in enumerate(record["attempts"][:-1], start=1)
        if before["kept_wait"]
    ]


def by_entitlement(due: Sequence[Call], good: Sequence[Call], capacity: float) -> list[float]:
    """Of each tenant the calls done as a part of those it was entitled to, by max-min fairness."""
    wanted = Counter(call.tenant for call in due)
    served = Counter(call.tenant for call in good)
    level = capacity / len(wanted) if wanted else 0.0
    left, waiting = capacity, sorted(wanted, key=wanted.__getitem__)
    for number, tenant in enumerate(waiting):  # whoever wants less than an equal part leaves it to the others
        level = left / (len(waiting) - number)
        if wanted[tenant] >= level:
            break
        left -= wanted[tenant]
    return [served[tenant] / min(wanted[tenant], level) for tenant in sorted(wanted)]


def jain(values: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has all; nan when nobody has anything."""
    squares = len(values) * sum(value * value for value in values)
    return sum(values) ** 2 / squares if squares else float("nan")


def why_void(planned: int, made: int, starved: int, late_p99_s: float, waited: float) -> str:
    """Why the cell proves nothing, or "" if it stands."""
    if made != planned:
        return f"{made} of {planned} calls were made"
    if starved:
        return f"the generator had no port or file left for {starved} connections"
    if late_p99_s > LATEST_START_S:
        return f"the generator was late: p99 {late_p99_s * 1000:.1f} ms"
    if waited > MOST_WAITED:
        return f"the proxy waited for its core, {waited:.1%} of the time"
    return ""
