"""What a shared store costs a call, beside counts in memory: interleaved rounds, one replica of each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import Popen
from typing import Any, Final

from loadtests.compare.bench import Cores, share_out
from loadtests.compare.latency import summed_up, why_void
from loadtests.figures import median_ratio
from loadtests.hindered import Watch, cores_of
from loadtests.raw_client import PATH
from loadtests.replicas.plans import yaml
from loadtests.replicas.site import Redis, Replica, backpressure, ours
from loadtests.replicas.table import Rows
from loadtests.running import (
    StartError,
    await_port,
    cpu_s,
    first_on_its_core,
    free_port,
    pinned,
    running,
    said,
)

MOST_ADDED_MS: Final = 0.2
LEAST_SHARE: Final = 0.95
ENOUGH_PER_S: Final = 1e6
LOAD: Final = 0.5
MOST_PACED_PER_S: Final = 4000.0
"""Beyond this the generator is late, on a core that it shares with the upstream, and measures itself."""
CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Proxy:
    """One that is measured."""

    name: str
    port: int
    pid: int
    log: Path


def measure(plan: Plan, folder: Path) -> Rows:
    """Rates by a closed loop; latencies at half of what memory's can do, both in every round."""
    folder.mkdir()
    cores = share_out(sorted(os.sched_getaffinity(0)), has_taskset=shutil.which("taskset") is not None)
    with ExitStack() as stack:
        upstream = free_port()
        serving = [sys.executable, "-m", "loadtests.origin", str(upstream)]
        _start(stack, "upstream", pinned(serving, cores.others), upstream, folder)
        store = Redis(stack, folder, cores=cores.others)
        both = [_proxy(stack, name, upstream, store, cores, folder) for name in ("memory", "redis")]
        for proxy in both:
            _rate(proxy, 1.0, cores)  # warm
        rates: dict[str, list[dict[str, float]]] = {proxy.name: [] for proxy in both}
        paced: dict[str, list[dict[str, Any]]] = {proxy.name: [] for proxy in both}
        for number in range(plan.rounds):
            order = both if number % 2 else both[::-1]
            for proxy in order:
                rates[proxy.name].append(_rate(proxy, plan.seconds, cores))
            per_s = min(MOST_PACED_PER_S, LOAD * rates["memory"][-1]["per_s"])
            for proxy in order:
                paced[proxy.name].append(_paced(proxy, per_s, plan.seconds, cores))
    return judge(folder.name, rates, paced)


def judge(
    name: str, rates: dict[str, list[dict[str, float]]], paced: dict[str, list[dict[str, Any]]]
) -> Rows:
    """Medians over the rounds of what each round's two say; without rounds whose latencies prove nothing."""
    ours, theirs = rates["redis"], rates["memory"]
    rows = Rows(name, [])
    rows.at_least(
        "throughput to memory's",
        median_ratio([one["per_s"] for one in ours], [one["per_s"] for one in theirs]),
        LEAST_SHARE,
        "",
        f"{median(one['per_s'] for one in ours):.0f} to {median(one['per_s'] for one in theirs):.0f} calls/s",
    )
    rows.note(
        "CPU of a call to memory's",
        median_ratio([one["cpu_us"] for one in ours], [one["cpu_us"] for one in theirs]),
        "",
        f"{median(one['cpu_us'] for one in ours):.1f} to {median(one['cpu_us'] for one in theirs):.1f} us",
    )
    pairs = list(zip(paced["redis"], paced["memory"], strict=True))
    good = [pair for pair in pairs if not (pair[0]["void"] or pair[1]["void"])]
    latency = Rows(
        name, rows.rows, "" if good else f"every round: {pairs[0][0]['void'] or pairs[0][1]['void']}"
    )
    for what in ("p99_ms", "p50_ms"):
        added = median(one[what] - other[what] for one, other in good or pairs)
        usual_ms = median(one[what] for one, _ in good or pairs)
        words = f"{usual_ms:.3f} ms at {pairs[0][0]['per_s']:.0f}/s, {len(good)} of {len(pairs)} rounds"
        if what == "p99_ms":
            latency.at_most("p99 more than memory's", added, MOST_ADDED_MS, " ms", words)
        else:
            latency.note("p50 more than memory's", added, " ms", words)
    return rows


def _proxy(stack: ExitStack, name: str, upstream: int, store: Redis, cores: Cores, folder: Path) -> Proxy:
    port, control, config = free_port(), free_port(), folder / f"{name}.yaml"
    # A queue in which all connections find room: who waits for a trip to Redis is not to be shed for it.
    room = "{size: 1000, max_age: 10s}"
    rules = yaml(rate_per_s=ENOUGH_PER_S, burst=ENOUGH_PER_S, queue=room, memory=name == "memory")
    config.write_text(rules(port, control, f"http://127.0.0.1:{upstream}", store.url))
    command = [*backpressure(cores.proxy), "serve", str(config)]
    log = folder / f"proxy-{name}.log"
    replica = Replica(0, port, ours().ready(port, control), log, folder / "none")
    replica.process = stack.enter_context(running(log.stem, command, folder))
    replica.await_ready()
    return Proxy(name, port, replica.process.pid, log)


def _start(stack: ExitStack, name: str, command: list[str], port: int, folder: Path) -> Popen[bytes]:
    process = stack.enter_context(running(name, command, folder))
    await_port(process, port, folder / f"{name}.log")
    return process


def _told(command: list[str], cores: Cores, seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        pinned(command, cores.others), capture_output=True, text=True, check=True, timeout=seconds + 20
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _rate(proxy: Proxy, seconds: float, cores: Cores) -> dict[str, float]:
    before_s = cpu_s(proxy.pid)
    command = [sys.executable, "-m", "loadtests.raw_client", str(proxy.port), str(CONNECTIONS), str(seconds)]
    told = _told(command, cores, seconds)
    used_s = cpu_s(proxy.pid) - before_s
    return {"per_s": told["good"] / told["seconds"], "cpu_us": used_s / max(1, told["good"]) * 1e6}


def _paced(proxy: Proxy, per_s: float, seconds: float, cores: Cores) -> dict[str, Any]:
    asked = [str(proxy.port), PATH, f"{per_s:.1f}", str(seconds)]
    with first_on_its_core(proxy.pid), Watch(cores_of(cores.proxy, cores.others)) as watch:
        told = _told([sys.executable, "-m", "loadtests.paced_client", *asked], cores, seconds)
    if told["broken"]:
        raise StartError(f"{proxy.name} refused or broke a call: {said(proxy.log)}")
    found = summed_up(told, watch.hindered)
    return found | {"per_s": per_s, "void": why_void(per_s, found)}
