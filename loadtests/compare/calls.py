"""Calls in a closed loop: how many a second, and what each costs the proxy's core."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from loadtests.cases import Case
from loadtests.compare.bench import Bench, Turn
from loadtests.running import StartError, cpu_s, pinned

BUSY: Final = 0.9
"""Below this share of its core a proxy was not at its most: its rate is the generator's or the upstream's."""
LATEST_S: Final = 60
"""An answer that takes longer is none. wrk's own 2 s count as broken what a busy machine makes slow."""


def generator_command(
    wrk: str | None,
    port: int,
    path: str,
    body: Path,
    connections: int,
    seconds: float,
    headers: Sequence[str] = (),
) -> list[str]:
    """wrk where there is one (whole seconds), else our own client. `headers` are lines beside the usual."""
    if wrk is None:
        own = [str(port), str(connections), str(seconds), path, str(body), *headers]
        return [sys.executable, "-m", "loadtests.raw_client", *own]
    script = str(Path(__file__).parents[1] / "post.lua")
    load = ["--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
    load += ["--timeout", f"{LATEST_S}s"]
    return [wrk, *load, "--script", script, f"http://127.0.0.1:{port}{path}", "--", str(body), *headers]


def measure(bench: Bench, turn: Turn, seconds: float) -> dict[str, Any]:
    """One turn of one proxy. StartError if it did not do with every call what its case asks."""
    asked = bench.asked
    body = bench.body_file(turn.case)
    command = generator_command(
        bench.wrk, turn.port, turn.path, body, asked.connections, seconds, turn.headers
    )
    cpu_before_s = cpu_s(turn.pid)
    told = told_by(command, bench, seconds, turn.name)
    cpu_used_s = cpu_s(turn.pid) - cpu_before_s
    if told["broken"] or not told["requests"] or not did(turn.case, told["good"], told["requests"]):
        raise StartError(f"{turn.name} did not {turn.case} every call: {told}")
    busy = cpu_used_s / told["seconds"]
    return {
        "per_s": told["requests"] / told["seconds"],
        "cpu_us": cpu_used_s / told["requests"] * 1e6,
        "busy": busy,
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
        "void": "" if busy >= BUSY else f"core {busy:.0%} busy: its rate is not its own",
    }


def told_by(command: list[str], bench: Bench, seconds: float, name: str) -> dict[str, Any]:
    """The figures that a generator prints as its last line. StartError when it fails."""
    bound_s = seconds * 3 + 60
    done = subprocess.run(
        pinned(command, bench.cores.others), check=False, capture_output=True, text=True, timeout=bound_s
    )
    if done.returncode:
        raise StartError(f"the generator failed against {name}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def did(case: Case, good: int, requests: int) -> bool:
    """Did the proxy do what the case asks? nginx's slowest bucket lets one call through every minute."""
    return good <= 1 if case is Case.REFUSE else good == requests
