"""What a proxy adds to the latency of calls that come at a constant rate: half of what it can do.

wrk is a closed loop: it waits for answers, and would call less often just when the proxy is slow. So the rate
is found with wrk, and kept by a client that does not wait; direct and through the proxy, one after the other.
The proxy has its core for itself meanwhile, where that is allowed: a thread of the kernel's that takes it for
three milliseconds three times a second is all that a p99 shows otherwise.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from loadtests.compare.bench import Bench, Turn
from loadtests.compare.calls import measure as measure_rate
from loadtests.compare.calls import told_by
from loadtests.running import StartError, first_on_its_core

LOAD: Final = 0.5
LATEST_MS: Final = 0.5
"""A generator that notices 1 % of the calls later than this after they were due measures itself."""
KEPT: Final = 0.99


def measure(bench: Bench, turn: Turn, seconds: float, origin_port: int) -> dict[str, Any]:
    """One turn of one proxy, beside the upstream alone at the same rate."""
    rate = measure_rate(bench, turn, min(seconds, 2.0))
    per_s = rate["per_s"] * LOAD
    direct = _paced(bench, "the upstream", origin_port, turn.path, per_s, seconds)
    with first_on_its_core(turn.pid):
        through = _paced(bench, turn.name, turn.port, turn.path, per_s, seconds)
    return {
        "per_s": per_s,
        "most_per_s": rate["per_s"],
        "direct_p99_ms": direct["p99_ms"],
        "p50_ms": through["p50_ms"],
        "p99_ms": through["p99_ms"],
        "added_p50_ms": through["p50_ms"] - direct["p50_ms"],
        "added_p99_ms": through["p99_ms"] - direct["p99_ms"],
        "late_p99_ms": max(direct["late_p99_ms"], through["late_p99_ms"]),
        "void": why_void(per_s, direct) or why_void(per_s, through),
    }


def why_void(per_s: float, told: dict[str, Any]) -> str:
    """Why a paced run proves nothing, or "" if it stands."""
    kept = told["requests"] / told["seconds"] / per_s
    if kept < KEPT:
        return f"{kept:.1%} of the rate was kept"
    late_ms: float = told["late_p99_ms"]
    return f"the generator was late: p99 {late_ms:.2f} ms" if late_ms > LATEST_MS else ""


def _paced(bench: Bench, name: str, port: int, path: str, per_s: float, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "loadtests.paced_client", str(port), path, f"{per_s:.1f}", str(seconds)]
    told = told_by(command, bench, seconds, name)
    if told["broken"]:
        raise StartError(f"{name} broke a call: {told}")
    return told
