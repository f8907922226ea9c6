"""What a proxy adds to the latency of calls that come at a constant rate: half of what it can do.

wrk is a closed loop: it waits for answers, and would call less often just when the proxy is slow. So the rate
is found with wrk, and kept by a client that does not wait; direct and through the proxy, one after the other.
The proxy has its core for itself meanwhile, where that is allowed: a thread of the kernel's that takes it for
three milliseconds three times a second is all that a p99 shows otherwise. Calls during which the machine
itself stood still or was slow are left out, of the upstream alone and of the proxy alike, and their share is
told.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from loadtests.compare.bench import Bench, Turn
from loadtests.compare.calls import measure as measure_rate
from loadtests.compare.calls import told_by
from loadtests.figures import percentile
from loadtests.hindered import Span, Watch, cores_of, untouched
from loadtests.running import StartError, first_on_its_core

LOAD: Final = 0.5
LATEST_MS: Final = 0.5
"""A generator that notices 1 % of the calls later than this after they were due measures itself."""
KEPT: Final = 0.99
MOST_LEFT_OUT: Final = 0.5
ENOUGH: Final = 2000
"""So many calls make a 99th percentile, which twenty lie above, whatever was left out."""


def measure(bench: Bench, turn: Turn, seconds: float, origin_port: int) -> dict[str, Any]:
    """One turn of one proxy, beside the upstream alone at the same rate."""
    rate = measure_rate(bench, turn, min(seconds, 2.0))
    per_s = rate["per_s"] * LOAD
    cores = bench.cores
    direct = _paced(bench, "the upstream", origin_port, turn.path, per_s, seconds, cores_of(cores.others))
    with first_on_its_core(turn.pid):
        all_cores = cores_of(cores.proxy, cores.others)
        through = _paced(bench, turn.name, turn.port, turn.path, per_s, seconds, all_cores)
    return {
        "per_s": per_s,
        "most_per_s": rate["per_s"],
        "direct_p99_ms": direct["p99_ms"],
        "p50_ms": through["p50_ms"],
        "p99_ms": through["p99_ms"],
        "added_p50_ms": through["p50_ms"] - direct["p50_ms"],
        "added_p99_ms": through["p99_ms"] - direct["p99_ms"],
        "p99_of_all_ms": through["p99_of_all_ms"],
        "left_out": through["left_out"],
        "late_p99_ms": max(direct["late_p99_ms"], through["late_p99_ms"]),
        "void": why_void(per_s, direct) or why_void(per_s, through),
    }


def why_void(per_s: float, told: dict[str, Any]) -> str:
    """Why a paced run proves nothing, or "" if it stands."""
    kept = told["requests"] / told["seconds"] / per_s
    if kept < KEPT:
        return f"{kept:.1%} of the rate was kept"
    if told["left_out"] > MOST_LEFT_OUT and told["requests"] * (1.0 - told["left_out"]) < ENOUGH:
        return f"the machine hindered {told['left_out']:.0%} of the calls"
    late_ms: float = told["late_p99_ms"]
    return f"the generator was late: p99 {late_ms:.2f} ms" if late_ms > LATEST_MS else ""


def _paced(
    bench: Bench, name: str, port: int, path: str, per_s: float, seconds: float, cores: Sequence[int]
) -> dict[str, Any]:
    command = [sys.executable, "-m", "loadtests.paced_client", str(port), path, f"{per_s:.1f}", str(seconds)]
    with Watch(cores) as watch:
        told = told_by(command, bench, seconds, name)
    if told["broken"]:
        raise StartError(f"{name} broke a call: {told['broken']} of them")
    return summed_up(told, watch.hindered)


def summed_up(told: dict[str, Any], hindered: Sequence[Span]) -> dict[str, Any]:
    """The figures of a paced run, of the calls that the machine did not hinder; of all if it hindered all.

    `why_void` then says that they prove nothing.
    """
    calls = told.pop("calls")
    left = untouched(calls, hindered)
    left_out = 1.0 - len(left) / len(calls)
    left = left or calls
    return told | {
        "requests": len(calls),
        "left_out": left_out,
        "late_p99_ms": percentile([late_s for _, late_s, _ in left], 0.99) * 1000,
        "p50_ms": percentile([took_s for _, _, took_s in left], 0.50) * 1000,
        "p99_ms": percentile([took_s for _, _, took_s in left], 0.99) * 1000,
        "p99_of_all_ms": percentile([took_s for _, _, took_s in calls], 0.99) * 1000,
    }
