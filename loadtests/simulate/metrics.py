"""The figures of one run (overload-control.md §2, "Metrics"), from its ledger alone."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Final

from loadtests.figures import percentile
from loadtests.simulate.calls import CANCELLED, CLASSES, EXPIRED, GOOD, REFUSED, Attempt, Logical
from loadtests.simulate.fairness import fairness
from loadtests.simulate.honesty import honesty
from loadtests.simulate.playing import BEST_TOKENS_PER_S, Played

NAN: Final = float("nan")
BIN_S: Final = 0.1
CUT_BY_US: Final = (REFUSED, EXPIRED)
"""How a call ends that the proxy did not let through: refused, or held until it was too late."""


def figures(played: Played) -> dict[str, Any]:
    """All of them, as JSON types. Calls are those offered in the scenario's window, wherever they ended."""
    ledger, (begun, ended) = played.ledger, played.scenario.window
    calls = [call for call in ledger.calls if begun <= call.at < ended]
    useful = useful_attempts(played)
    bins = work_by_bin(played, useful)
    found: dict[str, Any] = {
        "calls": len(ledger.calls),
        "offered_per_s": len(calls) / (ended - begun),
        **_goodput(played, calls, useful, bins),
        **_by_class(calls),
        **_attempts(played, calls, useful),
        **honesty(
            ledger,
            played.scenario.window,
            played.best_n,
            played.scenario.seconds,
            played.scenario.trouble[0] if played.scenario.trouble else 0.0,
        ),
        **fairness(played, useful),
        **_recovery(played, bins),
        **_cap(played),
        "refused_late": sum(begun <= each.sent_at < ended and _is_refused(each) for each in ledger.sent),
        "peak": ledger.peak,
        "refusals": ledger.refusals,
    }
    if played.scenario.chains:
        found |= _chains(played)
    return found


def _is_refused(attempt: Attempt) -> bool:
    """Did the upstream say no at once?"""
    return attempt.begun_at < 0.0 <= attempt.ended_at and not attempt.is_left


def useful_attempts(played: Played) -> list[Attempt]:
    """Those whose answer came in time, and was not lost with the rest of its chain."""
    return [
        attempt
        for attempt in played.ledger.sent
        if not attempt.is_left and attempt.ended_at == attempt.call.ended_at and _is_worth(attempt.call)
    ]


def _is_worth(call: Logical) -> bool:
    return call.end is GOOD and (call.chain is None or call.chain.end is GOOD)


def work_of(call: Logical) -> float:
    """What the call asks for: tokens of a stream, else seconds of a slot."""
    return call.tokens_out or call.work_s


def work_by_bin(played: Played, attempts: list[Attempt]) -> list[float]:
    """Work done for `attempts`, by tenths of a second: each spread over the time that it was worked for."""
    bins = [0.0] * (int(played.scenario.seconds / BIN_S) + 2)
    last = len(bins) - 1
    for attempt in attempts:
        since = attempt.first_at if attempt.first_at >= 0.0 else attempt.begun_at
        lasted = max(attempt.ended_at - since, 1e-9)
        per_s = work_of(attempt.call) / lasted
        first, final = min(int(since / BIN_S), last), min(int(attempt.ended_at / BIN_S), last)
        if first == final:
            bins[first] += per_s * lasted
            continue
        bins[first] += per_s * ((first + 1) * BIN_S - since)
        for index in range(first + 1, final):
            bins[index] += per_s * BIN_S
        bins[final] += per_s * (attempt.ended_at - final * BIN_S)
    return bins


def best_work_per_s(played: Played) -> float:
    """What the bare upstream does at its best."""
    return BEST_TOKENS_PER_S if played.scenario.upstream == "u3" else float(played.best_n)


def _goodput(
    played: Played, calls: list[Logical], useful: list[Attempt], bins: list[float]
) -> dict[str, float]:
    begun, ended = played.scenario.window
    seconds = ended - begun
    if played.scenario.upstream == "u3":
        offered, best = sum(call.tokens_out for call in calls) / seconds, BEST_TOKENS_PER_S
        good = sum(bins[int(begun / BIN_S) : int(ended / BIN_S)]) / seconds
    else:
        offered, best = len(calls) / seconds, played.best_per_s
        if played.scenario.chains:
            chains = {id(call.chain): call.chain for call in calls if call.chain and not call.step}
            offered = sum(len(chain.works) for chain in chains.values()) / seconds
        good = sum(begun <= attempt.ended_at < ended for attempt in useful) / seconds
    per_s = [sum(bins[at : at + 10]) for at in range(int(begun / BIN_S), int(ended / BIN_S) - 9, 10)]
    return {
        "good_per_s": good,
        "goodput": good / min(offered, best) if offered else NAN,
        "worst_second": min(per_s, default=NAN) / best_work_per_s(played),
    }


def _by_class(calls: list[Logical]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rank, name in enumerate(CLASSES):
        own = [call for call in calls if call.rank == rank]
        good = [call for call in own if call.end is GOOD]
        judged = [call for call in own if call.end != "failed"]
        took = [call.ended_at - call.at for call in good]
        found[f"{name}_success"] = len(good) / len(own) if own else NAN
        found[f"{name}_success_but_errors"] = len(good) / len(judged) if judged else NAN
        found[f"{name}_p50_s"] = percentile(took, 0.50)
        found[f"{name}_p99_s"] = percentile(took, 0.99)
        found[f"{name}_first_p99_s"] = percentile(
            [call.first_at - call.at for call in good if call.first_at >= 0.0], 0.99
        )
        ends: dict[str, int] = {}
        for call in own:
            ends[call.end] = ends.get(call.end, 0) + 1
        found[f"{name}_ends"] = ends
    took = [call.ended_at - call.at for call in calls if call.end is GOOD]
    return {**found, "p50_s": percentile(took, 0.50), "p99_s": percentile(took, 0.99)}


def _attempts(played: Played, calls: list[Logical], useful: list[Attempt]) -> dict[str, float]:
    begun, ended = played.scenario.window
    outages = [fault for fault in played.scenario.faults if fault.name in ("F1", "F2")]
    since, until = (outages[0].at, outages[0].until) if outages else (begun, ended)
    sent = [attempt for attempt in played.ledger.sent if since <= attempt.sent_at < until]
    reached = {id(attempt.call) for attempt in sent}
    worked = {
        id(attempt.call): attempt.ended_at - attempt.begun_at for attempt in useful if attempt.begun_at >= 0.0
    }
    spent = sum(call.slot_s for call in calls)
    wasted = sum(call.slot_s - worked.get(id(call), 0.0) for call in calls)
    return {
        "attempts_per_reaching_call": len(sent) / len(reached) if reached else NAN,
        "attempts_per_call": len(sent) / max(1, _offered(played, since, until)),
        "arrivals_per_call": sum(call.arrivals for call in calls) / len(calls) if calls else NAN,
        "wasted_work": wasted / spent if spent else NAN,
    }


def _chains(played: Played) -> dict[str, float]:
    begun, ended = played.scenario.window
    chains = [chain for chain in played.ledger.chains if begun <= chain.calls[0].at < ended]
    started = [chain for chain in chains if chain.calls[0].end is GOOD]
    broken = [chain for chain in started if chain.end in CUT_BY_US]
    lost = [chain for chain in started if chain.end == CANCELLED]
    return {
        "chains": len(chains),
        "chains_started": len(started),
        "chains_cut": len(broken) / len(started) if started else NAN,
        "chains_late": len(lost) / len(started) if started else NAN,
    }


def _recovery(played: Played, bins: list[float]) -> dict[str, float]:
    """From the upstream healthy again, or the trigger gone, to the first second from which all is as before.

    As before: 95 % of the useful work per second of the ten seconds before (200 of streams), over that second
    and over the thirty that begin with it (or what is left of them). `returned_to` is that of the last twenty
    seconds to that before; below the capacity, where chance decides what there is to do, as much less is
    expected as fewer calls came.
    """
    scenario = played.scenario
    if scenario.trouble is None:
        return {}
    broken_at, healthy_at = scenario.trouble
    before_s = 10.0 if scenario.upstream != "u3" else 200.0
    begun_at = max(0.0, broken_at - before_s)
    before = expected = _mean(bins, begun_at, broken_at)
    during = _mean(bins, broken_at, healthy_at)
    end = min(healthy_at + 30.0, scenario.seconds)
    recovered = NAN
    for step in range(int((end - healthy_at - 1.0) / BIN_S)):
        at = healthy_at + step * BIN_S
        if _mean(bins, at, at + 1.0) >= 0.95 * before and _mean(bins, at, end) >= 0.95 * before:
            recovered = at - healthy_at
            break
    after = [row for row in played.ledger.samples if healthy_at <= row[0] < healthy_at + 10.0]
    last_at = max(healthy_at, scenario.seconds - 21.0)
    ends_at = max(last_at + BIN_S, scenario.seconds - 1.0)
    if before and scenario.phases[-1].factor < 1.0:
        came = _offered(played, last_at, ends_at) / (ends_at - last_at)
        expected *= min(1.0, came / (_offered(played, begun_at, broken_at) / (broken_at - begun_at)))
    return {
        "recovery_s": recovered,
        "goodput_of_before": during / before if before else NAN,
        "returned_to": _mean(bins, last_at, ends_at) / expected if expected else NAN,
        "overshoot": max(row[2] for row in after) / played.best_n if after else NAN,
    }


def _offered(played: Played, since: float, until: float) -> int:
    """How many calls came then."""
    return sum(since <= call.at < until for call in played.ledger.calls)


def _mean(bins: list[float], since: float, until: float) -> float:
    some = bins[round(since / BIN_S) : max(round(until / BIN_S), round(since / BIN_S) + 1)]
    return sum(some) / len(some) / BIN_S


def _cap(played: Played) -> dict[str, float]:
    """How the cap found its place after the step: seconds until a mean second is within 5 % of the best."""
    caps = [row[1] for row in played.ledger.samples]
    if not caps or not caps[-1]:
        return {}
    sums = [0, *accumulate(caps)]
    step_at = int(played.scenario.phases[0].seconds / BIN_S) if len(played.scenario.phases) > 1 else 0
    reached = NAN
    for at in range(step_at, len(caps) - 10):
        if abs((sums[at + 10] - sums[at]) / 10 - played.best_n) <= 0.05 * played.best_n:
            reached = (at - step_at) * BIN_S
            break
    longest = low = 0
    for cap in caps[step_at:]:
        low = low + 1 if cap < played.best_n / 2 else 0
        longest = max(longest, low)
    begun, ended = (int(at / BIN_S) for at in played.scenario.window)
    inside = caps[begun:ended]
    return {
        "cap_mean": sum(inside) / len(inside),
        "cap_found_s": reached,
        "cap_low_s": longest * BIN_S,
    }
